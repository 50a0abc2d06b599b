"""Predict many images and videos into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ultraad.config import names_of
from ultraad.data.fans import fan_of, in_fans, telling
from ultraad.data.regions import RegionChoice, in_regions
from ultraad.data.samples import samples_of
from ultraad.dicom.objects import USUAL as USUAL_OBJECTS
from ultraad.dicom.objects import check_some
from ultraad.dicom.objects import checked as checked_objects
from ultraad.errors import ConfigError
from ultraad.fan import FanChoice
from ultraad.io.faults import one_run
from ultraad.io.find import find_media
from ultraad.io.store import public_url
from ultraad.io.video import Choice, is_camera, public_name
from ultraad.model.exported import ExportedModel
from ultraad.model.predictor import Predictor
from ultraad.model.probabilities import Prevalence
from ultraad.model.reasons import EXPORTED, Why
from ultraad.model.runtimes import require
from ultraad.report.run.page import render
from ultraad.results.folder import RunFolder
from ultraad.results.row import DataFacts
from ultraad.results.saving import DICOM, WHY, check_no_maps, chosen
from ultraad.runs.job import Outcome, facts, failing, finishing, thresholds_of
from ultraad.runs.smoothing import checked_smoothing, smoothed
from ultraad.runs.video import predict_video, refuse_second_recording
from ultraad.types import Result, Sample


@one_run()
def predict(
    model: Predictor,
    paths: str | Path | Iterable[str | Path | Sample],
    output: str | Path,
    *,
    frame: int | None = None,
    every: int = 1,
    seconds: float | None = None,
    threshold: float | None = None,
    pixel_threshold: float | None = None,
    operating_point: str | None = None,
    prevalence: Prevalence | None = None,
    abstain: str | None = None,
    sets: str | None = None,
    region: RegionChoice = "auto",
    fan: FanChoice | None = None,
    smooth: float = 0.0,
    resume: bool = True,
    save: Iterable[str] | None = None,
    overlays: str | None = None,
    maps: str | None = None,
    objects: Iterable[str] = USUAL_OBJECTS,
    keep_out_of_scope: bool = False,
    why: bool = False,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Predict files and write the results (:mod:`ultraad.results.folder`) with a report page to a folder.

    Videos give a line per frame, a video of the overlays, and a picture of the overlay with the highest score. A camera
    is predicted until Ctrl-C (KeyboardInterrupt), which ends it as the end of a file does; frames that come while the
    model is busy are dropped.

    Args:
        model: Any model.
        paths: A file, a folder or a pattern, or several of them: images and videos; or samples. Or one camera:
            ``"camera:0"``, ``"/dev/video0"``, or a URL such as ``"rtsp://host/stream"``.
        output: Folder for the results.
        frame: Only this 0-based frame of multi-frame files and videos; None takes all.
        every: Every how many frames of multi-frame files and videos one is predicted, unless ``frame`` says which.
        seconds: Only so many seconds of each video or camera; None takes all.
        threshold: Image threshold in [0, 1]; None takes the one stored in the model.
        pixel_threshold: Of maps, likewise.
        operating_point: ``"sens=0.95"``, ``"spec=0.90"`` or ``"youden"`` in place of ``threshold``; see
            :meth:`~ultraad.model.predictor.Predictor.operating_point`. ``"fnr=0.2"`` or ``"fppi=0.5"`` in place of
            ``pixel_threshold`` (:mod:`ultraad.model.pixel_risk`). Or both, after a comma.
        prevalence: Share of images that show a lesion where the model is used, in (0, 1), or ``{class: share}``, of
            which one may be left out; class probabilities are moved to it (:mod:`ultraad.model.probabilities`). Scores
            and thresholds stay. None: as in the support set.
        abstain: ``"cost=0.2"`` leaves the class of an image open if a wrong class would cost more than not answering,
            which costs 0.2 of an error; ``"size=1"`` if its prediction set does not name exactly one class
            (:mod:`ultraad.model.abstain`).
        sets: ``"0.9"`` adds the prediction set of each image, or frame alone: classes that hold the true one with this
            probability, ``"class=0.9"`` in each class (:mod:`ultraad.model.prediction_sets`).
        region: ``"auto"`` shows the model only the part of a DICOM picture that its header calls B-mode; maps and
            lesions are on the whole picture. ``"off"`` shows it the whole picture.
        fan: ``"auto"`` looks in the pixels for the fan of a sector or curved array, or the rectangle of a linear one,
            that the picture shows between black (:mod:`ultraad.io.fan`): the rest is no tissue, so the model sees it
            black, and its map is 0 there. Where none is certain, and with ``"off"``, the whole picture counts. None: as
            the model saw its support images; zero-shot models, and those of earlier versions, ``"off"``.
        smooth: Time constant in seconds by which the scores, maps and probabilities of a cine, video or camera are
            smoothed, each frame over those before it (:mod:`ultraad.runs.smoothing`); 0 for none.
        resume: Skip images that have results in the folder, unless their files were replaced since, and keep the
            results and failures of other images; otherwise the results of an earlier run are removed.
        save: What to write beside the tables: any of ``"overlays"``, ``"maps"``, ``"masks"``, ``"contours"``,
            ``"boxes"`` and ``"dicom"`` (:data:`ultraad.results.saving.SAVES`). Images of which an earlier run saved
            less are predicted again. None: overlays and maps; of videos only overlays.
        overlays: Of which images: ``"all"``, ``"abnormal"``, ``"top:N"`` (the N highest scores of the run) or
            ``"none"``; videos have overlay videos only with ``"all"``. None: all, if ``save`` has them.
        maps: ``"full"``: on the pixels of the image; ``"grid"``: as the model drew them, which costs less and reads as
            the same pixels (:mod:`ultraad.io.maps`); or ``"none"``. None: full, if ``save`` has them.
        objects: With ``"dicom"``, the kinds of objects: any of :data:`ultraad.dicom.saving.OBJECTS`.
        keep_out_of_scope: Count images that the model cannot judge (:mod:`ultraad.model.scope`) in the report like any
            other. They are predicted, flagged and in the tables in both cases.
        why: Write why each image gets its prediction (:mod:`ultraad.model.reasons`), which takes about nine times as
            long; frames of videos have no reasons.
        batch_size: Images per forward pass.
        progress: Called with (images and frames done, all of them; 0 if that is unknown).

    Raises:
        ConfigError: If an option is out of range, a threshold or a level of sets cannot be had, something cannot be
            saved, a camera is not alone, or reasons are wanted of an exported model or of videos alone.
        MissingExtraError: If DICOM objects are wanted and the extra is not installed.
        DataError: If no image or video is found, DICOM objects are wanted and none is DICOM, the folder cannot be used,
            holds results at other thresholds or of the same camera, or another run is writing to it. What cannot be
            read, scored or written is only listed.
        KeyboardInterrupt: If the run is interrupted, unless a camera is; finished images and frames are in the folder.

    Examples:
        >>> import ultraad
        >>> from ultraad.simulate import write_dataset
        >>> folder = write_dataset("simulated", n=6, size=64)
        >>> done = ultraad.predict(ultraad.zero_shot(backbone="tiny"), "simulated/benign", "predictions")
        >>> done.predicted
        2
    """
    thresholds = thresholds_of(
        model,
        threshold=threshold,
        pixel_threshold=pixel_threshold,
        operating_point=operating_point,
        prevalence=prevalence,
        abstain=abstain,
        sets=sets,
    )
    model = model.at_prevalence(prevalence).with_sets(sets)
    _check_numbers(every=every, seconds=seconds)
    if checked_smoothing(smooth):
        thresholds = thresholds.model_copy(update={"smooth": float(smooth)})
    save = None if save is None else names_of(save)
    saving = chosen(save, overlays=overlays, maps=maps)
    saved = saving.names
    of_videos = saving
    if save is None and maps is None:  # a map of each frame would take more space than the video
        of_videos = replace(saving, names=saved - {"maps"})
    if smooth and saving.maps == "grid":
        msg = "smooth changes maps on the pixels, so they have no grid; save them with maps='full'"
        raise ConfigError(msg)
    objects = checked_objects(names_of(objects))
    if DICOM in saved:
        require("highdicom", extra="dicom")
    if thresholds.pixel is None:
        check_no_maps(model.describe().method, save, overlays=overlays, maps=maps)
    wanted: list[str | Path | Sample] = [paths] if isinstance(paths, (str, Path)) else list(paths)
    images, videos = _found(wanted)
    fan = model.chosen_fan(fan)
    if why:
        _check_why(model, images)
    samples = in_fans(in_regions(samples_of(images, frame=frame, every=every), region), fan)
    if DICOM in saved:
        check_some(samples)
    about = DataFacts(
        paths=tuple(map(_named, wanted)), images=len(samples), **({"videos": len(videos)} if videos else {})
    )
    run = facts(model, "predict", thresholds=thresholds, data=about, keep_out_of_scope=keep_out_of_scope)
    films = in_fans([Sample(public_name(name), Path(name)) for name in videos if not is_camera(name)], fan)
    save_here = replace(saving, names=saved | ({WHY} if why else set())) if samples else of_videos
    folder = RunFolder(output, run, resume=resume, wanted=[*samples, *films], save=save_here, save_of_videos=of_videos)
    todo = [s for s in samples if s.id not in folder.done]
    with finishing(folder) as outcome:
        for name in filter(is_camera, videos):
            refuse_second_recording(folder, str(name))
        outcome.skipped = len(samples) - len(todo)
        if smooth:  # from its first frame: what was there before is predicted again, but not written
            begun = {s.image for s in todo}
            todo = [s for s in samples if s.image in begun]
        results = model.predict_many(todo, fan=fan, batch_size=batch_size, on_error=failing(folder))
        for number, result in enumerate(smoothed(telling(results), smooth), start=1):
            folder.add(result, why=_why(model, result) if why else None)
            if progress is not None:
                progress(len(samples) - len(todo) + number + len(folder.failed), len(samples))
        before = len(samples)
        for video in videos:
            skipped, known = predict_video(
                model,
                video,
                folder,
                choice=Choice(every if frame is None else 1, frame, seconds),
                fan=fan,
                smooth=smooth,
                overlays=of_videos.every_overlay and thresholds.pixel is not None,
                batch_size=batch_size,
                progress=partial(_tell, progress, before),
            )
            outcome.skipped += skipped
            if known is not None:
                outcome.videos += (known,)
                before += known.frames
        folder.flush()
        if DICOM in saved:
            from ultraad.dicom.saving import write_objects  # an extra

            depths = {sample.image: sample.depth for sample in samples}
            outcome.without_objects = write_objects(folder.folder, objects, depths=depths)
    if folder.done or outcome.predicted:
        render(folder.folder)
    return outcome


