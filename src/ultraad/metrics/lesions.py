"""From a map or a mask to lesions: outline, box, area, axes and score of each, by one set of rules for every output.

A lesion is an 8-connected region of the pixels at or above the pixel threshold; holes are no part of it. Its score is
the highest map value inside it. A region of less than :data:`SPECK` of the image is a speck: counted, but not listed.

Points are (x, y) in pixels: x to the right, y down, (0, 0) the outer corner of the first pixel, whose centre is
(0.5, 0.5), as in COCO and in DICOM's SCOORD (PS3.3 C.18.6.1.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultraad.errors import DataError
from ultraad.types import Box, Spacing

Points = NDArray[np.int32]
Scale = Spacing | Callable[[Box], Spacing | None] | None
Segment = tuple[tuple[float, float], tuple[float, float]]

SPECK = 0.0005  # share of the image; the smallest of 795 marked lesions of BUS-BRA, BUSI and BUS-UCLM has 0.0023
_TURN = [
    [next((d % 4 for d in (way - 1, way, way + 1) if bits >> d % 4 & 1), -1) for bits in range(16)] for way in range(4)
]
"""Where a boundary goes on at a corner, by its way and the edges that leave: left before straight on before right."""


@dataclass(frozen=True, slots=True, eq=False)
class Lesion:
    """One lesion of one image.

    Attributes:
        score: Highest map value inside it; None if only a mask is known.
        peak: Pixel (x, y) of that value; of several the one nearest to their middle. None if only a mask is known.
        box: (x, y, width, height) of its pixels.
        pixels: bool (height width) of the box, True on the lesion.
        area_px: Number of pixels, without holes.
        area_mm2: The same in mm2; None if the spacing is unknown.
        long_axis: The two ends of the maximum Feret diameter, (x, y) in pixels.
        short_axis: The two ends of the longest diameter perpendicular to it.
        long_px: Length of the long axis in pixels.
        short_px: Length of the short axis in pixels.
        long_mm: Length of the long axis in mm; None if the spacing is unknown.
        short_mm: Length of the short axis in mm; None if the spacing is unknown.
        outline: int32 (n 2), corners of the outer boundary along the edges of pixels, clockwise.
        holes: The same of each hole, counter-clockwise.
    """

    score: float | None
    peak: tuple[int, int] | None
    box: tuple[int, int, int, int]
    pixels: NDArray[np.bool_]
    area_px: int
    area_mm2: float | None
    long_axis: Segment
    short_axis: Segment
    long_px: float
    short_px: float
    long_mm: float | None
    short_mm: float | None
    outline: Points
    holes: tuple[Points, ...]

    def mask(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Bool (H W) of the whole image, True on this lesion."""
        x, y, w, h = self.box
        out = np.zeros(shape, dtype=np.bool_)
        out[y : y + h, x : x + w] = self.pixels
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Lesions:
    """The lesions of one image, highest score first; equal ones by falling area, then from top to bottom.

    Attributes:
        lesions: The lesions.
        specks: Number of regions that are too small to be listed.
        speck_px: Their pixels.
        smallest_px: Area in pixels from which a region is a lesion.
    """

    lesions: tuple[Lesion, ...]
    specks: int
    speck_px: int
    smallest_px: int

    def __len__(self) -> int:
        return len(self.lesions)

    def __iter__(self) -> Iterator[Lesion]:
        return iter(self.lesions)


def find_lesions(
    map: NDArray[np.floating],  # noqa: A002  # the noun of Scores
    threshold: float,
    *,
    spacing_mm: Scale = None,
    smallest_px: int | None = None,
) -> Lesions:
    """The lesions of a map.

    Args:
        map: float (h w), higher is more anomalous.
        threshold: A pixel is lesion if its value is at least this.
        spacing_mm: Pixel spacing (row, col) in mm; None if unknown. Or a function that gives it for the box (x, y,
            width, height) of a lesion, as :meth:`ultraad.types.Sample.spacing_at` does.
        smallest_px: Area in pixels from which a region is a lesion; None for :data:`SPECK` of the image.

    Raises:
        DataError: If the map is not (h w), has a value that is not finite, or the spacing is not positive.
    """
    values = np.asarray(map, dtype=np.float32)
    if not np.isfinite(values).all():
        msg = "the map has NaN or infinite values; lesions need finite ones"
        raise DataError(msg)
    mask = values >= np.float32(threshold)
    return _lesions(mask, values, spacing_mm=spacing_mm, smallest_px=smallest_px)


def find_peaks(map: NDArray[np.float32], threshold: float) -> list[tuple[float, tuple[int, int]]]:  # noqa: A002
    """``score`` and ``peak`` of each lesion that :func:`find_lesions` finds in a finite map, without their shapes."""
    regions, _ = _regions(map >= np.float32(threshold), _smallest(map.size))
    return [_peak(map, pixels, corner) for corner, pixels in regions]


