"""The files that a run has read, so that a file in another's place is noticed."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ultraad.errors import DataError
from ultraad.io.files import sha256, stamp_of
from ultraad.results.row import ImageRow, InputFile


def input_file(path: Path) -> InputFile | None:
    """Facts that tell a file from one that replaces it; None if it cannot be read."""
    try:
        stat = path.stat()
        return InputFile(size=stat.st_size, sha256=_hash(path, stamp_of(stat)))
    except (OSError, DataError):
        return None


@lru_cache(maxsize=4)  # the frames of one file come one after the other
def _hash(path: Path, stamp: tuple[int, ...]) -> str:  # noqa: ARG001 - part of the cache's key
    return sha256(path)


def is_replaced(row: ImageRow) -> bool:
    """Whether the file of a row has other content now. A file that was only copied or touched has not."""
    now = None if row.file is None else input_file(Path(row.image))
    return now is not None and now != row.file
