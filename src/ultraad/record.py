"""The JSON file that says what a model's folder holds, for a bundle and for an exported model alike; needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ultraad.calibrate import Calibration
from ultraad.config import explain
from ultraad.errors import BundleError
from ultraad.io.files import sha256
from ultraad.origin import Origin
from ultraad.types import PreprocessConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

R = TypeVar("R", bound="Record")


class Strict(BaseModel):
    """Frozen, and nothing unknown passes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Tower(Strict):
    """The frozen tower a model was fitted on."""

    name: str
    fingerprint: str
    size: int
    dtype: Literal["float32", "bfloat16", "float16"]
    preprocess: PreprocessConfig


class Record(Strict):
    """What :meth:`ultraad.model.Model.describe` gives, with the digest of the model and the sha256 of its files."""

    digest: str
    files: dict[str, str]
    method: str
    options: dict[str, Any]
    classes: tuple[str, ...]
    normal_class: str
    backbone: Tower
    calibration: Calibration
    origin: Origin


def read_record(path: Path, kind: type[R], *, wanted: str, what: str, remedy: str) -> R:
    """Read and check a record.

    Args:
        path: The file, which exists.
        kind: What it should hold.
        wanted: Its format.
        what: "model" or the like, for messages.
        remedy: What helps against a record of another version, for messages.

    Raises:
        BundleError: If it is damaged or from another format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        msg = f"{path} is damaged: {e}; copy the {what} again"
        raise BundleError(msg) from e
    found = content.get("format") if isinstance(content, dict) else None
    if found != wanted:
        msg = f"{path} has format {found!r}; this version of ultraad reads {wanted!r}"
        raise BundleError(msg)
    try:
        return kind.model_validate(content)
    except ValidationError as e:
        msg = f"{explain(e, where=str(path))}. The {what} is damaged or from another version; {remedy}"
        raise BundleError(msg) from e


def check_files(folder: Path, files: Mapping[str, str], *, what: str) -> None:
    """Hold the files of a folder to their record.

    Args:
        folder: The model's.
        files: {name: sha256}.
        what: "model" or the like, for messages.

    Raises:
        BundleError: If one is missing or damaged.
    """
    for name, wanted in files.items():
        path = folder / name
        if not path.is_file():
            msg = f"the {what} {folder} is incomplete: {name} is missing; copy the whole folder again"
            raise BundleError(msg)
        if (got := sha256(path)) != wanted:
            msg = f"{path} is damaged: sha256 is {got}, should be {wanted}; copy the {what} again"
            raise BundleError(msg)
