"""What a user typed (files, folders, patterns) to a list of image files."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ultraad.errors import DataError
from ultraad.io.image import is_dicom

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm"})
"""Lower-case suffixes of the files that folders are searched for."""


def find_images(paths: Sequence[str | Path] | str | Path) -> list[Path]:
    """Expand files, folders and glob patterns.

    A file is taken as named. A folder is searched with all its sub-folders for :data:`IMAGE_SUFFIXES` and for DICOM
    files without a suffix. A path that does not exist is tried as a pattern (``**`` crosses folders). In folders and
    patterns, hidden files and folders and masks (``*_mask*``) are skipped.

    Args:
        paths: One or more paths or patterns.

    Returns:
        Files, each once, in the order asked for; within a folder or pattern sorted as people count (2 before 10).

    Raises:
        DataError: If a path does not exist or nothing is found.
    """
    wanted = [paths] if isinstance(paths, (str, Path)) else list(paths)
    found: dict[Path, None] = {}
    for item in wanted:
        for path in _expand(Path(item).expanduser()):
            found.setdefault(path)
    if not found:
        msg = (
            f"no images in {', '.join(map(str, wanted)) or 'an empty list of paths'}; looked for "
            f"{' '.join(sorted(IMAGE_SUFFIXES))} and DICOM without suffix, skipping hidden files and *_mask*"
        )
        raise DataError(msg)
    return list(found)


def natural_key(path: Path) -> list[list[tuple[int, int, str]]]:
    """Sort key under which ``a (2).png`` comes before ``a (10).png``, folder by folder."""
    return [
        [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in re.split(r"(\d+)", part.casefold())]
        for part in path.parts
    ]


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(filter(_is_image, _walk(path)), key=natural_key)
    if path.exists():
        return [path]
    if glob.has_magic(str(path)):
        hits = (Path(hit) for hit in glob.iglob(str(path), recursive=True))  # noqa: PTH207  # takes absolute patterns
        return sorted((p for p in hits if p.is_file() and _is_image(p)), key=natural_key)
    msg = f"{path} does not exist; give image files, folders or a pattern such as 'folder/*.png'"
    raise DataError(msg)


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in files)


def _is_image(path: Path) -> bool:
    if path.name.startswith(".") or "_mask" in path.stem.lower():
        return False
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    return not path.suffix and path.stat().st_size > 0 and is_dicom(path)
