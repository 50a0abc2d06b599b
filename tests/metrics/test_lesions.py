"""Lesions against brute force on small masks, and against shapes of known size."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import ConvexHull

from ultraad.errors import DataError
from ultraad.io import read_mask
from ultraad.metrics.lesions import SPECK, find_lesions, find_peaks, flat, lesions_of_mask
from ultraad.types import Region

EIGHT = np.ones((3, 3))


def noise(seed, shape=(14, 17), share=0.55):
    return np.random.default_rng(seed).random(shape) < share


def edge_middles(mask):
    """The middles of the four edges of every pixel, (n 2) of (x, y)."""
    y, x = np.nonzero(mask)
    return np.concatenate([np.stack([x + a, y + b], 1) for a, b in ((0, 0.5), (1, 0.5), (0.5, 0), (0.5, 1))])


def slow_long(points):
    return max(math.dist(a, b) for a in points.tolist() for b in points.tolist())


def slow_short(points, axis):
    """The longest chord of the convex hull at a right angle to the axis, by 2,001 chords cut with half-planes."""
    along = (axis[1] - axis[0]) / np.linalg.norm(axis[1] - axis[0])
    across = np.array([-along[1], along[0]])
    planes = ConvexHull(points).equations  # a x + b y + c <= 0 inside
    best = 0.0
    for s in np.linspace((points @ along).min(), (points @ along).max(), 2001):
        low, high = -np.inf, np.inf
        for a, b, c in planes:
            slope, rest = a * across[0] + b * across[1], s * (a * along[0] + b * along[1]) + c
            if slope > 1e-12:
                high = min(high, -rest / slope)
            elif slope < -1e-12:
                low = max(low, -rest / slope)
        best = max(best, high - low)
    return best


def ends(axis, mm=(1.0, 1.0)):
    return np.array(axis) * mm


def fill(points, shape):
    return read_mask([Region(size=shape, polygons=(tuple(map(float, flat(points))),))], shape=shape)


def shoelace(points):
    x, y = points.T.astype(float)
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def disc(r, shape=(200, 240), centre=(97.3, 120.6)):
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= r**2


def rectangle(a, b, degrees, shape=(200, 240), centre=(100.2, 119.7), mm=(1.0, 1.0)):
    """Sides a >= b, in units of mm (row, col) per pixel."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    y, x = (y - centre[0]) * mm[0], (x - centre[1]) * mm[1]
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (abs(x * c + y * s) <= a / 2) & (abs(-x * s + y * c) <= b / 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 0.8))
def test_regions_boxes_areas_and_pixels_are_those_of_scipy(seed, share):
    mask = noise(seed, share=share)
    labels, count = ndimage.label(mask, EIGHT)
    found = lesions_of_mask(mask, smallest_px=1)
    assert len(found) == count
    assert (found.specks, found.speck_px, found.smallest_px) == (0, 0, 1)
    seen = np.zeros(mask.shape, int)
    for lesion in found:
        x, y, w, h = lesion.box
        whole = lesion.mask(mask.shape)
        number = labels[whole][0]
        assert (whole == (labels == number)).all()
        rows, cols = ndimage.find_objects(labels)[number - 1]
        assert (rows.start, rows.stop, cols.start, cols.stop) == (y, y + h, x, x + w)
        assert lesion.area_px == whole.sum()
        assert (lesion.score, lesion.peak, lesion.area_mm2, lesion.long_mm) == (None, None, None, None)
        seen += whole
    assert (seen == mask).all()
    assert [n.area_px for n in found] == sorted((n.area_px for n in found), reverse=True)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 0.9))
