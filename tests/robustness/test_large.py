"""Large pictures: few wide numbers at a time, with the result of the formula on the whole picture."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.robustness.mutations import MEMORY
from ultraad.io import brightness, read_image
from ultraad.io.brightness import GREY_DEPTHS, grey_depth, over_black, scale_grey, unit_to_byte
from ultraad.io.raster import MAX_PIXELS

rng = np.random.default_rng(0)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of a few rows are cut, too, with a rest at the end."""
    monkeypatch.setattr(brightness, "_PART", 7 * 50)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3), (8, 3000), (3000, 8)])
@pytest.mark.parametrize("top", [255, 1000, 4095, 20_000, 65_535])
def test_parts_give_what_the_formula_gives_for_the_whole(shape: tuple[int, ...], top: int) -> None:
    values = rng.integers(0, top + 1, shape, dtype=np.uint16)
    values.flat[0] = top
    depth = next(bits for bits in GREY_DEPTHS if top < 2**bits)
    wanted = np.rint(np.minimum(values * (255.0 / (2**depth - 1)), 255.0)).astype(np.uint8)
    np.testing.assert_array_equal(scale_grey(values, name="x"), wanted)
    unit = (values / top).astype(np.float32)
    np.testing.assert_array_equal(unit_to_byte(unit, name="x"), np.rint(unit * 255.0).astype(np.uint8))


@pytest.mark.usefixtures("small_parts")
def test_transparency_in_parts(tmp_path: Path) -> None:
    rgba = rng.integers(0, 256, (61, 50, 4), dtype=np.uint8)
    wanted = ((rgba[..., :3].astype(np.int64) * rgba[..., 3:] + 127) // 255).astype(np.uint8)
    np.testing.assert_array_equal(over_black(rgba), wanted)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), wanted)
    palette = Image.fromarray(rgba[..., 0]).convert("P")
    palette.save(tmp_path / "p.png", transparency=7)
    with Image.open(tmp_path / "p.png") as stored:
        whole = np.asarray(stored.convert("RGBA")).astype(np.int64)
    np.testing.assert_array_equal(
        read_image(tmp_path / "p.png"), ((whole[..., :3] * whole[..., 3:] + 127) // 255).astype(np.uint8)
    )


def depth_by_sorting(values: NDArray[np.int64]) -> int:
    """The rule as the docstring of ``scale_grey`` says it, on a sorted list."""
    rising = sorted(values.ravel().tolist())
    high = rising[-1]
    if high >= 256 and len(rising) > 3:
        rest = rising[-4]
        if rest and high > 2 * rest:
            high = max(v for v in rising if v <= 2 * rest)
    return next((bits for bits in GREY_DEPTHS if high < 2**bits), 16)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 300), st.integers(0, 65_535)), min_size=1, max_size=9))
def test_the_depth_without_defective_pixels(found: list[int]) -> None:
    values = np.array(found, dtype=np.uint16)[None]
    assert grey_depth(values) == depth_by_sorting(values.astype(np.int64))


def test_grey_of_sixteen_bits_takes_little_beside_the_picture() -> None:
    values = np.tile(rng.integers(0, 4096, (500, 500), dtype=np.uint16), (8, 8))
    tracemalloc.start()
    scale_grey(values, name="x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * values.size, "bytes; whole arrays of float64 would be 16 and more for each pixel"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grey", "colour", "float", "alpha"])
def test_the_largest_pictures_stay_below_the_limit(kind: str, tmp_path: Path, peak_of) -> None:
    import cv2

    side = int(MAX_PIXELS**0.5) // 800
    tile = rng.integers(0, 4096, (800, 800, 4), dtype=np.uint16)
    grey, path = tile[..., 0], tmp_path / "a.png"
    if kind == "grey":
        Image.fromarray(np.tile(grey, (side, side))).save(path, compress_level=1)
    elif kind == "colour":
        cv2.imwrite(str(path), np.tile(tile[..., :3], (side, side, 1)))
    elif kind == "float":
        path = tmp_path / "a.tif"
        Image.fromarray(np.tile(grey.astype(np.float32) / 5000, (side, side))).save(path)
    else:
        Image.fromarray(np.tile(tile.astype(np.uint8), (side, side, 1))).save(path, compress_level=1)
    assert peak_of(path) < MEMORY
