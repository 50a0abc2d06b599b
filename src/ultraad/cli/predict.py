"""``ultraad predict``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ultraad.cli.console import SOME_FAILED, list_failures, progress, say, show_thresholds, tell_interrupted, warn
from ultraad.cli.options import (
    Abstain,
    Address,
    BatchSize,
    EngineOf,
    FanOf,
    Gpus,
    Jobs,
    MapForm,
    OperatingPoint,
    PixelThreshold,
    Prevalence,
    Region,
    Regions,
    Sets,
    ShardSize,
    Smooth,
    Threshold,
    check_shards,
    engine_of,
    prevalence_of,
    split_names,
    usage_errors,
)
from ultraad.cli.predictor import with_model
from ultraad.model.predictor import Predictor

if TYPE_CHECKING:
    from ultraad.results.row import VideoFacts


@with_model
def predict(
    load: Callable[[], Predictor],
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Images, DICOM files, videos, folders and patterns; or one camera. With --engine one folder or list: "
            ".txt with a path a line, or .csv, .tsv or .parquet with a column image; also s3://bucket/folder."
        ),
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    frame: Annotated[int | None, typer.Option(min=0, help="Only this frame of multi-frame files and videos.")] = None,
    every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Every Nth frame of multi-frame files, videos and cameras.")
    ] = 1,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Only so many seconds of each video or camera. Default: all; a camera until Ctrl-C."
        ),
    ] = None,
    threshold: Threshold = None,
    pixel_threshold: PixelThreshold = None,
    operating_point: OperatingPoint = None,
    prevalence: Prevalence = None,
    sets: Sets = None,
    abstain: Abstain = None,
    region: Regions = Region.auto,
    fan: FanOf = None,
    smooth: Smooth = 0.0,
    save: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="What to write beside the tables: overlays, maps, masks, contours, boxes (coco.json), dicom; or none. "
            "Default: overlays,maps; of videos only overlays, which are one video.",
        ),
    ] = None,
    overlays: Annotated[
        str | None,
        typer.Option(
            metavar="none|abnormal|top:N|all",
            help="Overlays of these images only; top:N: of the N highest scores. Default: all, if --save has them.",
        ),
    ] = None,
    maps: Annotated[
        MapForm | None,
        typer.Option(
            help="full: PNG on the pixels of the image; grid: as the model drew it, in less time, read as the same "
            "pixels. Default: full, if --save has them."
        ),
    ] = None,
    objects: Annotated[
        str,
        typer.Option(
            metavar="A,B,...", help="With --save dicom, which objects: seg, labelmap, fractional, sr, pr, sc, ko."
        ),
    ] = "seg,sr,pr,sc,ko",
    keep_out_of_scope: Annotated[
        bool,
        typer.Option("--keep-out-of-scope", help="Count images that the model cannot judge in the report, too."),
    ] = False,
    why: Annotated[
        bool,
        typer.Option(
            "--why",
            help="Say why each image gets its prediction: shares of support images and sentences, the score without "
            "marks, and under small changes. Takes about nine times as long; not for videos.",
        ),
    ] = False,
    no_overlays: Annotated[bool, typer.Option("--no-overlays", hidden=True)] = False,
    no_maps: Annotated[bool, typer.Option("--no-maps", hidden=True)] = False,
    engine: EngineOf = None,
    jobs: Jobs = None,
    shard: ShardSize = 1024,
    address: Address = None,
    gpus: Gpus = 0.0,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 instead of 3 if any image failed.")] = False,
    batch_size: BatchSize = 8,
) -> None:
    """Predict images and videos and write the results to a folder. Run the same command again to resume.

    A video (MP4, MOV, AVI, MKV, WebM, MPEG, WMV, FLV) gives a row per frame with its time, an overlay video and a
    summary. A camera is camera:0, /dev/video0 or a URL such as rtsp://host/stream; Ctrl-C ends it and keeps everything.

    Images that cannot be read or scored are listed at the end and in errors.jsonl. Exits with 3 if some failed, with 1
    if all did. --method, --set, --config, --texts, --classes and --normal-class are for zero-shot; a saved model has
    its own.

    --save dicom writes a segmentation, a report, a presentation state, a picture and key images of each DICOM image.

    Example: ultraad predict model scans/ -o predictions
    """
    if frame is not None and every != 1:
        msg = f"--frame {frame} and --every {every} both choose the frames; give one of them."
        raise typer.BadParameter(msg)
    options: dict[str, Any] = {
        "frame": frame,
        "every": every,
        "threshold": threshold,
        "pixel_threshold": pixel_threshold,
        "operating_point": operating_point,
        "prevalence": prevalence_of(prevalence),
        "sets": sets,
        "abstain": abstain,
        "region": region.value,
        "fan": None if fan is None else fan.value,
        "save": _names(save),
        "overlays": _none_of("overlays", overlays, none=no_overlays),
        "maps": _none_of("maps", maps.value if maps else None, none=no_maps),
        "objects": split_names(objects),
        "keep_out_of_scope": keep_out_of_scope,
        "why": why,
        "batch_size": batch_size,
    }
    _check_saving(options)
    if engine is not None:
        if seconds is not None or smooth or why or len(paths) != 1:
            msg = "--engine takes one folder or list of images, without --seconds, --smooth and --why"
            raise typer.BadParameter(msg)
        check_shards(shard, batch_size)
        with engine_of(engine, processes=jobs, threads=1, address=address, gpus=gpus) as chosen:
            _in_shards(load, paths[0], output, engine=chosen, shard=shard, strict=strict, **options)
        return

    from ultraad.results.folder import PREDICTIONS
    from ultraad.runs.predict import predict

    with progress() as tell:
        try:
            done = predict(
                load(),
                paths,
                output,
                seconds=seconds,
                smooth=smooth,
                progress=lambda k, n: tell("predict", k, n or None),
                **options,
            )
        except KeyboardInterrupt:
            tell_interrupted(output, "images and frames", record=PREDICTIONS)
            raise typer.Exit(130) from None
    list_failures(done.failed)
    lacking = "DICOM image(s) were predicted, but have no DICOM objects, or not all"
    list_failures(done.without_objects, what=lacking, rest="dicom/objects.json")
    skipped = f", {done.skipped} were there already" if done.skipped else ""
    rate = f", {done.predicted / done.seconds:.1f} images/s" if done.predicted else ""
    show_thresholds(output)
    say(f"{done.predicted} predicted{skipped}, {len(done.failed)} failed{rate}; results in {output}")
    for video in done.videos:
        say(_described(video, output))
    if done.unsure:
        warn(f"{done.unsure} of them are unsure at {abstain}: their class is left open")
    if done.out_of_scope:
        left = "counted in the report" if keep_out_of_scope else "not counted in the report (--keep-out-of-scope)"
        warn(f"{done.out_of_scope} of them are out of scope, unlike what the model can judge: flagged, {left}")
    if done.failed or done.without_objects:
        raise typer.Exit(1 if strict or not done.predicted + done.skipped else SOME_FAILED)


def _in_shards(
    load: Callable[[], Predictor],
    source: str,
    output: Path,
    *,
    strict: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Predict a list of images on an engine."""
    from ultraad.runs.shards import RECORD, predict_shards

    with progress() as tell:
        try:
            done = predict_shards(load, source, output, progress=lambda k, n: tell("predict", k, n or None), **options)
        except KeyboardInterrupt:
            tell_interrupted(output, "shards", record=RECORD)
            raise typer.Exit(130) from None
    skipped = f", {done.skipped} of them were there already" if done.skipped else ""
    rate = f", {(done.predicted - done.skipped) / done.seconds:.1f} images/s" if done.predicted > done.skipped else ""
    list_failures({f"shard {number}": why for number, why in done.lost.items()}, what="shard(s) were not predicted")
    if done.failed:
        warn(f"{done.failed} image(s) could not be used: see errors.jsonl")
    say(f"{done.predicted} predicted{skipped}, {done.failed} failed{rate}; results in {output}")
    if done.failed or done.lost:
        raise typer.Exit(1 if strict or not done.predicted else SOME_FAILED)


