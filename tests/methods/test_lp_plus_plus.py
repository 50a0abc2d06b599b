"""LP++ beyond parity: unequal classes, the last step, zero-shot, options."""

from __future__ import annotations

import pytest
import torch

from tests.methods.conftest import CLASSES, empty_batch, make_batch
from ultraad.methods import get
from ultraad.methods.lp_plus_plus import LPPlusPlus, LPPlusPlusConfig, alpha_rate, first_alpha, weight_rate
from ultraad.nn.class_texts import frozen_texts
from ultraad.nn.loop import EnoughEpochs
from ultraad.nn.prompts import unit
from ultraad.texts.bank import breast_texts


def build(backbone, **options):
    config = LPPlusPlusConfig(**{"steps": 20, **options})
    return LPPlusPlus(backbone, config, classes=CLASSES, normal_class="normal")


def test_registered_under_its_name():
    assert get("lp_plus_plus") is LPPlusPlus


def test_it_learns(backbone):
    method = build(backbone, steps=300)
    report = method.fit(make_batch(backbone, 3), seed=0)
    assert report.selection == "last epoch"
    assert len(report.loss) == 300
    assert report.loss[-1] < 0.5 * report.loss[0]
    assert report.learned == {"linear.weight": 3 * backbone.dim, "linear.bias": 3, "alpha": 3}
    batch = make_batch(backbone, 3)
    with torch.no_grad():
        assert torch.equal(method.score(batch.images).logits.argmax(1), batch.labels)


@torch.no_grad()
def test_zero_shot_is_the_texts(backbone):
    for source in ("bank", "template"):
        method = build(backbone, text=source)
        assert method.fit(empty_batch(backbone), seed=0).selection == "zero-shot"
        images = make_batch(backbone).images
        text = frozen_texts(backbone, breast_texts(), CLASSES, source=source)
        want = backbone.logit_scale * unit(backbone.encode_image(images).image) @ text.T
        torch.testing.assert_close(method.score(images).logits, want, atol=1e-5, rtol=1e-5)


def test_start_by_hand_with_unequal_classes(tiny):
    batch = make_batch(tiny, 3).select([0, 1, 2, 6])  # three normal, no benign, one malignant
    method = build(tiny, steps=0)
    method.fit(batch, seed=0)
    with torch.no_grad():
        f = unit(tiny.encode_image(batch.images).image)
    torch.testing.assert_close(method.linear.weight[0], f[:3].sum(0))
    assert torch.equal(method.linear.weight[1], torch.zeros(tiny.dim))
    torch.testing.assert_close(method.linear.weight[2], f[3])
    want = 250 * (sum(float(f[i] @ method.text[0]) for i in range(3)) / 3 + float(f[3] @ method.text[2])) / 2
    torch.testing.assert_close(method.alpha, torch.full((3,), want), rtol=1e-4, atol=1e-4)
    means = build(tiny, steps=0, start="mean")
    means.fit(batch, seed=0)
    torch.testing.assert_close(means.linear.weight[0], f[:3].mean(0))


def test_rates_bound_the_curvature():
    """lambda_max of F^T F by its eigenvalues, and the largest column energy by hand."""
    f = unit(torch.randn(7, 5, generator=torch.Generator().manual_seed(0)))
    text = unit(torch.randn(3, 5, generator=torch.Generator().manual_seed(1)))
    assert weight_rate(f) == pytest.approx(28 / float(torch.linalg.eigvalsh(f.T @ f)[-1]), rel=1e-5)
    energy = max(sum(float(row @ t) ** 2 for row in f) for t in text)
    assert alpha_rate(f, text) == pytest.approx(7 / (4 * energy), rel=1e-5)
    assert float(first_alpha(text, torch.arange(3), text)) == pytest.approx(250, rel=1e-5)


def test_the_last_step_is_kept(tiny):
    batch, method = make_batch(tiny), build(tiny, steps=40)
    seen = []
    method.progress = lambda done, total: seen.append(method.linear.weight.detach().clone())
    report = method.fit(batch, seed=0)
    assert report.selection == "last epoch"
    assert len(seen) == len(report.loss) == 40
    assert torch.equal(method.linear.weight, seen[-1])
    assert not torch.equal(method.linear.weight, seen[-2])


def test_views_are_rows_of_the_batch(tiny):
    method = build(tiny, views=3, steps=1)
    method.fit(make_batch(tiny), seed=0)
    once = build(tiny, steps=1)
    once.fit(make_batch(tiny), seed=0)
    assert method.linear.weight.norm() > 2 * once.linear.weight.norm()  # sums of three times as many


def test_it_can_be_stopped(tiny):
    method = build(tiny)

    def enough(done, total):
        assert total == 20
        if done == 5:
            raise EnoughEpochs

    method.progress = enough
    assert len(method.fit(make_batch(tiny), seed=0).loss) == 5
    assert method.fitted
