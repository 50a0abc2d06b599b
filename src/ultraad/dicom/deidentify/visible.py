"""Which pixels of a picture stay, as rectangles: those of the header or of the user, without what a person blanked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultraad.errors import ConfigError
from ultraad.types import Box

_OPEN = (12, 14, 16)  # bits stored that may be more than are used, as in io/dicom_pixels.py


def parse_rectangle(text: str) -> Box:
    """``"x0,y0,x1,y1"`` in pixels, the last column and row not included, as (x, y, width, height).

    Raises:
        ConfigError: If it is no such rectangle.
    """
    try:
        x0, y0, x1, y1 = (int(part) for part in text.split(","))
    except ValueError:
        x0 = y0 = x1 = y1 = 0
    if min(x0, y0) < 0 or x1 <= x0 or y1 <= y0:
        msg = f"the rectangle {text!r}: wanted x0,y0,x1,y1 in pixels, x0 < x1 and y0 < y1, such as 80,40,720,560"
        raise ConfigError(msg)
    return x0, y0, x1 - x0, y1 - y0


def hidden(size: tuple[int, int], keep: Sequence[Box], blank: Iterable[Box] = ()) -> NDArray[np.bool_]:
    """The pixels that do not stay.

    Args:
        size: (height, width).
        keep: Rectangles that stay; empty keeps everything.
        blank: Rectangles that do not stay, whatever ``keep`` says.

    Returns:
        bool (h w).
    """
    out = np.full(size, bool(keep))
    for x, y, w, h in keep:
        out[y : y + h, x : x + w] = False
    for x, y, w, h in blank:
        out[max(0, y) : max(0, y + h), max(0, x) : max(0, x + w)] = True
    return out


def darkest(stored: NDArray[Any], photometric: str, *, bits: int, palette: NDArray[Any] | None) -> int:
    """The stored value that is shown as black, or as the darkest that there is.

    Args:
        stored: A frame: grey values or palette indices (h w), or RGB (h w 3).
        photometric: Photometric interpretation.
        bits: Stored ones. Of 12, 14 and 16, scanners often use fewer, so no value is written that the frame does not
            have: a reader that looks for the bits in use shall find the same ones.
        palette: The colours of the palette (entries 3), the first for the index 0.
    """
    if palette is not None:
        return int(palette.astype(np.int64).sum(axis=-1).argmin())
    if photometric == "MONOCHROME1":
        signed = stored.dtype.kind == "i"
        return int(stored.max()) if bits in _OPEN else int(2 ** (bits - signed) - 1)
    return int(stored.min()) if stored.dtype.kind == "i" else 0
