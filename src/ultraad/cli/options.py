"""Options that several commands share: one name, one help text."""

from __future__ import annotations

import os
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ultraad.runs.engines.local import Engine


class DType(str, Enum):  # noqa: UP042  # StrEnum's repr would be shown in the help
    """Number types of the image tower."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    auto = "auto"


class Region(str, Enum):  # noqa: UP042
    """What a model sees of a picture."""

    auto = "auto"
    off = "off"


class Fan(str, Enum):  # noqa: UP042
    """Which pixels are tissue."""

    auto = "auto"
    off = "off"


class MapForm(str, Enum):  # noqa: UP042
    """How maps are saved."""

    none = "none"
    grid = "grid"
    full = "full"


class Runtime(str, Enum):  # noqa: UP042
    """What computes a model."""

    torch = "torch"
    onnx = "onnx"
    openvino = "openvino"


class EngineName(str, Enum):  # noqa: UP042
    """What runs independent tasks."""

    local = "local"
    ray = "ray"


class Device(str, Enum):  # noqa: UP042
    """Where the backbone runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


EngineOf = Annotated[
    EngineName | None,
    typer.Option(
        "--engine",
        help="In shards, for more images than one process should predict. local: processes of this machine; ray: a "
        "Ray cluster (extra 'ray').",
    ),
]
Jobs = Annotated[
    int | None, typer.Option(min=1, help="With --engine local: processes. Default: one for each processor.")
]
ShardSize = Annotated[int, typer.Option("--shard", min=1, help="With --engine: images of a shard.")]
Address = Annotated[
    str | None,
    typer.Option(help="With --engine ray: address of the cluster, or 'auto'. Default: start one on this machine."),
]
Gpus = Annotated[float, typer.Option(min=0, help="With --engine ray: GPUs for each shard, e.g. 0.25.")]
Layout = Annotated[str, typer.Option(help="Layout of the data set; see 'ultraad data list'.")]
ResizeMasks = Annotated[
    bool, typer.Option("--resize-masks", help="Resize masks of another size but the same aspect to their images.")
]
Regions = Annotated[
    Region,
    typer.Option("--region", help="auto: of a DICOM picture only the B-mode region that its header names; off: all."),
]
Fans = Annotated[
    Fan,
    typer.Option(
        "--fan",
        help="auto: of a picture in which the fan of the probe stands on black, only the fan is tissue; off: all.",
    ),
]
FanOf = Annotated[
    Fan | None,
    typer.Option(
        "--fan",
        help="auto: of a picture in which the fan of the probe stands on black, only the fan is tissue; off: all. "
        "Default: as the model saw its support images; zero-shot off.",
    ),
]
Smooth = Annotated[
    float,
    typer.Option(
        min=0.0,
        metavar="SECONDS",
        help="Smooth the frames of a cine, video or camera over those before, with this time constant; 0: not.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")]
Devices = Annotated[Device, typer.Option(help="auto takes a GPU if there is one.")]
BackboneName = Annotated[str, typer.Option(help="See 'ultraad backbones list'.")]


def _checked_settings(value: list[str] | None) -> list[str] | None:
    from ultraad.config import parse_assignments

    with usage_errors():
        parse_assignments(value or ())
    return value


Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        callback=_checked_settings,
        metavar="KEY=VALUE",
        help="An option of the method; see 'ultraad methods NAME'. A list: layers=1,2,3. Can be repeated.",
    ),
]
Config = Annotated[Path | None, typer.Option(help="YAML file with options of the method; --set has precedence.")]
Texts = Annotated[
    str | None,
    typer.Option(
        metavar="ORGAN|FILE",
        help="Sentences about the classes: a text bank that ships (breast, liver), or your own YAML file. Default: "
        "breast; adapt takes the organ that the layout of the images names.",
    ),
]
Names = Annotated[str | None, typer.Option(metavar="A,B,...", help="Names of the classes, separated by commas.")]
NormalClass = Annotated[str | None, typer.Option(help="The class that means 'no lesion', if its name does not say so.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per forward pass; changes speed, not results.")]


