"""AA-CLIP against the outputs of its reference implementation (24 blocks, exact GELU, adapters drawn at random).

The tensors were made by running the adapters and losses of Mwxinnn/AA-CLIP 53db195, at the widths of the reference CLIP
of this folder, on the inputs of this folder. Its value attention was given its axes in the order that the module
expects, and its smoothing was left out; every third row and column of a map is kept.
"""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from tests.parity import fixtures
from ultraad.methods.aa_clip import AACLIP, AACLIPConfig
from ultraad.nn.labelled import Labelled
from ultraad.nn.maps import resize
from ultraad.nn.seen import see
from ultraad.texts.bank import TextBank

CLOSE = {"atol": 1e-4, "rtol": 0}
OBJECT = TextBank(organ="any", object="object", classes={})


@pytest.fixture(scope="module")
def golden():
    return {key: value.float() for key, value in fixtures.golden("aaclip").items()}


def theirs(method):
    """{our parameter: the reference's name}."""
    names = {f"text_adapters.{i}.weight": f"text.{i}.fc.0.weight" for i in range(3)}
    names["text_head.weight"] = "text.3.fc.0.weight"
    names |= {f"image_adapters.{i}.weight": f"image.layer_adapters.{i}.fc.0.weight" for i in range(6)}
    names |= {f"seg_heads.{layer}.weight": f"image.seg_proj.{i}.fc.weight" for i, layer in enumerate(method.layers)}
    return names | {"det_head.weight": "image.det_proj.fc.weight"}


@pytest.fixture(scope="module")
def method(golden):
    config = AACLIPConfig(texts=OBJECT, states="industrial", scale=100.0, sigma=0.0)
    method = AACLIP(fixtures.mini(gelu=True), config, classes=("normal", "abnormal"), normal_class="normal")
    assert {f"param.{name}" for name in theirs(method).values()} == {n for n in golden if n.startswith("param.")}
    method.load_state_dict({ours: golden[f"param.{name}"] for ours, name in theirs(method).items()})
    return method


@pytest.fixture(scope="module")
def truth():
    inputs = fixtures.golden("inputs")
    masks, known = inputs["mask"][:, 0].bool(), torch.ones(3, dtype=torch.bool)
    return Labelled(inputs["image_clip"], inputs["label"].bool(), masks, known)


def test_anchors_of_the_adapted_text_tower(method, golden):
    assert (method.layers, method.value_from, method.image_blocks) == ((6, 12, 18, 24), 6, 6)
    assert_close(method.text, golden["text"], **CLOSE)


def test_features_loss_and_gradients_of_stage_1(method, golden, truth):
    seen = see(method.see, truth)
    assert_close(seen.features.patches[24] + seen.features.image[:, None], golden["stage1.features"], **CLOSE)
    method.zero_grad()
    loss = method.text_loss(seen)
    loss.backward()
    assert_close(loss.detach()[None], golden["stage1.loss"], atol=1e-3, rtol=0)
    check_gradients(method, golden, "text")


def test_features_loss_and_gradients_of_stage_2(method, golden, truth):
    patches, image = method.encode(truth.images)
    assert_close(patches[0].detach(), golden["seg.6"], **CLOSE)
    assert_close(image.detach(), golden["det"], **CLOSE)
    method.zero_grad()
    loss = method.image_loss(truth)
    loss.backward()
    assert_close(loss.detach()[None], golden["stage2.loss"], atol=1e-3, rtol=0)
    check_gradients(method, golden, "image")


def check_gradients(method, golden, stage):
    for ours, name in theirs(method).items():
        gradient = method.get_parameter(ours).grad
        assert (gradient is not None) == name.startswith(stage), "a stage trains its own tower"
        if gradient is not None:
            assert_close(gradient.norm()[None], golden[f"gradnorm.{name}"], atol=1e-6, rtol=1e-2)


@torch.no_grad()
def test_map_is_the_references_moved_to_0_1(method, golden, truth):
    patches, _ = method.encode(truth.images)
    sums = resize(100 * method.margins(patches).view(-1, 8, 8), 112, align_corners=True) / 2 * 4 + 2
    assert_close(sums[:, ::3, ::3], golden["map"], atol=1e-3, rtol=0)
    scores = method.score(truth.images)
    far = float((method.text[1] - method.text[0]).norm())
    assert_close(scores.map[:, ::3, ::3], 0.5 + (golden["map"] - 2) / (4 * 100 * far), **CLOSE)
    assert_close(scores.score, scores.map.amax((1, 2)))
