from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from ultraad.errors import ConfigError
from ultraad.rng import seeded
from ultraad.simulate.anatomy import Tissue
from ultraad.simulate.fields import Grid
from ultraad.simulate.imaging import PROFILES, acquire, draw_device, view

GRID = Grid(size=128, depth_mm=40, width_mm=40)


@pytest.fixture
def device():
    return replace(draw_device(seeded(0, "test"), "midrange-linear"), compounding=0.0, sharpening=0.0, smoothing=0.0)


def uniform_tissue(level=0.0):
    shape = (GRID.size, GRID.size)
    return Tissue(np.full(shape, level, np.float32), np.zeros(shape, np.float32), -10.0, 25.0, 1.5)


def mean_picture(make, device, n=12):
    return np.mean([acquire(make(), GRID, device, np.random.default_rng(i)).astype(float) for i in range(n)], axis=0)


def test_devices_stay_within_their_profile():
    for name, profile in PROFILES.items():
        device = draw_device(seeded(1, "test"), name)
        for f in fields(profile):
            low, high = getattr(profile, f.name)
            assert low <= getattr(device, f.name) <= high, (name, f.name)


def test_all_profiles_are_drawn_and_unknown_ones_refused():
    assert {draw_device(seeded(i, "test")).name for i in range(300)} == set(PROFILES)
    with pytest.raises(ConfigError, match="no device 'mri'; choose one of: curved"):
        draw_device(seeded(0, "test"), "mri")


def test_brighter_tissue_is_brighter(device):
    def halves():
        tissue = uniform_tissue()
        tissue.echo[:, 64:] -= 15
        return tissue

    picture = mean_picture(halves, device)
    assert picture[:, 70:].mean() < 0.75 * picture[:, :58].mean()


def test_attenuation_casts_a_shadow_downward_only(device):
    def shadow():
        tissue = uniform_tissue()
        tissue.loss[50:70, 50:78] = 0.3  # 6.25 mm of 0.3 dB / (mm MHz)
        return tissue

    clear, shaded = mean_picture(uniform_tissue, device), mean_picture(shadow, device)
    change = shaded - clear
    assert change[80:, 56:72].mean() < -25
    assert abs(change[:45].mean()) < 5


def test_compounding_smooths_speckle(device):
    def contrast(amount):
        picture = mean_picture(uniform_tissue, replace(device, compounding=amount), n=1)[20:60, 40:90]
        return (picture - picture.mean(1, keepdims=True)).std() / picture.mean()

    assert contrast(0.9) < 0.75 * contrast(0.0)


def test_lateral_resolution_sets_the_speckle_width(device):
    def width(lateral_mm):
        sharp = replace(device, lateral_mm=lateral_mm, axial_mm=0.2, noise_db=-80.0, clutter_db=-80.0, defocus=0.0)
        p = acquire(uniform_tissue(), GRID, sharp, np.random.default_rng(0)).astype(float)[20:60]
        p = p - p.mean()
        return (p[:, 2:] * p[:, :-2]).mean() / (p * p).mean()

    assert width(1.6) > width(0.4) + 0.2


def test_view_follows_the_machine():
    device = draw_device(seeded(0, "test"), "curved")
    for i in range(20):
        grid = view(device, 64, seeded(i, "test"))
        assert grid.size == 64
        assert grid.radius_mm == device.radius_mm
        assert 0.4 * device.depth_mm < grid.depth_mm < 1.25 * device.depth_mm
