"""Towers side by side: ``embedded+embedded-large``."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

import ultraad
from ultraad.backbones import load_backbone
from ultraad.backbones._gist import gist, listening
from ultraad.backbones.embedded import export
from ultraad.errors import BundleError, ConfigError
from ultraad.model.model import scope_of
from ultraad.simulate import simulate, write_dataset

BOTH = "embedded+embedded-large"


@pytest.fixture(scope="module")
def joined():
    return load_backbone(BOTH, size=112)


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1


def smaller(images, side):
    return torch.nn.functional.interpolate(images, (side, side), mode="bilinear", antialias=True)


def test_each_tower_sees_the_picture_at_its_own_side(joined, images):
    small, large = joined.towers
    assert [t.size for t in load_backbone(BOTH).towers] == [load_backbone(n).size for n in BOTH.split("+")]
    assert (small.size, large.size, joined.size) == (96, 112, 112)
    f = joined.encode_image(images, layers=(0, 6))
    one, two = small.encode_image(smaller(images, 96), layers=(0, 6)), large.encode_image(images, layers=(0, 6))
    torch.testing.assert_close(f.image, torch.cat([one.image, two.image], -1))
    for layer in (0, 6):
        torch.testing.assert_close(f.cls[layer], torch.cat([one.cls[layer], two.cls[layer]], -1))
        torch.testing.assert_close(f.patches[layer][..., small.width :], two.patches[layer])
        enlarged = smaller(one.patches[layer].unflatten(1, one.grid).movedim(-1, 1), 7).flatten(2).mT
        torch.testing.assert_close(f.patches[layer][..., : small.width], enlarged, atol=1e-4, rtol=1e-4)


def test_a_cosine_is_about_the_mean_of_the_towers_cosines(joined, images):
    texts = ["a photo of a normal breast", "an ultrasound image of a malignant lesion"]
    ours = cosine_similarity(joined.encode_image(images).image[:, None], joined.encode_text(texts)[None], -1)
    each = [
        cosine_similarity(t.encode_image(smaller(images, t.size)).image[:, None], t.encode_text(texts)[None], -1)
        for t in joined.towers
    ]
    torch.testing.assert_close(ours, sum(each) / 2, atol=0.01, rtol=0)
    assert (each[0] - each[1]).abs().max() > 0.02  # they do not agree, so the mean says something
    assert joined.logit_scale == pytest.approx(sum(t.logit_scale for t in joined.towers) / 2)


def test_patches_go_into_the_joint_space_tower_by_tower(joined, images):
    f = joined.encode_image(images, layers=(4,))
    parts = f.patches[4].split([t.width for t in joined.towers], -1)
    wanted = torch.cat([t.project(x) for t, x in zip(joined.towers, parts, strict=True)], -1)
    torch.testing.assert_close(joined.project(f.patches[4]), wanted)
    assert joined.projection.shape == (joined.width, joined.dim)
    finer = joined.finer(f)
    assert finer.grid == (14, 14)
    assert finer.patches[4].shape == (2, 196, joined.width)
    large = joined.towers[1].finer(joined.towers[1].encode_image(images, layers=(4,)))
    torch.testing.assert_close(finer.patches[4][..., joined.towers[0].width :], large.patches[4])


def test_learned_words_reach_both_towers(joined):
    tokens = joined.tokenize(["a photo of a lesion"])
    words = joined.embed_text(tokens).requires_grad_()
    out = joined.encode_prompts(words, joined.end_of_text(tokens))
    torch.testing.assert_close(out, joined.encode_text(tokens))
    for t, part in zip(joined.towers, out.split([t.dim for t in joined.towers], -1), strict=True):
        torch.testing.assert_close(part, t.encode_text(tokens))
    (slope,) = torch.autograd.grad(out.square().sum(), words)
    assert all(bool(part.abs().sum() > 0) for part in slope.split([t.text_width for t in joined.towers], -1))


def test_the_largest_tower_tells_the_kind_of_picture(joined, images):
    with listening(joined) as heard:
        joined.encode_image(images)
    large = joined.towers[1]
    torch.testing.assert_close(heard[0], gist(large, images))
    torch.testing.assert_close(gist(joined, images), gist(large, images))
    assert len(heard) == 1
    assert scope_of(load_backbone(BOTH), torch.zeros(0, 3, 224, 224)).arrays
    assert not scope_of(joined, images[:0]).arrays  # of another side nothing is known


def test_inside_the_blocks_there_is_only_one_tower(joined, images):
    wanted = r"works inside the blocks of a tower, so embedded\+embedded-large is not possible; use embedded or emb"
    with pytest.raises(ConfigError, match=wanted):
        joined.encode_image(images, around=lambda layer, x, block: block(x))
    with pytest.raises(ConfigError, match=wanted):
        joined.encode_tokens(torch.zeros(1, 50, joined.width))
    tokens = joined.tokenize(["a lesion"])
    with pytest.raises(ConfigError, match=wanted):
        joined.encode_prompts(joined.embed_text(tokens), tokens.argmax(-1), around=lambda layer, x, block: block(x))


def test_names(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown backbone 'embedded\+tiny'"):
        load_backbone("embedded+tiny")
    with pytest.raises(ConfigError, match="100 is not a multiple of the patch size 16"):
        load_backbone(BOTH, size=100)
    with pytest.raises(ConfigError, match="is no single tower; export embedded and embedded-large, each"):
        export(tmp_path, BOTH)
    mirrored = load_backbone(f"{BOTH}:mirror", size=64)
    assert mirrored.fingerprint != load_backbone(BOTH, size=64).fingerprint
    assert load_backbone(BOTH, size=64, dtype="bfloat16").in_dtype("float32").dtype == torch.float32


def test_a_model_is_adapted_saved_and_loaded(tmp_path):
    data = write_dataset(tmp_path / "data", n=9, size=96)
    model = ultraad.adapt(
        ultraad.draw_support(data, shots=2), backbone=BOTH, size=64, options={"train.epochs": 2}, calibrate=False
    )
    model.save(tmp_path / "model")
    image = simulate(50, size=96).image
    before, after = model.predict(image), ultraad.load(tmp_path / "model").predict(image)
    assert after.score == before.score
    assert (after.map == before.map).all()
    with pytest.raises(BundleError, match=r"was adapted on embedded\+embedded-large with weights"):
        ultraad.load(tmp_path / "model", backbone="embedded")
