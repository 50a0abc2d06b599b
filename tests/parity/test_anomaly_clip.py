"""AnomalyCLIP against the outputs of its reference implementation (QuickGELU, 24 blocks, prompts drawn at random)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tests.parity import fixtures
from ultraad.methods.anomaly_clip import AnomalyCLIP, AnomalyCLIPConfig
from ultraad.nn.labelled import Labelled
from ultraad.nn.losses import dice, focal
from ultraad.nn.maps import smooth
from ultraad.nn.seen import Seen
from ultraad.nn.value_path import ValuePath

CLOSE = {"atol": 1e-4, "rtol": 0}
LAYERS = (6, 12, 18, 24)


@pytest.fixture(scope="module")
def golden():
    return fixtures.golden("anomalyclip")


@pytest.fixture(scope="module")
def inputs():
    return fixtures.golden("inputs")


@pytest.fixture(scope="module")
def mini():
    return fixtures.mini()


def build(backbone, golden, **options):
    options = {"states": "industrial", "rounding": "float16", "sigma": 4 * 518 / backbone.size, **options}
    method = AnomalyCLIP(
        backbone, AnomalyCLIPConfig.model_validate(options), classes=("normal", "abnormal"), normal_class="normal"
    )
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


def test_the_reference_taps_and_starts_where_the_tower_does_by_default(method):
    assert method.layers == LAYERS
    assert method.value_from == 6


@torch.no_grad()
def test_text(method, mini, golden, monkeypatch):
    assert_close(method.encode_text(), golden["text_features"], **CLOSE)
    monkeypatch.setattr("ultraad.nn.deep_prompts.unit", lambda x: x)
    assert_close(method.encode_text(), golden["text_features_raw"], **CLOSE)
    unrounded = build(mini, golden, rounding="none").encode_text()
    assert_close(unrounded, golden["text_features_raw_without_half_rounding"], atol=1e-5, rtol=0)
    assert (unrounded - golden["text_features_raw"]).abs().max() > 1e-4  # so the rounding is visible


@torch.no_grad()
def test_image(mini, features, inputs, golden):
    assert_close(features.image, golden["image_features_raw"], **CLOSE)
    path = ValuePath(6, LAYERS)
    mini.encode_image(inputs["image_clip"], around=path)
    assert_close(mini.project(path.kept[24]), golden["patch_features_24"], **CLOSE)


@torch.no_grad()
def test_patches_and_scores(method, features, inputs, golden):
    text = method.encode_text()
    for layer in LAYERS:
        probs = method.logits(features.patches[layer], text).softmax(-1)
        assert_close(probs, golden[f"patch_prob_{layer}"], **CLOSE)
    assert_close(method.score(inputs["image_clip"]).score, golden["image_score"], **CLOSE)


@torch.no_grad()
def test_map_is_the_references_sum_divided_by_the_layers(method, features, inputs, golden):
    total = method.layer_maps(features, method.encode_text()).sum(0)
    assert_close(smooth(total, 4.0), golden["anomaly_map"], **CLOSE)
    assert_close(method.score(inputs["image_clip"]).map, golden["anomaly_map"] / 4, **CLOSE)


@torch.no_grad()
def test_last_layer_alone(mini, golden, inputs):
    scores = build(mini, golden, layers=(24,), sigma=0.0).score(inputs["image_clip"])
    assert_close(scores.score, golden["last_layer_only.image_score"], **CLOSE)
    grid = golden["patch_prob_24"][..., 1].view(-1, 1, 8, 8)
    assert_close(scores.map, F.interpolate(grid, (112, 112), mode="bilinear", align_corners=False)[:, 0], **CLOSE)


def test_losses_and_gradients(method, features, inputs, golden):
    truth = Labelled(
        images=inputs["image_clip"],
        anomalous=inputs["label"].bool(),
        masks=inputs["mask"][:, 0].bool(),
        known=torch.ones(3, dtype=torch.bool),
    )
    with torch.no_grad():
        maps, masks = method.layer_maps(features, method.encode_text()), truth.masks
        parts = [[focal(p, masks), dice(p, masks), dice(1 - p, ~masks)] for p in maps]
        means = torch.tensor([[float(x.mean()) for x in row] for row in parts])
        assert_close(means, golden["train.loss_parts"], **CLOSE)
        assert_close(4 * means.sum()[None], golden["train.seg_loss"], **CLOSE)
        logits = method.logits(features.image, method.encode_text())
        assert_close(F.cross_entropy(logits, inputs["label"])[None], golden["train.image_loss"], **CLOSE)
    method.zero_grad()
    loss = method.loss(Seen(features, truth))
    loss.backward()
    assert_close(loss.detach()[None], golden["train.total_loss"], **CLOSE)
    ours = {f"compound_prompts_text.{i}": g for i, g in enumerate(method.deep.grad)}
    ours["ctx_pos"], ours["ctx_neg"] = method.words.grad
    for name, gradient in ours.items():
        assert_close(gradient.norm()[None], golden[f"gradnorm.{name}"], atol=0, rtol=1e-3)
    for name in ("ctx_pos", "compound_prompts_text.0"):
        want = golden[f"grad.{name}"].view_as(ours[name])
        assert_close(ours[name], want, atol=1e-3 * float(want.abs().max()), rtol=0)


@torch.no_grad()
def test_another_size(golden, inputs):
    wide = build(fixtures.mini(size=154, positions="bilinear"), golden, sigma=0.0)
    scores = wide.score(inputs["image_clip_154"])
    assert_close(scores.score, golden["res154.image_score"], **CLOSE)
    assert_close(scores.map * 4, golden["res154.anomaly_map_upsampled"], **CLOSE)
