"""``ultraad retune``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ultraad.cli.console import SOME_FAILED, list_failures, progress, say, warn
from ultraad.cli.options import BatchSize, Device, Devices, FanOf, OperatingPoint, Seed
from ultraad.errors import ConfigError


class Way(str, Enum):  # noqa: UP042  # StrEnum's repr would be shown in the help
    """How a threshold is moved."""

    mixture = "mixture"
    quantile = "quantile"
    moments = "moments"
    keep = "keep"


def retune(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of an adapted model.")],
    images: Annotated[
        list[str], typer.Argument(help="Unlabelled images of the new scanner: files, folders, patterns.")
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new model; not MODEL, which stays.")],
    way: Annotated[
        Way, typer.Option(help="How the threshold is moved; keep: not at all, for --sets shift=0.9. See docs/trust.md.")
    ] = Way.mixture,
    operating_point: OperatingPoint = None,
    prevalence: Annotated[
        float | None,
        typer.Option(min=0.001, max=0.999, help="Share of these images with a lesion. Default: as in the support set."),
    ] = None,
    fan: FanOf = None,
    seed: Seed = 0,
    device: Devices = Device.auto,
    batch_size: BatchSize = 8,
) -> None:
    """Move the image threshold of a model to another scanner, by the scores of unlabelled images of it.

    The new model predicts the same scores and maps; only its threshold is another one. It can also make prediction sets
    for the new scanner: --sets shift=0.9. No label is looked at, so nobody
    knows whether the threshold is better there: evaluate both models on labelled images if there are any.

    Example: ultraad retune model new-scanner/ -o model-new-scanner
    """
    from ultraad.model.bundle import check_place
    from ultraad.model.model import load
    from ultraad.model.retune import retune as move

    _check_apart(model, output)
    check_place(output)
    failed: dict[str, str] = {}
    with progress() as tell:
        other = move(
            load(model, device=device.value),
            images,
            way=way.value,
            operating_point=operating_point,
            prevalence=prevalence,
            fan=None if fan is None else fan.value,
            seed=seed,
            batch_size=batch_size,
            on_error=lambda sample, error: failed.update({sample.id: str(error)}),
            progress=lambda k, n: tell("score", k, n),
        )
    record = other.calibration.transfer
    assert record is not None  # it was just made
    list_failures(failed)
    if way is Way.keep:
        say(f"image threshold {record.before:.4f} stays; {record.images} unlabelled images were looked at")
    else:
        say(
            f"image threshold {record.before:.4f} -> {other.calibration.image_threshold:.4f} "
            f"({record.low:.4f} to {record.high:.4f}), by {record.images} unlabelled images ({record.way})"
        )
    if record.shift is not None:
        held_out = len(record.shift.distances)
        say(f"for --sets shift=LEVEL the {held_out} held-out images are worth {record.shift.effective:.1f} there")
    if way is not Way.keep:
        warn(
            "note: no label was looked at, so nobody knows whether the threshold is better there; evaluate both if you "
            "can"
        )
    say(f"saved as {other.save(output)}; next: ultraad predict {output} IMAGES -o results")
    if failed:
        raise typer.Exit(SOME_FAILED)


def _check_apart(model: Path, output: Path) -> None:
    """Refuse to write over the model, or into its folder: it is needed to compare both, and to retune again."""
    place = output.resolve()
    if any(around.exists() and model.exists() and around.samefile(model) for around in (place, *place.parents)):
        where = "is" if place == model.resolve() else "is in"
        msg = f"{output} {where} the folder of the model that is retuned, which stays; give the new one another folder"
        raise ConfigError(msg)
