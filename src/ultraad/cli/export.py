"""``ultraad export``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ultraad.cli.console import say
from ultraad.cli.options import Layout


class Format(str, Enum):  # noqa: UP042  # StrEnum's repr would be shown in the help
    """What runs the exported model."""

    onnx = "onnx"
    openvino = "openvino"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(export)


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model, from 'ultraad adapt'.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the exported model.")],
    format: Annotated[Format, typer.Option(help="For ONNX Runtime or for OpenVINO.")] = Format.onnx,  # noqa: A002
    int8: Annotated[bool, typer.Option("--int8", help="Matrix products in int8, if that holds; onnx only.")] = False,
    check: Annotated[Path | None, typer.Option(help="Labelled data set to hold int8's accuracy to.")] = None,
    layout: Layout = "auto",
    backbone: Annotated[str | None, typer.Option(help="Where else the backbone's weights can be taken from.")] = None,
) -> None:
    """Write a model as one graph for ONNX Runtime or OpenVINO; 'ultraad predict' then runs it without torch.

    The graph is compared with PyTorch on simulated images. Exits with 1, and writes nothing, if a score, a map or a
    probability differs by more than 0.001. With --int8 it may differ by 0.01 (maps: 0.02), or, on the images of
    --check, lose half a point of a metric.
    """
    from ultraad.export.write import export as write
    from ultraad.model.model import load

    chosen = load(model, dtype="float32", backbone=backbone)
    about = write(chosen, output, runtime=format.value, int8=int8, check=check, layout=layout).config.exported
    size = sum(path.stat().st_size for path in output.iterdir()) / 1e6
    say(f"exported to {output} ({about.runtime}{', int8' * about.int8}, {size:.1f} MB)")
    shown = ", ".join(f"{name} {about.parity[name]:.1e}" for name in ("score", "map", "probs") if name in about.parity)
    say(f"largest difference from PyTorch on {about.parity['images']:.0f} simulated images: {shown}")
    for key, values in about.check.items():
        say(f"{key}: float32 {values['float32']:.1f}, int8 {values['int8']:.1f}")
    for batch, ms in about.speed.items():
        say(f"batch {batch}: {ms[about.runtime]:.1f} ms/image, PyTorch {ms['torch']:.1f}")
    say(f"next: ultraad predict {output} IMAGES -o results")
