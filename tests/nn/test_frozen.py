"""What is computed once instead of anew: it must be what the whole tower gives."""

from __future__ import annotations

import pytest
import torch

from tests.methods.conftest import make_batch
from ultraad.backbones import load_backbone
from ultraad.errors import ConfigError
from ultraad.nn.deep_prompts import Replace
from ultraad.nn.frozen import after_first_block, from_second_block, tokens_after
from ultraad.nn.prompts import Template, together
from ultraad.rng import torch_seeded

CLOSE = {"atol": 1e-6, "rtol": 1e-5}


@pytest.fixture(scope="module", params=["tiny", "tiny:uneven"])
def backbone(request):
    return load_backbone(request.param)


def test_tokens_after_a_block_are_the_input_of_the_next(backbone):
    images, seen = make_batch(backbone, per_class=1).images, {}
    f = backbone.encode_image(images, layers=(0, 2), around=lambda layer, x, block: block(seen.setdefault(layer, x)))
    assert torch.equal(tokens_after(f, 0), backbone.embed_image(images))
    assert torch.equal(tokens_after(f, 0), seen[1])
    assert torch.equal(tokens_after(f, 2), seen[3])


def test_given_tokens_are_not_computed_again(backbone, monkeypatch):
    images = make_batch(backbone, per_class=1).images
    want, tokens = backbone.encode_image(images, layers=(2,)), backbone.embed_image(images)
    monkeypatch.setattr(backbone, "_look", lambda _: pytest.fail("embedded again"))
    got = backbone.encode_image(images, layers=(2,), tokens=tokens)
    assert torch.equal(got.image, want.image)
    assert torch.equal(got.patches[2], want.patches[2])


def test_layer_zero_cannot_be_tapped(backbone):
    with pytest.raises(ConfigError, match=r"layers 1\.\."):
        backbone.check_layers([0])


def test_sentences_continue_from_the_second_block(backbone):
    tokens = backbone.tokenize(["a photo of a lesion", "a scan"])
    words, eot = backbone.embed_text(tokens), backbone.end_of_text(tokens)
    prompts = Replace({2: torch.randn(1, backbone.text_width)})
    want = backbone.encode_prompts(words, eot, around=prompts)
    first, ran = after_first_block(backbone, words, eot), []

    def watched(layer, x, block):
        ran.append(layer)
        return prompts(layer, x, block)

    got = backbone.encode_prompts(torch.zeros_like(first), eot, around=from_second_block(first, watched))
    torch.testing.assert_close(got, want, **CLOSE)
    assert ran[0] == 2
    assert (want - backbone.encode_prompts(words, eot)).abs().max() > 1e-3  # the prompts are seen


def test_sentences_of_any_length_share_a_run(backbone):
    words = torch.randn(2, 3, backbone.text_width, generator=torch_seeded(0, "words"))
    sides = [Template(backbone, text).fill(words) for text in ("{} normal", "a photo of {} with a lesion")]
    assert sides[0][0].shape[1] < sides[1][0].shape[1]
    got = backbone.encode_prompts(*together(sides))
    torch.testing.assert_close(got, torch.cat([backbone.encode_prompts(*side) for side in sides]), **CLOSE)
