"""What a model is and where it comes from: the JSON in every model folder and every result. Needs no torch."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from ultraad.config import Strict, explain, shortened
from ultraad.data.support import Fingerprint, digest, read_fingerprints
from ultraad.errors import BundleError, brief
from ultraad.fan import FanChoice
from ultraad.io.files import sha256
from ultraad.model.calibration import Calibration
from ultraad.types import PreprocessConfig

R = TypeVar("R", bound="Record")

Setting = Literal["few-shot", "zero-shot", "auxiliary"]
"""The data a model was made with; the key ``protocol`` in the JSON."""


class BackboneRecord(Strict):
    """The frozen backbone that a model was fitted on."""

    name: str
    fingerprint: str
    size: int
    dtype: Literal["float32", "bfloat16", "float16"]
    preprocess: PreprocessConfig


class Auxiliary(Strict):
    """The auxiliary set a model was trained on.

    Attributes:
        source: ``"<layout>:<root>"``.
        images: Number of readable images.
        digest: sha256 over their ids and bytes.
    """

    source: str
    images: int
    digest: str


class Origin(Strict):
    """Where a model comes from.

    Attributes:
        setting: ``"few-shot"`` with a support set, ``"auxiliary"`` with images of another data set only,
            ``"zero-shot"`` without images.
        seed: Of the fit, the folds and the initial values.
        shots: Images per class that has any; 0 without a support set.
        support_classes: The classes that have support images; empty without a support set, and in older records.
        source: ``"<layout>:<root>"`` of the support images; None without a support set.
        support_digest: sha256 over ids and bytes of the support images; None without a support set.
        auxiliary: The auxiliary set; None without one.
        selection: The rule that chose the fitted state.
        loss: Mean training loss per epoch.
        seconds: Wall time of the final fit.
        learned: {parameter: number of values}.
        notes: Notes of the method for users.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    setting: Setting = Field(alias="protocol")
    seed: int
    shots: int = 0
    support_classes: tuple[str, ...] = ()
    source: str | None = None
    support_digest: str | None = None
    auxiliary: Auxiliary | None = None
    selection: str = ""
    loss: tuple[float, ...] = ()
    seconds: float = 0.0
    learned: dict[str, int] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def shots_of(self, normal_class: str) -> str:
        """The support images in words, e.g. ``"4 images per class"``; says if all are normal, or none."""
        image = "image" if self.shots == 1 else "images"
        if self.support_classes == (normal_class,):
            return f"{self.shots} normal {image}"
        if self.support_classes and normal_class not in self.support_classes:
            return f"{self.shots} {image} per lesion class, none normal"
        return f"{self.shots} {image} per class"


class Description(Strict):
    """What a model is and where it comes from; :meth:`ultraad.model.model.Model.describe`.

    Attributes:
        fan: How the model sees a picture unless it is told otherwise, which is how it saw its support images:
            ``"auto"``: only the fan that is found in it; ``"off"``, and models of earlier versions: all of it.
    """

    method: str
    options: dict[str, Any]
    classes: tuple[str, ...]
    normal_class: str
    backbone: BackboneRecord
    fan: FanChoice = "off"
    calibration: Calibration
    origin: Origin


class Record(Description):
    """A description with the digest of the model and the sha256 of its files: the JSON file of a model's folder."""

    digest: str
    files: dict[str, str]

    def check_thresholds(self, path: Path, what: str) -> None:
        """Refuse thresholds that no score can be compared with.

        Raises:
            BundleError: If one is NaN or outside [0, 1].
        """
        calibration = self.calibration
        for name in ("image_threshold", "pixel_threshold"):
            value = getattr(calibration, name)
            if value is not None and not -_ROUNDING <= value <= 1 + _ROUNDING:  # also when NaN
                msg = f"{path}: calibration.{name} is {value}, wanted a number in [0, 1]; copy the {what} again"
                raise BundleError(msg)


_ROUNDING = 1e-6  # a score in float32 may be this far outside [0, 1]


