"""What the tags of images mean; tags are free text, as data sets write them."""

from __future__ import annotations

import re

_SHORTCUT = 0.1  # distance of a tag's AUROC from chance (0.5) from which a model can use it
_GRADE = re.compile(r"(bi|ti|li|o)[\s_-]?rads", re.IGNORECASE)


def is_grade(tag: str) -> bool:
    """True for a reader's category, such as ``"birads_4"``: it belongs to the diagnosis and is no shortcut to it."""
    return _GRADE.match(tag) is not None


def auroc_of_tag(abnormal: int, abnormals: int, normal: int, normals: int) -> float | None:
    """A tag as a lesion detector: (1 + share on abnormal images - share on normal ones) / 2; None without either kind.

    Args:
        abnormal: Abnormal images with the tag.
        abnormals: Abnormal images.
        normal: Normal images with the tag.
        normals: Normal images.
    """
    return (1 + abnormal / abnormals - normal / normals) / 2 if abnormals and normals else None


def is_shortcut(tag: str, auroc: float | None) -> bool:
    """Whether a model can use a tag of this AUROC instead of the lesion."""
    return auroc is not None and abs(auroc - 0.5) >= _SHORTCUT and not is_grade(tag)
