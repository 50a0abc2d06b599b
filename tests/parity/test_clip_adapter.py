"""CLIP-Adapter against its reference: adapter, mixture, logits, loss, gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.parity import fixtures
from ultraad.methods.clip_adapter import CLIPAdapter
from ultraad.nn.class_texts import text_classifier
from ultraad.nn.prompts import unit

NAMES = {"fc.0.weight": "adapter.layers.0.weight", "fc.2.weight": "adapter.layers.2.weight"}


@pytest.fixture(scope="module")
def golden():
    return fixtures.golden("clip_adapter")


@pytest.fixture(scope="module")
def method(golden):
    backbone = fixtures.mini()
    method = CLIPAdapter(backbone, classes=("normal", "benign", "malignant_tumour"), normal_class="normal")
    template = "a breast ultrasound image of a {} case."
    method.text = text_classifier(backbone, [[template.format(x)] for x in ("normal", "benign", "malignant tumour")])
    method.load_state_dict({ours: golden[f"param.{theirs}"] for theirs, ours in NAMES.items()})
    return method


def close(ours, theirs, *, atol=1e-4):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


@torch.no_grad()
def test_every_stage(golden, method):
    images = fixtures.golden("inputs")["image_clip"]
    f = method.backbone.encode_image(images).image
    close(f, golden["image_features"])
    close(method.text, unit(golden["text_features"]))
    close(method.adapter(f), golden["adapter_output"])
    close(method.mixed(f), golden["blended_features"])
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
    close(grads[0], golden["grad.fc.0.weight"])
