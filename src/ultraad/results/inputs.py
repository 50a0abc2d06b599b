"""The files that a run has read, so that a file in another's place, or seen otherwise, is noticed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from ultraad.errors import DataError
from ultraad.io.files import sha256, stamp_of
from ultraad.results.row import ImageRow, InputFile
from ultraad.types import Sample


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


def is_replaced(row: ImageRow, wanted: Mapping[str, Sample]) -> bool:
    """Whether the file of a row has other content now. A file that was only copied or touched has not."""
    sample = wanted.get(row.id)
    copy = sample is not None and sample.stored is not None
    now = None if row.file is None else input_file(sample.image if sample and copy else Path(row.image))
    return now is not None and now != row.file


def seen_otherwise(row: ImageRow, wanted: Mapping[str, Sample]) -> bool:
    """Whether the model saw other pixels of an image, or of a frame of a video, than it is to see now."""
    sample = wanted.get(row.id) or wanted.get(row.video or "")
    if sample is None:
        return row.region is not None
    return row.region != sample.region or (row.fan is None) != (sample.fan is None)
