"""A grid reads as the pixels that the full map has, to the last digit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ultraad.data.preprocess import Preprocess
from ultraad.errors import DataError
from ultraad.fan import Fan
from ultraad.io.maps import read_grid, read_map, write_grid, write_map
from ultraad.types import MapGrid, PreprocessConfig

FAN = Fan("sector", (10, 5, 90, 80), (55.25, -12.5), (14.0, 91.0), (-31.5, 40.1))


@pytest.mark.parametrize("mode", ["squash", "pad"])
@pytest.mark.parametrize("region", [None, (7, 3, 101, 77)])
@pytest.mark.parametrize("fan", [None, FAN])
@pytest.mark.parametrize("side", [14, 64, 100])
def test_a_grid_reads_as_the_full_map(tmp_path: Path, mode, region, fan, side) -> None:
    prepare = Preprocess(PreprocessConfig(64, (0.5,) * 3, (0.5,) * 3, mode=mode))
    values = np.random.default_rng(side).random((side, side)).astype(np.float32) * 1.1 - 0.05  # beyond 0..1, too
    grid = MapGrid(values, prepare.geometry((97, 123), region, fan))
    write_map(tmp_path / "full.png", np.clip(grid.on_pixels(), 0.0, 1.0))
    write_grid(tmp_path / "grid.npz", grid)
    full, read = read_map(tmp_path / "full.png"), read_map(tmp_path / "grid.npz")
    assert read.shape == (97, 123)
    np.testing.assert_array_equal(read, full)
    again = read_grid(tmp_path / "grid.npz")
    np.testing.assert_array_equal(again.values, values)
    assert again.geometry == grid.geometry


def test_any_program_reads_the_file_of_a_grid(tmp_path: Path) -> None:
    geometry = Preprocess(PreprocessConfig(32, (0.5,) * 3, (0.5,) * 3)).geometry((40, 50))
    values = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32)
    write_grid(tmp_path / "a.npz", MapGrid(values, geometry))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz")["map"], values)


def test_what_is_no_grid_is_refused(tmp_path: Path) -> None:
    geometry = Preprocess(PreprocessConfig(32, (0.5,) * 3, (0.5,) * 3)).geometry((40, 50))
    path = tmp_path / "a.npz"
    huge = replace(geometry, original_hw=(100_000, 100_000))
    for grid in (MapGrid(np.zeros((8, 8), np.float32), huge), MapGrid(np.zeros((8, 8, 2), np.float32), geometry)):
        write_grid(path, grid)
        with pytest.raises(DataError, match=r"megapixels|wanted a map"):
            read_map(path)
    np.savez(path, map=np.zeros((8, 8), np.float32))
    with pytest.raises(DataError, match="not the grid of a map"):
        read_map(path)
    path.write_bytes(b"no grid")
    with pytest.raises(DataError, match="not the grid of a map"):
        read_map(path)
    with pytest.raises(DataError, match="does not exist"):
        read_map(tmp_path / "gone.npz")
