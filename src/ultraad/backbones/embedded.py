"""The CLIPs for breast ultrasound that ship with ultraad; :mod:`ultraad.backbones._towers` names them.

The patch embedding is an EfficientNet-Lite trunk (timm) at strides 8 and 16, in ``embedded-large`` at 32, too.
Everything else is a plain open_clip ViT: class token, patch tokens, ``ln_post``, ``proj``, open_clip's text tower and
CLIP's own tokenizer.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ultraad.backbones import _embedded_tower as tower
from ultraad.backbones._decoder import Detailed, load_decoder
from ultraad.backbones._door import Backbone, DType, check_side
from ultraad.backbones._mirrored import Mirrored
from ultraad.backbones._torchvision import ensure_torchvision
from ultraad.backbones._towers import TOWERS
from ultraad.errors import ConfigError, WeightsError
from ultraad.types import PreprocessConfig


def load(variant: str, *, name: str, device: str, dtype: DType, size: int | None) -> Backbone:
    """Load one of :data:`ultraad.backbones._towers.TOWERS`, for the variant ``"mirror"`` as :class:`Mirrored`.

    Raises:
        ConfigError: If ``size`` is not a multiple of 16, or ``variant`` is unknown.
        WeightsError: If the weights file is missing from the installation or does not fit.
    """
    ensure_torchvision()
    from open_clip import tokenize

    if variant not in ("", "mirror"):
        wanted = ", ".join(repr(f"{tower}{end}") for tower in TOWERS for end in ("", ":mirror"))
        msg = f"unknown backbone {name!r}; wanted one of {wanted}"
        raise ConfigError(msg)
    shipped = TOWERS[name.partition(":")[0]]
    path = _there(shipped.weights)
    side = check_side(size or tower.side_of(path), tower.ARCHITECTURE["vision_cfg"]["patch_size"], name)
    try:
        model = tower.load(path, size=side)
        decoder = load_decoder(_there(shipped.decoder)) if shipped.finer else None
    except RuntimeError as e:
        msg = f"{path} does not hold the weights of {name}: {e}"
        raise WeightsError(msg) from e
    backbone = (Mirrored if variant else Detailed)(
        model,
        tokenize,
        name=name,
        preprocess=PreprocessConfig(size=side, mean=tower.MEAN, std=tower.STD),
        device=device,
        dtype=dtype,
        quicken=tower.quicken,
    )
    backbone.organ = "breast"
    return backbone if decoder is None else backbone.with_decoder(decoder)


def export(folder: Path, name: str = "embedded") -> list[Path]:
    """Write a tower for users of open_clip: weights, a Python file that builds it without ultraad, a model card.

    Args:
        folder: Made if needed; files with the same names are replaced.
        name: One of :data:`ultraad.backbones._towers.TOWERS`.

    Returns:
        The written files.

    Raises:
        ConfigError: If no such tower ships with the package.
        WeightsError: If the weights file is missing from the installation.
    """
    if name not in TOWERS:
        msg = f"cannot export {name!r}; only {', '.join(TOWERS)} can be exported, open_clip loads all others itself"
        raise ConfigError(msg)
    shipped = TOWERS[name]
    folder.mkdir(parents=True, exist_ok=True)
    sources = {
        _there(shipped.weights): "open_clip_model.safetensors",
        Path(tower.__file__): "embedded_tower.py",
        shipped.card: "README.md",
    }
    written = []
    for source, target in sources.items():
        part = folder / f".{target}.part"
        shutil.copyfile(source, part)
        written.append(part.replace(folder / target))
    return written


def _there(path: Path) -> Path:
    if not path.is_file():
        msg = f"the weights {path.name} are missing from this installation ({path}); reinstall ultraad"
        raise WeightsError(msg)
    return path


BACKBONE = load
