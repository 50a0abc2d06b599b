"""Long lists of images, read a part at a time: they may have more rows than fit into memory."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from ultraad.errors import Caught, DataError, MissingExtraError, brief, first_names
from ultraad.io.find import find_images

LISTS = (".txt", ".csv", ".tsv", ".parquet")
"""Suffixes of lists: one path a line; tables with a column ``image``."""
COLUMN = "image"


def is_list(path: str | Path) -> bool:
    """Whether a path is that of a list of images, judged by its suffix."""
    return Path(path).suffix.lower() in LISTS


def parts_of(source: str | Path, size: int) -> Iterator[tuple[str, ...]]:
    """The images of a list or folder, so many at a time.

    Args:
        source: A folder, or a list: ``.txt`` with one path on each line, ``.csv``, ``.tsv`` or ``.parquet`` (extra
            ``[ray]``) with a column ``image``. Paths are relative to the folder of the list. Empty lines do not count.
        size: Images of each part, at least 1; the last may have fewer.

    Yields:
        Absolute paths, which need not exist.

    Raises:
        DataError: If the source cannot be read, has no column ``image``, or names no image.
        MissingExtraError: If a ``.parquet`` file needs pyarrow.
    """
    source = Path(source).absolute()
    if source.is_dir():
        paths = (path.as_posix() for path in find_images([source]))
    else:
        paths = (_beside(source, name) for name in _names(source) if name.strip())
    empty = True
    while part := tuple(islice(paths, size)):
        empty = False
        yield part
    if empty:
        msg = f"{source} names no image; wanted one path a line, or a table with a column {COLUMN!r}"
        raise DataError(msg)


def _beside(source: Path, name: str) -> str:
    return Path(os.path.normpath(source.parent / name.strip())).as_posix()


def _names(source: Path) -> Iterator[str]:
    suffix = source.suffix.lower()
    if suffix == ".parquet":
        yield from _of_parquet(source)
    elif suffix in (".csv", ".tsv"):
        yield from _of_table(source, "\t" if suffix == ".tsv" else ",")
    else:
        with _reading(source), source.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            yield from lines


def _of_table(source: Path, delimiter: str) -> Iterator[str]:
    with _reading(source), source.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter=delimiter)
        _check_column(source, list(rows.fieldnames or ()))
        yield from (row[COLUMN] or "" for row in rows)


def _of_parquet(source: Path) -> Iterator[str]:
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as e:
        msg = f"{source} needs an extra package: pip install 'ultraad[ray]'"
        raise MissingExtraError(msg) from e
    with _reading(source), parquet.ParquetFile(source) as file:
        _check_column(source, file.schema_arrow.names)
        for batch in file.iter_batches(columns=[COLUMN]):
            yield from (str(value.as_py() or "") for value in batch.column(0))


def _check_column(source: Path, columns: list[str]) -> None:
    if COLUMN not in columns:
        msg = f"{source} has no column {COLUMN!r}; found {first_names(columns) or 'no columns'}"
        raise DataError(msg)


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Errors of the file as a DataError."""
    with Caught() as caught:
        yield
    if isinstance(caught.error, DataError):
        raise caught.error
    if caught.error is not None:
        msg = f"cannot read the list {source}: {brief(caught.error)}"
        raise DataError(msg) from caught.error
