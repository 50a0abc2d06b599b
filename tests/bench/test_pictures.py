"""Overlays are painted out, and small maps keep the content of large ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests import helpers
from ultraad.bench.pictures import pack_maps, painted, small_map, small_pictures, unpack_maps
from ultraad.data import sources
from ultraad.io import read_image
from ultraad.io.marks import paint_overlays


def marked(seed=3):
    """A picture, and the same with a yellow cross."""
    grey, _ = helpers.picture(seed, lesion=False)
    image = grey.copy()
    image[20, 10:21] = image[15:26, 15] = (255, 220, 0)
    return grey, image


def test_coloured_pixels_are_replaced_and_grey_ones_stay():
    grey, image = marked()
    clean = paint_overlays(image)
    assert (clean.max(-1).astype(int) - clean.min(-1)).max() < 40
    far = np.ones(grey.shape[:2], bool)
    far[10:31, 5:26] = False
    assert (clean[far] == image[far]).all()
    assert (paint_overlays(grey) == grey).all()


def test_overlays_are_filled_from_the_pixels_around_them():
    ramp = np.repeat(np.tile(np.arange(64, dtype=np.uint8) * 3, (48, 1))[..., None], 3, axis=-1)
    image = ramp.copy()
    image[15:26, 30] = (0, 255, 0)
    assert np.abs(paint_overlays(image).astype(int) - ramp).max() <= 6


def test_doppler_is_left_as_it_is():
    grey, _ = marked()
    grey[:24, :, 0] = 255
    assert (paint_overlays(grey) == grey).all()


def test_painted_samples_differ_in_the_picture_only(tmp_path):
    root = helpers.write_busi(tmp_path / "busi", per_class=1)
    _, image = marked()
    helpers.save(root / "normal" / "normal (1).png", image)
    samples = sources.scan(root)
    found = painted(samples, tmp_path / "painted")
    assert [replace(a, image=b.image) for a, b in zip(found, samples, strict=True)] == list(samples)
    normal = next(s for s in found if s.label == "normal")
    assert (read_image(normal.image) == paint_overlays(image)).all()
    files = sorted((tmp_path / "painted").iterdir())
    assert painted(samples, tmp_path / "painted") == found
    assert sorted((tmp_path / "painted").iterdir()) == files
    (root / "normal" / "normal (1).png").write_bytes(b"no picture")
    assert painted(samples, tmp_path / "painted")[samples.index(samples[-1])].image == samples[-1].image


def test_packed_maps_are_unpacked_within_their_precision():
    rng = np.random.default_rng(0)
    maps = [small_map(rng.uniform(low, low + 0.02, (200, 300)).astype(np.float32)) for low in (0.1, 0.9)]
    maps.append(np.full((96, 96), 0.25, np.float32))
    back = unpack_maps(pack_maps(["a", "b", "c"], maps))
    assert back.ids == ("a", "b", "c")
    for a, b in zip(maps, back.maps, strict=True):
        assert np.abs(a - b).max() <= (a.max() - a.min()) / 500 + 1e-7


def test_a_small_map_keeps_its_mean_and_layout():
    full = np.zeros((192, 384), np.float32)
    full[:96, 192:] = 1  # top right quarter
    small = small_map(full)
    assert small.mean() == pytest.approx(0.25)
    assert (small[:48, 48:] == 1).all()


def test_small_pictures_leave_out_unreadable_files(tmp_path):
    root = helpers.write_busi(tmp_path, per_class=1)
    samples = sources.scan(root)
    benign = next(s for s in samples if s.label == "benign")
    benign.image.write_bytes(b"no picture")
    found = small_pictures([replace(s, masks=()) if s.label == "malignant" else s for s in samples])
    assert list(found["ids"]) == [s.id for s in samples if s is not benign]
    assert list(found["known"]) == ["malignant" not in i for i in found["ids"]]
    assert found["sizes"].tolist() == [[48, 64]] * 2
