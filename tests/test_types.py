"""Geometry: pixels come home."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultraad.data.preprocess import Preprocess
from ultraad.types import Geometry, PreprocessConfig

HALF = (0.5, 0.5, 0.5)
sides = st.integers(8, 90)
modes = st.sampled_from(["squash", "pad"])


def geometry_of(hw: tuple[int, int], *, size: int, mode: str) -> Geometry:
    return Preprocess(PreprocessConfig(size=size, mean=HALF, std=HALF, mode=mode)).geometry(hw)


def original_of_model(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Original (row, col) coordinate of every model pixel centre, by the formula in the Geometry docstring."""
    y, x = np.mgrid[: geometry.size, : geometry.size].astype(np.float64)
    (top, left), (sy, sx) = geometry.pad, geometry.scale
    return (y + 0.5 - top) / sy - 0.5, (x + 0.5 - left) / sx - 0.5


@settings(max_examples=80, deadline=None)
@given(h=sides, w=sides, size=st.integers(16, 70), mode=modes)
def test_every_point_comes_home_within_half_a_pixel(h, w, size, mode):
    geometry = geometry_of((h, w), size=size, mode=mode)
    for axis, carried in enumerate(original_of_model(geometry)):
        home = geometry.invert(carried.astype(np.float32))
        wanted = np.mgrid[:h, :w][axis]
        # Beyond the outermost model pixel centres there is nothing to interpolate: the edge value is repeated.
        top = geometry.pad[axis]
        first, last = np.unique(carried)[[top, top + geometry.content_hw[axis] - 1]]
        assert home.shape == (h, w)
        assert np.abs(home - wanted.clip(first, last)).max() < 0.01
        inside = (wanted >= first) & (wanted <= last)
        assert np.abs(home - wanted)[inside].max(initial=0) <= 0.5


@settings(max_examples=40, deadline=None)
@given(h=sides, w=sides, mode=modes, data=st.data())
def test_a_lesion_painted_on_the_image_comes_home_where_it_was(h, w, mode, data):
    size = data.draw(st.integers(max(h, w), 2 * max(h, w)))  # no model pixel skips an original one
    row, col = data.draw(st.integers(0, h - 4)), data.draw(st.integers(0, w - 4))
    mask = np.zeros((h, w), dtype=bool)
    mask[row : row + 4, col : col + 4] = True
    preprocess = Preprocess(PreprocessConfig(size=size, mean=HALF, std=HALF, mode=mode))
    home = preprocess.geometry((h, w)).invert(preprocess.mask(mask).numpy().astype(np.float32))
    centre = np.argwhere(home >= 0.5).mean(axis=0)
    np.testing.assert_allclose(centre, [row + 1.5, col + 1.5], atol=0.5)


@pytest.mark.parametrize("grid", [(7, 7), (14, 14), (37, 37)])
def test_a_coarse_map_covers_the_whole_input(grid):
    geometry = geometry_of((60, 120), size=112, mode="pad")  # content is rows 28..84
    rows = np.repeat(np.linspace(0, 1, grid[0], dtype=np.float32)[:, None], grid[1], axis=1)
    home = geometry.invert(rows)
    assert home.shape == (60, 120)
    assert home[0].mean() == pytest.approx(0.25, abs=0.04)
    assert home[-1].mean() == pytest.approx(0.75, abs=0.04)
    assert np.ptp(home, axis=1).max() < 1e-6


def test_hand_case_identity_and_crop():
    identity = Geometry(original_hw=(2, 2), size=2, scale=(1.0, 1.0), pad=(0, 0), content_hw=(2, 2))
    grid = np.array([[1, 2], [3, 4]], dtype=np.float32)
    np.testing.assert_array_equal(identity.invert(grid), grid)
    boxed = Geometry(original_hw=(2, 4), size=4, scale=(1.0, 1.0), pad=(1, 0), content_hw=(2, 4))
    grid = np.arange(16, dtype=np.float32).reshape(4, 4)
    np.testing.assert_array_equal(boxed.invert(grid), grid[1:3])


@pytest.mark.parametrize("hw", [(600, 800), (171, 100), (9, 31)])
def test_invert_is_bilinear_to_the_last_digits(hw):
    grid = np.random.default_rng(0).random((37, 37), dtype=np.float32)

    def weights(n: int) -> np.ndarray:  # (n 37), float64
        at = ((np.arange(n) + 0.5) * 37 / n - 0.5).clip(0, 36)
        return np.maximum(1 - np.abs(at[:, None] - np.arange(37)), 0)

    want = weights(hw[0]) @ grid @ weights(hw[1]).T
    home = geometry_of(hw, size=112, mode="squash").invert(grid)
    assert home.dtype == np.float32
    np.testing.assert_allclose(home, want, atol=1e-6, rtol=0)


def test_invert_returns_its_own_memory_and_takes_read_only_maps():
    geometry = Geometry(original_hw=(2, 2), size=2, scale=(1.0, 1.0), pad=(0, 0), content_hw=(2, 2))
    grid = np.zeros((2, 2), dtype=np.float32)
    grid.setflags(write=False)
    home = geometry.invert(grid)
    home += 1
    assert grid.max() == 0
