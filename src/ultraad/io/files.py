"""Write files completely or not at all, also if the process is killed.

Every writer fills a temporary file in the target's folder and renames it. There is no fsync: a power cut may lose the
last file. What a killed process leaves is removed by the next one that writes the same file or folder.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from ultraad.errors import DataError, one_line
from ultraad.io.lock import LOCK, hold, try_lock
from ultraad.io.png import encode_png
from ultraad.io.raster import open_file

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp(\.mp4)?", re.DOTALL)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Create or replace a file in one step; its folder must exist.

    Raises:
        DataError: If the file cannot be written; an existing file is then unchanged.
    """
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if _TEMPORARY.fullmatch(left.name):
            with suppress(OSError), left.open("rb") as file:
                if hold(file):
                    left.unlink()
    _replace(path, data)


def write_parts(path: str | Path, parts: Iterable[bytes]) -> None:
    """Create or replace a file in one step, part by part, so that it need not fit into memory; see :func:`write_bytes`.

    An error that the parts raise leaves an existing file unchanged.
    """
    _replace(Path(path), parts)


def _replace(path: Path, data: bytes | Iterable[bytes]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with _failing(path):
            with temporary.open("xb") as file:
                hold(file)
                for part in (data,) if isinstance(data, bytes) else data:
                    file.write(part)
            temporary.replace(path)
    finally:
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)


@contextmanager
def _failing(path: Path) -> Iterator[None]:
    """Errors of the file system as a DataError."""
    try:
        yield
    except (OSError, ValueError) as e:  # ValueError: a name with a zero byte
        raise _unwritable(path, e) from e


def _unwritable(path: Path, error: Exception) -> DataError:
    why = getattr(error, "strerror", None) or one_line(error)
    return DataError(f"{path} cannot be written: {why}; choose another folder, or free space and permissions there")


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder, which must be locked, and below it."""
    for left in folder.glob("**/.*.tmp*"):
        if _TEMPORARY.fullmatch(left.name):
            left.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text with the given line ends; see :func:`write_bytes`."""
    write_bytes(path, _encoded(text))


def _encoded(text: str) -> bytes:
    r"""UTF-8. Bytes of a file name that are no text become escapes such as ``\udcff``, which JSON reads back."""
    return text.encode(errors="backslashreplace")


def write_json(path: str | Path, value: Any) -> None:  # noqa: ANN401  # anything json takes
    """Write indented JSON with the keys in the given order; see :func:`write_bytes`.

    Raises:
        DataError: If the file cannot be written.
        ValueError: If ``value`` contains NaN or infinity, which JSON does not have.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_image(path: str | Path, image: NDArray[np.uint8]) -> None:
    """Write an 8-bit PNG; see :func:`write_bytes`.

    Args:
        path: File to write.
        image: uint8 (h w) or (h w 3).

    Raises:
        DataError: If the file cannot be written.
        ValueError: If ``image`` is not uint8.
    """
    if image.dtype != np.uint8:
        msg = f"got an image of {image.dtype}, wanted uint8"
        raise ValueError(msg)
    _replace(Path(path), encode_png(image))


def append_line(path: str | Path, line: str, *, durable: bool = False) -> None:
    """Append one line to a file (JSONL). If the last line is incomplete, a line break is added first.

    Args:
        path: Created if needed; its folder must exist.
        line: Text without a line break.
        durable: Wait until the line is on the disk, so that it survives a power cut.

    Raises:
        DataError: If the file cannot be written.
        ValueError: If ``line`` contains a line break.
    """
    if "\n" in line:
        msg = f"wanted one line, got {line.count(chr(10)) + 1}"
        raise ValueError(msg)
    path = Path(path)
    try:
        with path.open("ab+") as file:
            torn = file.tell() > 0 and _last_byte(file) != b"\n"
            file.write(b"\n" * torn + _encoded(line) + b"\n")  # one write, so that readers see whole lines
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError as e:
        msg = f"{path} cannot be appended to: {e.strerror or e}; free space and permissions there"
        raise DataError(msg) from e


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(1-based number, object) of every whole line of what :func:`append_line` wrote; none if there is no such file."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:  # a kill may cut a character in two
        for number, line in enumerate(lines, start=1):
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                continue  # cut off by a kill
            if isinstance(found, dict):
                yield number, found


def ensure_writable(folder: str | Path) -> Path:
    """Make a folder (with parents) and check that files can be written there.

    Returns:
        The folder.

    Raises:
        DataError: If there is a file of this name, or the folder is read-only.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{secrets.token_hex(4)}.tmp"
        probe.touch()
        probe.unlink()
    except (FileExistsError, NotADirectoryError):
        msg = f"{folder} cannot be made a folder: a file is in its place. Choose another name or move the file"
        raise DataError(msg) from None
    except OSError as e:
        msg = f"{folder} cannot be written to: {e.strerror or e}. Choose a folder with write permission"
        raise DataError(msg) from e
    return folder


