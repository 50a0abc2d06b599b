"""Image files from the files, folders and patterns that a user names."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ultraad.errors import DataError
from ultraad.io.image import is_dicom

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm"})
"""Suffixes of the image files in a folder, in lower case."""


def find_images(paths: Sequence[str | Path] | str | Path) -> list[Path]:
    """Expand files, folders and glob patterns.

    A named file is always taken. A folder is searched with all its sub-folders for :data:`IMAGE_SUFFIXES` and for DICOM
    files without a suffix. A path that does not exist is used as a pattern (``**`` matches any number of folders). In
    folders and patterns, hidden files and folders and masks (``*_mask*``) are skipped.

    Args:
        paths: One or more paths or patterns.

    Returns:
        Each file once, in the order of ``paths``; within a folder or pattern in natural order (2 before 10).

    Raises:
        DataError: If a path does not exist or nothing is found.
    """
    wanted = [paths] if isinstance(paths, (str, Path)) else list(paths)
    found = list(dict.fromkeys(path for item in wanted for path in _expand(Path(item).expanduser())))
    if not found:
        msg = (
            f"no images in {', '.join(map(str, wanted)) or 'an empty list of paths'}; looked for "
            f"{' '.join(sorted(IMAGE_SUFFIXES))} and DICOM without suffix, skipping hidden files and *_mask*"
        )
        raise DataError(msg)
    return found


def natural_pieces(text: str) -> list[tuple[int, int, str]]:
    """Sort key that puts ``a (2)`` before ``a (10)``; texts that differ only in case have the same key."""
    pieces = re.split(r"(\d+)", text)
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p.casefold()) for p in pieces if p]


def _by_folder(path: Path) -> list[list[tuple[int, int, str]]]:
    return [natural_pieces(part) for part in path.parts]


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(filter(_is_image, _walk(path)), key=_by_folder)
    if path.exists():
        return [path]
    if glob.has_magic(str(path)):
        hits = (Path(hit) for hit in glob.iglob(str(path), recursive=True))  # noqa: PTH207  # takes absolute patterns
        return sorted((p for p in hits if p.is_file() and _is_image(p)), key=_by_folder)
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
