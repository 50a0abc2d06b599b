"""Lesion masks: one boolean array from picture files and COCO outlines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile

from ultraad.errors import DataError
from ultraad.io import raster
from ultraad.types import Region

_PLAIN_MODES = frozenset({"1", "L", "LA", "RGB", "RGBA", "F"})  # Pillow modes that can be compared as they are


_MOST_LABELS = 4  # more levels than this are soft edges, not labels
_CONTRAST = 64  # of soft edges in 8 bits; a smaller range is labels 0, 1, 2, 3 ...


class MaskSizeError(DataError):
    """A mask has another size than its image."""


def read_mask(masks: Sequence[Path | Region], *, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The union of several masks on the image's own pixel grid; masks are never resized.

    A pixel of a mask file is lesion if any colour channel is above the file's lowest level. So 0/1, 0/255, labels 1 and
    2, grey labels, palettes and coloured classes all work. In a JPEG, and in a file with more than four levels (soft or
    noisy edges), a pixel must be above half of the range instead. A file of a single level is all lesion, unless that
    is 0. Alpha is ignored, unless the colour is the same everywhere: then alpha is the mask.

    Args:
        masks: Files and outlines; an empty sequence gives an all-False mask.
        shape: (h, w) of the image in pixels.

    Returns:
        bool (h w), True on lesion.

    Raises:
        MaskSizeError: If a mask has another size than the image.
        DataError: If a mask cannot be read.
    """
    union = np.zeros(shape, dtype=np.bool_)
    for mask in masks:
        if isinstance(mask, Path):
            with raster.open_raster(mask) as picture:
                _check_shape((picture.height, picture.width), shape, name=mask)
                union |= _foreground(picture)
        else:
            _check_shape(mask.size, shape, name="an outline (annotation file)")
            union |= _fill_region(mask)
    return union


def _check_shape(found: tuple[int, int], wanted: tuple[int, int], *, name: object) -> None:
    if found != wanted:
        msg = (
            f"{name} is {found[1]} x {found[0]} pixels but its image is {wanted[1]} x {wanted[0]}; masks are never "
            "resized. Export the mask again in the image's size"
        )
        raise MaskSizeError(msg)


def _foreground(picture: ImageFile) -> NDArray[np.bool_]:
    plain = picture.mode in _PLAIN_MODES or picture.mode.startswith("I")
    pixels = np.asarray(picture if plain else picture.convert("RGBA"))
    colours = pixels.shape[-1] - (pixels.shape[-1] % 2 == 0) if pixels.ndim == 3 else 0  # without alpha
    level = pixels if pixels.ndim == 2 else pixels[..., 0]
    if colours == 3:
        level = np.maximum(np.maximum(level, pixels[..., 1]), pixels[..., 2])  # 30 times as fast as max(axis=-1)
    if pixels.ndim == 3 and pixels.shape[-1] > colours and np.ptp(pixels[..., :colours], axis=(0, 1)).max() == 0:
        alpha = pixels[..., -1]
        level = alpha if np.ptp(alpha) else level  # one colour, and a drawing in the alpha channel
    return np.asarray(level > _floor(level, labels=picture.mode == "P", lossy=picture.format == "JPEG"))


def _floor(level: NDArray[Any], *, labels: bool, lossy: bool) -> float:
    """The level above which a pixel is lesion; see :func:`read_mask`."""
    low, high = float(level.min()), float(level.max())
    if low == high or labels:
        return 0.0
    values = np.count_nonzero(np.bincount(level.ravel())) if level.dtype == np.uint8 else len(np.unique(level))
    soft = values > _MOST_LABELS and (level.dtype != np.uint8 or high - low >= _CONTRAST)
    return (low + high) / 2 if lossy or soft else low


def _fill_region(region: Region) -> NDArray[np.bool_]:
    if region.polygons:
        mask = np.zeros(region.size, dtype=np.bool_)
        for polygon in region.polygons:
            mask |= _fill_polygon(polygon, region.size)
        return mask
    return _fill_rle(region.rle, region.size)


def _fill_polygon(polygon: tuple[float, ...], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centre is inside (even-odd rule); pixel (0, 0) covers [0, 1] x [0, 1], as in COCO."""
    if len(polygon) < 6 or len(polygon) % 2:
        msg = f"a polygon has {len(polygon)} numbers; wanted x, y pairs of at least 3 points"
        raise DataError(msg)
    h, w = size
    x0, y0 = np.asarray(polygon, dtype=np.float64).reshape(-1, 2).T
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    mask = np.zeros(size, dtype=np.bool_)
    centres = np.arange(w) + 0.5
    for row in range(max(0, int(np.floor(y0.min()))), min(h, int(np.ceil(y0.max())))):
        y = row + 0.5
        crossing = (y0 <= y) != (y1 <= y)
        x = np.sort(x0[crossing] + (y - y0[crossing]) * (x1 - x0)[crossing] / (y1 - y0)[crossing])
        mask[row] = np.searchsorted(x, centres) % 2 == 1
    return mask


def _fill_rle(runs: tuple[int, ...], size: tuple[int, int]) -> NDArray[np.bool_]:
    h, w = size
    if min(runs, default=0) < 0 or sum(runs) != h * w:
        msg = f"run lengths sum to {sum(runs)}; a {w} x {h} mask has {h * w} pixels. The annotation is damaged"
        raise DataError(msg)
    lesion = np.arange(len(runs)) % 2 == 1
    return np.repeat(lesion, runs).reshape(w, h).T  # COCO counts down the columns
