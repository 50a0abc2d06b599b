"""CoOp against its reference: three places of the class name, shared and class-specific words."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.parity import fixtures
from ultraad.methods.coop import CoOp, CoOpConfig
from ultraad.nn.class_texts import ClassPrompts
from ultraad.nn.prompts import unit

CLASSES = ("normal", "benign", "malignant_tumour")
PHRASES = ("normal", "benign", "malignant tumour")  # the reference has no object words


@pytest.fixture(scope="module")
def golden():
    return fixtures.golden("coop")


@pytest.fixture(scope="module")
def backbone():
    return fixtures.mini()


def close(ours, theirs, *, atol=1e-4):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def build(backbone, *, position="end", class_specific=False, context=None):
    config = CoOpConfig(position=position, class_specific=class_specific)
    method = CoOp(backbone, config, classes=CLASSES, normal_class="normal")
    method.prompts = ClassPrompts(backbone, PHRASES, count=4, position=position)
    if context is not None:
        with torch.no_grad():
            method.context.copy_(context)
    return method


@pytest.mark.parametrize("kind", ["shared", "class_specific"])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_texts_logits_loss_gradient(golden, backbone, kind, position):
    context = golden[f"{kind}.param.ctx"]
    method = build(backbone, position=position, class_specific=kind == "class_specific", context=context)
    at = f"{kind}.{position}"
    close(method.class_features(), golden[f"{at}.text_features"])
    logits = method.logits(golden["image_features"])
    close(logits, golden[f"{at}.logits"])
    loss = F.cross_entropy(logits, golden["labels"])
    close(loss[None], golden[f"{at}.loss"])
    (grad,) = torch.autograd.grad(loss, method.context)
    norm = golden[f"{at}.gradnorm.ctx"]
    torch.testing.assert_close(grad.norm()[None], norm, rtol=1e-3, atol=0)
    if position == "end":
        close(grad.view_as(context), golden[f"{at}.grad.ctx"])


def test_from_pixels(golden, backbone):
    images = fixtures.golden("inputs")["image_clip"]
    method = build(backbone, context=golden["shared.param.ctx"])
    with torch.no_grad():
        close(backbone.encode_image(images).image, golden["image_features"])
        scores = method.score(images)
    close(scores.logits, golden["shared.end.logits"])
    close(scores.score, 1 - golden["shared.end.logits"].softmax(1)[:, 0])


def test_words_are_a_hand_written_prompt(golden, backbone):
    method = build(backbone)
    assert torch.equal(method.context.detach()[0], golden["init_words.ctx"])
    with torch.no_grad():
        close(method.logits(golden["image_features"]), golden["init_words.logits"])
        by_hand = backbone.encode_text([f"a photo of a {phrase}." for phrase in PHRASES])
        close(backbone.logit_scale * unit(golden["image_features"]) @ unit(by_hand).T, golden["init_words.logits"])
