"""Maps as colours on one fixed scale, so that pictures can be compared and a normal image looks normal."""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ultraad.errors import DataError
from ultraad.io.arrays import as_rgb8

OPACITY = 0.6  # of the highest value; the speckle stays visible beneath it
TRUTH_COLOUR = (0, 255, 0)  # green; neither contour colour occurs in inferno
THRESHOLD_COLOUR = (0, 160, 255)  # blue
_WHOLE = 1000  # sum of the weights of image and colours; OpenCV adds 1e-5 to it
_CONTOUR_FRACTION = 300  # contours are 1/300 of the shorter side thick, at least one pixel


def heat(map: NDArray[Any], *, low: float = 0.0, high: float = 1.0) -> NDArray[np.uint8]:  # noqa: A002  # the noun of Scores
    """Colour a map on the fixed scale, whatever its own minimum and maximum.

    Args:
        map: float (h w).
        low: Value of the darkest colour, also given to all values below.
        high: Value of the brightest colour, also given to all values above.

    Returns:
        uint8 (h w 3).

    Raises:
        DataError: If the map contains NaN or infinity, or ``low`` is not below ``high``.
    """
    return _colours(_level(map, low=low, high=high))


def overlay(
    image: Any,  # noqa: ANN401  # many forms
    map: NDArray[Any],  # noqa: A002  # the noun of Scores
    *,
    mask: NDArray[np.bool_] | None = None,
    low: float = 0.0,
    high: float = 1.0,
    threshold: float | None = None,
) -> NDArray[np.uint8]:
    """Draw a map over its image; opacity grows with the value, so the lowest values leave the image unchanged.

    Args:
        image: uint8 (h w 3), or pixels in any form that :func:`ultraad.io.arrays.as_rgb8` takes.
        map: float (h w) on the same pixels.
        mask: bool (h w), the true lesion; its outline is drawn in :data:`TRUTH_COLOUR`.
        low: Value that is fully transparent.
        high: Value of the brightest colour, blended with :data:`OPACITY`.
        threshold: Outline of ``map >= threshold`` is drawn in :data:`THRESHOLD_COLOUR`.

    Returns:
        uint8 (h w 3), a new array.

    Raises:
        DataError: If shapes differ, the image cannot be used, or as :func:`heat`.
    """
    image = as_rgb8(image, name="the image")
    for name, array in (("map", map), ("mask", mask)):
        if array is not None and array.shape != image.shape[:2]:
            msg = f"the {name} is {array.shape} and the image {image.shape[:2]} (h w); give both on one pixel grid"
            raise DataError(msg)
    level = _level(map, low=low, high=high)
    weight = level * np.float32(OPACITY * _WHOLE)
    out = np.asarray(cv2.blendLinear(image, _colours(level), _WHOLE - weight, weight), dtype=np.uint8)
    if threshold is not None:
        _draw(out, map >= threshold, THRESHOLD_COLOUR)
    if mask is not None:
        _draw(out, mask, TRUTH_COLOUR)
    return out


def outlined(
    image: NDArray[np.uint8], region: NDArray[np.bool_], *, mask: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Draw the outline of a region on its image, without colours inside.

    Args:
        image: uint8 (h w 3).
        region: bool (h w), outlined in :data:`THRESHOLD_COLOUR`.
        mask: bool (h w), the true lesion, outlined in :data:`TRUTH_COLOUR`.

    Returns:
        uint8 (h w 3), a new array.
    """
    out = image.copy()
    _draw(out, region, THRESHOLD_COLOUR)
    if mask is not None:
        _draw(out, mask, TRUTH_COLOUR)
    return out


def _level(map_: NDArray[Any], *, low: float, high: float) -> NDArray[np.float32]:
    """The position of each value between low and high, clipped to 0..1."""
    if not low < high:
        msg = f"low must be below high, got low={low:g} high={high:g}"
        raise DataError(msg)
    if not np.isfinite(map_).all():
        msg = "the map contains NaN or infinity; it cannot be shown"
        raise DataError(msg)
    level = np.asarray(map_)
    if (low, high) != (0.0, 1.0):
        level = (level.astype(np.float64) - low) / (high - low)
    level = np.ascontiguousarray(level, dtype=np.float32)
    least, most, _, _ = cv2.minMaxLoc(level)
    return level if least >= 0 and most <= 1 else np.clip(level, np.float32(0), np.float32(1))


def _colours(level: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The colour of each value in 0..1, uint8 (h w 3)."""
    index = cv2.convertScaleAbs(level, alpha=255)  # rounded, uint8
    return np.asarray(cv2.applyColorMap(index, _table()[:, None]), dtype=np.uint8)


def _draw(out: NDArray[np.uint8], region: NDArray[np.bool_], colour: tuple[int, int, int]) -> None:
    """Draw the outline of a region into a picture (h w 3)."""
    out.reshape(-1, 3)[np.flatnonzero(_contour(region))] = colour  # nine times as fast as by the mask itself


def _contour(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The inner edge of a region, so that the outline never covers pixels outside it; closed at the image border."""
    thick = max(1, round(min(region.shape) / _CONTOUR_FRACTION))
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inside = region.astype(np.uint8)
    inner = cv2.erode(inside, cross, iterations=thick, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(inside != inner)


@cache
def _table() -> NDArray[np.uint8]:
    """The colour scale, uint8 (256 3): inferno is perceptually uniform and readable in grey and by the colour-blind."""
    blue_first = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)  # (256 1 3)
    table: NDArray[np.uint8] = np.asarray(blue_first[:, 0, ::-1], dtype=np.uint8)
    table.setflags(write=False)
    return table
