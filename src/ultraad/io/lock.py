"""One run writes to a folder at a time."""

from __future__ import annotations

import logging
from pathlib import Path

from filelock import FileLock, Timeout

from ultraad.errors import DataError, brief

_log = logging.getLogger(__name__)

LOCK = ".running"
"""The locked file in the folder."""


def lock_folder(folder: Path) -> FileLock:
    """Lock a folder until the lock is released. The operating system frees the lock of a process that died.

    Args:
        folder: An existing folder. One on a file system without locks is not locked, with a warning.

    Returns:
        The lock; call its ``release``.

    Raises:
        DataError: If another run writes to the folder.
    """
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        msg = f"another run is writing to {folder}; wait until it is done, or choose another folder"
        raise DataError(msg) from None
    except (OSError, NotImplementedError) as e:
        _log.warning("%s cannot be locked (%s); do not start a second run in it", folder, brief(e))
    return lock
