"""Predict many images into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from ultraad.data.samples import samples_of
from ultraad.errors import ConfigError
from ultraad.io.faults import one_run
from ultraad.io.video import is_camera, is_video, public_name, require_video
from ultraad.model.predictor import Predictor
from ultraad.report.run.page import render
from ultraad.results.folder import RunFolder
from ultraad.results.row import DataFacts
from ultraad.results.saving import USUAL, checked
from ultraad.runs.job import Outcome, facts, failing, finishing, thresholds_of
from ultraad.runs.video import Choice, predict_video


@one_run()
def predict(
    model: Predictor,
    paths: str | Path | Iterable[str | Path],
    output: str | Path,
    *,
    frame: int | None = None,
    every: int = 1,
    seconds: float | None = None,
    threshold: float | None = None,
    pixel_threshold: float | None = None,
    operating_point: str | None = None,
    resume: bool = True,
    save: Iterable[str] | None = None,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Predict files and write the results (:mod:`ultraad.results.folder`) with a report page to a folder.

    Args:
        model: Any model.
        paths: A file, a folder or a pattern, or several of them. Video files (extra ``video``) are predicted if they
            are named, not in folders; ``"camera:0"``, ``"/dev/video0"`` or a URL such as ``"rtsp://host/stream"`` is a
            camera, which is predicted until it ends, ``seconds`` have passed or Ctrl-C is pressed.
        output: Folder for the results.
        frame: Only this 0-based frame of multi-frame files and videos; None takes all.
        every: Every how many frames of multi-frame files and videos one is predicted.
        seconds: Only so many seconds of each video or camera.
        threshold: Image threshold in [0, 1]; None takes the one stored in the model.
        pixel_threshold: Of maps, likewise.
        operating_point: ``"sens=0.95"``, ``"spec=0.90"`` or ``"youden"`` in place of ``threshold``; see
            :meth:`~ultraad.model.predictor.Predictor.operating_point`.
        resume: Skip images that have results in the folder, unless their files were replaced since; otherwise the
            results of an earlier run are removed.
        save: What to write beside the tables: any of ``"overlays"`` (of a video: one overlay video), ``"maps"``,
            ``"masks"``, ``"contours"`` and ``"boxes"`` (:data:`ultraad.results.saving.SAVES`). None for overlays and
            maps, with videos for overlays only. Images of which an earlier run saved less are predicted again.
        batch_size: Images per forward pass.
        progress: Called with (images done, images); 0 images if their number is unknown.

    Raises:
        ConfigError: If a threshold is out of range or cannot be found, something cannot be saved, or the extra
            ``video`` is needed and not installed.
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
    wanted = [paths] if isinstance(paths, (str, Path)) else list(paths)
    videos = list(dict.fromkeys(path for path in wanted if is_video(path)))
    images = [path for path in wanted if not is_video(path)]
    saved = checked(("overlays",) if videos else USUAL) if save is None else checked(save)
    needing = sorted(saved - set(USUAL))
    if needing and thresholds.pixel is None:
        msg = f"{model.describe().method} draws no maps, so it has no {', '.join(needing)} to save; leave them out"
        raise ConfigError(msg)
    if videos:
        require_video()
    samples = samples_of(images, frame=frame, every=every) if images or not videos else []
    about = DataFacts(paths=tuple(public_name(p) if is_camera(p) else str(p) for p in wanted), images=len(samples))
    run = facts(model, "predict", thresholds=thresholds, data=about)
    names = [*(s.id for s in samples), *map(public_name, videos)]
    folder = RunFolder(output, run, resume=resume, wanted=names, save=saved)
    todo = [s for s in samples if s.id not in folder.done]
    with finishing(folder) as outcome:
        outcome.skipped = skipped = len(samples) - len(todo)
        results = model.predict_many(todo, batch_size=batch_size, on_error=failing(folder))
        for number, result in enumerate(results, start=1):
            folder.add(result)
            outcome.predicted += 1
            if progress is not None:
                progress(skipped + number + len(folder.failed), len(samples))
        before = len(samples)
        for video in videos:
            before += predict_video(
                model,
                video,
                folder,
                outcome,
                choice=Choice(every, frame, seconds),
                overlays="overlays" in saved,
                threshold=thresholds.pixel,
                progress=partial(_tell, progress, before),
            )
        outcome.videos = tuple(folder.videos.values())
    if folder.done or outcome.predicted:
        render(folder.folder)
    return outcome


def _tell(progress: Callable[[int, int], None] | None, before: int, done: int, total: int) -> None:
    """Progress with a video, after so many images and frames of other videos."""
    if progress is not None:
        progress(before + done, before + total if total else 0)