def _why(model: Predictor, result: Result) -> Why:
    """Why a result is as it is."""
    return model.explain(result.image, result.sample.region, fan_of(result.sample))


def _check_why(model: Predictor, images: Sequence[Path | Sample]) -> None:
    """Refuse reasons that nothing can have."""
    if not images:
        msg = "why: reasons are for images, and there are only videos; leave it out, or give single frames as images"
        raise ConfigError(msg)
    if isinstance(model, ExportedModel):
        raise ConfigError(EXPORTED)


def _named(item: str | Path | Sample) -> str:
    """An item as ``run.json`` has it."""
    if isinstance(item, Sample):
        return item.id
    return public_name(item) if is_camera(item) else public_url(str(item))


def _found(wanted: Sequence[str | Path | Sample]) -> tuple[list[Path | Sample], list[str | Path]]:
    """The images and the videos; a camera is the only video."""
    samples = [item for item in wanted if isinstance(item, Sample)]
    names = [item for item in wanted if not isinstance(item, Sample)]
    cameras = [str(name) for name in names if is_camera(name)]
    if cameras and len(wanted) > 1:
        msg = f"{public_name(cameras[0])} is a camera, which runs until it is stopped; give it alone"
        raise ConfigError(msg)
    if cameras:
        return [], list(cameras)
    images, videos = find_media(names) if names or not samples else ([], [])
    return [*samples, *images], list(videos)


def _check_numbers(*, every: int, seconds: float | None) -> None:
    if every < 1:
        msg = f"every={every}: wanted a whole number, at least 1"
        raise ConfigError(msg)
    if seconds is not None and not 0 < seconds < float("inf"):
        msg = f"seconds={seconds}: wanted a number above 0"
        raise ConfigError(msg)


def _tell(progress: Callable[[int, int], None] | None, before: int, done: int, total: int) -> None:
    """Progress with a video, after so many images and frames of other videos."""
    if progress is not None:
        progress(before + done, before + total if total else 0)
