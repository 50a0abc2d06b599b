"""Pictures in another look: each way by its definition, and what none of them may change."""

from __future__ import annotations

import numpy as np
import pytest

from ultraad.translate import STYLES, Style, restyle

RNG = np.random.default_rng(0)


def pictures(low, high, count=3, shape=(96, 80)):
    """Speckle between two grey values in a black frame."""
    made = []
    for _ in range(count):
        picture = np.zeros(shape, np.uint8)
        picture[8:-8, 8:-8] = RNG.integers(low, high, (shape[0] - 16, shape[1] - 16))
        made.append(picture)
    return made


DARK, BRIGHT = pictures(20, 90), pictures(100, 240, shape=(120, 100))
STYLE = Style.of(BRIGHT)


def test_the_look_counts_tissue_only_and_every_picture_the_same():
    small = np.full((65, 65), 40, np.uint8)
    large = np.full((130, 130), 60, np.uint8)
    large[:60] = 0
    style = Style.of([small, large, np.zeros((80, 80), np.uint8), np.full((10, 10), 9, np.uint8)])
    assert (style.mean, style.deviation) == (50, 0)
    assert sorted(set(style.quantiles)) == [40, 60]
    assert (style.quantiles == 40).sum() == 128
    flat = Style.of([small]).amplitude
    assert flat[32, 32] == pytest.approx(40)
    assert flat.sum() == pytest.approx(40)
    with pytest.raises(ValueError, match="no picture has tissue"):
        Style.of([np.zeros((80, 80), np.uint8)])


@pytest.mark.parametrize("way", STYLES)
def test_black_stays_black_tissue_stays_tissue_and_colours_stay(way):
    grey = DARK[0]
    got = restyle(grey, STYLE, way, beta=0.05)
    assert got.dtype == np.uint8
    assert np.array_equal(got == 0, grey == 0)
    assert got[grey > 0].mean() > grey[grey > 0].mean() + 20
    colour = np.stack([grey, grey, grey], -1)
    assert np.array_equal(restyle(colour, STYLE, way, beta=0.05), np.stack([got] * 3, -1))
    colour[20, 20] = (60, 30, 90)
    found = restyle(colour, STYLE, way, beta=0.05)[20, 20].astype(int)
    assert (found[0] - found[1], found[2] - found[0]) == (30, 30)
    assert np.array_equal(restyle(np.zeros_like(grey), STYLE, way), np.zeros_like(grey))


def test_histograms_match_at_equal_shares():
    got = restyle(DARK[0], STYLE, "histogram")
    tissue = DARK[0] > 0
    wanted = np.concatenate([p[p > 0] for p in BRIGHT])
    shares = np.linspace(0.05, 0.95, 19)
    assert np.abs(np.quantile(got[tissue], shares) - np.quantile(wanted, shares)).max() <= 3
    order = np.argsort(DARK[0][tissue], kind="stable")
    assert (np.diff(got[tissue][order].astype(int)) >= 0).all(), "the order of grey values stays"


def test_moments_become_those_of_the_style():
    got = restyle(DARK[0], STYLE, "moments")[DARK[0] > 0]
    assert got.mean() == pytest.approx(STYLE.mean, abs=0.5)
    assert got.std() == pytest.approx(STYLE.deviation, abs=0.5)


def test_fourier_exchanges_the_amplitude_of_low_frequencies_and_keeps_every_phase():
    picture = np.random.default_rng(1).integers(100, 140, (90, 70)).astype(np.uint8)  # no black: nothing is held back
    style = Style.of([np.random.default_rng(2).integers(110, 150, (100, 100)).astype(np.uint8)])
    got = np.fft.fft2(restyle(picture, style, "fourier", beta=0.05).astype(float))
    was, cycles = np.fft.fft2(picture.astype(float)), int(0.05 * 70)
    for u in range(-cycles - 2, cycles + 3):
        for v in range(-cycles - 2, cycles + 3):
            low = max(abs(u), abs(v)) <= cycles
            wanted = style.amplitude[32 + u, 32 + v] * picture.size if low else abs(was[u, v])
            assert abs(got[u, v]) == pytest.approx(wanted, abs=250), (
                u,
                v,
            )  # of up to 1000: rounding to whole grey values
            if abs(was[u, v]) > 1500 and wanted > 1500:
                assert np.angle(got[u, v] / was[u, v]) == pytest.approx(0, abs=0.15)


@pytest.mark.parametrize("way", ["histogram", "moments"])
def test_a_picture_in_its_own_look_hardly_changes(way):
    own = Style.of([DARK[0]])
    assert np.abs(restyle(DARK[0], own, way).astype(int) - DARK[0]).max() <= 2