def lesions_of_mask(mask: NDArray[np.bool_], *, spacing_mm: Scale = None, smallest_px: int | None = None) -> Lesions:
    """The lesions of a mask bool (h w), without scores; arguments as for :func:`find_lesions`.

    Raises:
        DataError: If the mask is not bool (h w), or the spacing is not positive.
    """
    return _lesions(mask, None, spacing_mm=spacing_mm, smallest_px=smallest_px)


def _lesions(
    mask: NDArray[np.bool_],
    values: NDArray[np.float32] | None,
    *,
    spacing_mm: Scale,
    smallest_px: int | None,
) -> Lesions:
    if mask.ndim != 2 or mask.dtype != np.bool_:
        msg = f"lesions are found in a map of floats or a mask of bool, (h w); got {mask.shape} of {mask.dtype}"
        raise DataError(msg)
    if not callable(spacing_mm):
        _check_spacing(spacing_mm)
    smallest = _smallest(mask.size) if smallest_px is None else smallest_px
    regions, specks = _regions(mask, smallest)
    found = [_lesion(pixels, corner, values, spacing_mm) for corner, pixels in regions]
    found.sort(key=lambda n: (-(n.score or 0.0), -n.area_px, n.box[1], n.box[0]))
    return Lesions(tuple(found), len(specks), sum(specks), smallest)


def _check_spacing(spacing_mm: Spacing | None) -> None:
    if spacing_mm is not None and not all(math.isfinite(s) and s > 0 for s in spacing_mm):
        msg = f"the pixel spacing {spacing_mm} must be two positive numbers (row, col) in mm, or None"
        raise DataError(msg)


def _smallest(pixels: int) -> int:
    """Area in pixels from which a region of an image of so many pixels is a lesion."""
    return max(1, math.ceil(SPECK * pixels))


def _regions(
    mask: NDArray[np.bool_], smallest: int
) -> tuple[list[tuple[tuple[int, int], NDArray[np.bool_]]], list[int]]:
    """The 8-connected regions as (first corner (x, y), pixels bool (h w) of its box), and the areas of the specks."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    found: list[tuple[tuple[int, int], NDArray[np.bool_]]] = []
    specks: list[int] = []
    for label in range(1, count):
        x, y, w, h, area = stats[label].tolist()
        if area < smallest:
            specks.append(area)
        else:
            found.append(((x, y), labels[y : y + h, x : x + w] == label))
    return found, specks


def _lesion(
    pixels: NDArray[np.bool_],
    corner: tuple[int, int],
    values: NDArray[np.float32] | None,
    scale: Scale,
) -> Lesion:
    """The lesion of these pixels (h w), whose first one is at ``corner`` (x, y)."""
    h, w = pixels.shape
    spacing_mm = scale((*corner, w, h)) if callable(scale) else scale
    _check_spacing(spacing_mm)
    area = int(np.count_nonzero(pixels))
    mm = np.array(spacing_mm[::-1] if spacing_mm else (1.0, 1.0))  # (x, y)
    long, short = _axes(pixels, mm)
    long_px, short_px = (float(np.hypot(*(a[1] - a[0]))) for a in (long, short))
    long_mm, short_mm = (float(np.hypot(*((a[1] - a[0]) * mm))) for a in (long, short))
    score, peak = (None, None) if values is None else _peak(values, pixels, corner)
    loops = [loop + np.array(corner, dtype=np.int32) for loop in _loops(pixels)]
    return Lesion(
        score=score,
        peak=peak,
        box=(*corner, w, h),
        pixels=pixels,
        area_px=area,
        area_mm2=area * spacing_mm[0] * spacing_mm[1] if spacing_mm else None,
        long_axis=_segment(long + corner),
        short_axis=_segment(short + corner),
        long_px=long_px,
        short_px=short_px,
        long_mm=long_mm if spacing_mm else None,
        short_mm=short_mm if spacing_mm else None,
        outline=loops[0],
        holes=tuple(loops[1:]),
    )


def _segment(ends: NDArray[np.float64]) -> Segment:
    (x0, y0), (x1, y1) = ends.tolist()
    return (x0, y0), (x1, y1)


def _peak(
    values: NDArray[np.float32], pixels: NDArray[np.bool_], corner: tuple[int, int]
) -> tuple[float, tuple[int, int]]:
    """The highest value of a region and its pixel (x, y); of several the one nearest to their mean, in reading order.

    Args:
        values: The whole map.
        pixels: The region in its box.
        corner: The first pixel (x, y) of the box.
    """
    h, w = pixels.shape
    inside = values[corner[1] : corner[1] + h, corner[0] : corner[0] + w]
    top = inside[pixels].max()
    y, x = np.nonzero(pixels & (inside == top))
    nearest = int(((x - x.mean()) ** 2 + (y - y.mean()) ** 2).argmin())
    return float(top), (int(x[nearest]) + corner[0], int(y[nearest]) + corner[1])


def _axes(pixels: NDArray[np.bool_], mm: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the long and the short axis, each float64 (2 2) of (x, y) in pixels.

    The long axis is the maximum Feret diameter: the largest distance between two points of the boundary, which are the
    middles of the outer edges of pixels, as in scikit-image's ``feret_diameter_max`` and the mesh of IBSI's maximum
    diameter (Zwanenburg et al., Radiology 2020). The short axis is the longest chord of the convex hull perpendicular
    to it (WHO: Miller et al., Cancer 1981). Lengths and the right angle are those of ``mm`` (x, y) per pixel.
    """
    hull = _hull(pixels) * mm  # (k 2)
    apart = ((hull[:, None] - hull[None]) ** 2).sum(-1)  # (k k)
    i, j = divmod(int(apart.argmax()), len(hull))
    along = (hull[j] - hull[i]) / math.sqrt(apart[i, j])
    across = np.array([-along[1], along[0]])
    s, t = hull @ along, hull @ across  # each (k,)
    s1, t1 = np.roll(s, -1), np.roll(t, -1)  # the hull's edges lead from (s, t) to (s1, t1)
    at = s[:, None]  # the longest chord of a convex polygon passes through a corner
    share = np.clip(np.nan_to_num(_ratio(at - s, s1 - s)), 0.0, 1.0)  # (k k), where each edge crosses each chord
    height = t + share * (t1 - t)
    crossing = (np.minimum(s, s1) <= at) & (at <= np.maximum(s, s1))
    top, bottom = np.where(crossing, height, -np.inf).max(1), np.where(crossing, height, np.inf).min(1)
    best = int((top - bottom).argmax())
    short = np.stack([s[best] * along + end * across for end in (bottom[best], top[best])])
    return hull[[i, j]] / mm, short / mm


