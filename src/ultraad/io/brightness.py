"""Pixels of any depth as 8 bits, independent of a picture's own minimum and maximum."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ultraad.errors import DataError
from ultraad.io.faults import memory, warn_of

GREY_DEPTHS = (8, 10, 12, 14, 16)  # bits that ultrasound scanners and exporters write
_PART = 1 << 20  # values converted at a time
_HOT_PIXELS = 3  # defective pixels that do not decide about the depth of a picture


def in_parts(
    convert: Callable[[NDArray[Any]], NDArray[Any]], values: NDArray[Any], *, channels: int | None = None
) -> NDArray[np.uint8]:
    """Convert a picture some rows at a time, so that the wide numbers in between take little memory.

    Args:
        convert: Gives the same result for a pixel whatever the others are; values outside 0..255 are not allowed.
        values: (h w) or (h w c).
        channels: Of the result; None: shaped like ``values``.

    Returns:
        uint8, what ``convert`` gives for all rows.
    """
    out = np.empty(values.shape if channels is None else (*values.shape[:2], channels), dtype=np.uint8)
    for rows in parts_of(values.shape):
        out[rows] = convert(values[rows])
    return out


def parts_of(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of rows with about a million values each."""
    step = max(1, _PART // max(1, math.prod(shape[1:])))
    return (slice(top, top + step) for top in range(0, shape[0], step))


def to_rgb8(picture: Image.Image, *, name: object, least_depth: int = 0) -> NDArray[np.uint8]:
    """Convert any Pillow mode to 8-bit RGB, independent of the picture's own minimum and maximum.

    - 16-bit grey: see :func:`scale_grey`. Float: 0..1 is scaled to 0..255, other values are refused. 1 bit: 0 and 255.
    - White-is-zero TIFF of any depth: inverted.
    - Transparency: over black, the background of ultrasound.

    Args:
        picture: A decoded image.
        name: What a message calls the picture.
        least_depth: See :func:`scale_grey`.

    Returns:
        uint8 (h w 3).

    Raises:
        DataError: If the pixels have no defined brightness.
    """
    white_is_zero = bool(getattr(picture, "white_is_zero", False))
    if picture.mode == "F":
        grey = unit_to_byte(np.asarray(picture), name=name)
        return grey_to_rgb(255 - grey if white_is_zero else grey)
    if picture.mode.startswith("I"):
        values = stored_grey(picture)
        grey = scale_grey(values, name=name, least_depth=least_depth)
        return grey_to_rgb(255 - grey if white_is_zero and not _counts_down(picture) else grey)
    if picture.has_transparency_data:
        return _opaque(picture)
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"), dtype=np.uint8)


def _opaque(picture: Image.Image) -> NDArray[np.uint8]:
    """A picture of any mode with transparency, over black: uint8 (h w 3)."""
    out = np.empty((picture.height, picture.width, 3), dtype=np.uint8)
    for rows in parts_of((picture.height, picture.width, 4)):
        part = picture.crop((0, rows.start, picture.width, min(rows.stop, picture.height)))
        out[rows] = over_black(np.asarray(part.convert("RGBA")))
    return out


def over_black(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (h w 4) with alpha, over black: (h w 3)."""

    def blend(part: NDArray[Any]) -> NDArray[Any]:
        wide = part.astype(np.uint16)
        return (wide[..., :3] * wide[..., 3:] + 127) // 255

    return in_parts(blend, rgba, channels=3)


def stored_grey(picture: Image.Image) -> NDArray[Any]:
    """Integer grey (h w) as stored, but counted up if it is counted down from 65535 (white-is-zero of 16 bits)."""
    values = np.asarray(picture)
    return 2**16 - 1 - values if _counts_down(picture) else values


def _counts_down(picture: Image.Image) -> bool:
    """Else white-is-zero pixels are counted down from the top of the depth that they use."""
    return bool(getattr(picture, "white_is_zero", False)) and int(np.asarray(picture).max()) >= 2**15


def deep_to_rgb8(values: NDArray[np.uint16], *, name: object, least_depth: int = 0) -> NDArray[np.uint8]:
    """16-bit RGB or RGBA (h w c) to 8-bit RGB over black; see :func:`scale_grey`."""
    rgb, alpha = scale_grey(values[..., :3], name=name, least_depth=least_depth), values[..., 3:]
    if not alpha.shape[-1]:
        return rgb
    opaque = scaled(alpha, depth=grey_depth(alpha))
    return over_black(np.concatenate([rgb, opaque], axis=-1))


def scale_grey(values: NDArray[Any], *, name: object, least_depth: int = 0) -> NDArray[np.uint8]:
    """Integers of unknown depth, grey or RGB, to 8 bits.

    Scanners store 10, 12 or 14 bits in 16, and most formats do not say so. The depth is the smallest of
    :data:`GREY_DEPTHS` that can represent the brightest pixel; its full range is scaled to 0..255. Up to three
    defective pixels, each more than twice as bright as all others, do not count. A depth below 16 bits is a warning.

    Args:
        values: Integers (h w) or (h w 3).
        name: What a message calls the picture.
        least_depth: Depth in bits of the set that the picture belongs to.

    Raises:
        DataError: If a value is negative or needs more than 16 bits.
    """
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 2**16:
        msg = f"{name} has values {low}..{high}, wanted 0..65535. Export it as 8- or 16-bit grey"
        raise DataError(msg)
    depth = max(grey_depth(values), least_depth)
    note_depth(depth, name, said=16)
    return scaled(values, depth=depth)


def scaled(values: NDArray[Any], *, depth: int) -> NDArray[np.uint8]:
    """Integers >= 0 of so many bits to 8 bits; larger ones become 255."""
    return in_parts(lambda part: np.rint(np.minimum(part * (255.0 / (2**depth - 1)), 255.0)), values)


def note_depth(depth: int, name: object, *, said: int) -> None:
    """Warn if pixels use fewer bits than their file says, and if files of different depth are read in one run."""
    if depth < said:
        text = f"its {said}-bit pixels use {depth} bits, and are scaled as such"
        warn_of(name, text, kind=f"depth {depth} of {said}")
    depths = memory().depths
    depths.setdefault(depth, name)
    if len(depths) > 1:
        first = ", ".join(f"{bits} bits in {file}" for bits, file in sorted(depths.items()))
        text = f"pictures use different depths ({first}), so that equal values differ in brightness; check the export"
        warn_of(name, text, kind=f"{len(depths)} depths")


def grey_depth(values: NDArray[Any]) -> int:
    """The smallest of :data:`GREY_DEPTHS` for values in 0..65535, without defective pixels; see :func:`scale_grey`."""
    high = int(values.max())
    if high >= 2 ** GREY_DEPTHS[0] and values.size > _HOT_PIXELS:
        counts = np.zeros(2**16, dtype=np.int64)
        for rows in parts_of(values.shape):
            part = np.clip(values[rows].astype(np.int64), 0, 2**16 - 1)
            counts += np.bincount(part.ravel(), minlength=2**16)
        used = np.flatnonzero(counts)  # in rising order
        at_least = np.cumsum(counts[used][::-1])[::-1]  # pixels as bright as each value, or brighter
        rest = int(used[at_least > _HOT_PIXELS].max())
        if rest and used[-1] > 2 * rest:
            high = int(used[used <= 2 * rest].max())
    return next((bits for bits in GREY_DEPTHS if high < 2**bits), 16)


def unit_to_byte(values: NDArray[Any], *, name: object) -> NDArray[np.uint8]:
    """Float values in 0..1 to 0..255.

    Raises:
        DataError: If a value is outside 0..1 or NaN.
    """
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and high <= 1.0):  # also when NaN
        msg = (
            f"{name} has float pixels in {low:g}..{high:g}, wanted 0..1: only 0..1 has a defined brightness. "
            "Divide by the full scale, or use 8 or 16 bits"
        )
        raise DataError(msg)
    return in_parts(lambda part: np.rint(part * 255.0), values)


def grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (h w) to (h w 3)."""
    return np.stack([grey] * 3, axis=-1)  # (h w 3); three times as fast as np.repeat
