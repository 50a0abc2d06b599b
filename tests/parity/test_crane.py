"""Crane against the outputs of its reference implementation, without DINO (24 blocks, prompts drawn at random).

The tensors were made by running the modules of AlirezaSalehy/Crane 39181f9 on the reference CLIP and inputs of this
folder; every third row and column of a map is kept.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tests.parity import fixtures
from ultraad.methods.crane import Crane, CraneConfig
from ultraad.nn.labelled import Labelled
from ultraad.nn.losses import dice, focal
from ultraad.nn.maps import to_probability
from ultraad.nn.seen import Seen

CLOSE = {"atol": 1e-4, "rtol": 0}


@pytest.fixture(scope="module")
def golden():
    return fixtures.golden("crane")


@pytest.fixture(scope="module")
def inputs():
    return fixtures.golden("inputs")


@pytest.fixture(scope="module")
def mini():
    return fixtures.mini()


def build(backbone, golden, **options):
    options = {"states": "industrial", "rounding": "float16", "sigma": 4 * 518 / backbone.size, **options}
    method = Crane(backbone, CraneConfig.model_validate(options), classes=("normal", "abnormal"), normal_class="normal")
    method.load_state_dict(
        {
            "words": torch.cat([golden["param.ctx_pos"], golden["param.ctx_neg"]]).flatten(0, 1),  # (2 12 w)
            "deep": torch.stack([golden[f"param.compound_prompts_text.{i}"] for i in range(8)]),
        }
    )
    return method


@pytest.fixture(scope="module")
def method(mini, golden):
    return build(mini, golden)


@pytest.fixture(scope="module")
def features(method, inputs):
    with torch.no_grad():
        return method.encode(inputs["image_clip"])


def test_image(method, features, golden):
    assert method.layers == (24,)
    assert method.attention_from == 6
    assert_close(features.image, golden["image_features"], **CLOSE)
    assert_close(features.patches[24], golden["patch_features_24"], **CLOSE)


def test_the_references_four_layers_are_the_last(golden):
    assert torch.equal(golden["patch_features_6"], golden["patch_features_24"]), "it adds to its stream in place"


@torch.no_grad()
def test_sentences_with_and_without_the_image(method, features, golden):
    assert_close(method.text, golden["plain.text"], **CLOSE)
    assert_close(method.encode_text(features.image), golden["context.text"], **CLOSE)


@torch.no_grad()
def test_map_and_score(mini, method, inputs, golden):
    scores = method.score(inputs["image_clip"])
    assert_close(scores.map[:, ::3, ::3], golden["plain.map_smoothed"], **CLOSE)
    assert_close(scores.score, golden["plain.image_score"], **CLOSE)
    always = build(mini, golden, context="always", sigma=0.0).score(inputs["image_clip"])
    assert_close(always.map[:, ::3, ::3], golden["context.map"], **CLOSE)
    assert_close(always.score, golden["context.image_score"], **CLOSE)


@torch.no_grad()
def test_map_before_smoothing(method, features, golden):
    logits = method.patch_logits(features, method.text)
    maps = to_probability(logits, features.grid, size=112, up="probs").mean(0)
    assert_close(maps[:, ::3, ::3], golden["plain.map"], **CLOSE)


def test_losses_and_gradients(method, features, inputs, golden):
    masks = inputs["mask"][:, 0].bool()
    truth = Labelled(inputs["image_clip"], inputs["label"].bool(), masks, torch.ones(3, dtype=torch.bool))
    with torch.no_grad():
        logits = method.patch_logits(features, method.encode_text(features.image))
        maps = F.interpolate(logits.softmax(-1)[..., 1].view(3, 1, 8, 8), (112, 112), mode="nearest")[:, 0]
        parts = torch.stack([focal(maps, masks).mean(), dice(maps, masks).mean()])
    assert_close(4 * parts, golden["train.parts"][:2], atol=1e-3, rtol=0)
    method.zero_grad()
    loss = method.loss(Seen(features, truth))
    loss.backward()
    assert_close(loss.detach()[None], golden["train.total"], atol=1e-3, rtol=0)
    ours = {f"compound_prompts_text.{i}": g for i, g in enumerate(method.deep.grad)}
    ours["ctx_pos"], ours["ctx_neg"] = method.words.grad
    for name, gradient in ours.items():
        assert_close(gradient.norm()[None], golden[f"gradnorm.{name}"], atol=0, rtol=2e-3)
    want = golden["grad.ctx_neg"].view_as(ours["ctx_neg"])
    assert_close(ours["ctx_neg"], want, atol=2e-3 * float(want.abs().max()), rtol=0)
