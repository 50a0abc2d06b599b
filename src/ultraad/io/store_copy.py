"""Copies of what is on a store, on a disk of this machine, for all that needs files."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from ultraad.errors import DataError, brief
from ultraad.io.lock import lock_folder
from ultraad.io.names import kind_of
from ultraad.io.store import (
    Entry,
    NoRoomError,
    StoreAwayError,
    beside,
    entries,
    entry_of,
    fetch,
    inside,
    is_url,
    path_of,
    public_url,
)

_log = logging.getLogger(__name__)

CACHE = "ULTRAAD_CACHE"
"""Variable that names the folder of all copies; ``~/.cache/ultraad`` without."""

_AT_A_TIME = 8  # objects that are copied: waiting for the store takes longer than copying
_AWAY = 8  # objects after each other for which a store cannot be reached: no other one is tried
_OBJECTS = "objects"  # the folder of copies
_COPYING = "copying-"  # begins the name of the folder of those that are not whole yet
_ELSEWHERE = f"Set {CACHE} to a folder on another disk, or free space"


def fetched(copies: Iterable[tuple[str, Path]]) -> Iterator[DataError | None]:
    """Copy objects, several at a time.

    Args:
        copies: (URL, file to write).

    Yields:
        For each in turn, why it could not be copied; None if it was.

    Raises:
        StoreAwayError: If the store cannot be reached for eight objects after each other.
        NoRoomError: If a copy cannot be written.
        MissingExtraError: If pyarrow is not installed.
    """

    def copy(one: tuple[str, Path]) -> DataError | None:
        try:
            fetch(*one)
        except NoRoomError:
            raise
        except DataError as e:
            return e
        return None

    away = 0
    pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="ultraad-copy")
    try:
        for error in pool.map(copy, copies):
            away = away + 1 if isinstance(error, StoreAwayError) else 0
            if error is not None and away == _AWAY:
                raise error
            yield error
    finally:
        pool.shutdown(cancel_futures=True)


def on_disk(name: str | Path, *, alone: bool = False) -> Path:
    """A path as it is; of a URL, its copy on this disk, which is made or brought up to date first.

    A copy is ``<cache>/s3/<bucket>/objects/<key>``, with :data:`CACHE` or ``~/.cache/ultraad`` as the cache. Objects
    whose size and time of change (in whole seconds) are those of their copy are not read again, and copies of objects
    that are gone are removed. A table or a file of annotations is copied with its folder, since it names other files.

    Args:
        name: A path, or the URL of a folder or object, see :mod:`ultraad.io.store`.
        alone: Copy a table without its folder.

    Raises:
        DataError: If there is nothing at the URL, or not every object can be copied: a data set is whole or not there.
        MissingExtraError: If pyarrow is not installed.
    """
    if not is_url(name):
        return Path(name)
    url = str(name)
    if (local := path_of(url)) is not None:
        return local
    place, key = _place(url)
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(place, wait=True)
        try:
            _update(url, place, key, alone=alone)
        finally:
            lock.release()
    except OSError as e:
        msg = f"no copy of {public_url(url)} can be written to {place}: {brief(e)}. {_ELSEWHERE}"
        raise DataError(msg) from e
    return place / _OBJECTS / key


def _place(url: str) -> tuple[Path, PurePosixPath]:
    """(folder of the bucket's copies, key). Buckets of one name that are read with other queries have other folders."""
    parts = urlsplit(url)
    bucket = parts.netloc.rpartition("@")[2]
    key = PurePosixPath(unquote(parts.path).strip("/"))
    _check_names(url, (bucket, *key.parts))
    cache = Path(os.environ.get(CACHE) or "~/.cache/ultraad").expanduser().absolute()
    query = f"-{sha256(parts.query.encode()).hexdigest()[:8]}" if parts.query else ""
    return cache / parts.scheme.lower() / f"{bucket}{query}", key


def _check_names(url: str, names: Iterable[str]) -> None:
    """Refuse names that lead elsewhere on this disk."""
    if odd := [name for name in names if name in ("", ".", "..") or set(name) & {"/", "\\", "\0"}]:
        msg = f"{public_url(url)} cannot be copied: {odd[0]!r} is no name of a file or folder here; rename it there"
        raise DataError(msg)


def _update(url: str, place: Path, key: PurePosixPath, *, alone: bool) -> None:
    """Make the copy of an object or folder what it is on the store."""
    for left in place.glob(f"{_COPYING}*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    single = entry_of(url)
    if single is not None and not alone and kind_of(Path(key)) in ("table", "annotation"):
        url, key, single = beside(url, ""), key.parent, None
    target = place / _OBJECTS / key
    wanted = {target: (url, single)} if single is not None else dict(_below(url, target))
    if single is None:
        _remove_others(target, wanted)
    missing = {path: found for path, found in wanted.items() if _stamp(path) != (found[1].size, found[1].changed)}
    if missing:
        _copy(missing, place, url)


def _below(url: str, target: Path) -> Iterator[tuple[Path, tuple[str, Entry]]]:
    """(place of the copy, (URL, object)) of everything below a folder of a store."""
    found = entries(url)
    _check_names(url, (entry.name for entry in found))
    for entry in found:
        there, here = inside(url, entry.name), target / entry.name
        if entry.is_folder:
            yield from _below(there, here)
        else:
            yield here, (there, entry)


def _remove_others(target: Path, wanted: Container[Path]) -> None:
    """Remove copies of objects that are gone, and folders that are empty then."""
    if target.is_file():
        target.unlink()
    for folder, _, files in os.walk(target, topdown=False):
        for path in (Path(folder) / name for name in files):
            if path not in wanted:
                path.unlink()
        if not any(Path(folder).iterdir()):
            Path(folder).rmdir()


def _stamp(path: Path) -> tuple[int, int] | None:
    """(bytes, time of change) of a copy; None if there is none."""
    if not path.is_file():
        return None
    stat = path.stat()
    return stat.st_size, int(stat.st_mtime)


def _copy(missing: Mapping[Path, tuple[str, Entry]], place: Path, url: str) -> None:
    size, free = sum(entry.size for _, entry in missing.values()), shutil.disk_usage(place).free
    what = f"{len(missing):,} object(s) of {public_url(url)}, {size / 1e6:,.1f} MB"
    if size > free:
        msg = f"{what}, do not fit on the disk of {place}, which has {free / 1e6:,.1f} MB. {_ELSEWHERE}"
        raise NoRoomError(msg)
    _log.warning("copying %s, to %s", what, place)
    with TemporaryDirectory(prefix=_COPYING, dir=place) as scratch:
        parts = [Path(scratch) / str(number) for number in range(len(missing))]
        faults = fetched(zip((source for source, _ in missing.values()), parts, strict=True))
        for (path, (source, entry)), part, fault in zip(missing.items(), parts, faults, strict=True):
            if fault is not None:
                raise fault
            if part.stat().st_size != entry.size:
                msg = f"{public_url(source)} was replaced while it was copied; run again"
                raise DataError(msg)
            os.utime(part, (entry.changed, entry.changed))
            path.parent.mkdir(parents=True, exist_ok=True)
            part.replace(path)