def versions() -> dict[str, str]:
    """Versions of the installed packages that results depend on."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in ("ultraad", "torch", "open_clip_torch", "timm", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an exported model needs no torch
            continue
    return found


def read_record(path: Path, kind: type[R], *, wanted: str, what: str, remedy: str) -> tuple[R, dict[str, Any]]:
    """Read and check a record.

    Args:
        path: An existing file.
        kind: Type of the record.
        wanted: Its format.
        what: ``"model"`` or ``"exported model"``, for messages.
        remedy: What to do with a record of another version, for messages.

    Returns:
        The record, and the facts in it that decide about predictions as they are in the file (:func:`facts_of`).

    Raises:
        BundleError: If it is damaged or has another format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        msg = f"{path} is damaged: {e}; copy the {what} again"
        raise BundleError(msg) from e
    found = content.get("format") if isinstance(content, dict) else None
    if found != wanted:
        msg = f"{path} has format {shortened(repr(found))}; this version of ultraad reads {wanted!r}"
        raise BundleError(msg)
    try:
        return kind.model_validate(content), facts_of(content)
    except ValidationError as e:
        msg = f"{explain(e, where=str(path))}. The {what} is damaged or from another version; {remedy}"
        raise BundleError(msg) from e


def facts_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """What decides about predictions, apart from learned values: a description as JSON, without its history.

    Models of earlier versions lack some of it; without that, a model keeps the digest that they gave it.
    """
    facts = {key: content[key] for key in Description.model_fields if key in content and key != "origin"}
    if facts.get("fan") == "off":
        del facts["fan"]
    calibration = {key: v for key, v in facts["calibration"].items() if v or key not in _NEWER}
    if isinstance(held_out := calibration.get("held_out"), (list, tuple)):
        calibration["held_out"] = [
            {k: v for k, v in one.items() if v is not None or k not in _NEWER} for one in held_out
        ]
    if isinstance(transfer := calibration.get("transfer"), dict):
        calibration["transfer"] = {k: v for k, v in transfer.items() if v is not None or k != "shift"}
    facts["calibration"] = calibration
    return facts


_NEWER = frozenset(
    {"held_out", "scaling", "label", "probs", "lesion_map", "false_lesions", "transfer"}
)  # of calibration and of its held-out scores


def check_files(folder: Path, files: Mapping[str, str], *, required: Collection[str], what: str) -> None:
    """Check the files of a folder against their record.

    Args:
        folder: The model's folder.
        files: {name: sha256}.
        required: Names that the record must have.
        what: ``"model"`` or ``"exported model"``, for messages.

    Raises:
        BundleError: If one is missing, damaged, outside the folder, or not in the record.
    """
    if unnamed := sorted(set(required) - set(files)):
        msg = f"the record of the {what} {folder} does not name {', '.join(unnamed)}; copy the whole folder again"
        raise BundleError(msg)
    for name in files:
        if not re.fullmatch(r"[\w-][\w.-]*", name):
            found = shortened(repr(name))
            msg = f"the record of the {what} {folder} names {found}, wanted a file in this folder; do not use it"
            raise BundleError(msg)
    for name, wanted in files.items():
        path = folder / name
        if not path.is_file():
            msg = f"the {what} {folder} is incomplete: {name} is missing; copy the whole folder again"
            raise BundleError(msg)
        if (got := sha256(path)) != wanted:
            msg = f"{path} is damaged: sha256 is {got}, should be {wanted[:64]}; copy the {what} again"
            raise BundleError(msg)


def learned_from(
    folder: Path, origin: Origin, *, support: str, auxiliary: str, what: str
) -> tuple[tuple[tuple[Fingerprint, str], ...], tuple[tuple[Fingerprint, str], ...]]:
    """Read the lists of the images that a model has learned from, and check them against its history.

    Args:
        folder: The model's folder.
        origin: Its history.
        support: Name of the list of support images.
        auxiliary: Name of the list of auxiliary images.
        what: ``"model"`` or ``"exported model"``, for messages.

    Returns:
        (fingerprint, label) of each support image and of each auxiliary image.

    Raises:
        BundleError: If a list is damaged, or is not the list of the images that the history names.
    """
    others = origin.auxiliary
    if (origin.support_digest is not None) != (origin.setting == "few-shot"):
        msg = f"the {what} {folder} is {origin.setting}, which does not fit its support digest; copy it again"
        raise BundleError(msg)
    wanted = (
        (support, origin.source, origin.support_digest),
        (auxiliary, others.source if others else None, others.digest if others else None),
    )
    found = []
    for name, source, expected in wanted:
        path = folder / name
        try:
            images = tuple(read_fingerprints(path, source)) if path.is_file() else ()
            made = digest((p.id for p, _ in images), (p.sha256 for p, _ in images)) if images else None
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as e:
            msg = f"{path} is damaged: {brief(e)}; copy the {what} again"
            raise BundleError(msg) from e
        if made != expected:
            msg = (
                f"{path} lists {len(images)} images that are not the ones the {what} was adapted on, so leakage could "
                f"not be detected; copy the {what} again"
            )
            raise BundleError(msg)
        found.append(images)
    return found[0], found[1]
