"""One run writes to a folder at a time; the files and folders of processes that died are recognised."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from ultraad.errors import DataError, brief

_log = logging.getLogger(__name__)

LOCK = ".running"
"""The locked file in the folder."""


def lock_folder(folder: Path, *, wait: bool = False) -> FileLock:
    """Lock a folder until the lock is released. The operating system frees the lock of a process that died.

    Args:
        folder: An existing folder. One on a file system without locks is not locked, with a warning.
        wait: Wait until another run has released it.

    Returns:
        The lock; call its ``release``.

    Raises:
        DataError: If another run writes to the folder, unless ``wait``.
    """
    lock = FileLock(folder / LOCK, blocking=wait)
    try:
        lock.acquire()
    except Timeout:
        msg = f"another run is writing to {folder}; wait until it is done, or choose another folder"
        raise DataError(msg) from None
    except (OSError, NotImplementedError) as e:
        _log.warning("%s cannot be locked (%s); do not start a second run in it", folder, brief(e))
    return lock


def try_lock(folder: Path) -> FileLock | None:
    """Lock a folder if it can be locked; None if another process holds it, or its file system has no locks."""
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except (Timeout, OSError, NotImplementedError):
        return None
    return lock


def hold(file: BinaryIO) -> bool:
    """Mark an open file as in use until it is closed; False if another process holds it, or that is not known."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
