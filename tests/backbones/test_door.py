"""The door to CLIP: equal to open_clip bit for bit, equal to the reference implementation to 1e-5."""

from __future__ import annotations

import json

import pytest
import torch

from tests.parity import fixtures
from tests.parity.trim import HERE
from ultraad.backbones import available, load_backbone
from ultraad.backbones._door import Backbone, quarter_layers
from ultraad.backbones.open_clip import preprocess_from
from ultraad.errors import ConfigError, WeightsError

TOL = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="module")
def mini() -> Backbone:
    return fixtures.mini()


@pytest.fixture(scope="module")
def reference():
    return {**fixtures.golden("clip-mini-ref"), "image_clip": fixtures.golden("inputs")["image_clip"]}


def test_reference_image_features_and_blocks(mini, reference):
    layers = (6, 12, 18, 24)
    f = mini.encode_image(reference["image_clip"], layers=layers)
    torch.testing.assert_close(f.image, reference["image_features"], **TOL)
    for layer in layers:
        block = reference[f"resblock_{layer}"]
        torch.testing.assert_close(f.patches[layer], block[:, 1:], **TOL)
        torch.testing.assert_close(f.cls[layer], block[:, 0], **TOL)
    assert f.grid == (8, 8)
    torch.testing.assert_close(mini.project(f.cls[24]), reference["image_features"], **TOL)


def test_reference_text_features(mini, reference):
    texts = json.loads((HERE / "clip-mini-texts.json").read_text())
    assert torch.equal(mini.tokenize(texts).int(), reference["token_ids"].int())
    text = mini.encode_text(texts)
    torch.testing.assert_close(text, reference["text_features"], **TOL)
    image = torch.nn.functional.normalize(reference["image_features"], dim=-1)
    logits = mini.logit_scale * image @ torch.nn.functional.normalize(text, dim=-1).T
    torch.testing.assert_close(logits, reference["logits_per_image"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["tiny", "tiny:uneven"])
def test_identity_around_equals_open_clip_bit_for_bit(name):
    b = load_backbone(name)
    x = torch.rand(2, 3, b.size, b.size)
    with torch.no_grad():
        ours = b.encode_image(x, layers=b.default_layers, around=lambda _layer, y, block: block(y))
        assert torch.equal(ours.image, b.model.encode_image(x))
        tokens = b.tokenize(["a photo of a lesion", "normal"])
        eot = tokens.argmax(-1)
        full = b.model.encode_text(tokens)
        torch.testing.assert_close(b.encode_text(tokens), full, **TOL)
        same = b.encode_prompts(b.embed_text(tokens), eot, around=lambda _layer, y, block: block(y))
        assert torch.equal(same, b.encode_text(tokens))
    assert ours.patches[b.layers].shape == (2, b.grid[0] * b.grid[1], b.width)
    assert ours.image.shape == (2, b.dim)


def test_around_sees_every_layer_once_and_can_change_it():
    b = load_backbone("tiny")
    seen = []

    def double(layer, x, block):
        seen.append(layer)
        return 2 * block(x)

    x = torch.rand(1, 3, b.size, b.size)
    changed = b.encode_image(x, layers=(1,), around=double)
    assert seen == [1, 2, 3, 4]
    plain = b.encode_image(x, layers=(1,))
    assert torch.equal(changed.patches[1], 2 * plain.patches[1])


def test_frozen_and_deterministic():
    a, b = load_backbone("tiny"), load_backbone("tiny")
    assert a.fingerprint == b.fingerprint != load_backbone("tiny:uneven").fingerprint
    assert not any(p.requires_grad for p in a.model.parameters())
    state = torch.random.get_rng_state()
    load_backbone("tiny")
    assert torch.equal(state, torch.random.get_rng_state())


def test_other_size_interpolates_and_subsets_run():
    b = load_backbone("tiny", size=96)
    assert b.grid == (12, 12)
    tokens = b.embed_image(torch.rand(1, 3, 96, 96))
    window = torch.cat([tokens[:, :1], tokens[:, 5:9]], 1)
    assert b.encode_tokens(window, layers=(4,)).patches[4].shape == (1, 4, b.width)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close_and_comes_back_as_float32(dtype):
    x = torch.rand(2, 3, 64, 64)
    full = load_backbone("tiny").encode_image(x, layers=(4,))
    half = load_backbone("tiny", dtype=dtype).encode_image(x, layers=(4,))
    assert half.image.dtype == half.patches[4].dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(full.image, half.image)
    assert cosine.min() > 0.999


def test_quarter_layers():
    assert quarter_layers(24) == (6, 12, 18, 24)
    assert quarter_layers(12) == (3, 6, 9, 12)
    assert quarter_layers(1) == (1,)


def test_too_long_a_text_is_refused():
    b = load_backbone("tiny")
    b.tokenize(["word " * 75])
    with pytest.raises(ConfigError, match="longer than the 77 tokens"):
        b.tokenize(["word " * 76])


def test_bad_layers_and_names():
    b = load_backbone("tiny")
    with pytest.raises(ConfigError, match=r"layers 1\.\.4"):
        b.encode_image(torch.rand(1, 3, 64, 64), layers=(5,))
    with pytest.raises(ConfigError, match="unknown backbone 'huge'"):
        load_backbone("huge")
    with pytest.raises(ConfigError, match="tiny:uneven"):
        load_backbone("tiny:other")
    with pytest.raises(ConfigError, match="not available here"):
        load_backbone("tiny", device="cuda:7")
    assert {"embedded", "open_clip", "tiny"} <= set(available())  # test_every_backbone.py: nothing but backbones


def test_preprocessing_is_never_guessed():
    with pytest.raises(WeightsError, match="mean and std"):
        preprocess_from({"interpolation": "bicubic"}, size=224, where="x")
    p = preprocess_from({"mean": [0.1] * 3, "std": [0.2] * 3, "interpolation": "bilinear"}, size=98, where="x")
    assert (p.size, p.mean, p.std, p.interpolation) == (98, (0.1,) * 3, (0.2,) * 3, "bilinear")


def test_the_same_sentences_are_encoded_once_and_a_caller_may_change_what_it_got(monkeypatch):
    backbone = load_backbone("tiny")
    with torch.inference_mode():
        first = backbone.encode_text(["a lesion", "no lesion"])
        kept = first.clone()
        first.zero_()
    monkeypatch.setattr(backbone, "encode_prompts", None)  # a second encoding would fail
    again = backbone.encode_text(["a lesion", "no lesion"])
    assert torch.equal(again, kept)
    (again * torch.ones(1, requires_grad=True)).sum().backward()  # no inference tensor comes out
