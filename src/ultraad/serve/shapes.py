"""From strokes to masks and outlines, on the image's own pixel grid.

A pixel belongs to a brush stroke if its centre is within the radius of the line through the points, where the radius
changes evenly between two points; to a polygon if its centre is inside by the even-odd rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ultraad.io import read_mask
from ultraad.metrics.lesions import flat, lesions_of_mask
from ultraad.types import Region

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Shape:
    """One step in the making of a lesion's mask.

    Attributes:
        points: x0, y0, x1, y1, ... of a brush stroke (with ``radii``) or of a polygon (without).
        radii: One for each point, in pixels.
        runs: COCO run lengths of a whole mask instead.
        erase: Taken away instead of added.
    """

    points: tuple[float, ...] = ()
    radii: tuple[float, ...] = ()
    runs: tuple[int, ...] = ()
    erase: bool = False


class Patch(NamedTuple):
    """A part of a mask whose first pixel is (top, left)."""

    top: int
    left: int
    pixels: Mask


class Outlined(NamedTuple):
    """A mask as the page shows it.

    Attributes:
        rings: Boundaries along pixel edges, each x0, y0, x1, y1, ...; filled by the even-odd rule.
        box: (x0, y0, x1, y1); None if the mask is empty.
        pixels: Number of pixels.
        size_px: Long and short axis of the largest region.
        size_mm: The same in mm; None if the spacing is unknown.
    """

    rings: list[list[float]]
    box: tuple[float, float, float, float] | None
    pixels: int
    size_px: tuple[float, float]
    size_mm: tuple[float, float] | None


def mask_of(shapes: Iterable[Shape], size: tuple[int, int]) -> Mask:
    """The mask bool (h w) that the shapes make, one after the other."""
    mask = np.zeros(size, dtype=np.bool_)
    for shape in shapes:
        part = _painted(shape, size)
        if part is None:
            continue
        h, w = part.pixels.shape
        window = mask[part.top : part.top + h, part.left : part.left + w]
        if shape.erase:
            window &= ~part.pixels
        else:
            window |= part.pixels
    return mask


@lru_cache(maxsize=512)  # every new stroke of a frame paints those before it again
def _painted(shape: Shape, size: tuple[int, int]) -> Patch | None:
    """The pixels of one shape; None if it has none in the image."""
    if shape.runs or not shape.radii:
        region = Region(size, rle=shape.runs) if shape.runs else Region(size, polygons=(shape.points,))
        mask = read_mask([region], shape=size)
        return _cut(mask)
    points = np.asarray(shape.points, dtype=np.float64).reshape(-1, 2)
    return _brushed(points, np.asarray(shape.radii, dtype=np.float64), size)


def _cut(mask: Mask) -> Patch | None:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    top, left = int(rows[0]), int(columns[0])
    return Patch(top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1].copy())


def _window(points: NDArray[np.float64], margin: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of the pixels around points (n 2), inside the image."""
    (left, top), (right, bottom) = points.min(0) - margin, points.max(0) + margin
    h, w = size
    return (
        int(np.clip(np.floor(top), 0, h)),
        int(np.clip(np.ceil(bottom), 0, h)),
        int(np.clip(np.floor(left), 0, w)),
        int(np.clip(np.ceil(right), 0, w)),
    )


def _brushed(points: NDArray[np.float64], radii: NDArray[np.float64], size: tuple[int, int]) -> Patch | None:
    top, bottom, left, right = _window(points, float(radii.max()), size)
    if top >= bottom or left >= right:
        return None
    pixels = np.zeros((bottom - top, right - left), dtype=np.bool_)
    ends = zip(points, np.vstack([points[1:], points[-1:]]), radii, np.append(radii[1:], radii[-1]), strict=True)
    for a, b, r_a, r_b in ends:
        t, u, v, w = _window(np.stack([a, b]), max(r_a, r_b), size)
        if t >= u or v >= w:
            continue
        x, y = np.arange(v, w) + 0.5 - a[0], (np.arange(t, u) + 0.5 - a[1])[:, None]
        along = b - a
        length = float(along @ along)
        share = np.clip((x * along[0] + y * along[1]) / length, 0.0, 1.0) if length else 0.0 * (x + y)
        away = (x - share * along[0]) ** 2 + (y - share * along[1]) ** 2
        pixels[t - top : u - top, v - left : w - left] |= away <= (r_a + share * (r_b - r_a)) ** 2
    return Patch(top, left, pixels)


def outlined(mask: Mask, *, spacing_mm: tuple[float, float] | None = None) -> Outlined:
    """The outlines and the size of a mask bool (h w); spacing (row, col) in mm."""
    found = lesions_of_mask(mask, spacing_mm=spacing_mm, smallest_px=1).lesions
    if not found:
        return Outlined([], None, 0, (0.0, 0.0), None)
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in (lesion.box for lesion in found)], dtype=np.float64)
    x0, y0 = boxes[:, :2].min(0).tolist()
    x1, y1 = boxes[:, 2:].max(0).tolist()
    largest = max(found, key=lambda lesion: lesion.area_px)
    mm = None
    if largest.long_mm is not None and largest.short_mm is not None:
        mm = (round(largest.long_mm, 1), round(largest.short_mm, 1))
    return Outlined(
        rings=[[float(n) for n in flat(ring)] for lesion in found for ring in (lesion.outline, *lesion.holes)],
        box=(x0, y0, x1, y1),
        pixels=int(np.count_nonzero(mask)),
        size_px=(round(largest.long_px, 1), round(largest.short_px, 1)),
        size_mm=mm,
    )


def run_lengths(mask: Mask) -> list[int]:
    """COCO run lengths of a mask (h w): column-major, starting with background."""
    values = np.concatenate([[False], mask.T.ravel(), [False]])  # a mask that begins with lesion has an empty first run
    changes = np.flatnonzero(values[1:] != values[:-1])
    ends = np.append(changes, mask.size) if not changes.size or changes[-1] != mask.size else changes
    runs: list[int] = np.diff(ends, prepend=0).tolist()
    return runs


def region(runs: Sequence[int], size: tuple[int, int]) -> Region:
    """An outline that :func:`ultraad.io.read_mask` fills, from run lengths."""
    return Region(size=size, rle=tuple(runs))
