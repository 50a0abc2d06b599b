"""TIFF where Pillow needs help: libtiff, which it calls, must not print; pixels of more than 8 bits stay as stored."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager

from PIL import _imaging
from PIL.TiffImagePlugin import TiffImageFile

_PHOTOMETRIC_TAG, _BITS_TAG = 262, 258  # TIFF 6.0


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


class TiffFile(TiffImageFile):
    """A TIFF whose pixels of more than 8 bits are given as stored, with the fact that 0 is white kept aside.

    Pillow inverts white-is-zero pixels of up to 8 bits only, and refuses some deeper ones.
    """

    white_is_zero = False

    def _setup(self) -> None:
        bits = self.tag_v2.get(_BITS_TAG, (1,))
        self.white_is_zero = self.tag_v2.get(_PHOTOMETRIC_TAG) == 0 and bits[0] > 8
        if self.white_is_zero:
            self.tag_v2[_PHOTOMETRIC_TAG] = 1
        super()._setup()
