"""``ultraad predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultraad.cli.console import SOME_FAILED, list_failures, progress, say, show_thresholds, warn
from ultraad.cli.options import BatchSize, OperatingPoint, PixelThreshold, Threshold, split_names
from ultraad.cli.predictor import with_model
from ultraad.model.predictor import Predictor

if TYPE_CHECKING:
    from ultraad.results.row import VideoFacts


@with_model
def predict(
    model: Predictor,
    paths: Annotated[list[str], typer.Argument(help="Images, DICOM files, folders, patterns, videos; a camera.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    frame: Annotated[int | None, typer.Option(min=0, help="Only this frame of multi-frame files and videos.")] = None,
    every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Every Nth frame of multi-frame files and videos.")
    ] = 1,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Only so many seconds of each video or camera. Default: all.")
    ] = None,
    threshold: Threshold = None,
    pixel_threshold: PixelThreshold = None,
    operating_point: OperatingPoint = None,
    save: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="What to write beside the tables: overlays, maps, masks, contours, boxes (coco.json); or none. "
            "Default: overlays,maps; with videos overlays.",
        ),
    ] = None,
    overlays: Annotated[bool | None, typer.Option(hidden=True)] = None,
    maps: Annotated[bool | None, typer.Option(hidden=True)] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 instead of 3 if any image failed.")] = False,
    batch_size: BatchSize = 8,
) -> None:
    """Predict images and videos and write the results to a folder. Run the same command again to resume.

    A video file that is named gives a line per frame and an overlay video. A camera is camera:0, /dev/video0 or a URL
    such as rtsp://host/stream; it is predicted until Ctrl-C.

    Images that cannot be read or scored are listed at the end and in errors.jsonl. Exits with 3 if some failed, with 1
    if all did. --method, --set, --config, --texts, --classes and --normal-class are for zero-shot; a saved model has
    its own.

    Example: ultraad predict model scans/ -o predictions
    """
    from ultraad.runs.predict import predict

    with progress() as tell:
        try:
            done = predict(
                model,
                paths,
                output,
                frame=frame,
                every=every,
                seconds=seconds,
                threshold=threshold,
                pixel_threshold=pixel_threshold,
                operating_point=operating_point,
                save=_names(save, overlays=overlays, maps=maps),
                batch_size=batch_size,
                progress=lambda k, n: tell("predict", k, n or None),
            )
        except KeyboardInterrupt:
            warn(f"interrupted; finished images are in {output}. Run the same command again to resume", style="bold")
            raise typer.Exit(130) from None
    list_failures(done.failed)
    skipped = f", {done.skipped} were there already" if done.skipped else ""
    rate = f", {done.predicted / done.seconds:.1f} images/s" if done.predicted else ""
    show_thresholds(output)
    say(f"{done.predicted} predicted{skipped}, {len(done.failed)} failed{rate}; results in {output}")
    for video in done.videos:
        say(_described(video, output))
    if done.failed:
        raise typer.Exit(1 if strict or not done.predicted + done.skipped else SOME_FAILED)


def _names(save: str | None, *, overlays: bool | None, maps: bool | None) -> list[str] | None:
    """The names of ``--save``, or those that the former ``--no-overlays`` and ``--no-maps`` leave; None for neither."""
    if save is not None:
        return [] if save.strip() == "none" else split_names(save)
    former = {"overlays": overlays, "maps": maps}
    given = [name for name, old in former.items() if old is not None]
    for name in given:
        warn(f"--{name} and --no-{name} are now names of --save; they go with the next version")
    return [name for name, old in former.items() if old is not False] if given else None


def _described(video: VideoFacts, output: Path) -> str:
    """What became of a video, in one line."""
    late = f", {video.dropped} came too fast and were dropped" if video.dropped else ""
    overlay = f"; overlay video: {output / video.overlay}" if video.overlay else ""
    return f"{video.name}: {video.frames} frames{late}{overlay}"
