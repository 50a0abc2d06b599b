"""Predict many images into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ultraad.data.regions import RegionChoice, in_regions
from ultraad.data.samples import samples_of
from ultraad.dicom.objects import USUAL as USUAL_OBJECTS
from ultraad.dicom.objects import check_some
from ultraad.dicom.objects import checked as checked_objects
from ultraad.errors import ConfigError
from ultraad.io.faults import one_run
from ultraad.model.predictor import Predictor
from ultraad.model.runtimes import require
from ultraad.report.run.page import render
from ultraad.results.folder import RunFolder
from ultraad.results.row import DataFacts
from ultraad.results.saving import DICOM, USUAL, checked
from ultraad.runs.job import Outcome, facts, failing, finishing, thresholds_of
from ultraad.types import Sample


@one_run()
def predict(
    model: Predictor,
    paths: str | Path | Iterable[str | Path | Sample],
    output: str | Path,
    *,
    frame: int | None = None,
    threshold: float | None = None,
    pixel_threshold: float | None = None,
    operating_point: str | None = None,
    region: RegionChoice = "auto",
    resume: bool = True,
    save: Iterable[str] = USUAL,
    objects: Iterable[str] = USUAL_OBJECTS,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Predict files and write the results (:mod:`ultraad.results.folder`) with a report page to a folder.

    Args:
        model: Any model.
        paths: A file, a folder or a pattern, or several of them; or samples.
        output: Folder for the results.
        frame: Only this 0-based frame of multi-frame files; None takes all.
        threshold: Image threshold in [0, 1]; None takes the one stored in the model.
        pixel_threshold: Of maps, likewise.
        operating_point: ``"sens=0.95"``, ``"spec=0.90"`` or ``"youden"`` in place of ``threshold``; see
            :meth:`~ultraad.model.predictor.Predictor.operating_point`.
        region: ``"auto"`` shows the model only the part of a DICOM picture that its header calls B-mode; maps and
            lesions are on the whole picture. ``"off"`` shows it the whole picture.
        resume: Skip images that have results in the folder, unless their files were replaced since; otherwise the
            results of an earlier run are removed.
        save: What to write beside the tables: any of ``"overlays"``, ``"maps"``, ``"masks"``, ``"contours"``,
            ``"boxes"`` and ``"dicom"`` (:data:`ultraad.results.saving.SAVES`). Images of which an earlier run saved
            less are predicted again.
        objects: With ``"dicom"``, the kinds of objects: any of :data:`ultraad.dicom.saving.OBJECTS`.
        batch_size: Images per forward pass.
        progress: Called with (images done, images).

    Raises:
        ConfigError: If a threshold is out of range or cannot be found, or something cannot be saved.
        MissingExtraError: If DICOM objects are wanted and the extra is not installed.
        DataError: If no image is found, DICOM objects are wanted and none is DICOM, the folder cannot be used, holds
            results at other thresholds, or another run is writing to it. Images that cannot be read, scored or written
            are only listed.
        KeyboardInterrupt: If the run is interrupted; finished images are in the folder.

    Example:
        >>> import ultraad
        >>> from ultraad.simulate import write_dataset
        >>> folder = write_dataset("simulated", n=6, size=64)
        >>> done = ultraad.predict(ultraad.zero_shot(backbone="tiny"), "simulated/benign", "predictions")
        >>> done.predicted
        2
    """
    thresholds = thresholds_of(
        model, threshold=threshold, pixel_threshold=pixel_threshold, operating_point=operating_point
    )
    given = set(save)
    saved = checked(given)
    if DICOM in saved:
        require("highdicom", extra="dicom")
        objects = checked_objects(objects)
    needing = sorted(given - set(USUAL))
    if needing and thresholds.pixel is None:
        msg = f"{model.describe().method} draws no maps, so it has no {', '.join(needing)} to save; leave them out"
        raise ConfigError(msg)
    wanted: list[str | Path | Sample] = [paths] if isinstance(paths, (str, Path)) else list(paths)
    samples = in_regions(samples_of(wanted, frame=frame), region)
    if DICOM in saved:
        check_some(samples)
    about = DataFacts(paths=tuple(map(_named, wanted)), images=len(samples))
    run = facts(model, "predict", thresholds=thresholds, data=about)
    folder = RunFolder(output, run, resume=resume, wanted=samples, save=saved)
    todo = [s for s in samples if s.id not in folder.done]
    skipped = len(samples) - len(todo)
    with finishing(folder) as outcome:
        outcome.skipped = skipped
        results = model.predict_many(todo, batch_size=batch_size, on_error=failing(folder))
        for result in results:
            folder.add(result)
            outcome.predicted += 1
            if progress is not None:
                progress(skipped + outcome.predicted + len(folder.failed), len(samples))
        folder.flush()
        if DICOM in saved:
            from ultraad.dicom.saving import write_objects  # an extra

            depths = {sample.image: sample.depth for sample in samples}
            outcome.without_objects = write_objects(folder.folder, objects, depths=depths)
    if folder.done or outcome.predicted:
        render(folder.folder)
    return outcome


def _named(item: str | Path | Sample) -> str:
    return item.id if isinstance(item, Sample) else str(item)
