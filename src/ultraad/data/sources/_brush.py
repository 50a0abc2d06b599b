"""Masks drawn with a brush, as annotation tools store them in text."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from ultraad.io.faults import Faults
from ultraad.io.raster import MAX_PIXELS
from ultraad.types import Region

_OPAQUE = 128  # of 255


def in_window(mask: NDArray[np.bool_], *, left: int, top: int, size: tuple[int, int]) -> Region:
    """The region of a mask that covers a window of the image.

    Args:
        mask: bool (h w).
        left: Column of the window.
        top: Row of the window.
        size: (height, width) of the image.

    Raises:
        ValueError: If the window is not inside the image.
    """
    height, width = mask.shape
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0] or min(width, height) < 1:
        msg = f"a window of {width} x {height} at {left}, {top} is not inside the image of {size[1]} x {size[0]}"
        raise ValueError(msg)
    full = np.zeros(size, dtype=np.bool_)
    full[top : top + height, left : left + width] = mask
    columns = full.T.ravel()
    edges = np.flatnonzero(np.diff(columns, prepend=False, append=not columns[-1]))  # also closes the last run
    return Region(size=size, rle=tuple(int(n) for n in np.diff(edges, prepend=0)))


def from_runs(runs: Sequence[int], *, height: int, width: int) -> NDArray[np.bool_]:
    """CVAT's mask: run lengths along the rows of a window, starting with background.

    Raises:
        ValueError: If the runs do not fill the window.
    """
    lengths = np.array(runs, dtype=np.int64)
    if height * width > MAX_PIXELS or lengths.min() < 0 or lengths.max() > height * width:
        msg = f"run lengths from {lengths.min()} to {lengths.max()} in a window of {width} x {height}"
        raise ValueError(msg)
    if lengths.sum() != height * width:
        msg = f"run lengths sum to {lengths.sum()} in a window of {width} x {height}"
        raise ValueError(msg)
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(height, width)


def from_png(text: str, *, most: tuple[int, int]) -> NDArray[np.bool_]:
    """Labelme's mask: a PNG file in base64.

    Args:
        text: The base64 text.
        most: (height, width) that it may have.

    Raises:
        ValueError: If it is no base64, or larger.
        DataError: If it is no PNG.
    """
    data = base64.b64decode(text, validate=True)
    with Faults("its PNG cannot be decoded", about="mask", advice="Draw it again"):
        picture = PngImageFile(io.BytesIO(data))
        w, h = picture.size
        if h > most[0] or w > most[1]:
            msg = f"it has {w} x {h} pixels, the image {most[1]} x {most[0]}"
            raise ValueError(msg)
        return np.asarray(picture.convert("L")) > 0


def from_packed_bits(code: Sequence[object], *, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Label Studio's mask: the bytes of an RGBA picture in thi.ng's run-length code; alpha is the mask.

    The code is a stream of bits: the number of values in 32, the bits of a value less one in 5, the bits of four kinds
    of lengths less one in 4 each; then blocks of a flag, a kind of length in 2, a length less one, and one value
    (flag 1) or so many values.

    Args:
        code: Numbers from 0 to 255.
        size: (height, width) of the image.

    Raises:
        ValueError: If the code is damaged or belongs to another size.
    """
    data = np.array(code, dtype=np.int64)
    if data.ndim != 1 or data.min(initial=0) < 0 or data.max(initial=0) > 255:
        msg = "wanted a list of numbers from 0 to 255"
        raise ValueError(msg)
    bits = np.unpackbits(data.astype(np.uint8))
    at = 0

    def read(count: int) -> NDArray[np.uint8]:
        nonlocal at
        at += count
        if at > len(bits):
            msg = "its run-length code ends too early"
            raise ValueError(msg)
        return np.packbits(bits[at - count : at])

    def take(count: int) -> int:
        return int.from_bytes(read(count).tobytes(), "big") >> (-count % 8)

    total, word = take(32), take(5) + 1
    lengths = [take(4) + 1 for _ in range(4)]
    if total != 4 * size[0] * size[1] or total > 4 * MAX_PIXELS or word != 8:
        msg = f"its code has {total} values of {word} bits; wanted 4 of 8 bits for each of {size[1]} x {size[0]} pixels"
        raise ValueError(msg)
    values = np.zeros(total, dtype=np.uint8)
    done = 0
    while done < total:
        same = take(1)
        count = min(take(lengths[take(2)]) + 1, total - done)
        values[done : done + count] = take(word) if same else read(count * word)
        done += count
    return values.reshape(*size, 4)[..., 3] >= _OPAQUE
