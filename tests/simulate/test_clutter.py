"""Clutter must not tell the classes apart. Tissue is blanked, so what remains is the console alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp

from ultraad.rng import seeded
from ultraad.simulate import phantom, simulate
from ultraad.simulate.anatomy import Tissue
from ultraad.simulate.clutter import Console, draw_clutter, draw_console, frame

SEEDS = 160
PLAIN = Console(border=(0, 0, 0, 0), ink=(230, 230, 230), tint=(1, 1, 1), ruler=None, grey_bar=False, logo="", jpeg=0)
BOXES = ((20, 20, 60, 50), (30, 40, 70, 80))


@pytest.fixture
def _black(monkeypatch):
    def blank(_style, grid, _rng):
        return Tissue(
            np.zeros((grid.size, grid.size), np.float32), np.zeros((grid.size, grid.size), np.float32), -9, 25, 2
        )

    monkeypatch.setattr(phantom, "draw_tissue", blank)
    monkeypatch.setattr(phantom, "acquire", lambda _tissue, grid, *_: np.zeros((grid.size, grid.size), np.uint8))


def amounts(label, first):
    return np.array([(simulate(first + i, label=label, size=64).image.max(-1) > 40).mean() for i in range(SEEDS)])


@pytest.mark.usefixtures("_black")
def test_amount_of_clutter_is_the_same_in_every_class():
    normal, benign, malignant = (
        amounts(label, first) for label, first in (("normal", 0), ("benign", 1000), ("malignant", 2000))
    )
    assert 0.4 < (normal > 0).mean() < 0.95  # there is clutter, and there are clean images
    assert ks_2samp(normal, benign).pvalue > 0.01
    assert ks_2samp(normal, malignant).pvalue > 0.01
    assert ks_2samp(normal, malignant + 0.01).pvalue < 0.01  # what a leak of 40 pixels would look like


@pytest.mark.usefixtures("_black")
def test_only_calipers_and_doppler_move_with_the_lesion():
    """One seed, two labels: the console is the same, except where it is set on the lesion or its decoy."""
    same = 0
    for seed in range(60):
        normal, malignant = (simulate(seed, label=label, size=64).image for label in ("normal", "malignant"))
        same += np.array_equal(normal, malignant)
    assert same / 60 > 0.75  # calipers 22 %, Doppler 5 %, half of both on the target


def test_calipers_are_on_the_target():
    hits = 0
    for seed in range(80):
        out = draw_clutter(np.zeros((96, 96, 3), np.uint8), PLAIN, np.random.default_rng(seed), targets=(BOXES[0],) * 2)
        rows, columns = np.nonzero(out.any(-1))
        x0, y0, x1, y1 = BOXES[0]
        if (
            len(rows)
            and rows.min() > y0 - 6
            and rows.max() < y1 + 6
            and columns.min() > x0 - 6
            and columns.max() < x1 + 6
        ):
            hits += 1
    assert hits >= 4


def test_input_is_not_changed():
    picture = np.full((96, 96, 3), 50, np.uint8)
    changed = [draw_clutter(picture, PLAIN, np.random.default_rng(s), targets=BOXES) for s in range(20)]
    assert (picture == 50).all()
    assert any((c != 50).any() for c in changed)


def test_border_shrinks_picture_and_mask_alike():
    picture = np.full((100, 100, 3), 200, np.uint8)
    mask = np.zeros((100, 100), np.bool_)
    mask[40:60, 30:50] = True
    picture[mask] = 0
    console = Console((0.1, 0, 0.2, 0.1), PLAIN.ink, PLAIN.tint, None, grey_bar=False, logo="", jpeg=0)
    out, marked = frame(picture, mask, console)
    assert not out[:10].any()
    assert not out[:, :20].any()
    assert not out[:, 90:].any()
    rows, columns = np.flatnonzero(marked.any(1)), np.flatnonzero(marked.any(0))
    assert abs(rows[0] - (10 + 40 * 0.9)) <= 1
    assert abs(columns[-1] - (20 + 50 * 0.7)) <= 1
    assert out[marked].mean() < 20
    same = frame(picture, mask, PLAIN)
    assert same[0] is picture
    assert same[1] is mask


def test_consoles_differ_and_every_element_can_be_drawn():
    consoles = [draw_console(seeded(i, "test")) for i in range(200)]
    assert {c.ruler for c in consoles} == {None, "left", "right"}
    for wanted in (any(c.logo for c in consoles), any(c.jpeg for c in consoles), any(c.grey_bar for c in consoles)):
        assert wanted
    clean = Console((0, 0, 0, 0), (250, 0, 0), (1, 1, 1), "left", grey_bar=True, logo="ABC", jpeg=80)
    out = draw_clutter(np.zeros((96, 96, 3), np.uint8), clean, np.random.default_rng(1), targets=BOXES)
    assert out[:10, :40].any()  # logo
    assert out[24:72, 2:6].any()  # grey bar