def _check_saving(options: Mapping[str, Any]) -> None:
    """Refuse what nothing can be saved as, before the model is loaded."""
    from ultraad.dicom.objects import checked
    from ultraad.results.saving import DICOM, chosen

    with usage_errors():
        saving = chosen(options["save"], overlays=options["overlays"], maps=options["maps"])
        if DICOM in saving.names:
            checked(options["objects"])


def _names(save: str | None) -> list[str] | None:
    """The names of ``--save``; None without."""
    return None if save is None else [] if save.strip() == "none" else split_names(save)


def _none_of(name: str, chosen: str | None, *, none: bool) -> str | None:
    """The choice of ``--overlays`` or ``--maps``, or what the former ``--no-overlays`` and ``--no-maps`` say."""
    if none:
        warn(f"--no-{name} is now --{name} none; it goes with the next version")
    return "none" if none and chosen is None else chosen


def _described(video: VideoFacts, output: Path) -> str:
    """What was found in a video, in one line."""
    parts = [f"{video.frames} frames to {video.seconds:.2f} s, {video.abnormal} abnormal"]
    if video.first is not None:
        parts.append(f"the first at {video.first:.2f} s, the last at {video.last:.2f} s")
    if video.peak is not None:
        parts.append(f"highest score {video.peak.score:.3f} at {video.peak.seconds:.2f} s")
    late = f"; {video.dropped} came too fast and were dropped" if video.dropped else ""
    overlay = f"; overlay video: {output / video.overlay}" if video.overlay else ""
    return f"{video.name}: {', '.join(parts)}{late}{overlay}"
