"""CoCoOp against its reference: shift, texts of each image, logits, loss, gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.parity import fixtures
from ultraad.methods.cocoop import CoCoOp
from ultraad.nn.class_texts import ClassPrompts
from ultraad.nn.prompts import unit

NAMES = {
    "ctx": "context",
    "meta_net.linear1.weight": "meta.layers.0.weight",
    "meta_net.linear1.bias": "meta.layers.0.bias",
    "meta_net.linear2.weight": "meta.layers.2.weight",
    "meta_net.linear2.bias": "meta.layers.2.bias",
}


@pytest.fixture(scope="module")
def golden():
    return fixtures.golden("cocoop")


@pytest.fixture(scope="module")
def method(golden):
    backbone = fixtures.mini()
    method = CoCoOp(backbone, classes=("normal", "benign", "malignant_tumour"), normal_class="normal")
    method.prompts = ClassPrompts(backbone, ("normal", "benign", "malignant tumour"), count=4)  # no object words
    method.load_state_dict({ours: golden[f"param.{theirs}"] for theirs, ours in NAMES.items()})
    return method


def close(ours, theirs, *, atol=1e-4):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


@torch.no_grad()
def test_every_stage(golden, method):
    images = fixtures.golden("inputs")["image_clip"]
    f = method.backbone.encode_image(images).image
    close(unit(f), golden["image_features"])
    close(method.meta(unit(f)), golden["meta_bias"])
    close(method.class_features(f), golden["text_features"])
    close(method.logits(f), golden["logits"])
    scores = method.score(images)
    close(scores.logits, golden["logits"])
    close(scores.score, 1 - golden["logits"].softmax(1)[:, 0])


def test_loss_and_gradients(golden, method):
    loss = F.cross_entropy(method.logits(golden["image_features"]), golden["labels"])
    close(loss[None], golden["train.loss"])
    ours = dict(method.named_parameters())
    grads = torch.autograd.grad(loss, [ours[name] for name in NAMES.values()])
    for theirs, grad in zip(NAMES, grads, strict=True):
        torch.testing.assert_close(grad.norm()[None], golden[f"gradnorm.{theirs}"], rtol=1e-3, atol=0)
    close(grads[0], golden["grad.ctx"])


def test_only_the_last_bias_shifts(golden, method):
    kept = method.meta.layers[2].weight.detach().clone()
    with torch.no_grad():
        method.meta.layers[2].weight.zero_()
        close(method.logits(golden["image_features"]), golden["logits_with_meta_output_weights_zero"])
        method.meta.layers[2].weight.copy_(kept)
