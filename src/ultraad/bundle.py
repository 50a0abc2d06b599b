"""A model as a folder that can be kept, sent and checked; nothing in it is ever executed.

    config.json           what the model is, its thresholds, its history, versions, and the sha256 of the other files
    adapter.safetensors   the learned values; the frozen backbone is named, not copied
    support.csv           id, label, patient and sha256 of each support image; no pictures
    auxiliary.csv         the same of each auxiliary image, if there was an auxiliary set
    README.md             the model card

The folder is written beside its place and renamed, so a reader never meets half of one.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensor_bytes

from ultraad import methods
from ultraad.backbones import load_backbone
from ultraad.backbones.base import Backbone
from ultraad.card import card
from ultraad.config import resolve
from ultraad.data.support import read_fingerprints, write_fingerprints
from ultraad.errors import BundleError
from ultraad.export import is_exported
from ultraad.io.files import whole_folder, write_bytes, write_json, write_text
from ultraad.model import Model
from ultraad.origin import versions
from ultraad.record import Record, check_files, read_record

if TYPE_CHECKING:
    from ultraad.backbones.base import DTypeChoice

_log = logging.getLogger(__name__)

FORMAT = "ultraad.model/1"
CONFIG, ADAPTER, SUPPORT, CARD = "config.json", "adapter.safetensors", "support.csv", "README.md"
AUXILIARY = "auxiliary.csv"


class _Config(Record):
    format: Literal["ultraad.model/1"]
    versions: dict[str, str]


def save(model: Model, folder: str | Path) -> Path:
    """Write a model; all or nothing. A model that stood in its place is replaced.

    Args:
        model: Any model.
        folder: Made if needed.

    Returns:
        The folder.

    Raises:
        BundleError: If something that is no model stands in its place.
        DataError: If the place cannot be written to.
    """
    folder = Path(folder)
    if folder.exists() and not _replaceable(folder):
        msg = f"{folder} exists and is no ultraad model; choose another name for the model, or move what is there"
        raise BundleError(msg)
    state = {key: value.detach().cpu().contiguous() for key, value in model.method.state_dict().items()}
    files = {
        ADAPTER: tensor_bytes(state, metadata={"format": "pt"}),
        SUPPORT: write_fingerprints(model.support).encode(),
    }
    if model.auxiliary:
        files[AUXILIARY] = write_fingerprints(model.auxiliary).encode()
    config = {
        "format": FORMAT,
        "versions": versions(),
        "digest": model.digest,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        **model.describe(),
    }
    with whole_folder(folder) as fresh:
        for name, data in files.items():
            write_bytes(fresh / name, data)
        write_text(fresh / CARD, card(config))
        write_json(fresh / CONFIG, config)
    return folder


def read(
    folder: str | Path,
    *,
    device: str = "cpu",
    dtype: DTypeChoice | None = None,
    backbone: str | Backbone | None = None,
) -> Model:
    """Load a model and check that it is what was saved.

    Args:
        folder: What :func:`save` wrote.
        device: ``"cpu"``, ``"cuda"``, ``"mps"`` or ``"auto"``.
        dtype: Of the image tower; None for the one it was adapted in. See :func:`ultraad.load`.
        backbone: Where to take the weights from instead of the name in the folder.

    Raises:
        BundleError: If a file is missing, damaged or from another format, or the backbone's weights are others.
        WeightsError: If the backbone's weights are missing.
    """
    folder = Path(folder)
    config = _read_config(folder)
    check_files(folder, config.files, what="model")
    _warn_versions(config, folder)
    tower = _tower(config, folder, device=device, dtype=dtype, backbone=backbone)
    chosen = methods.get(config.method)
    options = resolve(chosen.Config, config.options, where=f"options in {folder / CONFIG}")
    method = chosen(tower, options, classes=config.classes, normal_class=config.normal_class)
    try:
        method.load_state_dict(load_tensors((folder / ADAPTER).read_bytes()))
    except (SafetensorError, RuntimeError) as e:
        msg = (
            f"{folder / ADAPTER} does not hold the values of {config.method} with these options; "
            f"if another version of ultraad wrote it, adapt again: {e}"
        )
        raise BundleError(msg) from e
    method.fitted = True
    origin = config.origin
    return Model(
        method.to(tower.device),
        calibration=config.calibration,
        origin=origin,
        support=list(read_fingerprints(folder / SUPPORT, origin.source)),
        auxiliary=list(read_fingerprints(folder / AUXILIARY, origin.auxiliary.source)) if origin.auxiliary else (),
    )


# --- pieces ----------------------------------------------------------------------------------------------------------


def _replaceable(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    try:
        _read_config(folder)
    except BundleError:
        return False
    return True


def _read_config(folder: Path) -> _Config:
    path = folder / CONFIG
    if not path.is_file():
        found = "no such folder" if not folder.exists() else f"{CONFIG} is missing there"
        if is_exported(folder):
            found = "it is exported from one; ultraad.export.exported.load reads it"
        msg = f"{folder} is no ultraad model: {found}. Wanted a folder written by 'ultraad adapt -o'"
        raise BundleError(msg)
    return read_record(path, _Config, wanted=FORMAT, what="model", remedy="make it again")


def _warn_versions(config: _Config, folder: Path) -> None:
    here = versions()
    others = [f"{name} {made} (here {here[name]})" for name, made in config.versions.items() if here.get(name) != made]
    if others:
        _log.warning("the model %s was made with %s; results may differ a little", folder, ", ".join(others))


def _tower(
    config: _Config, folder: Path, *, device: str, dtype: DTypeChoice | None, backbone: str | Backbone | None
) -> Backbone:
    stored = config.backbone
    if isinstance(backbone, Backbone):
        tower = backbone
    else:
        tower = load_backbone(backbone or stored.name, device=device, dtype=dtype or stored.dtype, size=stored.size)
    if tower.fingerprint != stored.fingerprint:
        msg = (
            f"the model {folder} was adapted on {stored.name} with weights {stored.fingerprint[:16]}, but "
            f"{tower.name} has weights {tower.fingerprint[:16]}; use the same weights, or adapt again on these"
        )
        raise BundleError(msg)
    if tower.preprocess != stored.preprocess:
        msg = (
            f"the model {folder} was adapted on images prepared as {stored.preprocess}, but {tower.name} wants "
            f"{tower.preprocess}; use the same weights with the same preprocessing, or adapt again"
        )
        raise BundleError(msg)
    return tower
