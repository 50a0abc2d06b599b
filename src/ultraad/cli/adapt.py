"""``ultraad adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultraad.cli.console import interval, progress, say, warn
from ultraad.cli.options import (
    DEFAULT_BACKBONE,
    BackboneName,
    Config,
    Device,
    Devices,
    DType,
    Layout,
    Names,
    NormalClass,
    Seed,
    Settings,
    Texts,
    method_options,
    split_names,
)


def adapt(
    support: Annotated[
        Path | None, typer.Argument(help="File from 'ultraad support draw'; optional with --auxiliary.")
    ] = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model.")],
    root: Annotated[str | None, typer.Option(help="Where the data set is now, if it was moved.")] = None,
    auxiliary: Annotated[
        str | None, typer.Option(help="A second data set with lesion masks, for methods that can train on one.")
    ] = None,
    auxiliary_layout: Layout = "auto",
    resize_masks: Annotated[
        bool, typer.Option("--resize-masks", help="Resize masks of --auxiliary of another size but the same aspect.")
    ] = False,
    method: Annotated[str, typer.Option(help="See 'ultraad methods'.")] = "ultraad",
    backbone: BackboneName = DEFAULT_BACKBONE,
    settings: Settings = None,
    config: Config = None,
    texts: Texts = None,
    classes: Names = None,
    normal_class: NormalClass = None,
    seed: Seed = 0,
    device: Devices = Device.auto,
    dtype: Annotated[
        DType, typer.Option(help="Number type of the image tower; auto takes bfloat16 if it is faster on this machine.")
    ] = DType.float32,
    size: Annotated[
        int | None, typer.Option(min=16, help="Height and width of the input in pixels. Default: from the weights.")
    ] = None,
    calibrate: Annotated[bool, typer.Option(help="Fit thresholds by cross-validation on the support set.")] = True,
) -> None:
    """Adapt a model to a support set, or train it on an auxiliary set.

    With --auxiliary, a detector is trained on that data set; the support set, if given, becomes its memory. --classes
    and --normal-class are for models without a support set.

    A method that trains for minutes says first how long, and keeps its state in OUTPUT.checkpoint until the model is
    written: after an interruption, the same command goes on from there.

    Example: ultraad adapt support.json -o model
    """
    from ultraad.data.support import load_support
    from ultraad.model.adapt import adapt as fit
    from ultraad.model.bundle import check_place
    from ultraad.model.checkpoint import remove

    options = method_options(config, settings, texts)
    check_place(output)
    checkpoint = output.with_name(f"{output.name}.checkpoint")
    with progress() as tell:
        model = fit(
            load_support(support, root=root) if support else None,
            auxiliary=auxiliary,
            auxiliary_layout=auxiliary_layout,
            resize_masks=resize_masks,
            method=method,
            backbone=backbone,
            options=options,
            classes=split_names(classes) or None,
            normal_class=normal_class,
            seed=seed,
            device=device.value,
            dtype=dtype.value,
            size=size,
            calibrate=calibrate,
            progress=tell,
            announce=warn,
            checkpoint=checkpoint,
        )
    model.save(output)
    remove(checkpoint)
    c = model.calibration
    for note in (*model.origin.notes, *c.notes):
        warn(f"note: {note}")
    say(f"model written to {output} ({model.origin.seconds:.1f} s, {sum(model.origin.learned.values()):,} values)")
    pixel = "-" if c.pixel_threshold is None else f"{c.pixel_threshold:.3f}"
    say(f"thresholds: image {c.image_threshold:.3f}, pixel {pixel} ({c.rule})")
    for key, e in c.estimates.items():
        say(f"out of fold: {key} {interval(e.value, e.low, e.high)} on {e.n} support images")
