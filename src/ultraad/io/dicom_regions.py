"""Where a DICOM frame shows tissue, and at which scale: its ultrasound regions (PS3.3 C.8.5.5), if they are right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ultraad.io.dicom_header import FUNCTIONAL_GROUPS, Header, item_of, number_of, numbers_of, value_of
from ultraad.io.faults import warn_of
from ultraad.io.raster import MIN_SIDE
from ultraad.types import Box, Spacing, View

_CENTIMETRE = 3  # PhysicalUnitsXDirection, PS3.3 C.8.5.5.1.15
_SPATIAL_2D = 1  # RegionSpatialFormat, PS3.3 C.8.5.5.1.1
_TISSUE = 1  # RegionDataType, PS3.3 C.8.5.5.1.2
_NO_PICTURE_OF_TISSUE = frozenset(range(3, 256))  # spectra, waveforms, graphics; 2 is colour flow, drawn over tissue
_FINEST_MM, _COARSEST_MM = 1e-4, 10.0  # of a pixel: 0.1 um and 80 mm for the smallest picture are beyond every probe
_TOLERANCE = 0.01  # relative difference below which two regions have the same scale


class Regions(NamedTuple):
    """What the header says about the parts of a frame.

    Attributes:
        views: The B-mode regions, in the order of the header.
        region: The box around them; None if there are none, or it is the whole picture.
        spacing_mm: The pixel spacing, if it is the same everywhere.
    """

    views: tuple[View, ...]
    region: Box | None
    spacing_mm: Spacing | None


def regions_of(ds: Header, path: Path) -> Regions:
    """The B-mode regions and the spacing of a picture.

    A 2-D region of tissue is a view; without one, a 2-D region of colour flow is. The spacing is that of the views,
    else PixelSpacing. If a region is larger than the picture, the picture was cropped or resized after the scanner
    wrote the regions, so none is used, and there is no spacing rather than a wrong one; a warning says so. The same
    holds without a warning for regions without corners or an extent.

    Args:
        ds: The header.
        path: For the warning.
    """
    found = _in_2d(ds)
    if not found:
        return Regions((), None, _pixel_spacing(ds, path))
    size = int(ds.Columns), int(ds.Rows)
    boxes = [_box(item, size) for item in found]
    scales = [_scale(item, path) for item in found]
    calibrated = any(_in_centimetres(item) for item in found)
    if None in boxes:
        _warn_if_larger(found, size, path)
        return Regions((), None, None if calibrated else _pixel_spacing(ds, path))
    if not calibrated:
        scales = [_pixel_spacing(ds, path)] * len(found)
    views = tuple(View(box, scale) for box, scale in zip(boxes, scales, strict=True) if box is not None)
    return Regions(views, _around([view.box for view in views], size), _same(scales))


def shown_boxes(ds: Header, path: Path) -> tuple[Box, ...]:
    """Every ultrasound region of a picture that says what it shows: tissue, flow, spectra, waveforms.

    Some scanners add one that does not, around the whole screen. Empty if the header names none, or one that does not
    lie in the picture; a warning says so.

    Args:
        ds: The header.
        path: For the warning.
    """
    regions, size = value_of(ds, "SequenceOfUltrasoundRegions") or (), (int(ds.Columns), int(ds.Rows))
    found = [item for item in regions if number_of(item, "RegionDataType")]
    boxes = [_box(item, size, least=1) for item in found]
    if None in boxes:
        _warn_if_larger(found, size, path)
        return ()
    return tuple(box for box in boxes if box is not None)


def _in_2d(ds: Header) -> list[Header]:
    """The regions that show tissue, else those that show colour flow or do not say what they show."""
    found = [
        item
        for item in value_of(ds, "SequenceOfUltrasoundRegions") or ()
        if number_of(item, "RegionSpatialFormat") == _SPATIAL_2D
        and number_of(item, "RegionDataType") not in _NO_PICTURE_OF_TISSUE
    ]
    return [item for item in found if number_of(item, "RegionDataType") == _TISSUE] or found


def _corners(item: Header) -> list[float] | None:
    """The first and the last column and row; None if one is missing."""
    names = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
    found = [value for name in names if (value := number_of(item, name)) is not None]
    return found if len(found) == len(names) else None


def _box(item: Header, size: tuple[int, int], *, least: int = MIN_SIDE) -> Box | None:
    """The pixels of a region; None if it does not lie in the picture of this (width, height).

    The last column and row belong to it, but many writers give the number of columns and rows instead.
    """
    corners = _corners(item)
    if corners is None:
        return None
    x0, y0, x1, y1 = map(int, corners)
    width, height = (min(last + 1, side) - first for first, last, side in ((x0, x1, size[0]), (y0, y1, size[1])))
    inside = min(x0, y0) >= 0 and x1 <= size[0] and y1 <= size[1]
    return (x0, y0, width, height) if inside and min(width, height) >= least else None


def _warn_if_larger(found: Sequence[Header], size: tuple[int, int], path: Path) -> None:
    ends = [(corners[2], corners[3]) for item in found if (corners := _corners(item)) is not None]
    if any(x > size[0] or y > size[1] for x, y in ends):
        (x, y), (w, h) = (int(max(x for x, _ in ends)), int(max(y for _, y in ends))), size
        text = (
            f"its ultrasound regions reach to {x}, {y}, but the picture has {w} x {h} pixels: it was cropped or "
            "resized after the scan. Lengths stay in pixels, and the whole picture is used"
        )
        warn_of(path, text, kind="regions larger than the picture")


def _in_centimetres(item: Header) -> bool:
    x, y = (number_of(item, f"PhysicalUnits{axis}Direction") for axis in "XY")
    return x == y == _CENTIMETRE


def _scale(item: Header, path: Path) -> Spacing | None:
    """Pixel spacing (row, col) in mm of a region in centimetres."""
    row, col = (number_of(item, f"PhysicalDelta{axis}") for axis in "YX")
    if not _in_centimetres(item) or not row or not col:
        return None
    return _possible(abs(row) * 10.0, abs(col) * 10.0, path)


def _same(scales: Sequence[Spacing | None]) -> Spacing | None:
    first = scales[0]
    if first is None:
        return None
    for scale in scales:
        if scale is None or not all(map(_close, scale, first)):
            return None
    return first


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=_TOLERANCE)


def _around(boxes: Sequence[Box], size: tuple[int, int]) -> Box | None:
    """The box around all; None if it is the whole picture."""
    left, top = (min(box[i] for box in boxes) for i in (0, 1))
    right, bottom = (max(box[i] + box[i + 2] for box in boxes) for i in (0, 1))
    around = (left, top, right - left, bottom - top)
    return None if around == (0, 0, *size) else around


def _pixel_spacing(ds: Header, path: Path) -> Spacing | None:
    spacing = numbers_of(ds, "PixelSpacing")
    group = item_of(ds, FUNCTIONAL_GROUPS[0], 0)
    measures = None if group is None else item_of(group, "PixelMeasuresSequence", 0)
    if not spacing and measures is not None:
        spacing = numbers_of(measures, "PixelSpacing")
    return _possible(spacing[0], spacing[1], path) if len(spacing) == 2 else None


def _possible(row: float, col: float, path: Path) -> Spacing | None:
    """A spacing that a scanner can have; None, with a warning, for what writers leave that know nothing."""
    if all(_FINEST_MM <= side <= _COARSEST_MM for side in (row, col)):
        return row, col
    text = f"its pixels are said to be {col:g} x {row:g} mm, which no scanner has; lengths stay in pixels"
    warn_of(path, text, kind="impossible spacing")
    return None
