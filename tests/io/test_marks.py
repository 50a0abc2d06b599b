"""White and grey marks: calipers and rows of letters are found on speckle, and what tissue looks like is not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ultraad.io.marks import are_marks, coloured, overlays, paint_out, paint_overlays, white
from ultraad.simulate import simulate

GREYS = [(255, 255, 255), (190, 190, 190)]


def tissue(seed=0):
    """A simulated image without any mark, uint8 (256 256 3)."""
    return simulate(seed, size=256, clutter=False).image.copy()


def caliper(image, x, y, colour, *, arm=5, diagonal=False):
    for dx, dy in ((arm, arm), (arm, -arm)) if diagonal else ((arm, 0), (0, arm)):
        cv2.line(image, (x - dx, y - dy), (x + dx, y + dy), colour)


def written(image, words, colour=(255, 255, 255), at=(20, 200), size=0.4):
    cv2.putText(image, words, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


@pytest.mark.parametrize("colour", GREYS)
@pytest.mark.parametrize("diagonal", [False, True])
def test_a_caliper_is_found_and_only_it(colour, diagonal):
    clean = np.full((128, 128, 3), 60, np.uint8)
    image = clean.copy()
    caliper(image, 50, 70, colour, diagonal=diagonal)
    assert np.array_equal(white(image), (image != clean).any(-1))
    assert cv2.absdiff(paint_out(image, white(image)), clean).max() <= 2


@pytest.mark.parametrize("seed", range(4))
def test_marks_on_speckle_are_painted_out(seed):
    clean = tissue(seed)
    clean = (clean * 0.6).astype(np.uint8)  # a caliper on saturated tissue cannot be seen
    image = clean.copy()
    caliper(image, 90, 60, GREYS[0])
    written(image, "MAMA 12.4 mm")
    marks = (image != clean).any(-1)
    filled = (paint_out(image, white(image)) != image).any(-1)
    assert (filled & marks).sum() >= 0.9 * marks.sum()
    near = cv2.dilate(marks.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    assert not (filled & ~near).any()


def test_what_tissue_looks_like_is_no_mark():
    for seed in range(4):
        image = tissue(seed)
        image[30:33] = 255  # a skin line
        cv2.ellipse(image, (128, 128), (50, 30), 0, 0, 360, (230, 230, 230), 2)  # the border of a lesion
        cv2.circle(image, (60, 220), 3, (255, 255, 255), -1)  # calcifications
        cv2.circle(image, (75, 222), 2, (255, 255, 255), -1)
        assert not white(image).any(), seed


def test_three_letters_are_a_row_and_two_are_not():
    for words, expected in (("72", False), ("724", True)):
        image = np.full((256, 256, 3), 40, np.uint8)
        written(image, words)
        assert white(image).any() == expected, words
    image = np.full((256, 256, 3), 40, np.uint8)
    for i, letter in enumerate("724"):
        written(image, letter, at=(20 + 9 * i, 200 + 5 * i))
    assert not white(image).any(), "letters that do not stand on one line"


def test_the_contrast_of_a_caliper_is_what_loops_say():
    from ultraad.io.marks import _contrast, _plus

    grey = np.random.default_rng(0).integers(0, 256, (12, 14), dtype=np.uint8)
    found = _contrast(grey, _plus(3))
    for y in range(3, 9):
        for x in range(3, 11):
            arms = min(min(grey[y, x - 3 : x + 4]), min(grey[y - 3 : y + 4, x]))
            corners = [grey[y + dy : y + dy + 2, x + dx : x + dx + 2].mean() for dy in (-3, 2) for dx in (-3, 2)]
            inner = [grey[y + dy, x + dx] for dy in (-2, 2) for dx in (-2, 2)]
            assert found[y, x] == pytest.approx(float(arms) - max(*corners, *inner), abs=1e-3)


def test_overlays_are_both_kinds_and_the_benchmark_paints_coloured_ones_only():
    image = np.full((128, 128, 3), 60, np.uint8)
    caliper(image, 40, 40, (255, 255, 255))
    white_only = image.copy()
    image[100:103, 60:90] = (255, 220, 40)  # a line has no shape of a caliper or of a letter
    assert np.array_equal(overlays(image), coloured(image) | white(image))
    assert np.array_equal(paint_overlays(image), paint_out(image, coloured(image)))
    assert np.array_equal(paint_overlays(image)[:60], white_only[:60])
    assert abs(paint_out(image, overlays(image)).astype(int) - 60).max() <= 2


def test_a_page_of_text_is_left_as_it_is():
    image = np.full((256, 256, 3), 40, np.uint8)
    for y in range(14, 256, 12):
        written(image, "WHITE LETTERS ON A FULL PAGE", at=(2, y), size=0.5)
    found = white(image)
    assert found.mean() > 0.1
    assert not are_marks(found)
    assert paint_out(image, found) is image
