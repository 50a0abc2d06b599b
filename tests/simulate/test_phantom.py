from __future__ import annotations

import random

import numpy as np
import pytest

from ultraad.errors import ConfigError
from ultraad.rng import seeded
from ultraad.simulate import LABELS, PROFILES, simulate
from ultraad.simulate.attributes import draw_attributes
from ultraad.simulate.imaging import draw_device


def test_everything_follows_from_the_seed():
    first, again, other = (simulate(seed, size=96) for seed in (7, 7, 8))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert (first.label, first.attributes, first.caption, first.device) == (
        again.label, again.attributes, again.caption, again.device,
    )  # fmt: skip
    assert not np.array_equal(first.image, other.image)


def test_global_random_state_is_not_changed():
    random.seed(0)
    python, numpy_state = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002  # this is the state we guard
    simulate(0, size=64)
    assert random.getstate() == python
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_fields_agree_with_the_label():
    found = set()
    for seed in range(60):
        p = simulate(seed, size=96)
        found.add(p.label)
        assert p.image.shape == (96, 96, 3)
        assert p.image.dtype == np.uint8
        assert p.mask.shape == (96, 96)
        assert p.mask.dtype == np.bool_
        assert p.device in PROFILES
        if p.label == "normal":
            assert not p.mask.any()
            assert p.attributes is None
        else:
            assert p.mask.any()
            assert p.attributes.label == p.label
    assert found == set(LABELS)


@pytest.mark.parametrize("device", sorted(PROFILES))
def test_every_device_shows_every_label(device):
    for label in LABELS:
        p = simulate(3, label=label, device=device, size=96)
        assert (p.device, p.label) == (device, label)
        assert p.mask.any() == (label != "normal")
        assert p.image.std() > 10


def test_lesion_and_normal_of_one_seed_show_the_same_breast():
    similar = []
    for seed in range(10):
        normal, benign, other = (
            simulate(s, label=label, size=96, clutter=False, device="midrange-linear")
            for s, label in ((seed, "normal"), (seed, "benign"), (seed + 100, "normal"))
        )
        away = ~benign.mask
        away[np.flatnonzero(benign.mask.any(1))[0] :, benign.mask.any(0)] = False  # shadows reach down
        a, b, c = (p.image[..., 0][away].astype(float) for p in (normal, benign, other))
        similar.append((np.corrcoef(a, b)[0, 1], np.corrcoef(a, c)[0, 1]))
    same, different = np.mean(similar, axis=0)
    assert same > 0.9
    assert different < 0.7


def test_images_of_a_patient_share_machine_and_breast_but_are_not_equal():
    patient = [simulate(seed, size=96, patient=5) for seed in range(8)]
    assert len({p.device for p in patient}) == 1
    assert len({p.image.tobytes() for p in patient}) == 8
    assert len({simulate(seed, size=96, patient=seed).device for seed in range(12)}) > 3


def test_size_changes_resolution_not_content():
    small, large = (simulate(4, label="benign", size=size, clutter=False) for size in (96, 192))
    overlap = small.mask & large.mask[::2, ::2]
    assert 2 * overlap.sum() / (small.mask.sum() + large.mask[::2, ::2].sum()) > 0.7


def test_a_machine_object_is_used_unchanged():
    machine = draw_device(seeded(0, "test"), "curved")
    assert simulate(1, device=machine, size=64).device == "curved"
    a, b = (simulate(1, device=machine, size=64, clutter=False, label="normal") for _ in range(2))
    assert np.array_equal(a.image, b.image)
    black = (a.image.max(-1) == 0).mean()
    assert black > 0.1  # the corners beside the fan


def test_a_family_brings_its_class():
    p = simulate(2, family="lobular carcinoma", size=64)
    assert (p.label, p.attributes.family) == ("malignant", "lobular carcinoma")


def test_wrong_arguments_are_refused_with_the_reason():
    attributes = draw_attributes(seeded(0, "test"), "malignant")
    with pytest.raises(ConfigError, match="no label 'cyst'; choose one of: benign, malignant, normal"):
        simulate(0, label="cyst")
    with pytest.raises(ConfigError, match="size must be 32 to 4096 pixels, got 16"):
        simulate(0, size=16)
    with pytest.raises(ConfigError, match="no device 'x-ray'"):
        simulate(0, device="x-ray")
    with pytest.raises(ConfigError, match="which is malignant; leave label out"):
        simulate(0, label="benign", attributes=attributes)
    with pytest.raises(ConfigError, match="no benign family 'lipomas'"):
        simulate(0, label="benign", family="lipomas")
    with pytest.raises(ConfigError, match="no normal family 'lipoma'"):
        simulate(0, label="normal", family="lipoma")
    with pytest.raises(ValueError, match="seed must be >= 0"):
        simulate(-1)
