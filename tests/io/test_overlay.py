"""Overlays: normal stays normal, one scale for all, contours where they belong."""

from __future__ import annotations

import numpy as np
import pytest

from ultraad.errors import DataError
from ultraad.io.overlay import OPACITY, THRESHOLD_COLOUR, TRUTH_COLOUR, heat, overlay

H, W = 40, 60


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (H, W, 3), dtype=np.uint8)


def test_heat_is_inferno_between_low_and_high():
    from matplotlib import colormaps

    levels = np.linspace(0, 1, 256).reshape(16, 16)
    wanted = np.rint(np.array(colormaps["inferno"].colors) * 255).astype(np.uint8).reshape(16, 16, 3)
    np.testing.assert_array_equal(heat(levels), wanted)
    np.testing.assert_array_equal(heat(levels * 8 - 3, low=-3, high=5), wanted)
    np.testing.assert_array_equal(heat(np.array([[-9.0, 9.0]])), wanted.reshape(256, 3)[None, [0, 255]])


def test_brightness_grows_with_the_value():
    grey = heat(np.linspace(0, 1, 256)[None]).astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(grey[0]) >= -0.5).all()


def test_a_normal_image_is_not_changed(image):
    np.testing.assert_array_equal(overlay(image, np.zeros((H, W)), threshold=0.5, mask=np.zeros((H, W), bool)), image)
    np.testing.assert_array_equal(overlay(image, np.full((H, W), 0.2), low=0.2), image)


def test_blend_by_hand(image):
    level = np.full((H, W), 0.5, dtype=np.float32)
    wanted = image * (1 - OPACITY / 2) + heat(level) * (OPACITY / 2)
    assert np.abs(overlay(image, level) - wanted).max() <= 0.5001  # blended in float32
    before = image.copy()
    overlay(image, np.ones((H, W)), threshold=0.1)
    np.testing.assert_array_equal(image, before)


def test_contours_are_the_inner_edge(image):
    mask = np.zeros((H, W), dtype=bool)
    mask[10:20, 15:30] = True
    found = np.zeros((H, W))
    found[25:40, 50:60] = 0.7  # touches two borders
    got = overlay(image, found, mask=mask, threshold=0.7)
    ring = mask.copy()
    ring[11:19, 16:29] = False
    np.testing.assert_array_equal((got == TRUTH_COLOUR).all(-1), ring)
    ring = found > 0
    ring[26:39, 51:59] = False
    np.testing.assert_array_equal((got == THRESHOLD_COLOUR).all(-1), ring)


def test_contours_are_thicker_in_larger_pictures():
    mask = np.zeros((900, 900), dtype=bool)
    mask[100:800, 100:800] = True
    got = overlay(np.zeros((900, 900, 3), np.uint8), np.zeros((900, 900)), mask=mask)
    assert (got == TRUTH_COLOUR).all(-1).sum() == 700**2 - 694**2


def test_arrays_that_cannot_be_shown_are_refused(image):
    with pytest.raises(DataError, match="map is"):
        overlay(image, np.zeros((W, H)))
    with pytest.raises(DataError, match="mask is"):
        overlay(image, np.zeros((H, W)), mask=np.zeros((W, H), bool))
    for bad in (np.nan, np.inf):
        with pytest.raises(DataError, match="NaN or infinity"):
            heat(np.full((4, 4), bad))
    with pytest.raises(DataError, match="low must be below high"):
        heat(np.zeros((4, 4)), low=1, high=1)
