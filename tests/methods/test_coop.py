"""CoOp beyond parity: options, zero-shot, what it learns."""

from __future__ import annotations

import pytest
import torch

from tests.methods.conftest import CLASSES, empty_batch, make_batch
from ultraad.errors import ConfigError, DataError
from ultraad.methods import get
from ultraad.methods.coop import CoOp, CoOpConfig
from ultraad.nn.class_texts import frozen_texts
from ultraad.nn.prompts import unit
from ultraad.texts.bank import TextBank, breast_texts


def build(backbone, **options):
    config = CoOpConfig(**{"epochs": 4, "views": 2, **options})
    return CoOp(backbone, config, classes=CLASSES, normal_class="normal")


def test_registered_under_its_name():
    assert get("coop") is CoOp


def test_it_learns(backbone):
    method = build(backbone, epochs=30, views=1, lr=0.02)
    report = method.fit(make_batch(backbone, 3), seed=0)
    assert report.selection == "last epoch"
    assert report.learned == {"context": 4 * backbone.text_width}
    assert report.loss[-1] < report.loss[0] - 0.05


def test_shots_set_the_epochs(tiny):
    method = build(tiny, epochs=None)
    assert len(method.fit(make_batch(tiny, 1), seed=0).loss) == 50
    assert len(method.fit(make_batch(tiny, 2), seed=0).loss) == 100


def test_the_first_epoch_is_warm_up(tiny):
    batch = make_batch(tiny)
    cold, warm = build(tiny, epochs=1, warmup_epochs=0), build(tiny, epochs=1)
    start = cold.context.detach().clone()
    cold.fit(batch, seed=0)
    warm.fit(batch, seed=0)
    ratio = (warm.context - start).norm() / (cold.context - start).norm()
    assert ratio.item() == pytest.approx(1e-5 / 2e-3, rel=0.01)  # one batch, so one step each


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_class_specific_words(backbone, position):
    method = build(backbone, class_specific=True, position=position, context=6)
    assert method.context.shape == (3, 6, backbone.text_width)
    assert torch.equal(method.context[0, :4], method.context[1, :4])  # the words
    assert not torch.equal(method.context[0, 4:], method.context[1, 4:])  # drawn
    method.fit(make_batch(backbone), seed=0)
    assert not torch.equal(method.context[0, :4], method.context[1, :4])


def test_zero_shot_is_the_template(backbone):
    method = build(backbone)
    report = method.fit(empty_batch(backbone), seed=0)
    assert report.selection == "zero-shot"
    images = make_batch(backbone).images
    with torch.no_grad():
        text = frozen_texts(backbone, breast_texts(), CLASSES, source="template")
        want = backbone.logit_scale * unit(backbone.encode_image(images).image) @ text.T
        torch.testing.assert_close(method.score(images).logits, want, atol=1e-5, rtol=1e-5)


def test_zero_shot_with_random_words_is_refused(tiny):
    with pytest.raises(DataError, match="16 of its 16"):
        build(tiny, words="", context=16).fit(empty_batch(tiny), seed=0)
    with pytest.raises(DataError, match="4 of its 8"):
        build(tiny, context=8).fit(empty_batch(tiny), seed=0)


def test_object_words_come_from_the_bank(tiny):
    bank = TextBank(organ="liver", object="liver ultrasound " * 40, classes={})
    with pytest.raises(ConfigError, match="longer"):
        build(tiny, texts=bank)


def test_seeds(tiny):
    a, b, c = (build(tiny, words="", context=16) for _ in range(3))
    for method, seed in ((a, 1), (b, 1), (c, 2)):
        method.fit(make_batch(tiny), seed=seed)
    assert torch.equal(a.context, b.context)
    assert not torch.equal(a.context, c.context)
