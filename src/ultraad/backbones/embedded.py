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
from ultraad.backbones._joined import Joined
from ultraad.backbones._mirrored import Mirrored
from ultraad.backbones._torchvision import ensure_torchvision
from ultraad.backbones._towers import ABOUT, JOINED, TOWERS
from ultraad.errors import ConfigError, DataError, WeightsError, first_names
from ultraad.types import PreprocessConfig

_CODE, _WEIGHTS, _CARD = "embedded_tower.py", "open_clip_model.safetensors", "README.md"
_STARTS = {  # of every version
    _CODE: b'"""The architecture of the embedded CLIP',
    _CARD: b"# Model card: the backbone `embedded",
}


def load(variant: str, *, name: str, device: str, dtype: DType, size: int | None) -> Backbone:
    """Load one of :data:`ultraad.backbones._towers.TOWERS`, or of ``JOINED`` there.

    For the variant ``"mirror"`` each tower is :class:`Mirrored`. With ``size``, the largest tower gets this side, and
    the others as much less as they were made for.

    Raises:
        ConfigError: If ``size`` is not a multiple of 16, or ``variant`` is unknown.
        WeightsError: If the weights file is missing from the installation or does not fit.
    """
    if variant not in ("", "mirror"):
        wanted = ", ".join(repr(f"{tower}{end}") for tower in ABOUT for end in ("", ":mirror"))
        msg = f"unknown backbone {name!r}; wanted one of {wanted}"
        raise ConfigError(msg)
    head = name.partition(":")[0]
    names = JOINED.get(head, (head,))
    sides = [tower.side_of(_there(TOWERS[one].weights)) for one in names]
    step = tower.ARCHITECTURE["vision_cfg"]["patch_size"]
    if size is not None:
        sides = [
            size if side == max(sides) else max(1, round(side * size / max(sides) / step)) * step for side in sides
        ]
    made = [
        _load(one, mirror=bool(variant), device=device, dtype=dtype, side=check_side(side, step, name))
        for one, side in zip(names, sides, strict=True)
    ]
    if len(made) > 1:
        return Joined(made, name=name)
    made[0].name = name
    return made[0]


def _load(name: str, *, mirror: bool, device: str, dtype: DType, side: int) -> Backbone:
    """One tower."""
    ensure_torchvision()
    from open_clip import tokenize

    shipped = TOWERS[name]
    path = shipped.weights
    try:
        model = tower.load(path, size=side)
        decoder = load_decoder(_there(shipped.decoder)) if shipped.finer else None
    except RuntimeError as e:
        msg = f"{path} does not hold the weights of {name}: {e}"
        raise WeightsError(msg) from e
    backbone = (Mirrored if mirror else Detailed)(
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
        folder: Made if needed; the files of an earlier export are replaced.
        name: One of :data:`ultraad.backbones._towers.TOWERS`.

    Returns:
        The written files.

    Raises:
        ConfigError: If no such tower ships with the package.
        DataError: If the folder holds files of these names that no export wrote.
        WeightsError: If the weights file is missing from the installation.
    """
    if name in JOINED:
        msg = f"{name!r} is no single tower; export {' and '.join(JOINED[name])}, each into a folder of its own"
        raise ConfigError(msg)
    if name not in TOWERS:
        msg = f"cannot export {name!r}; only {', '.join(TOWERS)} can be exported, open_clip loads all others itself"
        raise ConfigError(msg)
    shipped = TOWERS[name]
    sources = {Path(tower.__file__): _CODE, _there(shipped.weights): _WEIGHTS, shipped.card: _CARD}
    _check_replaceable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for source, target in sources.items():
        part = folder / f".{target}.part"
        shutil.copyfile(source, part)
        written.append(part.replace(folder / target))
    return written


def _check_replaceable(folder: Path) -> None:
    """Refuse files of others. Code and card say by their first words whose they are, and the weights lie beside ours.

    Raises:
        DataError: If there are some.
    """
    foreign = [name for name, start in _STARTS.items() if _is_other(folder / name, start)]
    if (folder / _WEIGHTS).exists() and (_CODE in foreign or not (folder / _CODE).exists()):
        foreign.append(_WEIGHTS)
    if foreign:
        msg = (
            f"{folder} already holds {first_names(foreign)}, but not of an export of a backbone; choose an empty or a "
            "new folder"
        )
        raise DataError(msg)


def _is_other(path: Path, start: bytes) -> bool:
    if not path.exists():
        return False
    return not path.is_file() or not path.read_bytes().startswith(start)


def _there(path: Path) -> Path:
    if not path.is_file():
        msg = f"the weights {path.name} are missing from this installation ({path}); reinstall ultraad"
        raise WeightsError(msg)
    return path


BACKBONE = load
