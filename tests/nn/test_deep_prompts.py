"""Vectors in the place of tokens, and the value-value path, against what they replace."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ultraad.backbones import load_backbone
from ultraad.errors import ConfigError
from ultraad.nn.deep_prompts import Replace, text_layers
from ultraad.nn.value_path import ValuePath, value_attention


@pytest.fixture(scope="module", params=["tiny", "tiny:uneven"])
def backbone(request):
    return load_backbone(request.param)


def test_replace_puts_vectors_before_the_named_block_only():
    x = torch.arange(10.0).view(2, 5, 1)
    seen = {}

    def block(y):
        seen[len(seen) + 1] = y.flatten(1).tolist()
        return y + 100

    around = Replace({2: torch.tensor([[-1.0], [-2.0]]), 3: torch.tensor([[[-3.0]], [[-4.0]]])})
    for layer in (1, 2, 3, 4):
        x = around(layer, x, block)
    assert seen[1] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert seen[2] == [[100, -1, -2, 103, 104], [105, -1, -2, 108, 109]]  # the same for all rows
    assert seen[3] == [[200, -3, 98, 203, 204], [205, -4, 98, 208, 209]]  # one per row
    assert seen[4] == [[300, 97, 198, 303, 304], [305, 96, 198, 308, 309]]  # flows on
    assert Replace({1: torch.tensor([[-1.0]])}, start=0)(1, torch.zeros(1, 3, 1), lambda y: y)[0, 0] == -1


@torch.no_grad()
def test_replacing_words_before_the_first_block_gives_another_sentence(backbone):
    tokens = backbone.tokenize(["a normal breast"])
    embeds, eot = backbone.embed_text(tokens), backbone.end_of_text(tokens)
    place = backbone._text.positional_embedding[1:3]
    other = backbone.embed_text(backbone.tokenize(["the soft breast"]))[0, 1:3] + place
    got = backbone.encode_prompts(embeds, eot, around=Replace({1: other}))
    torch.testing.assert_close(got, backbone.encode_text(["the soft breast"]), atol=1e-5, rtol=0)


def test_text_layers(backbone):
    assert text_layers(backbone) == {"tiny": 2, "tiny:uneven": 3}[backbone.name]


@torch.no_grad()
def test_value_attention_is_attention_whose_queries_and_keys_are_values(backbone):
    block = backbone.model.visual.transformer.resblocks[1]
    w = backbone.width
    plain = nn.MultiheadAttention(w, block.attn.num_heads, batch_first=True)
    plain.load_state_dict(block.attn.state_dict())
    for start in (0, w):
        plain.in_proj_weight[start : start + w] = plain.in_proj_weight[2 * w :]
        plain.in_proj_bias[start : start + w] = plain.in_proj_bias[2 * w :]
    x = torch.randn(2, 7, w)
    z = block.ln_1(x)
    torch.testing.assert_close(value_attention(block, x), plain(z, z, z)[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_value_path_runs_beside_the_tower(backbone):
    x = torch.randn(2, 3, backbone.size, backbone.size)
    layers = tuple(range(1, backbone.layers + 1))
    plain, path = backbone.encode_image(x, layers=layers), ValuePath(3, layers)
    beside = backbone.encode_image(x, layers=layers, around=path)
    assert torch.equal(beside.image, plain.image)
    assert torch.equal(path.kept[2][:, 1:], plain.patches[2])  # before it leaves: the tower's own
    at = backbone.embed_image(x)
    for block in backbone.model.visual.transformer.resblocks[:2]:
        at = block(at)
    third = at + value_attention(backbone.model.visual.transformer.resblocks[2], at)
    torch.testing.assert_close(path.kept[3], third, atol=1e-5, rtol=1e-5)
    after = backbone.model.visual.transformer.resblocks[2](at)
    fourth = third + value_attention(backbone.model.visual.transformer.resblocks[3], after)
    torch.testing.assert_close(path.kept[4], fourth, atol=1e-5, rtol=1e-5)


def test_value_attention_of_another_kind_of_block_is_refused():
    with pytest.raises(ConfigError, match="this tower has Linear"):
        value_attention(SimpleNamespace(attn=nn.Linear(2, 2)), torch.zeros(1, 1, 2))
