"""Names of images as other programs write them: other spellings, paths of another machine, uploads, copies."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from ultraad.io.find import is_file

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


def spelling(name: str) -> str:
    """A key that is the same for names that look alike: without regard to case, and to how accents are stored."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class Spellings:
    """Finds files whose names are spelt differently on the disk; Windows and macOS call them the same, Linux not."""

    def __init__(self) -> None:
        self._inside: dict[Path, dict[str, list[str]]] = {}  # {folder: {key: names}}

    def find(self, place: Path, name: str) -> Path | None:
        """The only file below a folder whose relative path looks like ``name``; None if there is none, or several."""
        path = place
        for part in PurePosixPath(name).parts:
            alike = self._names(path).get(spelling(part), [])
            if part not in alike and len(alike) != 1:
                return None
            path /= part if part in alike else alike[0]
        return path if is_file(path) else None

    def _names(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._inside:
            found: dict[str, list[str]] = {}
            with suppress(OSError, ValueError):
                for path in folder.iterdir():
                    found.setdefault(spelling(path.name), []).append(path.name)
            self._inside[folder] = found
        return self._inside[folder]
