"""The beam grid is checked against its own inverse, the random fields against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultraad.simulate.fields import Grid, bump, facing, line, noise, step

GRIDS = {
    "linear": Grid(size=48, depth_mm=40, width_mm=38),
    "virtual convex": Grid(size=48, depth_mm=50, width_mm=40, spread=0.01),
    "curved": Grid(size=48, depth_mm=60, width_mm=50, radius_mm=50),
}


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(sorted(GRIDS)), row=st.integers(0, 47), column=st.integers(0, 47))
def test_locate_inverts_position(name, row, column):
    grid = GRIDS[name]
    x, y = grid.position
    assert grid.locate(float(x[row, column]), float(y[row, column])) == (column, row)


def test_linear_picture_is_the_beam_grid():
    assert GRIDS["linear"].scan_conversion() is None


@pytest.mark.parametrize("name", ["virtual convex", "curved"])
def test_scan_conversion_shows_points_where_they_are(name):
    grid = GRIDS[name]
    columns, rows = grid.scan_conversion()
    x, y = grid.position
    seen = (columns > 1) & (columns < 46) & (rows > 1) & (rows < 46)
    i, j = np.nonzero(seen)
    c, r = columns[seen].round().astype(int), rows[seen].round().astype(int)
    # picture coordinates are affine in mm: one scale and one offset per axis explain every visible pixel
    for pixel, mm in ((j, x[r, c]), (i, y[r, c])):
        scale, offset = np.polyfit(pixel, mm, 1)
        assert scale > 0
        assert np.abs(scale * pixel + offset - mm).max() < 1.5 * max(grid.dx * 2, grid.dy)
    assert 0.3 < seen.mean() < 1


def test_noise_is_standardised_and_has_the_given_cell_size():
    rng = np.random.default_rng(0)
    grid = GRIDS["linear"]
    fine = [noise(rng, grid, (1.5, 1.5)) for _ in range(20)]
    coarse = [noise(rng, grid, (12, 12)) for _ in range(20)]
    assert abs(np.mean(fine)) < 0.05
    assert 0.8 < np.std(fine) < 1.1

    def change(fields):
        return np.mean([np.abs(np.diff(f, axis=0)).mean() for f in fields])

    assert change(fine) > 3 * change(coarse)


def test_line_is_smooth_and_scaled():
    grid = GRIDS["linear"]
    curve = line(np.random.default_rng(1), grid, cell_mm=8, amplitude=2)
    assert curve.shape == (1, 48)
    assert np.abs(np.diff(curve)).max() < np.ptp(curve) / 3
    same = line(np.random.default_rng(1), grid, cell_mm=8, amplitude=4)
    np.testing.assert_allclose(same, 2 * curve, rtol=1e-6)


def test_profiles():
    x = np.linspace(-3, 3, 61, dtype=np.float32)
    rise = step(x, 1.0)
    assert np.all(np.diff(rise) >= 0)
    assert rise[30] == pytest.approx(0.5)
    assert rise[35] == pytest.approx(0.9, abs=0.02)  # 10 to 90 % within the width
    assert bump(x, 1.0)[30] == 1
    assert bump(x, 1.0)[40] == pytest.approx(np.exp(-1), rel=1e-5)


def test_facing_tells_horizontal_from_vertical():
    rows, columns = np.indices((16, 16), dtype=np.float32)
    assert facing(rows)[1:-1].min() > 0.99
    assert facing(columns)[:, 1:-1].max() < 0.01
