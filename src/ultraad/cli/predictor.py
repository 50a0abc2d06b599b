"""The model of ``predict`` and ``evaluate``: a folder, exported or not, or ``zero-shot`` with the options it takes."""

from __future__ import annotations

import inspect
from functools import partial, wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ultraad.cli.options import (
    DEFAULT_BACKBONE,
    Config,
    Device,
    Devices,
    DType,
    Names,
    NormalClass,
    Runtime,
    Settings,
    Texts,
    method_options,
    split_names,
)
from ultraad.model.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultraad.model.runtimes import GraphType
    from ultraad.model.runtimes import Runtime as GraphRuntime

ZERO_SHOT = "zero-shot"


def with_model(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument MODEL and the options of :func:`load`, so that all commands have the same.

    Args:
        command: Takes a function that loads the model first, then its own arguments and options. The function is
            picklable, for commands that load the model in several processes.

    Returns:
        The command for typer: MODEL first, its own arguments and options, then those of :func:`load`.
    """
    of_load = inspect.signature(load, eval_str=True).parameters
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [of_load["model"], *own, *(p for name, p in of_load.items() if name != "model")]

    @wraps(command)
    def run(**given: Any) -> None:  # noqa: ANN401
        command(partial(load, **{name: given.pop(name) for name in of_load}), **given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def torch_is_missing() -> bool:
    """Whether this is an installation that only predicts, on ONNX Runtime or OpenVINO."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as e:
        return e.name == "torch"
    return False


def load(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder of a model, exported or not; or 'zero-shot'.")],
    *,
    method: Annotated[
        str | None,
        typer.Option(help="For zero-shot: a method that works without images. Default: ultraad."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="For zero-shot: any backbone. Default: embedded. For a model: another place to load its weights from."
        ),
    ] = None,
    settings: Settings = None,
    config: Config = None,
    texts: Texts = None,
    classes: Names = None,
    normal_class: NormalClass = None,
    runtime: Annotated[
        Runtime | None,
        typer.Option(
            help="For zero-shot without options, on the CPU: onnx and openvino take the graph that ships, which is "
            "faster; its numbers differ from PyTorch's by less than 0.001. Default: torch, if it is installed. For an "
            "exported model: openvino also runs what was written for onnx."
        ),
    ] = None,
    device: Devices = Device.auto,
    dtype: Annotated[
        DType | None,
        typer.Option(
            help="Number type of the image tower. Default: the type the model was adapted with; float32 for zero-shot "
            "and exported models. bfloat16 with openvino: the whole graph, on processors that have it."
        ),
    ] = None,
) -> Predictor:
    """The model that the words of a command line name.

    Raises:
        ConfigError: If an option does not fit this kind of model.
        BundleError: If the folder holds no readable model.
    """
    from ultraad.errors import ConfigError
    from ultraad.model.exported import is_exported

    options = method_options(config, settings, texts)
    names = split_names(classes)
    if model != ZERO_SHOT and (method or options or names or normal_class):
        msg = (
            f"--method, --set, --config, --texts, --classes and --normal-class are for '{ZERO_SHOT}'; the model "
            f"{model} brings its own. Leave them out, or adapt again with them"
        )
        raise ConfigError(msg)
    if is_exported(model):
        from ultraad.model.exported import load as load_exported

        if backbone or device not in (Device.auto, Device.cpu):
            msg = f"{model} is an exported model and runs on the CPU only. Leave out --backbone and --device"
            raise ConfigError(msg)
        if runtime is Runtime.torch:
            msg = f"{model} is an exported model, and torch does not run it; leave out --runtime"
            raise ConfigError(msg)
        return load_exported(model, runtime=_for_graphs(runtime), dtype=_of_graph(dtype))
    plain = (
        not (options or names or normal_class) and backbone in (None, DEFAULT_BACKBONE) and method in (None, "ultraad")
    )
    plain = plain and model == ZERO_SHOT and device in (Device.auto, Device.cpu)
    engine = _for_graphs(runtime)
    if engine and not plain:
        msg = (
            f"--runtime {engine} is for exported models, and for '{ZERO_SHOT}' with its defaults on the CPU; for other "
            "models there is 'ultraad export'"
        )
        raise ConfigError(msg)
    if plain and (engine or (runtime is None and not dtype and torch_is_missing())):
        from ultraad.model.exported import zero_shot as shipped

        return shipped(runtime=engine or "onnx", dtype=_of_graph(dtype))
    from ultraad.model import model as models
    from ultraad.model.adapt import zero_shot

    if model == ZERO_SHOT:
        return zero_shot(
            backbone=backbone or DEFAULT_BACKBONE,
            classes=names or None,
            normal_class=normal_class,
            method=method or "ultraad",
            options=options,
            device=device.value,
            dtype=dtype.value if dtype else "float32",
        )
    return models.load(model, device=device.value, dtype=dtype.value if dtype else None, backbone=backbone)


def _for_graphs(runtime: Runtime | None) -> GraphRuntime | None:
    if runtime in (None, Runtime.torch):
        return None
    return "onnx" if runtime is Runtime.onnx else "openvino"


def _of_graph(dtype: DType | None) -> GraphType:
    """The number type of a graph.

    Raises:
        ConfigError: If it is none.
    """
    from ultraad.errors import ConfigError

    if dtype is DType.bfloat16:
        return "bfloat16"
    if dtype is None or dtype is DType.float32:
        return "float32"
    msg = f"--dtype {dtype.value} is for models in PyTorch; graphs are computed in float32 or, by openvino, in bfloat16"
    raise ConfigError(msg)
