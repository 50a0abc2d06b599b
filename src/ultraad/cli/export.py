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


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model, from 'ultraad adapt'.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the exported model.")],
    format: Annotated[Format, typer.Option(help="The runtime to write for.")] = Format.onnx,  # noqa: A002
    int8: Annotated[
        bool, typer.Option("--int8", help="Matrix products in int8 if accurate enough; onnx only.")
    ] = False,
    check: Annotated[Path | None, typer.Option(help="Labelled data set for the accuracy check of --int8.")] = None,
    layout: Layout = "auto",
    backbone: Annotated[str | None, typer.Option(help="Another place to load the backbone's weights from.")] = None,
) -> None:
    """Write a model as one graph for ONNX Runtime or OpenVINO; 'ultraad predict' then runs it without torch.

    The graph is compared with PyTorch on simulated images. If a score, a map or a probability differs by more than
    0.001, nothing is written and the exit code is 1. With --int8 the limit is 0.01 (maps: 0.02), or, on the images of
    --check, a loss of half a point of a metric.

    Example: ultraad export model -o exported
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
