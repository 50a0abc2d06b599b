"""CLIP-Adapter beyond parity: options, zero-shot, what it learns."""

from __future__ import annotations

import torch

from tests.methods.conftest import CLASSES, empty_batch, make_batch
from ultraad.methods import get
from ultraad.methods.clip_adapter import CLIPAdapter, CLIPAdapterConfig
from ultraad.nn.class_texts import frozen_texts
from ultraad.nn.prompts import unit
from ultraad.texts.bank import breast_texts


def build(backbone, classes=CLASSES, **options):
    config = CLIPAdapterConfig(**{"epochs": 4, "views": 2, **options})
    return CLIPAdapter(backbone, config, classes=classes, normal_class="normal")


def zero_shot(backbone, images, source):
    text = frozen_texts(backbone, breast_texts(), CLASSES, source=source)
    return backbone.logit_scale * unit(backbone.encode_image(images).image) @ text.T


def test_registered_under_its_name():
    assert get("clip_adapter") is CLIPAdapter


def test_it_learns(backbone):
    method = build(backbone, epochs=100, views=1, lr=0.2)
    report = method.fit(make_batch(backbone, 3), seed=0)
    assert report.loss[-1] < report.loss[0] - 0.05
    hidden = backbone.dim // 4
    assert set(report.learned.values()) == {hidden * backbone.dim}
    assert len(report.learned) == 2


def test_shots_set_the_epochs(tiny):
    assert len(build(tiny, epochs=None).fit(make_batch(tiny, 1), seed=0).loss) == 50


@torch.no_grad()
def test_zero_shot_and_ratio_zero_are_the_texts(backbone):
    images = make_batch(backbone).images
    for source in ("bank", "template"):
        method = build(backbone, text=source)
        method.fit(empty_batch(backbone), seed=0)
        want = zero_shot(backbone, images, source)
        torch.testing.assert_close(method.score(images).logits, want, atol=1e-5, rtol=1e-5)
    ignored = build(backbone, ratio=0.0)
    torch.testing.assert_close(ignored.score(images).logits, zero_shot(backbone, images, "bank"), atol=1e-5, rtol=1e-5)
    assert (build(backbone).score(images).logits - zero_shot(backbone, images, "bank")).abs().max() > 1e-2


def test_note_on_a_class_without_sentences(tiny):
    method = build(tiny, classes=("normal", "cyst"))
    report = method.fit(make_batch(tiny, classes=("normal", "cyst")), seed=0)
    assert "cyst" in report.notes[0]
    assert build(tiny, classes=("normal", "cyst"), text="template").notes == ()
