"""CoCoOp beyond parity: zero-shot, what it learns."""

from __future__ import annotations

import pytest
import torch

from tests.methods.conftest import CLASSES, empty_batch, make_batch
from ultraad.errors import DataError
from ultraad.methods import get
from ultraad.methods.cocoop import CoCoOp, CoCoOpConfig
from ultraad.nn.class_texts import frozen_texts
from ultraad.nn.prompts import unit
from ultraad.texts.bank import breast_texts


def build(backbone, **options):
    config = CoCoOpConfig(**{"epochs": 2, "views": 2, **options})
    return CoCoOp(backbone, config, classes=CLASSES, normal_class="normal")


def test_registered_under_its_name():
    assert get("cocoop") is CoCoOp


def test_it_learns(backbone):
    method = build(backbone, epochs=12, views=1, lr=0.1)
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    report = method.fit(make_batch(backbone, 3), seed=0)
    assert report.loss[-1] < report.loss[0] - 0.03
    assert report.learned == {name: p.numel() for name, p in method.named_parameters()}
    assert sum(report.learned.values()) == sum(
        (4 * t, d * (d // 16) + d // 16, (d // 16) * t + t)[i]
        for i in range(3)
        for d, t in [(backbone.dim, backbone.text_width)]
    )
    for name, p in method.named_parameters():
        assert not torch.equal(p, before[name]), name


def test_texts_differ_from_image_to_image(backbone):
    method = build(backbone)
    images = make_batch(backbone).images
    with torch.no_grad():
        f = backbone.encode_image(images).image
        texts = method.class_features(f)
        assert texts.shape == (6, 3, backbone.dim)
        assert (texts[0] - texts[1]).abs().max() > 1e-4
        torch.testing.assert_close(method.class_features(7 * f), texts, atol=1e-5, rtol=1e-5)  # of n(f)


def test_zero_shot_is_the_template(backbone):
    method = build(backbone)
    method.fit(empty_batch(backbone), seed=0)
    images = make_batch(backbone).images
    with torch.no_grad():
        text = frozen_texts(backbone, breast_texts(), CLASSES, source="template")
        want = backbone.logit_scale * unit(backbone.encode_image(images).image) @ text.T
        torch.testing.assert_close(method.score(images).logits, want, atol=1e-5, rtol=1e-5)


def test_zero_shot_with_random_words_is_refused(tiny):
    with pytest.raises(DataError, match="4 of its 4"):
        build(tiny, words="").fit(empty_batch(tiny), seed=0)
