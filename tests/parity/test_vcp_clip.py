"""VCP-CLIP against the outputs of its reference implementation (exact GELU, 24 blocks, dropout off)."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from tests.parity import fixtures
from ultraad.methods.vcp_clip import VCPCLIP, VCPCLIPConfig
from ultraad.nn.labelled import Labelled
from ultraad.nn.losses import segmentation

CLOSE = {"atol": 1e-4, "rtol": 0}
CLOSE_LOGITS = {"atol": 1e-3, "rtol": 0}
LAYERS = (6, 12, 18, 24)
NAMES = {
    "deep_proj.weight": "clip.prompt_proj.weight",
    "deep_proj.bias": "clip.prompt_proj.bias",
    "prompt_norm.weight": "clip.prompt_norm.weight",
    "prompt_norm.bias": "clip.prompt_norm.bias",
    "conv.weight": "pre_vcp.prompt_linear1.fc.weight",
    "post.q.weight": "post_vcp.q_proj_pre.weight",
    "post.q.bias": "post_vcp.q_proj_pre.bias",
    "post.k.weight": "post_vcp.k_proj_pre_1.weight",
    "post.v.weight": "post_vcp.v_proj_pre_1.weight",
    "post.v.bias": "post_vcp.v_proj_pre_1.bias",
    "post.out.weight": "post_vcp.proj_post_t.weight",
    "post.out.bias": "post_vcp.proj_post_t.bias",
    **{f"adapters.{k}.{x}": f"linear.fc.{i}.{x}" for i, k in enumerate(LAYERS) for x in ("weight", "bias")},
}
"""Ours to the reference's, of equal numbers; its 1 x 1 convolutions are linear layers here."""


@pytest.fixture(scope="module")
def golden():
    return fixtures.golden("vcpclip")


@pytest.fixture(scope="module")
def inputs():
    return fixtures.golden("inputs")


def build(backbone, golden, **options):
    side = backbone.size
    options = {"states": "industrial", "sigma": 8 * 518 / side, "top": 2000 / side**2, **options}
    method = VCPCLIP(
        backbone, VCPCLIPConfig.model_validate(options), classes=("normal", "abnormal"), normal_class="normal"
    )
    own = method.state_dict()
    state = {ours: golden[f"param.{theirs}"].view_as(own[ours]) for ours, theirs in NAMES.items()}
    shift = golden["param.pre_vcp.prompt_linear1.fc.bias"][:, None]  # the convolution's bias, added to the query
    state["query"] = golden["param.pre_vcp.prompt_query"][0] + shift
    deep = [golden["param.clip.prompt_embeddings"], golden["param.clip.deep_prompt_embeddings"]]
    state["deep"] = torch.cat(deep)
    scales = [golden["param.pre_vcp.prompt_temp"], golden["param.post_vcp.prompt_temp_l1"]]
    state["log_scales"] = torch.stack(scales)
    method.load_state_dict(state)
    return method


@pytest.fixture(scope="module")
def method(golden):
    return build(fixtures.mini(gelu=True), golden)


@pytest.fixture(scope="module")
def features(method, inputs):
    return method.backbone.encode_image(inputs["image_clip"], layers=method.layers)


@torch.no_grad()
def test_texts_made_from_the_image(method, features, golden):
    assert method.layers == LAYERS
    assert_close(features.image, golden["image_features"], **CLOSE)
    assert_close(method.words(features.image), golden["class_vectors"], **CLOSE)
    assert_close(method.encode_text(features.image), golden["text_features"], **CLOSE)


@torch.no_grad()
def test_texts_that_looked_at_the_patches(method, features, golden):
    text = method.encode_text(features.image)
    for i, layer in enumerate(LAYERS):
        got = method.seen_text(features.patches[layer], text)
        assert_close(got, golden["post_text_features"][:, i], **CLOSE)


@torch.no_grad()
def test_logits_of_both_branches(method, features, golden):
    raw, new = method.patch_logits(features, method.encode_text(features.image)).transpose(1, 2)  # (b l n 2)
    assert_close(raw, golden["patch_logits_raw"], **CLOSE_LOGITS)
    assert_close(new, golden["patch_logits_new"], **CLOSE_LOGITS)


@torch.no_grad()
def test_map_and_score(method, inputs, golden):
    scores = method.score(inputs["image_clip"])
    assert_close(scores.map[1:2], golden["anomaly_map_smoothed"], **CLOSE)
    extremes = torch.stack([scores.map.min(), scores.map.max()])
    assert_close(extremes, golden["anomaly_map_minmax_range"], **CLOSE)
    assert_close(scores.score * 2, golden["image_score_unnormalised"], **CLOSE)


def test_losses_and_gradients(method, features, inputs, golden):
    truth = Labelled(
        images=inputs["image_clip"],
        anomalous=inputs["label"].bool(),
        masks=inputs["mask"][:, 0].bool(),
        known=torch.ones(3, dtype=torch.bool),
    )
    with torch.no_grad():
        branches = method.branch_maps(features, method.encode_text(features.image))
        for maps, name in zip(branches, ("base", "new"), strict=True):
            total = torch.stack([segmentation(p, truth.masks, both=False) for p in maps]).sum()
            assert_close(total[None], golden[f"train.loss_{name}"], **CLOSE)
    method.zero_grad()
    loss = method.loss(truth)
    loss.backward()
    assert_close(loss.detach()[None], golden["train.total_loss"], **CLOSE)
    ours = {theirs: method.get_parameter(name).grad for name, theirs in NAMES.items()}
    ours["pre_vcp.prompt_query"] = method.query.grad
    ours["clip.prompt_embeddings"], ours["clip.deep_prompt_embeddings"] = method.deep.grad[:1], method.deep.grad[1:]
    ours["pre_vcp.prompt_temp"], ours["post_vcp.prompt_temp_l1"] = method.log_scales.grad
    absent = {"pre_vcp.prompt_linear1.fc.bias", "post_vcp.k_proj_pre_1.bias"}
    norms = {key.removeprefix("gradnorm."): value for key, value in golden.items() if key.startswith("gradnorm.")}
    assert norms.keys() - absent == ours.keys()
    assert all(norms[name] < 1e-5 for name in absent)  # they vanish, so that they need not exist
    for name, gradient in ours.items():
        assert_close(gradient.norm()[None], norms[name], atol=0, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}")
    assert_close(method.deep.grad[1:], golden["grad.deep_prompt_embeddings"], **CLOSE)


@torch.no_grad()
def test_another_size(golden, inputs):
    wide = build(fixtures.mini(gelu=True, size=154), golden)
    f = wide.backbone.encode_image(inputs["image_clip_154"], layers=LAYERS)
    text = wide.encode_text(f.image)
    assert_close(text, golden["res154.text_features"], **CLOSE)
    raw, new = wide.branch_maps(f, text).mean(1)
    assert_close(raw.mean(2), golden["res154.anomaly_map_raw_rowmean"], **CLOSE)
    assert_close(new.mean(2), golden["res154.anomaly_map_new_rowmean"], **CLOSE)
