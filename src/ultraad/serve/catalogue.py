"""What can be chosen for an adaptation: methods with their options, and backbones."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Literal

from ultraad import backbones as rooms
from ultraad import methods as room
from ultraad.backbones._towers import ABOUT
from ultraad.config import Option, options
from ultraad.methods import _guide
from ultraad.methods._base import MethodInfo as Info
from ultraad.model.calibration import CalibrationConfig
from ultraad.serve.orders import QUICK
from ultraad.serve.schemas_work import BackboneInfo, MethodInfo, OptionInfo

TYPES: dict[str, Literal["number", "integer", "boolean", "text"]] = {
    "float": "number",
    "int": "integer",
    "bool": "boolean",
    "str": "text",
}


def methods() -> list[dict[str, Any]]:
    """Every method that learns from the support alone, UltraAD first, as JSON."""
    found = [m for group in _guide.grouped().values() for m in group if not m.info.needs.auxiliary]
    return [_method(m.info).model_dump(mode="json", by_alias=True) for m in sorted(found, key=_first)]


def _first(method: Any) -> bool:  # noqa: ANN401
    return bool(method.info.name != "ultraad")


def _method(info: Info) -> MethodInfo:
    needs = [
        text
        for text, wanted in (
            ("normal images", info.needs.normal_images),
            ("abnormal images", info.needs.abnormal_images),
            ("masks", info.needs.masks),
            ("class labels", info.needs.class_labels),
        )
        if wanted
    ]
    own = options(room.get(info.name).Config)
    folds = [replace(o, key=f"calibration.{o.key}", section="Thresholds.") for o in options(CalibrationConfig)]
    quick = QUICK.get(info.name, {})
    return MethodInfo(
        name=info.name,
        title=info.title,
        idea=info.idea,
        needs=needs,
        gives=_guide.gives(info).split(", "),
        options=[_option(o, quick) for o in (*own, *folds) if o.key != "texts"],
    )


def _option(option: Option, quick: dict[str, Any]) -> OptionInfo:
    choices = re.findall(r"'([^']*)'", option.type) if option.type.startswith("Literal[") else None
    default = quick.get(option.key, option.default)
    return OptionInfo(
        key=option.key,
        values=option.values,
        default=list(default) if isinstance(default, tuple) else default,
        description=option.description,
        section=option.section,
        type="choice" if choices else TYPES.get(option.type, "other"),
        choices=choices,
    )


def backbones() -> list[dict[str, Any]]:
    """The backbones that load by a bare name, the default first; those that ship say what they are."""
    about = {**ABOUT, "tiny": "Random weights, for tests only."}
    found = [BackboneInfo(name=name, about=about.get(name, "")) for name in rooms.available() if name != "open_clip"]
    return [info.model_dump() for info in sorted(found, key=lambda info: info.name != rooms.DEFAULT)]
