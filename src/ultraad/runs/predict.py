"""Predict many images into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ultraad.data.samples import samples_of
from ultraad.io.faults import one_run
from ultraad.model.predictor import Predictor
from ultraad.report.run.page import render
from ultraad.results.folder import RunFolder
from ultraad.results.row import DataFacts
from ultraad.runs.job import Outcome, facts, failing, finishing
from ultraad.types import Sample


@one_run()
def predict(
    model: Predictor,
    paths: str | Path | Iterable[str | Path | Sample],
    output: str | Path,
    *,
    frame: int | None = None,
    resume: bool = True,
    overlays: bool = True,
    maps: bool = True,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Predict files and write the results (:mod:`ultraad.results.folder`) with a report page to a folder.

    Args:
        model: Any model.
        paths: A file, a folder or a pattern, or several of them; or samples.
        output: Folder for the results.
        frame: Only this 0-based frame of multi-frame files; None takes all.
        resume: Skip images that have results in the folder, unless their files were replaced since; otherwise the
            results of an earlier run are removed.
        overlays: Write overlays.
        maps: Write 16-bit maps.
        batch_size: Images per forward pass.
        progress: Called with (images done, images).

    Raises:
        DataError: If no image is found, the folder cannot be used, or another run is writing to it. Images that cannot
            be read, scored or written are only listed.
        KeyboardInterrupt: If the run is interrupted; finished images are in the folder.

    Example:
        >>> import ultraad
        >>> from ultraad.simulate import write_dataset
        >>> folder = write_dataset("simulated", n=6, size=64)
        >>> done = ultraad.predict(ultraad.zero_shot(backbone="tiny"), "simulated/benign", "predictions")
        >>> done.predicted
        2
    """
    wanted: list[str | Path | Sample] = [paths] if isinstance(paths, (str, Path)) else list(paths)
    samples = samples_of(wanted, frame=frame)
    run = facts(model, "predict", data=DataFacts(paths=tuple(map(_named, wanted)), images=len(samples)))
    folder = RunFolder(output, run, resume=resume, wanted=[s.id for s in samples], overlays=overlays, maps=maps)
    todo = [s for s in samples if s.id not in folder.done]
    skipped = len(samples) - len(todo)
    with finishing(folder) as outcome:
        outcome.skipped = skipped
        results = model.predict_many(todo, batch_size=batch_size, on_error=failing(folder))
        for result in results:
            folder.add(result, model.calibration)
            outcome.predicted += 1
            if progress is not None:
                progress(skipped + outcome.predicted + len(folder.failed), len(samples))
    if folder.done or outcome.predicted:
        render(folder.folder)
    return outcome


def _named(item: str | Path | Sample) -> str:
    return item.id if isinstance(item, Sample) else str(item)
