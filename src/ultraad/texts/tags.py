"""What the tags of images mean; tags are free text, as data sets write them."""

from __future__ import annotations

import re

_GRADE = re.compile(r"(bi|ti|li|o)[\s_-]?rads", re.IGNORECASE)


def is_grade(tag: str) -> bool:
    """True for a reader's category, such as ``"birads_4"``: it belongs to the diagnosis and is no shortcut to it."""
    return _GRADE.match(tag) is not None
