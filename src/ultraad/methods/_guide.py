"""Facts about the methods, in words, from what each method declares.

``ultraad methods``, ``ultraad serve``, README.md and docs/methods.md show them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultraad import methods
from ultraad.config import options

if TYPE_CHECKING:
    from typing import Any

    from ultraad.config import Option
    from ultraad.methods._base import Method, MethodInfo

GROUPS = (
    "Detection, localisation and grading in one",
    "Detectors: is it abnormal, and where",
    "Classifiers: which class is it",
    "Baselines beyond the paper",
)
"""Headings of the groups, in the order of the lists."""


def group_of(info: MethodInfo) -> str:
    """One of ``GROUPS``."""
    if info.baseline:
        return GROUPS[3]
    if {"map", "classes"} <= info.outputs:
        return GROUPS[0]
    return GROUPS[1] if "map" in info.outputs else GROUPS[2]


def grouped() -> dict[str, list[type[Method]]]:
    """{group: its methods, sorted by name}; groups without a method are left out."""
    found = [methods.get(name) for name in methods.available()]
    sorted_ = {group: [m for m in found if group_of(m.info) == group] for group in GROUPS}
    return {group: members for group, members in sorted_.items() if members}


def needs(info: MethodInfo) -> str:
    """What a method requires, in words: ``"normal images, masks; or an auxiliary set"``."""
    n = info.needs
    kinds = (
        ("normal images", n.normal_images),
        ("abnormal images", n.abnormal_images),
        ("class labels", n.class_labels),
        ("masks", n.masks),
        ("an auxiliary set", n.auxiliary),
    )
    words = ", ".join(text for text, wanted in kinds if wanted) or "labelled images"
    if info.zero_shot:
        words = f"nothing (zero-shot), or {words}"
    if info.auxiliary and not n.auxiliary:
        words += f"{',' if info.zero_shot else ';'} or an auxiliary set"
    return words


def gives(info: MethodInfo) -> str:
    """What a method returns, in words: ``"score, map, classes"``."""
    return ", ".join(kind for kind in ("score", "map", "classes") if kind in info.outputs)


def sections(method: type[Method]) -> dict[str, list[Option]]:
    """{heading of a group of options: its options}, in the order of the code; ungrouped options come first."""
    found: dict[str, list[Option]] = {"": []}
    for option in options(method.Config):
        found.setdefault(option.section, []).append(option)
    return {section: members for section, members in found.items() if members}


def value(default: Any) -> str:  # noqa: ANN401
    """A default as it is typed after ``--set key=``."""
    if default is None or isinstance(default, bool):
        return {None: "none", True: "true", False: "false"}[default]
    if isinstance(default, (tuple, list)):
        return f"[{', '.join(map(value, default))}]"
    return f"{default:g}" if isinstance(default, float) else str(default)
