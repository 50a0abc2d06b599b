"""CLIP for breast ultrasound that ships with ultraad: 10 million parameters, 160 px, trained on simulated images only.

Its patch embedding is an EfficientNet-Lite0 trunk (timm) down to stride 16. Everything else is a plain open_clip ViT:
class token, patch tokens, ``ln_post``, ``proj``, open_clip's text tower and CLIP's own tokenizer.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ultraad.backbones import _embedded_tower as tower
from ultraad.backbones import _weights as weights
from ultraad.backbones._door import Backbone, DType, check_side
from ultraad.backbones._torchvision import ensure_torchvision
from ultraad.errors import ConfigError, WeightsError
from ultraad.types import PreprocessConfig


def load(variant: str, *, name: str, device: str, dtype: DType, size: int | None) -> Backbone:
    """Load the embedded backbone.

    Raises:
        ConfigError: If ``size`` is not a multiple of 16, or ``variant`` is not empty.
        WeightsError: If the weights file is missing from the installation or does not fit.
    """
    ensure_torchvision()
    from open_clip import get_tokenizer

    if variant:
        msg = f"unknown backbone {name!r}; wanted 'embedded'"
        raise ConfigError(msg)
    path = _weights()
    side = check_side(size or tower.SIDE, tower.ARCHITECTURE["vision_cfg"]["patch_size"], name)
    try:
        model = tower.load(path, size=side)
    except RuntimeError as e:
        msg = f"{path} does not hold the weights of {name}: {e}"
        raise WeightsError(msg) from e
    return Backbone(
        model,
        get_tokenizer("ViT-B-32"),
        name=name,
        preprocess=PreprocessConfig(size=side, mean=tower.MEAN, std=tower.STD),
        device=device,
        dtype=dtype,
        quicken=tower.quicken,
    )


def export(folder: Path) -> list[Path]:
    """Write the backbone for users of open_clip: weights, a Python file that builds it without ultraad, a model card.

    Args:
        folder: Made if needed; files with the same names are replaced.

    Returns:
        The written files.

    Raises:
        WeightsError: If the weights file is missing from the installation.
    """
    path = _weights()
    folder.mkdir(parents=True, exist_ok=True)
    sources = {
        path: "open_clip_model.safetensors",
        Path(tower.__file__): "embedded_tower.py",
        path.with_name("README.md"): "README.md",
    }
    written = []
    for source, name in sources.items():
        part = folder / f".{name}.part"
        shutil.copyfile(source, part)
        written.append(part.replace(folder / name))
    return written


def _weights() -> Path:
    path = weights.embedded_path()
    if not path.is_file():
        msg = f"the embedded weights are missing from this installation ({path}); reinstall ultraad"
        raise WeightsError(msg)
    return path


BACKBONE = load
