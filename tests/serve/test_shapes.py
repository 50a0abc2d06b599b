"""Strokes to masks and outlines, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultraad.io import read_mask
from ultraad.serve.shapes import Shape, mask_of, outlined, region, run_lengths
from ultraad.types import Region

SIZE = (30, 40)
COORDINATE = st.floats(-10, 50, allow_nan=False).map(lambda v: round(v, 2))


def brute(points: list[tuple[float, float]], radii: list[float]) -> np.ndarray:
    """Pixels whose centre is near one of many small steps along the line."""
    mask = np.zeros(SIZE, dtype=bool)
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            for (ax, ay), (bx, by), ra, rb in zip(
                points, [*points[1:], points[-1]], radii, [*radii[1:], radii[-1]], strict=True
            ):
                dx, dy = bx - ax, by - ay
                length = dx * dx + dy * dy
                t = min(1.0, max(0.0, ((x + 0.5 - ax) * dx + (y + 0.5 - ay) * dy) / length)) if length else 0.0
                away = (x + 0.5 - ax - t * dx) ** 2 + (y + 0.5 - ay - t * dy) ** 2
                if away <= (ra + t * (rb - ra)) ** 2:
                    mask[y, x] = True
    return mask


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(COORDINATE, COORDINATE, st.floats(0.5, 9)), min_size=1, max_size=4))
def test_a_brush_stroke_is_every_pixel_whose_centre_is_near_the_line(found: list[tuple[float, float, float]]) -> None:
    points, radii = [(x, y) for x, y, _ in found], [r for *_, r in found]
    shape = Shape(tuple(v for p in points for v in p), tuple(radii))
    assert (mask_of([shape], SIZE) == brute(points, radii)).all()


def test_a_polygon_is_filled_as_our_readers_fill_it() -> None:
    points = (3.0, 2.0, 20.5, 4.0, 12.0, 25.0)
    wanted = read_mask([Region(SIZE, polygons=(points,))], shape=SIZE)
    assert wanted.any()
    assert (mask_of([Shape(points)], SIZE) == wanted).all()


def test_the_eraser_takes_away_what_was_painted_before_it_and_not_after() -> None:
    brush, eraser = Shape((10.0, 10.0), (5.0,)), Shape((10.0, 10.0), (3.0,), erase=True)
    ring = mask_of([brush, eraser], SIZE)
    assert ring.any()
    assert not ring[10, 10]
    assert (mask_of([eraser, brush], SIZE) == mask_of([brush], SIZE)).all()


def test_a_stroke_outside_the_image_is_empty() -> None:
    assert not mask_of([Shape((-50.0, -50.0), (4.0,)), Shape((5.0, -9.0, 6.0, -9.0), (4.0, 4.0))], SIZE).any()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.randoms(use_true_random=False))
def test_run_lengths_come_back(h: int, w: int, random) -> None:
    mask = np.array([[random.random() < 0.5 for _ in range(w)] for _ in range(h)])
    runs = run_lengths(mask)
    assert sum(runs) == mask.size
    assert (read_mask([region(runs, (h, w))], shape=(h, w)) == mask).all()


def even_odd(rings: list[list[float]]) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    for ring in rings:
        mask ^= read_mask([Region(SIZE, polygons=(tuple(ring),))], shape=SIZE)
    return mask


def test_outlines_filled_by_the_even_odd_rule_give_the_mask_back() -> None:
    rng = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        mask = rng.random(SIZE) < share
        found = outlined(mask)
        assert (even_odd(found.rings) == mask).all()
        assert found.pixels == mask.sum()


def test_sizes_are_in_mm_where_the_spacing_is_known() -> None:
    mask = np.zeros(SIZE, dtype=bool)
    mask[5:15, 10:30] = True
    assert outlined(mask).size_mm is None
    found = outlined(mask, spacing_mm=(0.2, 0.1))
    assert found.box == (10, 5, 30, 15)
    assert found.size_mm == pytest.approx((2.6, 2.3), abs=0.5)  # 2 mm x 2 mm: the axes are diameters


def test_an_empty_mask_has_no_outline() -> None:
    assert outlined(np.zeros(SIZE, dtype=bool)) == ([], None, 0, (0.0, 0.0), None)
