"""Facts about the methods, in words, from what each method declares.

``ultraad methods``, ``ultraad serve``, README.md and docs/methods.md show them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultraad import methods
from ultraad.config import options
from ultraad.methods._needs import Holding

if TYPE_CHECKING:
    from typing import Any

    from ultraad.config import Option
    from ultraad.methods._base import Method, MethodInfo
    from ultraad.types import SupportSet

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
    if "classes" in info.outputs and n.abnormal_images and not n.normal_images:
        words += " (and normal images, to adapt detection)"
    if info.zero_shot:
        words = f"nothing (zero-shot), or {words}"
    if info.auxiliary and not n.auxiliary:
        words += f"{',' if info.zero_shot else ';'} or an auxiliary set"
    return words


def enough(method: type[Method]) -> str:
    """Which images are enough alone, in words; empty if the method needs both normal images and lesions."""
    normal, lesions = Holding({"n": 4, "a": 0, "b": 0}, "n"), Holding({"n": 0, "a": 4, "b": 4}, "n")
    if not method.missing(normal, method.Config(), auxiliary=False):
        return "normal images"
    if method.missing(lesions, method.Config(), auxiliary=False):
        return ""
    return "lesions of two classes (detection stays zero-shot)" if "classes" in method.info.outputs else "lesions"


def uses(support: SupportSet) -> tuple[str, ...]:
    """What a support set of normal images only, or of lesions only, can be used for; empty for any other."""
    held = Holding.of_support(support)
    if held.only is None:
        return ()
    names = methods.available()
    able = [n for n in names if not (m := methods.get(n)).missing(held, m.Config(), auxiliary=False)]
    ours = ", ".join(able) or "no method"
    others = ", ".join(n for n in names if n not in able)
    if held.only == "normal":
        return (
            f"Normal images only: enough for {ours}.",
            "Thresholds then come from held-out normal images, and no sensitivity is known.",
            f"Images with a lesion are needed for {others}.",
        )
    graders = [n for n in able if "classes" in methods.get(n).info.outputs and len(held.lesion_classes) > 1]
    maps = [n for n in able if "map" in methods.get(n).info.outputs and held.masks]
    return (
        f"Lesions only: {held.normal_class!r} has no image and is known by its sentences, so detection (normal against "
        "lesion) stays zero-shot.",
        f"Grading can be adapted with {', '.join(graders) or 'no method'}; maps with {', '.join(maps) or 'no method'}.",
        f"Normal images are needed for {others}.",
    )


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
