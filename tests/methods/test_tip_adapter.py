"""Tip-Adapter beyond parity: training-free, fine-tuned, searched; memory of any size."""

from __future__ import annotations

import pytest
import torch

from tests.methods.conftest import CLASSES, empty_batch, make_batch
from ultraad.config import resolve
from ultraad.errors import ConfigError
from ultraad.methods import get
from ultraad.methods.tip_adapter import TipAdapter, TipAdapterConfig, accuracy_grid, search_values
from ultraad.nn.class_texts import frozen_texts
from ultraad.nn.prompts import unit
from ultraad.texts.bank import breast_texts


def build(backbone, **options):
    config = TipAdapterConfig(**{"epochs": 3, "views": 2, **options})
    return TipAdapter(backbone, config, classes=CLASSES, normal_class="normal")


def test_registered_under_its_name():
    assert get("tip_adapter") is TipAdapter


def test_fine_tuning_learns_the_keys(backbone):
    batch = make_batch(backbone, 3)
    frozen, tuned = build(backbone, finetune=False), build(backbone, epochs=40, views=1, lr=0.02)
    report = frozen.fit(batch, seed=0)
    assert report.selection == "nothing is learned"
    assert report.learned == {}
    assert report.loss == ()
    assert not frozen.keys.requires_grad
    report = tuned.fit(batch, seed=0)
    assert report.loss[-1] < report.loss[0] - 0.05
    assert report.learned == {"keys": 9 * backbone.dim}
    assert torch.equal(frozen.values, tuned.values)


@torch.no_grad()
def test_zero_shot_is_the_texts(backbone):
    method = build(backbone)
    method.fit(make_batch(backbone), seed=0)
    report = method.fit(empty_batch(backbone), seed=0)  # and the memory is forgotten
    assert report.selection == "zero-shot"
    images = make_batch(backbone).images
    text = frozen_texts(backbone, breast_texts(), CLASSES, source="bank")
    want = backbone.logit_scale * unit(backbone.encode_image(images).image) @ text.T
    torch.testing.assert_close(method.score(images).logits, want, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_class_without_images_only_loses_its_memory(tiny):
    batch = make_batch(tiny).select([0, 1, 4, 5])  # no benign
    method = build(tiny, finetune=False)
    method.fit(batch, seed=0)
    f = tiny.encode_image(make_batch(tiny, seed=3).images).image
    torch.testing.assert_close(method.logits(f)[:, 1], method.zero_shot_logits(unit(f))[:, 1])
    assert (method.logits(f)[:, 0] > method.zero_shot_logits(unit(f))[:, 0]).all()


def test_save_and_load_with_another_memory(tiny):
    a, b = build(tiny, search="leave_one_out"), build(tiny)
    a.fit(make_batch(tiny, 3), seed=0)
    b.fit(make_batch(tiny, 1), seed=0)
    b.load_state_dict(a.state_dict())
    images = make_batch(tiny, seed=3).images
    with torch.no_grad():
        assert torch.equal(a.score(images).logits, b.score(images).logits)
    assert set(a.state_dict()) == {"keys", "values", "blend", "normal_seen"}


@torch.no_grad()
def test_accuracy_grid_by_brute_force():
    generator = torch.Generator().manual_seed(0)
    keys, query = (unit(torch.randn(n, 5, generator=generator)) for n in (6, 6))
    zero = torch.randn(6, 3, generator=generator)
    values, labels = torch.eye(3).repeat(2, 1), torch.tensor([0, 1, 2, 0, 1, 2])
    betas, alphas = search_values(7, 5), search_values(3, 4)
    assert betas == pytest.approx([0.1, 1.48, 2.86, 4.24, 5.62])
    for own in (None, torch.arange(6)):
        got = accuracy_grid(zero, query, keys, values, labels, betas=betas, alphas=alphas, own=own)
        assert got.shape == (5, 4)
        for i, beta in enumerate(betas):
            for j, alpha in enumerate(alphas):
                right = 0
                for b in range(6):
                    logits = zero[b].clone()
                    for k in range(6):
                        if own is None or k != b:
                            logits += alpha * torch.exp(-beta * (1 - query[b] @ keys[k])) * values[k]
                    right += int(logits.argmax() == labels[b])
                assert float(got[i, j]) == pytest.approx(right / 6)


def test_search_takes_the_first_of_the_best_pairs(tiny):
    batch = make_batch(tiny, 4, seed=7)
    method = build(tiny, finetune=False, search="leave_one_out")
    report = method.fit(batch, seed=0)
    assert report.selection == "nothing is learned; alpha and beta by leave_one_out"
    alpha, beta = method.blend.tolist()
    betas, alphas = search_values(7, 200), search_values(3, 20)
    with torch.no_grad():
        q = unit(tiny.cache.encode(batch.images, layers=()).image)
        grid = accuracy_grid(
            method.zero_shot_logits(q),
            q,
            method.keys,
            method.values,
            batch.labels,
            betas=betas,
            alphas=alphas,
            own=torch.arange(len(batch)),
        )
    first = next((i, j) for i in range(200) for j in range(20) if grid[i, j] == grid.max())
    assert (beta, alpha) == pytest.approx((betas[first[0]], alphas[first[1]]), rel=1e-5)


def test_leave_one_out_looks_at_the_support_before_fine_tuning(tiny):
    batch = make_batch(tiny, 3)
    frozen, tuned = (build(tiny, search="leave_one_out", finetune=f) for f in (False, True))
    frozen.fit(batch, seed=0)
    tuned.fit(batch, seed=0)
    assert torch.equal(frozen.blend, tuned.blend)
    assert not torch.equal(frozen.blend, torch.tensor([1.0, 5.5]))
    tuned.fit(empty_batch(tiny), seed=0)
    assert torch.equal(tuned.blend, torch.tensor([1.0, 5.5]))  # nothing of an earlier fit stays


def test_search_on_other_images_is_refused():
    with pytest.raises(ConfigError, match=r"search: wanted off \| leave_one_out, found 'dev'"):
        resolve(TipAdapterConfig, {"search": "dev"}, where="--set")
