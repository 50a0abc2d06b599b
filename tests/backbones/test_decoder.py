"""Finer patches: in the right places, the same from a cache, and better at small lesions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretraining.decoder import location_prior

import ultraad
from ultraad.backbones import load_backbone
from ultraad.backbones._decoder import FIRST, LOCATION, Decoder
from ultraad.methods.ultraad import UltraADConfig
from ultraad.simulate import simulate


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("embedded")


def pictures(backbone, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, backbone.size, backbone.size, generator=generator)


def test_the_tokens_are_open_clips(backbone):
    images = pictures(backbone)
    with torch.inference_mode():
        assert torch.equal(backbone.embed_image(images), backbone._visual._embeds(images))


def test_a_new_decoder_enlarges_the_patches_and_adds_nothing():
    decoder = Decoder(fine=3, width=8)
    coarse = torch.arange(6.0).repeat(1, 8, 1).mT  # 2 x 3 patches, each channel 0 .. 5 row by row
    made = decoder(torch.rand(1, 3, 4, 6), {FIRST: coarse})[FIRST]
    assert made.shape == (1, 24, 8)
    rows, columns = np.meshgrid(
        np.clip(np.arange(4) / 2 - 0.25, 0, 1), np.clip(np.arange(6) / 2 - 0.25, 0, 2), indexing="ij"
    )
    assert np.allclose(made[0, :, 0].detach().view(4, 6), 3 * rows + columns, atol=1e-5)


def test_what_it_adds_comes_from_two_convolutions_over_trunk_and_patches():
    torch.manual_seed(0)
    decoder = Decoder(fine=3, width=8)
    torch.nn.init.normal_(decoder.widen.weight)
    trunk, coarse = torch.randn(2, 3, 4, 6), torch.randn(2, 6, 8)
    with torch.inference_mode():
        made = decoder(trunk, {0: coarse, FIRST: coarse})
        narrow = decoder.narrow(F.layer_norm(coarse, (8,)).mT.reshape(2, 8, 2, 3))
        seen = torch.cat([trunk / 4, F.interpolate(narrow, scale_factor=2.0, mode="bilinear")], 1)
        added = decoder.widen(F.gelu(decoder.second(F.gelu(decoder.first(seen)))))
    assert torch.allclose(made[FIRST] - made[0], added.flatten(2).mT, atol=1e-5)
    assert added.abs().max() > 0.1


def test_early_layers_are_only_enlarged(backbone):
    with torch.inference_mode():
        f = backbone.encode_image(pictures(backbone), layers=(FIRST - 1, FIRST))
        finer = backbone.finer(f)
        plain = torch.nn.functional.interpolate(
            f.patches[FIRST - 1].mT.reshape(2, backbone.width, *f.grid), scale_factor=2, mode="bilinear"
        )
    assert finer.grid == (2 * f.grid[0], 2 * f.grid[1])
    assert torch.allclose(finer.patches[FIRST - 1], plain.flatten(2).mT, atol=1e-5)
    assert torch.equal(finer.image, f.image)
    late = torch.nn.functional.interpolate(
        f.patches[FIRST].mT.reshape(2, backbone.width, *f.grid), scale_factor=2, mode="bilinear"
    )
    assert not torch.allclose(finer.patches[FIRST], late.flatten(2).mT, atol=1e-2)


def test_a_cache_gives_the_same_finer_patches(backbone, tmp_path):
    images = pictures(backbone)
    with torch.inference_mode():
        own = backbone.finer(backbone.encode_image(images, layers=(4,)))
    for _ in range(2):  # encoded, then read from the disk
        cache = backbone.new_cache(tmp_path)
        kept = backbone.finer(cache.encode(images, layers=(4,)).select([1, 0]))
        assert torch.allclose(kept.patches[4], own.patches[4][[1, 0]], atol=1e-4)
    assert cache.usage.encoded == 0


def test_an_entry_on_disk_without_detail_is_made_again(backbone, tmp_path):
    plain = load_backbone("embedded")
    plain.decoder, plain.detail = None, 0
    images = pictures(backbone, 1)
    plain.new_cache(tmp_path).encode(images, layers=(4,))
    cache = backbone.new_cache(tmp_path)
    assert cache.encode(images, layers=(4,)).detail is not None
    assert cache.usage.encoded == 1


def test_a_tower_without_a_decoder_gives_its_own_patches():
    tiny = load_backbone("tiny")
    f = tiny.encode_image(pictures(tiny), layers=(2,))
    assert tiny.finer(f) is f


def test_small_lesions_are_found_better_than_by_the_towers_own_patches(backbone):
    """Peaks inside simulated lesions that are smaller than 2 % of the image."""
    drawn = (simulate(seed, size=192) for seed in range(4000, 4500))
    small = [s for s in drawn if s.mask is not None and 0.002 < s.mask.mean() < 0.02][:24]
    assert len(small) == 24
    hits = {}
    for fine in (False, True):
        model = ultraad.zero_shot(backbone=backbone, options={"map.fine": fine})
        maps = [model.predict(s.image).map for s in small]
        hits[fine] = sum(bool(s.mask.flat[m.argmax()]) for s, m in zip(small, maps, strict=True))
    assert hits[True] > hits[False]


def test_the_literal_reading_and_earlier_models_draw_from_the_towers_patches_alone():
    assert UltraADConfig().map.fine
    assert UltraADConfig().map.location > 0
    assert UltraADConfig.earlier["map.fine"] is False
    assert UltraADConfig.earlier["map.location"] == 0
    assert UltraADConfig.earlier["prior.map_worth"] == 2
    assert UltraADConfig.earlier["prior.map_worth_lesions"] is None
    paper = ultraad.zero_shot(backbone=load_backbone("tiny"), options={"preset": "paper"}).method.config.map
    assert (paper.fine, paper.location) == (False, 0)


@pytest.mark.parametrize("prior", ["shots", 0.0])
def test_finer_patches_and_the_location_prior_change_the_map_of_an_adapted_model_and_nothing_else(backbone, prior):
    support = ultraad.draw_support(ultraad.samples(), shots=2, seed=0, classes=["benign", "malignant"])
    options = {"train.epochs": 2, "train.views": 1, "prior.map": prior}
    model = ultraad.adapt(support, backbone=backbone, options=options, calibrate=False)
    picture = support.samples[0].image
    fine = model.predict(picture)
    config = model.method.config
    for change in ({"location": 0.0},) if prior == 0 else ({"fine": False}, {"location": 0.0}):
        model.method.config = config.model_copy(update={"map": config.map.model_copy(update=change)})
        plain = model.predict(picture)
        assert (fine.score, fine.probs) == (plain.score, plain.probs)
        assert np.abs(fine.map - plain.map).max() > 0.01


def test_the_location_prior_adds_its_log_odds_to_the_map(backbone):
    """Without smoothing, on one layer, and where the grid of the map is that of the patches."""
    options = {"post.sigma": 0.0, "layers": [6], "map.location": 0.0}
    image = simulate(7, size=192).image
    maps = []
    for weight in (0.0, 0.5):
        model = ultraad.zero_shot(backbone=backbone, options=options | {"map.location": weight})
        maps.append(np.clip(model.predict(image).map.astype(np.float64), 1e-7, 1 - 1e-7))
    moved = np.log(maps[1] / (1 - maps[1])) - np.log(maps[0] / (1 - maps[0]))
    grid = tuple(2 * n for n in backbone.grid)
    place = F.interpolate(backbone.location[None, None], grid, mode="bilinear", align_corners=False)
    wanted = 0.5 * F.interpolate(place, image.shape[:2], mode="bilinear", align_corners=True)[0, 0].numpy()
    assert np.abs(moved - wanted).max() < 0.02


def test_the_location_prior_is_of_lesions_above_the_edges_of_the_picture():
    for name in ("embedded", "embedded-large"):
        place = load_backbone(name).location
        assert torch.equal(place, place.flip(-1))
        assert place[14, 14] > 0 > place[[0, 0, -1, -1], [0, -1, 0, -1]].max()


def test_a_location_prior_of_masks_is_zero_at_the_mean_lesion_pixel():
    masks = np.zeros((3, 224, 224), np.uint8)
    masks[0, 40:80, 30:90] = masks[1, 90:120, 100:140] = masks[2, 60:100, 80:200] = 1
    place = location_prior(masks)
    assert place.shape == (LOCATION, LOCATION)
    assert torch.allclose(place, place.flip(-1), atol=1e-6)
    lesions = masks.sum(0) + masks.sum(0)[:, ::-1]
    at = F.interpolate(place[None, None], masks.shape[1:], mode="bilinear", align_corners=False)[0, 0].numpy()
    assert abs((at * lesions).sum() / lesions.sum()) < 0.5  # the prior is smooth, lesions are not
    assert at[lesions == 0].mean() < -1
