"""A model as a folder that can be kept, sent and checked. It holds no code.

    config.json           what the model is, its thresholds, its history, versions, and the sha256 of the other files
    adapter.safetensors   the learned values; the frozen backbone is named, not copied
    support.csv           id, label, patient and sha256 of each support image; no pictures
    auxiliary.csv         the same of each auxiliary image, if there was an auxiliary set
    README.md             the model card

The folder is written under another name and then renamed, so a reader never sees an incomplete one.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensor_bytes

from ultraad.data.support import Fingerprint, write_fingerprints
from ultraad.errors import BundleError, Caught, brief
from ultraad.io.files import ensure_room, whole_folder, write_bytes, write_json, write_text
from ultraad.io.find import is_there
from ultraad.model.exported import is_exported
from ultraad.model.model_card import model_card
from ultraad.model.pack import SUFFIX
from ultraad.model.record import Description, Record, check_files, learned_from, read_record, versions

if TYPE_CHECKING:
    import torch


_log = logging.getLogger(__name__)

_ROOM = 32 << 20  # bytes; twice the largest adapter on the embedded backbone, that of mvfa
FORMAT = "ultraad.model/1"
CONFIG, ADAPTER, SUPPORT, CARD = "config.json", "adapter.safetensors", "support.csv", "README.md"
AUXILIARY = "auxiliary.csv"


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The content of a folder.

    Attributes:
        description: What the model is and where it comes from.
        digest: sha256 over everything that determines the results; :func:`read` takes it from the record.
        state: {name: learned values}.
        support: (fingerprint, label) of each support image.
        auxiliary: The same of each auxiliary image.
        computed: The digest of what :func:`read` found; None for a model that is to be written.
    """

    description: Description
    digest: str
    state: Mapping[str, torch.Tensor]
    support: tuple[tuple[Fingerprint, str], ...]
    auxiliary: tuple[tuple[Fingerprint, str], ...]
    computed: str | None = None


def digest_of(facts: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> str:
    """sha256 over everything that determines the results.

    Args:
        facts: :func:`ultraad.model.record.facts_of` a description.
        state: {name: learned values}.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for key, value in sorted(state.items()):
        digest.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class _Config(Record):
    format: Literal["ultraad.model/1"]
    versions: dict[str, str]


def check_place(folder: str | Path) -> None:
    """Refuse a folder that no model can be written to, before any work.

    Raises:
        BundleError: If it exists and is not a model.
        DataError: If its parent cannot be written to or is full, or no folder can have its name.
    """
    _check_replaceable(Path(folder))
    ensure_room(Path(folder), _ROOM)


def write(parts: Parts, folder: str | Path) -> Path:
    """Write a model completely or not at all. An older model in the folder is replaced.

    Args:
        parts: The parts of any model.
        folder: Made if needed.

    Returns:
        The folder.

    Raises:
        BundleError: If the folder exists and is not a model.
        DataError: If the folder cannot be written.
    """
    folder = Path(folder)
    _check_replaceable(folder)
    state = {key: value.detach().cpu().contiguous() for key, value in parts.state.items()}
    files = {
        ADAPTER: tensor_bytes(state, metadata={"format": "pt"}),
        SUPPORT: write_fingerprints(parts.support).encode(),
    }
    if parts.auxiliary:
        files[AUXILIARY] = write_fingerprints(parts.auxiliary).encode()
    config = {
        "format": FORMAT,
        "versions": versions(),
        "digest": parts.digest,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        **parts.description.model_dump(mode="json"),
    }
    with whole_folder(folder) as fresh:
        for name, data in files.items():
            write_bytes(fresh / name, data)
        write_text(fresh / CARD, model_card(parts.description, digest=parts.digest, versions=config["versions"]))
        write_json(fresh / CONFIG, config)
    return folder


def read(folder: str | Path) -> Parts:
    """Read a folder and check its files.

    Args:
        folder: A folder written by :func:`write`.

    Raises:
        BundleError: If a file is missing, damaged or not named by the record, or has another format.
    """
    folder = Path(folder)
    config, facts = _read_config(folder)
    config.check_thresholds(folder / CONFIG, "model")
    required = {ADAPTER, SUPPORT, *([AUXILIARY] if config.origin.auxiliary else [])}
    check_files(folder, config.files, required=required, what="model")
    _warn_versions(config, folder)
    state: dict[str, torch.Tensor] = {}
    with Caught() as caught:  # safetensors raises errors of several kinds
        state = load_tensors((folder / ADAPTER).read_bytes())
        facts_digest = digest_of(facts, state)
    if caught.error is not None:
        msg = f"{folder / ADAPTER} is damaged: {brief(caught.error)}; copy the model again"
        raise BundleError(msg) from caught.error
    support, auxiliary = learned_from(folder, config.origin, support=SUPPORT, auxiliary=AUXILIARY, what="model")
    return Parts(config, config.digest, state, support, auxiliary, computed=facts_digest)


def _check_replaceable(folder: Path) -> None:
    """Refuse a folder that exists and is neither empty nor a model.

    Raises:
        BundleError: If it is something else.
    """
    if not is_there(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        _read_config(folder)
    except BundleError as e:
        msg = f"{folder} exists and is not an ultraad model; choose another name for the model, or move that folder"
        raise BundleError(msg) from e


def _read_config(folder: Path) -> tuple[_Config, dict[str, Any]]:
    path = folder / CONFIG
    if not path.is_file():
        found = f"it has no {CONFIG}" if folder.exists() else "there is no such folder"
        if is_exported(folder):
            found = "it is an exported model; load it with ultraad.model.exported.load"
        if folder.suffix == SUFFIX and folder.is_file():
            found = f"it is a packed one; 'ultraad unpack {folder} FOLDER' makes it a folder"
        msg = f"{folder} is not an ultraad model: {found}. Wanted a folder written by 'ultraad adapt -o'"
        raise BundleError(msg)
    return read_record(path, _Config, wanted=FORMAT, what="model", remedy="make it again")


def _warn_versions(config: _Config, folder: Path) -> None:
    here = versions()
    others = [
        f"{name} {made} (here {here.get(name, 'not installed')})"
        for name, made in config.versions.items()
        if here.get(name) != made
    ]
    if others:
        _log.warning("the model %s was made with %s; results may differ slightly", folder, ", ".join(others))