def test_the_outline_and_the_holes_give_the_pixels_back(seed, share):
    mask = noise(seed, share=share)
    for lesion in lesions_of_mask(mask, smallest_px=1):
        whole = lesion.mask(mask.shape)
        filled = ndimage.binary_fill_holes(whole)  # holes are 4-connected, as the region is 8-connected
        assert (fill(lesion.outline, mask.shape) == filled).all()
        _, count = ndimage.label(filled & ~whole)
        assert len(lesion.holes) == count
        rest = filled.copy()
        for hole in lesion.holes:
            rest &= ~fill(hole, mask.shape)
        assert (rest == whole).all()
        assert shoelace(lesion.outline) - sum(-shoelace(h) for h in lesion.holes) == lesion.area_px
        assert shoelace(lesion.outline) > 0 > max((shoelace(h) for h in lesion.holes), default=-1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([None, (1.0, 1.0), (0.3, 0.1), (0.07, 0.2)]))
def test_axes_equal_brute_force_over_all_points_of_the_boundary(seed, spacing):
    mask = noise(seed, shape=(9, 11), share=0.4)
    mm = np.array((spacing or (1.0, 1.0))[::-1])
    for lesion in lesions_of_mask(mask, spacing_mm=spacing, smallest_px=1):
        points = edge_middles(lesion.mask(mask.shape)) * mm
        long, short = ends(lesion.long_axis, mm), ends(lesion.short_axis, mm)
        assert np.linalg.norm(long[1] - long[0]) == pytest.approx(slow_long(points))
        assert np.linalg.norm(short[1] - short[0]) == pytest.approx(slow_short(points, long), rel=2e-3)
        assert (long[1] - long[0]) @ (short[1] - short[0]) == pytest.approx(0, abs=1e-9)
        assert lesion.long_px == pytest.approx(math.dist(*lesion.long_axis))
        assert lesion.short_px == pytest.approx(math.dist(*lesion.short_axis))
        if spacing is None:
            assert lesion.long_mm is lesion.short_mm is lesion.area_mm2 is None
        else:
            assert lesion.long_mm == pytest.approx(slow_long(points))
            assert lesion.short_mm == pytest.approx(np.linalg.norm(short[1] - short[0]))
            assert lesion.area_mm2 == pytest.approx(lesion.area_px * spacing[0] * spacing[1])


@pytest.mark.parametrize("r", [3.0, 12.5, 60.0])
def test_a_disc_is_as_long_and_as_wide_as_its_diameter(r):
    (lesion,) = lesions_of_mask(disc(r), smallest_px=1)
    assert lesion.long_px == pytest.approx(2 * r, abs=1)
    assert lesion.short_px == pytest.approx(2 * r, abs=1)
    assert lesion.area_px == pytest.approx(math.pi * r**2, rel=0.05)


@pytest.mark.parametrize("degrees", [0, 17, 45, 90, 133])
def test_a_turned_rectangle_has_its_diagonal_and_the_width_across_it(degrees):
    a, b = 90.0, 40.0
    diagonal = math.hypot(a, b)
    (lesion,) = lesions_of_mask(rectangle(a, b, degrees))
    assert lesion.long_px == pytest.approx(diagonal, abs=1.5)
    assert lesion.short_px == pytest.approx(b * diagonal / a, abs=1.5)
    assert lesion.area_px == pytest.approx(a * b, rel=0.02)


@pytest.mark.parametrize("degrees", [0, 30, 90])
def test_millimetres_are_right_where_rows_and_columns_differ(degrees):
    mm = (0.25, 0.1)  # a turned rectangle in mm is a parallelogram in pixels
    (lesion,) = lesions_of_mask(rectangle(16.0, 6.0, degrees, mm=mm), spacing_mm=mm)
    diagonal = math.hypot(16, 6)
    assert lesion.long_mm == pytest.approx(diagonal, abs=0.3)
    assert lesion.short_mm == pytest.approx(6 * diagonal / 16, abs=0.3)
    assert lesion.area_mm2 == pytest.approx(96, rel=0.03)


def test_a_single_pixel_and_a_row_of_pixels():
    mask = np.zeros((5, 9), bool)
    mask[0, 0] = mask[4, 2:8] = True
    row, dot = lesions_of_mask(mask, smallest_px=1)
    assert (row.box, row.long_px, row.short_px, row.area_px) == ((2, 4, 6, 1), 6.0, 1.0, 6)
    assert (dot.box, dot.long_px, dot.short_px, dot.area_px) == ((0, 0, 1, 1), 1.0, 1.0, 1)
    assert dot.outline.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]


