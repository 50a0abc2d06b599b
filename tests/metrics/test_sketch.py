from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultraad.metrics.sketch import Sketch, cells, search


def feed(sketch, parts):
    for values, weights in parts:
        distinct, at = np.unique(values.astype(np.float32), return_inverse=True)
        sketch.add(distinct, np.stack([np.bincount(at, weights=w, minlength=distinct.size) for w in weights]))
    return sketch.bins()


def random_parts(n, size, shift=0.0):
    rng = np.random.default_rng(0)
    return [(rng.normal(i * shift, 1, size).round(3), rng.random((2, size))) for i in range(n)]


def test_exact_below_capacity():
    parts = random_parts(5, 100)
    low, high, mass = feed(Sketch(2, capacity=10_000), parts)
    values = np.concatenate([v for v, _ in parts]).astype(np.float32)
    weights = np.concatenate([w for _, w in parts], axis=1)
    distinct, at = np.unique(values, return_inverse=True)
    np.testing.assert_array_equal(low, distinct)
    np.testing.assert_array_equal(high, distinct)
    for row, w in zip(mass, weights, strict=True):
        np.testing.assert_allclose(row, np.bincount(at, weights=w), rtol=1e-12)


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("shift", [0.0, 0.5, -0.5])
def test_merged_bins_are_disjoint_and_hold_exactly_the_mass_of_their_interval(graded, shift):
    """Also when the scores drift, so that later ones fall outside all bins."""
    parts = random_parts(12, 300, shift)
    low, high, mass = feed(Sketch(2, capacity=64, graded=graded), parts)
    assert (low <= high).all()
    assert (high[:-1] < low[1:]).all()
    assert low.size < (2500 if graded else 3 * 64 + 64)
    values = np.concatenate([v for v, _ in parts]).astype(np.float32)
    weights = np.concatenate([w for _, w in parts], axis=1)
    for a, b, m in zip(low, high, mass.T, strict=True):
        inside = (values >= a) & (values <= b)
        np.testing.assert_allclose(weights[:, inside].sum(1), m, rtol=1e-9)
    np.testing.assert_allclose(mass.sum(1), weights.sum(1))


def test_a_heavy_score_stays_alone():
    """Saturated maps pile up at 0 and 1: those ties are real and must not be merged with their neighbours."""
    rng = np.random.default_rng(0)
    values = np.concatenate([np.zeros(500), np.ones(500), rng.random(1000)])
    low, high, _ = feed(Sketch(1, capacity=32), [(values, np.ones((1, values.size)))])
    alone = set(low[low == high].tolist())
    assert {0.0, 1.0} <= alone


def test_bins_stay_bounded():
    sketch = Sketch(2, capacity=64)
    for part in random_parts(200, 50, 0.1):
        low, _, _ = feed(sketch, [part])
        assert low.size <= 3 * 64 + 64


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-9, 9), max_size=30), st.lists(st.integers(-9, 9), max_size=30))
def test_search_finds_what_numpy_finds(ends, values):
    rising = [np.sort(np.array(v, np.float32)) for v in (ends, values)]
    np.testing.assert_array_equal(search(*rising), np.searchsorted(*rising))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=50))
def test_grid_is_monotone(values):
    ordered = np.sort(np.array(values, np.float32))
    assert (np.diff(cells(ordered)) >= 0).all()


def test_grid_is_as_fine_below_one_as_above_zero():
    small = np.float32(2.0) ** -np.arange(3, 20, dtype=np.float32)
    near_zero, near_one = cells(small), cells(1 - small)
    np.testing.assert_array_equal(np.diff(near_zero), -512)
    np.testing.assert_array_equal(np.diff(near_one), 512)