def _checked_threshold(value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 1:  # also when NaN
        msg = f"{value} is not in [0, 1], as scores and maps are."
        raise typer.BadParameter(msg)
    return value


def _checked_point(value: str | None, context: typer.Context) -> str | None:
    if value is None:
        return None
    from ultraad.model.operating_point import divided

    with usage_errors():
        points = divided(value)
    for option, point, kind in zip(("threshold", "pixel_threshold"), points, ("image", "pixel"), strict=True):
        if point is not None and context.params.get(option) is not None:
            name = option.replace("_", "-")
            msg = f"--{name} and --operating-point {point} both choose the {kind} threshold; give one of them."
            raise typer.BadParameter(msg)
    return value


def _checked_prevalence(value: str | None) -> str | None:
    with usage_errors():
        prevalence_of(value)
    return value


def prevalence_of(value: str | None) -> float | Mapping[str, float] | None:
    """The prevalence that ``--prevalence`` names."""
    from ultraad.model.probabilities import read_prevalence

    return None if value is None else read_prevalence(value)


def _checked_rule(value: str | None, context: typer.Context) -> str | None:
    from ultraad.model.abstain import check_abstain

    with usage_errors():
        check_abstain(value, context.params.get("sets"))
    return value


def _checked_sets(value: str | None) -> str | None:
    from ultraad.model.prediction_sets import parse

    with usage_errors():
        if value is not None:
            parse(value)
    return value


@contextmanager
def usage_errors() -> Iterator[None]:
    """An option that the library refuses is a wrong option: exit code 2."""
    from ultraad.errors import ConfigError

    try:
        yield
    except ConfigError as e:
        raise typer.BadParameter(str(e)) from e


Threshold = Annotated[
    float | None,
    typer.Option(callback=_checked_threshold, is_eager=True, help="Image threshold in [0, 1]. Default: the model's."),
]
PixelThreshold = Annotated[
    float | None,
    typer.Option(callback=_checked_threshold, is_eager=True, help="Threshold of maps in [0, 1]. Default: the model's."),
]
OperatingPoint = Annotated[
    str | None,
    typer.Option(
        callback=_checked_point,
        metavar="POINT",
        help="sens=0.95, spec=0.90 or youden: an image threshold fitted on the held-out scores of the support set; "
        "fnr=0.2: a pixel threshold that misses at most this share of a lesion on average; fppi=0.5: one with at most "
        "so many false lesions per image; or one for images and one for pixels, after a comma.",
    ),
]

Prevalence = Annotated[
    str | None,
    typer.Option(
        callback=_checked_prevalence,
        metavar="SHARE",
        help="Share of images with a lesion where it is used, such as 0.1, or of classes, such as "
        "benign=0.2,malignant=0.05: moves class probabilities, not scores.",
    ),
]
Abstain = Annotated[
    str | None,
    typer.Option(
        callback=_checked_rule,
        metavar="RULE",
        help="cost=0.2: the class is left open (unsure) where not answering, at 0.2 of an error, is the better choice; "
        "size=1: where the prediction set does not name exactly one class.",
    ),
]
Sets = Annotated[
    str | None,
    typer.Option(
        "--sets",
        callback=_checked_sets,
        is_eager=True,
        metavar="LEVEL",
        help="0.9: name every class that an image may be, so that 0.9 of these sets hold the true one; class=0.9: in "
        "each class; shift=0.9: on the scanner that the model was retuned to. Calibrated on the held-out support "
        "images.",
    ),
]

DEFAULT_BACKBONE = "embedded"  # ultraad.backbones.DEFAULT, without importing it for --help


def split_names(names: str | None) -> list[str]:
    """``"a, b"`` to ``["a", "b"]``; None and ``""`` to an empty list."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def method_options(config: Path | None, settings: Sequence[str] | None, texts: str | None) -> dict[str, Any]:
    """The options of a method from ``--config``, ``--set`` and ``--texts``, with dotted keys.

    Raises:
        ConfigError: If a file or a setting cannot be read.
    """
    from ultraad.config import parse_assignments, read_yaml

    found = _dotted(read_yaml(config)) if config else {}
    found |= parse_assignments(settings or ())
    if texts is not None:
        from ultraad.texts.bank import as_options, load_texts

        found["texts"] = as_options(load_texts(texts))
    return found


def _dotted(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted keys, so that a later setting replaces one value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value and f"{prefix}{key}" != "texts":
            flat |= _dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def check_shards(shard: int, batch_size: int) -> None:
    """Refuse ``--shard`` if it is no multiple of ``--batch-size``."""
    from ultraad.runs.shards import check_shard

    with usage_errors():
        check_shard(shard, batch_size)


@contextmanager
def engine_of(
    name: EngineName, *, processes: int | None, threads: int, address: str | None = None, gpus: float = 0.0
) -> Iterator[Engine]:
    """The engine that the words of a command line name, until the end of the block; None: as many as processors."""
    processes = processes or os.cpu_count() or 1
    if name is EngineName.ray:
        from ultraad.runs.engines.ray import Ray

        with Ray(address=address, threads=threads, gpus=gpus) as cluster:
            yield cluster
        return
    from ultraad.runs.engines.local import Processes, Serial

    own = Serial() if processes == 1 else Processes(processes)
    try:
        yield own
    finally:
        own.close()