@contextmanager
def no_empty_folder(folder: str | Path) -> Iterator[None]:
    """If the block fails before it has written anything, the folder that it made does not stay, nor do its parents."""
    folder = Path(folder).absolute()
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            with suppress(OSError):  # a folder that is not there, or has something in it, ends this
                if made and [path.name for path in folder.iterdir()] == [LOCK] and (lock := try_lock(folder)):
                    with suppress(OSError):
                        (folder / LOCK).unlink()
                    lock.release()
                for place in made:
                    place.rmdir()


def ensure_room(folder: Path, size: int) -> None:
    """Check, before the work on its content, that :func:`whole_folder` can write a folder of so many bytes.

    Raises:
        DataError: If its parent cannot be written to or has less space, or no folder can have its name.
    """
    ensure_writable(folder.parent)
    probe = _work_beside(folder)
    with _failing(folder):
        probe.mkdir()
        probe.rmdir()
        free = shutil.disk_usage(folder.parent).free
    if free < size:
        have, wanted = free / 1e6, size / 1e6
        msg = (
            f"{folder.parent} has {have:.1f} MB of free space, wanted {wanted:.1f}; free some, or choose another folder"
        )
        raise DataError(msg)


def _work_beside(folder: Path) -> Path:
    """A new name for the temporary folder that :func:`whole_folder` fills."""
    return folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.new")


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """Write a folder completely or not at all: fill a temporary folder and rename it at the end.

    The temporary folder is in ``.NAME.TOKEN.new`` beside the folder, which is locked while the process lives.

    Args:
        folder: An existing folder is replaced, or unchanged if an error occurs. If a process was killed between the two
            steps of replacing it, the next one that writes the folder brings it back first.

    Yields:
        The temporary folder to fill.

    Raises:
        DataError: If the parent folder cannot be written to, or the disk is full; also for an OSError of the block.
    """
    folder = Path(folder)
    ensure_writable(folder.parent)
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.new"):
        if _parts_of(left)[0].exists() or _parts_of(left)[1].exists():  # it was locked before either was made
            lock = try_lock(left)
            if lock is not None:
                _end_work(left, folder, lock)
    work = _work_beside(folder)
    with _failing(folder):
        work.mkdir()
    lock = try_lock(work)
    fresh, old = _parts_of(work)
    try:
        with _failing(folder):
            fresh.mkdir()
        with _failing_inside(fresh, folder):
            yield fresh
        with _failing(folder):
            if folder.exists():
                folder.rename(old)
            fresh.rename(folder)
    finally:
        _end_work(work, folder, lock)


@contextmanager
def _failing_inside(fresh: Path, folder: Path) -> Iterator[None]:
    """Errors while a temporary folder is filled, under the name that the folder will have."""
    try:
        yield
    except OSError as e:
        raise _unwritable(folder, e) from e
    except DataError as e:
        if e.__cause__ is None or str(fresh) not in str(e):
            raise
        raise DataError(str(e).replace(str(fresh), str(folder))) from e.__cause__


def _parts_of(work: Path) -> tuple[Path, Path]:
    """The new folder, and the one that it replaces."""
    return work / "new", work / "old"


def _end_work(work: Path, folder: Path, lock: FileLock | None) -> None:
    """Remove the temporary folder. If its old part is the only one left, it becomes the folder again."""
    _, old = _parts_of(work)
    with suppress(OSError):
        if old.exists() and not folder.exists():
            old.rename(folder)
    if lock is not None:
        lock.release()
    if folder.exists() or not old.exists():
        shutil.rmtree(work, ignore_errors=True)


def stamp_of(stat: os.stat_result) -> tuple[int, int, int, int]:
    """What tells a file from an earlier one in its place, within a process: size, times, number in its file system.

    The time of the last change alone does not: it can be set, copies keep it, and clocks jump.
    """
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def sha256(path: str | Path) -> str:
    """Hex digest of a file.

    Raises:
        DataError: If the file cannot be read.
    """
    with open_file(Path(path)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)