def _ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)


def _hull(pixels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The convex hull of the middles of all outer edges, float64 (k 2) of (x, y)."""
    points: list[NDArray[np.int64]] = []
    for flip, grid in ((1, pixels), (-1, pixels.T)):  # the first and the last pixel of each row, then of each column
        lines = np.flatnonzero(grid.any(1))
        first, last = grid[lines].argmax(1), grid.shape[1] - grid[lines, ::-1].argmax(1)
        for ends in (first, last):
            points.append(np.stack([2 * ends, 2 * lines + 1], axis=1)[:, ::flip])  # doubled: whole numbers are exact
    hull = cv2.convexHull(np.concatenate(points).astype(np.int32))
    return np.asarray(hull[:, 0], dtype=np.float64) / 2


def _loops(pixels: NDArray[np.bool_]) -> list[Points]:
    """The boundary of one 8-connected region along the edges of its pixels: the outer one, then its holes.

    Each is int32 (n 2), the corners (x, y) with the region on the right. At a corner where two pixels touch, the path
    crosses over to the other one, so that one region has one outer boundary.
    """
    h, w = pixels.shape
    around = np.pad(pixels, 1)
    leaving = np.zeros((h + 1, w + 1), np.uint8)  # bit d: an edge leaves this corner to the right, down, left or up
    leaving[:-1, :-1] |= (pixels & ~around[:-2, 1:-1]).astype(np.uint8)
    leaving[:-1, 1:] |= (pixels & ~around[1:-1, 2:]).astype(np.uint8) << 1
    leaving[1:, 1:] |= (pixels & ~around[2:, 1:-1]).astype(np.uint8) << 2
    leaving[1:, :-1] |= (pixels & ~around[1:-1, :-2]).astype(np.uint8) << 3
    steps = (1, w + 1, -1, -w - 1)
    edges = bytearray(leaving)
    loops: list[Points] = []
    for start in np.flatnonzero(leaving).tolist():
        if not edges[start]:
            continue
        at, way = start, edges[start].bit_length() - 1  # the first corner of a loop in reading order has one edge
        corners = [at]
        while True:
            edges[at] &= ~(1 << way)
            at += steps[way]
            if at == start:
                break
            turned = _TURN[way][edges[at]]
            if turned != way:
                corners.append(at)
            way = turned
        y, x = np.divmod(np.array(corners, dtype=np.int32), w + 1)
        loops.append(np.stack([x, y], axis=1))
    return loops


def flat(points: ArrayLike) -> list[int]:
    """Points (n 2) as x0, y0, x1, y1, ..., the form of COCO polygons."""
    numbers: list[int] = np.asarray(points).ravel().tolist()
    return numbers
