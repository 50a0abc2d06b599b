"""Predict many images into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ultraad.data.samples import samples_of
from ultraad.errors import ConfigError
from ultraad.io.faults import one_run
from ultraad.model.predictor import Predictor
from ultraad.report.run.page import render
from ultraad.results.folder import RunFolder
from ultraad.results.row import DataFacts
from ultraad.results.saving import USUAL, checked
from ultraad.runs.job import Outcome, facts, failing, finishing, thresholds_of


@one_run()
def predict(
    model: Predictor,
    paths: str | Path | Iterable[str | Path],
    output: str | Path,
    *,
    frame: int | None = None,
    threshold: float | None = None,
    pixel_threshold: float | None = None,
    operating_point: str | None = None,
    resume: bool = True,
    save: Iterable[str] = USUAL,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Predict files and write the results (:mod:`ultraad.results.folder`) with a report page to a folder.

    Args:
        model: Any model.
        paths: A file, a folder or a pattern, or several of them.
        output: Folder for the results.
        frame: Only this 0-based frame of multi-frame files; None takes all.
        threshold: Image threshold in [0, 1]; None takes the one stored in the model.
        pixel_threshold: Of maps, likewise.
        operating_point: ``"sens=0.95"``, ``"spec=0.90"`` or ``"youden"`` in place of ``threshold``; see
            :meth:`~ultraad.model.predictor.Predictor.operating_point`.
        resume: Skip images that have results in the folder, unless their files were replaced since; otherwise the
            results of an earlier run are removed.
        save: What to write beside the tables: any of ``"overlays"``, ``"maps"``, ``"masks"``, ``"contours"`` and
            ``"boxes"`` (:data:`ultraad.results.saving.SAVES`). Images of which an earlier run saved less are predicted
            again.
        batch_size: Images per forward pass.
        progress: Called with (images done, images).

    Raises:
        ConfigError: If a threshold is out of range or cannot be found, or something cannot be saved.
        DataError: If no image is found, the folder cannot be used, holds results at other thresholds, or another run is
            writing to it. Images that cannot be read, scored or written are only listed.
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
    saved = checked(save)
    needing = sorted(saved - set(USUAL))
    if needing and thresholds.pixel is None:
        msg = f"{model.describe().method} draws no maps, so it has no {', '.join(needing)} to save; leave them out"
        raise ConfigError(msg)
    wanted = [paths] if isinstance(paths, (str, Path)) else list(paths)
    samples = samples_of(wanted, frame=frame)
    about = DataFacts(paths=tuple(map(str, wanted)), images=len(samples))
    run = facts(model, "predict", thresholds=thresholds, data=about)
    folder = RunFolder(output, run, resume=resume, wanted=[s.id for s in samples], save=saved)
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
    if folder.done or outcome.predicted:
        render(folder.folder)
    return outcome