def test_lesions_that_touch_the_border_are_closed_there():
    (lesion,) = lesions_of_mask(np.ones((6, 8), bool))
    assert lesion.outline.tolist() == [[0, 0], [8, 0], [8, 6], [0, 6]]
    assert (lesion.box, lesion.holes) == ((0, 0, 8, 6), ())


def test_a_ring_has_a_hole_that_is_no_part_of_its_area():
    mask = disc(50) & ~disc(20)
    (lesion,) = lesions_of_mask(mask, spacing_mm=(0.5, 0.5))
    assert len(lesion.holes) == 1
    assert (lesion.area_px, lesion.area_mm2) == (mask.sum(), mask.sum() / 4)
    assert lesion.long_px == pytest.approx(100, abs=1)


def test_corners_join_regions_and_do_not_join_holes():
    mask = np.ones((6, 6), bool)
    mask[2, 2] = mask[3, 3] = False
    (lesion,) = lesions_of_mask(mask)
    assert len(lesion.holes) == 2
    (lesion,) = lesions_of_mask(np.eye(4, dtype=bool))
    assert lesion.area_px == 4


def test_nothing_found_is_an_empty_list():
    found = find_lesions(np.zeros((10, 10), np.float32), 0.5)
    assert (list(found), len(found), found.specks) == ([], 0, 0)


def test_specks_are_counted_and_not_listed():
    scores = np.zeros((100, 100), np.float32)  # a lesion has at least 5 pixels
    scores[10, 10:15] = 0.6
    scores[50, 50:54] = 0.9
    scores[70, 70] = 0.8
    found = find_lesions(scores, 0.5)
    assert found.smallest_px == math.ceil(SPECK * scores.size) == 5
    assert [n.area_px for n in found] == [5]
    assert (found.specks, found.speck_px) == (2, 5)
    assert len(find_lesions(scores, 0.5, smallest_px=1)) == 3


def test_the_score_is_the_highest_value_inside_and_orders_the_lesions():
    scores = np.zeros((30, 40), np.float32)
    scores[2:8, 2:8], scores[4, 5] = 0.6, 0.7
    scores[10:16, 20:30], scores[12, 24] = 0.5, 0.95  # the threshold itself is lesion
    scores[20:25, 5:9] = 0.6
    first, second, third = find_lesions(scores, 0.5)
    assert [n.score for n in (first, second, third)] == pytest.approx([0.95, 0.7, 0.6])
    assert [first.peak, second.peak] == [(24, 12), (5, 4)]
    assert third.box == (5, 20, 4, 5)
    assert third.peak == (6, 22)  # nearest to the middle of a flat region, the first of two
    assert find_peaks(scores, 0.5) == [(n.score, n.peak) for n in (second, first, third)]  # from top to bottom


def test_the_same_lesions_from_a_map_and_from_its_mask():
    scores = ndimage.gaussian_filter(np.random.default_rng(3).random((60, 80)), 3).astype(np.float32)
    threshold = float(np.quantile(scores, 0.8))
    by_map = {n.box: n for n in find_lesions(scores, threshold)}
    by_mask = {n.box: n for n in lesions_of_mask(scores >= np.float32(threshold))}
    assert by_map.keys() == by_mask.keys()
    assert len(by_map) > 3
    for box, lesion in by_map.items():
        assert (lesion.outline == by_mask[box].outline).all()
        assert lesion.score == scores[lesion.mask(scores.shape)].max()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find_lesions(np.zeros((2, 3, 3), np.float32), 0.5), r"\(2, 3, 3\)"),
        (lambda: find_lesions(np.full((3, 3), np.nan, np.float32), 0.5), "NaN"),
        (lambda: lesions_of_mask(np.zeros((3, 3), np.uint8)), "uint8"),
        (lambda: lesions_of_mask(np.ones((3, 3), bool), spacing_mm=(0.1, 0.0)), "two positive numbers"),
    ],
)
def test_what_is_no_map_or_mask_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()
