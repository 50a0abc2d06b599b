"""Long lists of images, read a part at a time: they may have more rows than fit into memory.

A list or folder may be on a store (:mod:`ultraad.io.store`), and a list anywhere may name objects on one.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from io import TextIOWrapper
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TextIO
from urllib.parse import urlsplit

from ultraad.errors import Caught, DataError, MissingExtraError, brief, first_names
from ultraad.io.find import find_images
from ultraad.io.store import beside, is_url, open_anywhere, open_stream, public_url
from ultraad.io.store_walk import walk_store

LISTS = (".txt", ".csv", ".tsv", ".parquet")
"""Suffixes of lists: one path a line; tables with a column ``image``."""
COLUMN = "image"


def parts_of(source: str | Path, size: int) -> Iterator[tuple[str, ...]]:
    """The images of a list or folder, so many at a time.

    Args:
        source: A folder, or a list: ``.txt`` with one path on each line, ``.csv``, ``.tsv`` or ``.parquet`` (extra
            ``[s3]``) with a column ``image``. Or the URL of one. Paths are relative to the folder of the list. Empty
            lines do not count.
        size: Images of each part, at least 1; the last may have fewer.

    Yields:
        Absolute paths and URLs, which need not exist. URLs have the query that they are read with: that of the source,
        unless they have their own or another scheme.

    Raises:
        DataError: If the source cannot be read, has no column ``image``, or names no image.
        MissingExtraError: If a ``.parquet`` file or a URL needs pyarrow.
    """
    where = str(source) if is_url(source) else Path(source).absolute()
    paths: Iterator[str]
    if isinstance(where, Path) and where.is_dir():
        paths = (path.as_posix() for path in find_images([where]))
    elif isinstance(where, str) and _suffix(where) not in LISTS:
        paths = walk_store(where)
    else:
        paths = (_beside(where, name.strip()) for name in _names(where) if name.strip())
    empty = True
    while part := tuple(islice(paths, size)):
        empty = False
        yield part
    if empty:
        wanted = f"one path a line, a table with a column {COLUMN!r}, or a folder with images"
        msg = f"{public_url(str(where))} names no image; wanted {wanted}"
        raise DataError(msg)


def _suffix(source: str | Path) -> str:
    return PurePosixPath(urlsplit(source).path if isinstance(source, str) else source).suffix.lower()


def _beside(source: str | Path, name: str) -> str:
    """The path or URL that a list means by a name."""
    if isinstance(source, str) and (is_url(name) or not PurePosixPath(name).is_absolute()):
        return beside(source, name)
    if is_url(name):
        return name
    folder = source.parent if isinstance(source, Path) else Path("/")
    return Path(os.path.normpath(folder / name)).as_posix()


def _names(source: str | Path) -> Iterator[str]:
    suffix = _suffix(source)
    if suffix == ".parquet":
        yield from _of_parquet(source)
    elif suffix in (".csv", ".tsv"):
        yield from _of_table(source, "\t" if suffix == ".tsv" else ",")
    else:
        with _reading(source), _text(source, errors="surrogateescape") as lines:
            yield from lines


@contextmanager
def _text(source: str | Path, *, errors: str = "strict", newline: str | None = None) -> Iterator[TextIO]:
    opened: AbstractContextManager[BinaryIO] = open_stream(source) if isinstance(source, str) else source.open("rb")
    with opened as raw, TextIOWrapper(raw, encoding="utf-8-sig", errors=errors, newline=newline) as text:
        yield text


def _of_table(source: str | Path, delimiter: str) -> Iterator[str]:
    with _reading(source), _text(source, newline="") as file:
        rows = csv.DictReader(file, delimiter=delimiter)
        _check_column(source, list(rows.fieldnames or ()))
        yield from (row[COLUMN] or "" for row in rows)


def _of_parquet(source: str | Path) -> Iterator[str]:
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as e:
        msg = f"{public_url(str(source))} needs an extra package: pip install 'ultraad[s3]'"
        raise MissingExtraError(msg) from e
    with _reading(source), _anywhere(source) as raw, parquet.ParquetFile(raw) as file:
        _check_column(source, file.schema_arrow.names)
        for batch in file.iter_batches(columns=[COLUMN]):
            yield from (str(value.as_py() or "") for value in batch.column(0))


def _anywhere(source: str | Path) -> AbstractContextManager[Any]:
    return open_anywhere(source) if isinstance(source, str) else source.open("rb")


def _check_column(source: str | Path, columns: list[str]) -> None:
    if COLUMN not in columns:
        msg = f"{public_url(str(source))} has no column {COLUMN!r}; found {first_names(columns) or 'no columns'}"
        raise DataError(msg)


@contextmanager
def _reading(source: str | Path) -> Iterator[None]:
    """Errors of the file as a DataError."""
    with Caught() as caught:
        yield
    if isinstance(caught.error, (DataError, MissingExtraError)):
        raise caught.error
    if caught.error is not None:
        msg = f"cannot read the list {public_url(str(source))}: {brief(caught.error)}"
        raise DataError(msg) from caught.error
