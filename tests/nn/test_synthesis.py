"""Synthetic anomalies against slow or closed forms; their statistics are in tests/parity/test_medi_clip.py."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from ultraad.nn.synthesis import (
    FAMILIES,
    SIDES,
    CutPaste,
    Deformation,
    GaussIntensity,
    Patch,
    SmoothIntensity,
    apply,
    deformed_shape,
    draw,
    noise_shape,
    rim_distance,
)

CHANGING = [f for f in FAMILIES if f != "identity"]


def pictures(shape=(96, 96), count=3):
    rng = np.random.default_rng(0)
    return [gaussian_filter(rng.random(shape), 2).astype(np.float32) for _ in range(count)]


def disc(side=41, radius=18):
    y, x = np.mgrid[:side, :side] - side // 2
    return np.hypot(y, x) <= radius


def at(patch, image):
    return np.s_[patch.top : patch.top + patch.mask.shape[0], patch.left : patch.left + patch.mask.shape[1]]


@pytest.mark.parametrize("shape", [(96, 96), (48, 80), (16, 16)])
@pytest.mark.parametrize("family", CHANGING)
def test_every_family_on_every_shape(family, shape):
    images = pictures(shape)
    for seed in range(30):
        steps = draw(family, np.random.default_rng(seed), shape=shape, sources=3)
        assert 1 <= len(steps) <= 2
        for patch, _ in steps:
            h, w = patch.mask.shape
            assert patch.mask.any()
            assert 0 <= patch.top <= shape[0] - h
            assert 0 <= patch.left <= shape[1] - w
            assert h <= max(2, round(SIDES[family][1] * shape[0]))
            assert w <= max(2, round(SIDES[family][1] * shape[1]))
        image, mask = apply(images[0], steps, images)
        assert (image.dtype, image.shape, mask.dtype, mask.shape) == (np.float32, shape, bool, shape)
        assert 0 <= image.min() <= image.max() <= 1
        assert np.abs(image - images[0])[~mask].max() <= (0.5 / 255 if family == "cutpaste" else 0)
        union = np.zeros(shape, bool)
        for patch, _ in steps:
            union[at(patch, image)] |= patch.mask
        assert not (mask & ~union).any()
        assert family == "cutpaste" or np.array_equal(mask, union)
        again, _ = apply(images[0], draw(family, np.random.default_rng(seed), shape=shape, sources=3), images)
        assert np.array_equal(again, image)
    assert all(np.array_equal(a, b) for a, b in zip(images, pictures(shape), strict=True)), "inputs were changed"


def test_identity_does_nothing():
    image = pictures()[0]
    out, mask = apply(image, draw("identity", np.random.default_rng(0), shape=(96, 96), sources=1), [image])
    assert np.array_equal(out, image)
    assert out is not image
    assert not mask.any()


def test_a_second_anomaly_comes_half_of_the_time():
    rng = np.random.default_rng(0)
    twice = [len(draw("smooth_intensity", rng, shape=(64, 64), sources=1)) == 2 for _ in range(400)]
    assert np.mean(twice) == pytest.approx(0.5, abs=0.1)


def test_cutpaste_copies_a_piece_of_the_source():
    source = pictures()[1]
    patch = Patch(10, 20, np.ones((31, 21), bool))
    change = CutPaste(source=0, angle=0.0, scale=1.0, place=(1.0, 0.0))  # bottom left
    np.testing.assert_allclose(change.new(source, patch, [source]), source[-31:, :21], atol=1e-5)
    quarter = CutPaste(source=0, angle=90.0, scale=1.0, place=(0.0, 0.0))
    np.testing.assert_allclose(quarter.new(source, patch, [source]), np.rot90(source[:21, :31], -1), atol=1e-5)


def test_cutpaste_magnifies_but_takes_no_more_than_four_fifths():
    y = np.mgrid[:80, :80][0].astype(np.float32) / 80
    patch = Patch(0, 0, np.ones((40, 40), bool))
    for scale, span in ((1.0, 39), (2.0, 39 / 2), (0.1, 39 * 64 / 40)):
        got = CutPaste(source=0, angle=0.0, scale=scale, place=(0.5, 0.5)).new(y, patch, [y])
        assert np.ptp(got) * 80 == pytest.approx(span, rel=1e-3)
        assert np.ptp(got, axis=1).max() < 1e-5


def test_pasted_tissue_is_labelled_where_it_shows_brighter_or_darker():
    image = np.full((60, 60), 0.5, np.float32)
    source = image.copy()
    source[20:30, 20:30] = 0.7
    source[30:40, 20:30] = 0.3  # an unsigned difference would wrap around
    source[24:26, 24:26] = 0.5  # a hole in what shows
    change = CutPaste(source=0, angle=0.0, scale=1.0, place=(0.5, 0.5))
    patch = Patch(6, 6, np.ones((48, 48), bool))  # 0.8 of the source, in its middle
    out, mask = apply(image, ((patch, change),), [source])
    expected = np.zeros((60, 60), bool)
    expected[20:40, 20:30] = True
    assert mask[expected].all()
    assert mask.sum() < 2 * expected.sum()  # cubic splines ring around an edge
    assert not mask[:12].any()
    assert not mask[:, 44:].any()
    np.testing.assert_allclose(out[[21, 31], [21, 28]], [0.7, 0.3], atol=0.03)


def test_gauss_intensity_by_hand():
    mask = disc()
    texture = np.linspace(-0.6, 0.6, 41, dtype=np.float32)[None].repeat(41, 0)
    image = np.full((50, 50), 0.5, np.float32)
    out, found = apply(image, ((Patch(3, 7, mask), GaussIntensity(texture, 2.0)),), [])
    weight = gaussian_filter(mask.astype(np.float32), 2.0)
    expected = np.where(mask, np.clip(0.5 + texture * weight, 0, 1), 0.5)
    np.testing.assert_allclose(out[3:44, 7:48], expected, atol=1e-6)
    assert np.array_equal(found[3:44, 7:48], mask)
    assert found.sum() == mask.sum()


@pytest.mark.parametrize("change", [0.3, -0.3])
def test_smooth_intensity_by_brute_force(change):
    mask = disc()
    image = np.full((45, 45), 0.5, np.float32)
    image[0, :2] = (0.35, 0.65)  # its range
    out, _ = apply(image, ((Patch(2, 2, mask), SmoothIntensity(change, 10.0)),), [])
    outside = np.argwhere(~mask)
    for y, x in np.argwhere(mask)[::7]:
        depth = min(1, np.hypot(*(outside - (y, x)).T).min() / 10)
        assert out[y + 2, x + 2] == pytest.approx(np.clip(0.5 + change * depth, 0.35, 0.65), abs=1e-6)


@pytest.mark.parametrize("outwards", [True, False])
def test_deformation_follows_its_formula(outwards):
    mask, centre, k, radius = disc(), (24, 15), 1.7, 18.5  # 18.5: the first half pixel outside
    image = pictures((41, 41))[0]
    got = Deformation(centre, k, outwards=outwards).new(image, Patch(0, 0, mask), [])
    where = []
    for y, x in np.argwhere(mask):
        dy, dx = y - centre[0], x - centre[1]
        d = math.hypot(dy, dx)
        if d == 0:
            where.append(centre)
            continue
        a, b = (centre[0] - 20) * dy / d + (centre[1] - 20) * dx / d, (centre[0] - 20) ** 2 + (centre[1] - 20) ** 2
        rim = -a + math.sqrt(a * a - b + radius**2)
        new = d**k / rim ** (k - 1) if outwards else rim - (rim - min(d, rim)) ** k / rim ** (k - 1)
        where.append((centre[0] + dy / d * new, centre[1] + dx / d * new))
    expected = map_coordinates(image, np.array(where).T, order=3, mode="nearest")
    difference = np.abs(got[mask] - expected)
    assert np.median(difference) < 2e-3  # rims differ by up to a pixel
    assert difference.max() < 0.1 * np.ptp(image)
    assert np.abs(got - image)[mask].mean() > 10 * difference.mean()


def test_source_grows_the_centre_and_sink_shrinks_it():
    y, x = np.mgrid[:81, :81] - 40
    image = (np.hypot(y, x) <= 8).astype(np.float32)  # a spot in the middle
    patch = Patch(10, 10, disc(61, 28))
    areas = {}
    for outwards in (True, False):
        out, _ = apply(image, ((patch, Deformation((30, 30), 2.0, outwards=outwards)),), [])
        areas[outwards] = (out > 0.5).sum()
    assert areas[True] == pytest.approx(math.pi * 8 * 28, rel=0.1)  # d^2 / 28 = 8 at d = sqrt(8 * 28)
    assert areas[False] < 0.5 * image.sum()


def test_rim_of_a_disc():
    y, x = np.mgrid[:61, :81]
    mask = np.hypot(y - 30, x - 40) <= 25
    angles = np.deg2rad(np.arange(-180, 180, 15))
    along, beside = 10 * np.cos(angles), 10 * np.sin(angles)
    expected = np.sqrt(25**2 - beside**2) - along  # from 10 pixels right of the middle
    np.testing.assert_allclose(rim_distance(mask, (30, 50), angles), expected, atol=1.1)


def test_shapes_fill_what_they_promise():
    rng = np.random.default_rng(0)
    sides, low, high = np.array([100, 160]), np.array([20, 32]), np.array([60, 96])
    fills = []
    for _ in range(200):
        mask = deformed_shape(rng, sides, low, high)
        assert (mask.shape <= high).all()
        fills.append(mask.mean())
        blob = noise_shape(rng, np.array([30, 50]))
        assert blob.shape == (30, 50)
        assert blob.mean() >= 0.2
    assert 0.3 < np.mean(fills) < 0.9
