"""Keep libtiff, which Pillow calls for compressed TIFF, from printing."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager

from PIL import _imaging


class _QuietLibtiff(AbstractContextManager[None]):
    """Keeps libtiff from printing to stderr what Pillow raises anyway, while some thread reads a TIFF.

    Its handlers belong to the process, so the first reader takes them out and the last one puts them back.
    """

    _SETTERS = ("TIFFSetErrorHandler", "TIFFSetWarningHandler")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._before: list[int | None] = [None, None]

    def __enter__(self) -> None:
        with self._lock:
            self._readers += 1
            if self._readers == 1:
                self._before = self._set([None, None])

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                self._set(self._before)

    def _set(self, handlers: Sequence[int | None]) -> list[int | None]:
        """Set the handlers of errors and warnings; returns the earlier ones."""
        before: list[int | None] = [None, None]
        try:
            library = ctypes.CDLL(_imaging.__file__)  # finds the libtiff that Pillow is linked to
            for i, (name, handler) in enumerate(zip(self._SETTERS, handlers, strict=True)):
                setter = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)((name, library))
                before[i] = setter(handler)
        except (OSError, AttributeError):  # its functions cannot be found, as on Windows
            pass
        return before


quiet_libtiff = _QuietLibtiff()
