"""Masks: conventions, outlines against brute force and hand-made runs, sizes that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ultraad.errors import DataError
from ultraad.io import MaskSizeError, read_mask
from ultraad.io.mask import mask_values
from ultraad.io.png import encode_png
from ultraad.types import Region

H, W = 30, 41


@pytest.fixture
def lesion() -> np.ndarray:
    y, x = np.mgrid[:H, :W]
    return ((y - 12) / 8) ** 2 + ((x - 25) / 11) ** 2 <= 1


def save(path: Path, picture: np.ndarray | Image.Image, **options) -> Path:
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
    return path


@pytest.mark.parametrize("value", [1, 38, 255])
def test_any_grey_above_zero_is_lesion(tmp_path, lesion, value):
    got = read_mask([save(tmp_path / "m.png", lesion * np.uint8(value))], shape=(H, W))
    assert got.dtype == np.bool_
    np.testing.assert_array_equal(got, lesion)


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 1, 0), (0, 0, 200)])
def test_any_channel_counts_and_alpha_does_not(tmp_path, lesion, colour):
    rgb = lesion[..., None] * np.uint8(colour)
    np.testing.assert_array_equal(read_mask([save(tmp_path / "rgb.png", rgb)], shape=(H, W)), lesion)
    rgba = np.dstack([rgb, np.full((H, W), 255, np.uint8)])
    np.testing.assert_array_equal(read_mask([save(tmp_path / "rgba.png", rgba)], shape=(H, W)), lesion)
    rgba[..., 3] = 0
    np.testing.assert_array_equal(read_mask([save(tmp_path / "clear.png", rgba)], shape=(H, W)), lesion)


def test_deep_one_bit_palette_and_grey_alpha_masks(tmp_path, lesion):
    deep = np.where(lesion, np.uint16(1), np.uint16(0))
    deep[lesion & (np.arange(W) > 25)] = 60000  # the 1s must survive beside large labels
    indexed = Image.fromarray(lesion.astype(np.uint8)).convert("P")
    indexed.putpalette([0, 0, 0, 128, 0, 0])
    grey_alpha = Image.merge("LA", [Image.fromarray(lesion * np.uint8(9)), Image.new("L", (W, H), 255)])
    for i, picture in enumerate([deep, lesion, indexed, grey_alpha]):
        np.testing.assert_array_equal(read_mask([save(tmp_path / f"{i}.png", picture)], shape=(H, W)), lesion)


@pytest.mark.parametrize("value", [90, 255])
def test_jpeg_artefacts_are_not_lesion(tmp_path, lesion, value):
    path = save(tmp_path / "m.jpg", lesion * np.uint8(value), quality=60)
    assert (np.asarray(Image.open(path)) > 0).sum() > 1.1 * lesion.sum()  # the ripples are there
    got = read_mask([path], shape=(H, W))
    assert (got != lesion).sum() <= 0.08 * lesion.sum()
    black = save(tmp_path / "black.jpg", np.zeros((H, W), np.uint8))
    assert not read_mask([black], shape=(H, W)).any()


def test_several_masks_are_joined_and_none_is_empty(tmp_path, lesion):
    left = lesion & (np.arange(W) < 25)
    paths = [save(tmp_path / "a.png", left), save(tmp_path / "b.png", lesion & ~left)]
    np.testing.assert_array_equal(read_mask(paths, shape=(H, W)), lesion)
    assert not read_mask([], shape=(H, W)).any()


def test_a_mask_is_never_resized(tmp_path, lesion):
    path = save(tmp_path / "m.png", lesion)
    for masks in ([path], [Region(size=(H, W), rle=(H * W,))]):
        with pytest.raises(MaskSizeError, match=f"{W} x {H} pixels but its image is {H} x {W}"):
            read_mask(masks, shape=(W, H))
    assert issubclass(MaskSizeError, DataError)


def test_rectangle_by_hand():
    region = Region(size=(6, 8), polygons=((2.0, 1.0, 5.0, 1.0, 5.0, 4.0, 2.0, 4.0),))
    wanted = np.zeros((6, 8), dtype=bool)
    wanted[1:4, 2:5] = True
    np.testing.assert_array_equal(read_mask([region], shape=(6, 8)), wanted)


points = st.lists(st.tuples(st.floats(-5, 25), st.floats(-5, 20)), min_size=3, max_size=8)


@settings(max_examples=60, deadline=None)
@given(points)
def test_polygon_is_even_odd_at_pixel_centres(corners):
    region = Region(size=(16, 21), polygons=(tuple(v for xy in corners for v in xy),))
    got = read_mask([region], shape=(16, 21))
    for row in range(16):
        for col in range(21):
            x, y, inside, edge = col + 0.5, row + 0.5, False, False
            for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
                if (y0 > y) != (y1 > y):
                    cross = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
                    edge |= abs(cross - x) < 1e-9
                    inside ^= cross > x
                edge |= abs(y0 - y) < 1e-9
            assert edge or got[row, col] == inside


def test_polygon_parts_are_joined():
    parts = ((0.0, 0.0, 3.0, 0.0, 3.0, 3.0, 0.0, 3.0), (1.0, 1.0, 5.0, 1.0, 5.0, 5.0, 1.0, 5.0))
    got = read_mask([Region(size=(8, 8), polygons=parts)], shape=(8, 8))
    assert got.sum() == 9 + 16 - 4


def test_run_lengths_go_down_the_columns(lesion):
    flat = lesion.T.ravel()
    runs, value, count = [], False, 0
    for pixel in flat:
        if pixel != value:
            runs.append(count)
            value, count = pixel, 0
        count += 1
    region = Region(size=(H, W), rle=(*runs, count))
    np.testing.assert_array_equal(read_mask([region], shape=(H, W)), lesion)
    starts_with_lesion = Region(size=(2, 3), rle=(0, 1, 5))
    assert np.argwhere(read_mask([starts_with_lesion], shape=(2, 3))).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (Region(size=(4, 4), rle=(3, 4)), "sum to 7; a 4 x 4 mask has 16"),
        (Region(size=(4, 4), rle=(-1, 17)), "damaged"),
        (Region(size=(4, 4)), "sum to 0"),
        (Region(size=(4, 4), polygons=((0.0, 0.0, 1.0, 1.0),)), "4 numbers"),
        (Region(size=(4, 4), polygons=((0.0,) * 7,)), "7 numbers"),
    ],
)
def test_damaged_outlines(region, message):
    with pytest.raises(DataError, match=message):
        read_mask([region], shape=(4, 4))


def palette_mask(lesion: np.ndarray, background: tuple[int, int, int]) -> Image.Image:
    out = Image.fromarray(lesion.astype(np.uint8), "P")
    out.putpalette([*background, 255, 0, 0])
    return out


def alpha_mask(lesion: np.ndarray) -> Image.Image:
    white = np.full((*lesion.shape, 4), 255, np.uint8)
    white[..., 3] = lesion * 255
    return Image.fromarray(white)


def test_the_values_of_a_mask_read_as_the_same_lesion(tmp_path, lesion):
    labels = lesion.astype(np.uint8) * 2
    image = save(tmp_path / "image.png", np.zeros(lesion.shape, np.uint8))
    for number, (picture, suffix, stays) in enumerate(
        [
            (labels, "png", True),
            (labels.astype(np.uint16) * 300, "png", True),
            (np.dstack([labels, labels * 0, labels * 7]), "png", True),
            (Image.fromarray(lesion), "png", False),
            (palette_mask(lesion, (0, 0, 0)), "png", False),
            (palette_mask(lesion, (9, 9, 9)), "png", False),
            (alpha_mask(lesion), "png", False),
            (Image.fromarray(labels * 127), "jpg", False),
        ]
    ):
        path = save(tmp_path / f"{number}.{suffix}", picture)
        values = mask_values(path, image=image)
        again = tmp_path / f"{number}-again.png"
        again.write_bytes(encode_png(values))
        shape = lesion.shape
        np.testing.assert_array_equal(read_mask([again], shape=shape), read_mask([path], shape=shape))
        if stays:
            np.testing.assert_array_equal(values, picture)


def test_the_values_of_a_mask_of_another_shape_are_refused(tmp_path, lesion):
    path = save(tmp_path / "a.png", lesion.astype(np.uint8))
    with pytest.raises(DataError, match="its image is"):
        mask_values(path, image=save(tmp_path / "image.png", np.zeros((90, 10), np.uint8)))
