"""Backbones by name: ``backbones/foo.py`` ending in ``BACKBONE = load`` is found as ``"foo"`` or ``"foo:rest"``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ultraad import registry
from ultraad.backbones._towers import ABOUT
from ultraad.config import one_of
from ultraad.errors import ConfigError

if TYPE_CHECKING:
    from ultraad.backbones._door import Backbone, DTypeChoice

DEFAULT = "embedded"


def available() -> list[str]:
    """Names that a backbone name can begin with, sorted. No backbone is imported."""
    return sorted({*registry.names(__name__), *ABOUT})


def load_backbone(
    name: str = DEFAULT, *, device: str = "cpu", dtype: DTypeChoice = "float32", size: int | None = None
) -> Backbone:
    """Load a frozen CLIP.

    Args:
        name: ``"embedded"``, ``"embedded-large"`` or ``"embedded-simulated"`` (ship with the package),
            ``"embedded+embedded-large"`` (both as one); with ``":mirror"`` after these, each image is also seen in a
            mirror, at twice the time. Or ``"tiny"`` (random, for tests), ``"open_clip:<model>/<tag>"``,
            ``"open_clip:<model>"`` (random weights), ``"open_clip:local-dir:<path>"``, ``"open_clip:hf-hub:<id>"``, the
            path of a checkpoint file that has an ``open_clip_config.json`` beside it, or ``"package.module:NAME"`` for
            a loader outside the package. They are tried in this order: the text before the first colon is one of
            :func:`available`, a file or folder of this name exists, the text after the colon is a Python name.
        device: ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"`` for the best there is.
        dtype: Of the image tower. ``"auto"`` measures: bfloat16 where it is at least a tenth faster, float32 elsewhere;
            ``backbone.dtype`` says which. Results then depend on the machine, so it is not the default.
        size: Input side in pixels; the weights' own if None. Position embeddings are interpolated.

    Raises:
        ConfigError: If there is no such backbone, device, dtype or size.
        WeightsError: If the weights are missing or do not fit.

    Examples:
        >>> import ultraad, torch
        >>> backbone = ultraad.load_backbone("tiny")
        >>> features = backbone.encode_image(torch.zeros(1, 3, backbone.size, backbone.size), layers=(2, 4))
        >>> features.image.shape, features.patches[4].shape, features.grid
        (torch.Size([1, 32]), torch.Size([1, 64, 64]), (8, 8))
    """
    from ultraad.backbones._door import DTYPES

    one_of("dtype", dtype, ("auto", *DTYPES))
    if dtype == "auto":
        from ultraad.backbones._dtype import fastest

        return fastest(load_backbone(name, device=device, size=size))
    chosen = pick_device(device)
    head, _, rest = name.partition(":")
    known = available()
    if head not in known and name and Path(name).exists():
        from ultraad.backbones.open_clip import load_path

        return load_path(Path(name), name=name, device=chosen, dtype=dtype, size=size)
    if head not in known and not rest.isidentifier():
        hint = registry.did_you_mean(head, known) or "."
        msg = (
            f"unknown backbone {name!r}{hint} Wanted one of {', '.join(known)}, 'open_clip:<model>/<tag>', "
            "'open_clip:local-dir:<folder>', 'open_clip:hf-hub:<id>', the path of an existing checkpoint, "
            "or 'package.module:NAME'"
        )
        raise ConfigError(msg)
    inside = head in known
    module = "embedded" if head in ABOUT else head
    load = registry.find(__name__, module if inside else name, "BACKBONE", kind="backbone")
    backbone: Backbone = load(rest if inside else "", name=name, device=chosen, dtype=dtype, size=size)
    return backbone


def pick_device(device: str) -> str:
    """A device that is there; ``"auto"`` takes the best.

    Raises:
        ConfigError: If it is not there.
    """
    import torch

    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return "cuda" if has["cuda"] else "mps" if has["mps"] else "cpu"
    if not has.get(device.partition(":")[0], False):
        msg = f"device {device!r} is not available here; available: {', '.join(d for d, ok in has.items() if ok)}"
        raise ConfigError(msg)
    return device
