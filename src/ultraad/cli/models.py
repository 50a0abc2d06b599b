"""``ultraad adapt``, ``predict`` and ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ultraad.cli.console import progress, say, table, warn
from ultraad.cli.options import (
    DEFAULT_BACKBONE,
    BackboneName,
    BatchSize,
    Config,
    Device,
    Devices,
    DType,
    DTypeOfModel,
    DTypes,
    Layout,
    Method,
    Names,
    NormalClass,
    Seed,
    Settings,
    Size,
    Texts,
    ZeroShotMethod,
    method_options,
    split_names,
)

if TYPE_CHECKING:
    from ultraad.model.predictor import Predictor

ZERO_SHOT = "zero-shot"

_Model = Annotated[str, typer.Argument(metavar="MODEL", help="Folder of a model, exported or not, or 'zero-shot'.")]
_Backbone = Annotated[
    str | None,
    typer.Option(
        help="zero-shot: any backbone, embedded if not given. A model: where else its weights can be taken from."
    ),
]
_Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(adapt)
    app.command()(predict)
    app.command()(evaluate)


def adapt(
    support: Annotated[
        Path | None, typer.Argument(help="What 'ultraad support draw' wrote; not needed with --auxiliary.")
    ] = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model.")],
    root: Annotated[Path | None, typer.Option(help="Where the data set is now, if it was moved.")] = None,
    auxiliary: Annotated[
        Path | None,
        typer.Option(help="A second data set with lesion masks, for methods that are trained on one."),
    ] = None,
    auxiliary_layout: Layout = "auto",
    method: Method = "ultraad",
    backbone: BackboneName = DEFAULT_BACKBONE,
    settings: Settings = None,
    config: Config = None,
    texts: Texts = None,
    classes: Names = None,
    normal_class: NormalClass = None,
    seed: Seed = 0,
    device: Devices = Device.auto,
    dtype: DTypes = DType.float32,
    size: Size = None,
    calibrate: Annotated[bool, typer.Option(help="Fit thresholds by cross-validation on the support set.")] = True,
) -> None:
    """Adapt a model to a support set, or train it on an auxiliary set.

    With --auxiliary, a detector is trained on that data set; the support set, if given, is its memory. --classes and
    --normal-class are for models without a support set.
    """
    from ultraad.data.support import load_support
    from ultraad.io.files import ensure_writable
    from ultraad.model.adapt import adapt as fit

    options = method_options(config, settings, texts)
    ensure_writable(output.parent)
    with progress() as tell:
        model = fit(
            load_support(support, root=root) if support else None,
            auxiliary=auxiliary,
            auxiliary_layout=auxiliary_layout,
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
        )
    model.save(output)
    c = model.calibration
    for note in (*model.origin.notes, *c.notes):
        warn(f"note: {note}")
    say(f"model written to {output} ({model.origin.seconds:.1f} s, {sum(model.origin.learned.values()):,} values)")
    pixel = "-" if c.pixel_threshold is None else f"{c.pixel_threshold:.3f}"
    say(f"thresholds: image {c.image_threshold:.3f}, pixel {pixel} ({c.rule})")
    for key, e in c.estimates.items():
        say(f"out of fold: {key} {_interval(e.value, e.low, e.high)} on {e.n} support images")


def predict(
    model: _Model,
    paths: Annotated[list[str], typer.Argument(help="Images, DICOM files, folders and patterns.")],
    *,
    output: _Output,
    frame: Annotated[int | None, typer.Option(min=0, help="Only this frame of multi-frame files, from 0.")] = None,
    overlays: Annotated[bool, typer.Option(help="Write overlays.")] = True,
    maps: Annotated[bool, typer.Option(help="Write maps as 16-bit PNG.")] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if any file failed.")] = False,
    method: ZeroShotMethod = None,
    backbone: _Backbone = None,
    settings: Settings = None,
    config: Config = None,
    texts: Texts = None,
    classes: Names = None,
    normal_class: NormalClass = None,
    device: Devices = Device.auto,
    dtype: DTypeOfModel = None,
    batch_size: BatchSize = 8,
) -> None:
    """Predict images into a folder; run it again to go on where it stopped.

    Files that cannot be used are listed at the end and in errors.jsonl. Exits with 1 if no file could be used, or with
    --strict if any could not. Method, classes, texts, --set and --config are for zero-shot; a saved model brings its
    own.
    """
    from ultraad.runs.predict import predict as predict_into

    chosen = _model(
        model,
        method=method,
        backbone=backbone,
        options=method_options(config, settings, texts),
        classes=split_names(classes),
        normal_class=normal_class,
        device=device,
        dtype=dtype,
    )
    with progress() as tell:
        try:
            done = predict_into(
                chosen,
                paths,
                output,
                frame=frame,
                overlays=overlays,
                maps=maps,
                batch_size=batch_size,
                progress=lambda k, n: tell("predict", k, n),
            )
        except KeyboardInterrupt:
            warn(f"interrupted. What is done is kept in {output}; run the same command again to go on", style="bold")
            raise typer.Exit(130) from None
    _list_failures(done.failed)
    skipped = f", {done.skipped} were there already" if done.skipped else ""
    rate = f", {done.predicted / done.seconds:.1f} images/s" if done.predicted else ""
    say(f"{done.predicted} predicted{skipped}, {len(done.failed)} failed{rate}; results in {output}")
    if done.failed and (strict or not done.predicted + done.skipped):
        raise typer.Exit(1)


def evaluate(
    model: _Model,
    folder: Annotated[Path, typer.Argument(help="Root of a labelled data set.")],
    *,
    output: _Output,
    layout: Layout = "auto",
    split: Annotated[str | None, typer.Option(help="Only this published split, e.g. test.")] = None,
    drop_support: Annotated[
        bool,
        typer.Option(
            "--drop-support", help="Leave out support and auxiliary images and their patients instead of refusing."
        ),
    ] = False,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples behind the 95 % intervals.")] = 1000,
    seed: Seed = 0,
    method: ZeroShotMethod = None,
    backbone: _Backbone = None,
    settings: Settings = None,
    config: Config = None,
    texts: Texts = None,
    classes: Names = None,
    normal_class: NormalClass = None,
    device: Devices = Device.auto,
    dtype: DTypeOfModel = None,
    batch_size: BatchSize = 8,
) -> None:
    """Measure a model on a labelled data set and write a report.

    Refuses if the data holds images or patients that the model has learned from. Thresholds are the model's own;
    nothing is fitted here.
    """
    from ultraad.results.folder import REPORT
    from ultraad.runs.evaluate import evaluate as measure

    chosen = _model(
        model,
        method=method,
        backbone=backbone,
        options=method_options(config, settings, texts),
        classes=split_names(classes),
        normal_class=normal_class,
        device=device,
        dtype=dtype,
    )
    with progress() as tell:
        try:
            found = measure(
                chosen,
                folder,
                layout=layout,
                split=split,
                leaks="drop" if drop_support else "refuse",
                output=output,
                bootstrap=bootstrap,
                seed=seed,
                batch_size=batch_size,
                progress=lambda k, n: tell("evaluate", k, n),
            )
        except KeyboardInterrupt:
            warn("interrupted; metrics need all images, so an evaluation starts anew", style="bold")
            raise typer.Exit(130) from None
    show_metrics(found)
    _list_failures(found["failed"])
    say(f"report: {output / REPORT}")


def show_metrics(found: dict[str, Any]) -> None:
    """The metrics of an evaluation as a table, undefined ones with their reason."""
    rows = [
        (key, _interval(m["value"], m["low"], m["high"]), m["n"], m["reason"]) for key, m in found["metrics"].items()
    ]
    table(("metric", "value [95 % interval]", "#images", "remark"), rows)


def _interval(value: float | None, low: float | None, high: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:.3f}" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _list_failures(failed: dict[str, str], limit: int = 20) -> None:
    if failed:
        warn(f"{len(failed)} image(s) could not be used:")
    for id_, reason in list(failed.items())[:limit]:
        warn(f"  {id_}: {reason}")
    if len(failed) > limit:
        warn(f"  ... and {len(failed) - limit} more, in errors.jsonl")


def _model(
    name: str,
    *,
    method: str | None,
    backbone: str | None,
    options: dict[str, Any],
    classes: list[str],
    normal_class: str | None,
    device: Device,
    dtype: DType | None,
) -> Predictor:
    from ultraad.errors import ConfigError
    from ultraad.model.exported import is_exported

    if name != ZERO_SHOT and (method or options or classes or normal_class):
        msg = (
            f"--method, --set, --config, --texts, --classes and --normal-class are for '{ZERO_SHOT}'; the model {name} "
            "brings its own. Leave them out, or adapt again with them"
        )
        raise ConfigError(msg)
    if is_exported(name):
        from ultraad.model.exported import load as load_exported

        if backbone or dtype or device not in (Device.auto, Device.cpu):
            msg = f"{name} is an exported model: it runs on the CPU as it is. Leave out --backbone, --dtype, --device"
            raise ConfigError(msg)
        return load_exported(name)
    from ultraad.model.adapt import zero_shot
    from ultraad.model.model import load

    if name == ZERO_SHOT:
        return zero_shot(
            backbone=backbone or DEFAULT_BACKBONE,
            classes=classes or None,
            normal_class=normal_class,
            method=method or "ultraad",
            options=options,
            device=device.value,
            dtype=dtype.value if dtype else "float32",
        )
    return load(name, device=device.value, dtype=dtype.value if dtype else None, backbone=backbone)
