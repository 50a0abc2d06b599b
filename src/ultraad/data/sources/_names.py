"""Names of images as other programs write them: paths of another machine, uploads, copies by Roboflow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote, urlsplit

_UPLOAD = re.compile(r"(?:[0-9a-f]{8}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-(?P<name>.+)")
_ROBOFLOW = re.compile(r"(?P<stem>.+)_(?P<suffix>jpe?g|png|bmp|tiff?|webp)\.rf\.[0-9A-Za-z]+\.\w+", re.IGNORECASE)


def shorter_names(name: str) -> Iterator[str]:
    """What a path of another machine may be called here: its last parts, the most first.

    A relative path is shortened too: it may start from the folder where the other program ran.
    """
    path = name.replace("\\", "/")
    if "://" in path or "?" in path:
        parts = urlsplit(path)
        path = unquote("".join(parse_qs(parts.query).get("d", [])) or parts.path)  # Label Studio: ?d=folder/a.png
    pieces = [p for p in path.split("/") if p not in {"", ".", ".."} and not re.fullmatch(r"[A-Za-z]:", p)]
    for start in range(len(pieces)):
        *folders, last = pieces[start:]
        yield "/".join((*folders, last))
        if upload := _UPLOAD.fullmatch(last):
            yield "/".join((*folders, upload["name"]))
        if original := original_name(last):
            yield "/".join((*folders, original))


def original_name(name: str) -> str | None:
    """``"a.png"`` for Roboflow's ``"a_png.rf.0123abcd.jpg"``; None for any other name."""
    found = _ROBOFLOW.fullmatch(name)
    return f"{found['stem']}.{found['suffix']}" if found else None
