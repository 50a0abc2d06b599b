"""Tip-Adapter(-F) against its reference: memory, logits, grid search, three steps of fine-tuning."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tests.parity import fixtures
from ultraad.methods.tip_adapter import TipAdapter, TipAdapterConfig, accuracy_grid, search_values
from ultraad.nn.class_texts import text_classifier
from ultraad.nn.class_tokens import ClassTokens
from ultraad.nn.key_value import cache_logits
from ultraad.types import Batch, Geometry

CLASSES = ("normal", "benign", "malignant_tumour")
TEMPLATES = ("a breast ultrasound image of a {} case.", "a photo of a {}.")
AT_100 = 1e-3  # tolerance of logits scaled by 100


@pytest.fixture(scope="module")
def golden():
    return fixtures.golden("tip_adapter")


@pytest.fixture(scope="module")
def backbone():
    backbone = fixtures.mini()
    backbone.logit_scale = 100.0  # the reference writes it, whatever the tower says
    return backbone


def close(ours, theirs, *, atol=1e-4):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def build(backbone, golden, **options):
    """With the reference's texts and memory."""
    method = TipAdapter(backbone, TipAdapterConfig(**options), classes=CLASSES, normal_class="normal")
    method.text = golden["clip_weights"].T
    memory = {"keys": golden["cache_keys"].T, "values": golden["cache_values"]}
    method.load_state_dict({**method.state_dict(), **memory})
    return method


def support_tokens(backbone):
    """The nine support pictures: each input image, mirrored left-right, and up-down."""
    images = fixtures.golden("inputs")["image_clip"]
    images = torch.stack([images, images.flip(-1), images.flip(-2)], dim=1).flatten(0, 1)
    batch = Batch(
        ids=tuple(str(i) for i in range(9)),
        images=images,
        geometry=(Geometry((112, 112), 112, (1.0, 1.0), pad=(0, 0), content_hw=(112, 112)),) * 9,
        labels=torch.arange(3).repeat_interleave(3),
    )
    return ClassTokens(backbone, batch, count=1, epochs=3, seed=0), images


@torch.no_grad()
def test_memory(golden, backbone):
    tokens, images = support_tokens(backbone)
    close(F.normalize(tokens.views[0], dim=-1), golden["finetune.support_features"])
    shifted = backbone.encode_image(images.roll(7, dims=-1)).image
    tokens.views = torch.cat([tokens.views, shifted[None]])
    close(tokens.keys().T, golden["cache_keys"])
    assert torch.equal(tokens.one_hot(3), golden["cache_values"])
    assert torch.equal(tokens.labels, golden["support_labels"])


@torch.no_grad()
def test_logits(golden, backbone):
    query = golden["query_features"]
    names = [name.replace("_", " ") for name in CLASSES]
    close(text_classifier(backbone, [[t.format(n) for t in TEMPLATES] for n in names]), golden["clip_weights"].T)
    method = build(backbone, golden, alpha=2.0, beta=1.0)
    close(query @ method.keys.T, golden["affinity"])
    close(method.zero_shot_logits(query), golden["clip_logits"], atol=AT_100)
    close(cache_logits(query, method.keys, method.values, beta=1.0), golden["cache_logits"])
    close(method.logits(3 * query), golden["tip_logits"], atol=AT_100)
    paper = build(backbone, golden, alpha=1.17, beta=5.5)
    close(paper.logits(query), golden["tip_logits_beta5.5_alpha1.17"], atol=AT_100)


@torch.no_grad()
def test_queries_from_pixels(golden, backbone):
    images = fixtures.golden("inputs")["image_clip"]
    turned = torch.stack([images.rot90(2, dims=(-2, -1)), images.mT], dim=1).flatten(0, 1)
    assert torch.equal(torch.arange(3).repeat_interleave(2), golden["query_labels"])
    scores = build(backbone, golden, alpha=2.0, beta=1.0).score(turned)
    close(scores.logits, golden["tip_logits"], atol=AT_100)
    close(scores.score, 1 - golden["tip_logits"].softmax(1)[:, 0])


@torch.no_grad()
def test_search(golden, backbone, monkeypatch):
    method = build(backbone, golden, search_alpha=13.0, search_beta=13.0)
    f, labels = golden["search.val_features"], golden["search.val_labels"]
    grid = accuracy_grid(
        method.zero_shot_logits(f),
        f,
        method.keys,
        method.values,
        labels,
        betas=search_values(13, 20),
        alphas=search_values(13, 10),
    )
    close(100 * grid, golden["search.accuracy_grid"])
    monkeypatch.setattr("ultraad.methods.tip_adapter.SEARCH_STEPS", (20, 10))
    method._search(f, labels)
    close(method.blend.flip(0).double(), golden["search.best_beta_alpha_f64"], atol=1e-6)


def test_finetuning(golden, backbone):
    method = build(backbone, golden, alpha=2.0, beta=1.0, epochs=3)
    features, labels = golden["finetune.support_features"], golden["support_labels"]
    loss = F.cross_entropy(method.logits(features), labels)
    (grad,) = torch.autograd.grad(loss, method.keys)
    close(grad, golden["finetune.grad_step1"])
    torch.testing.assert_close(grad.norm()[None], golden["gradnorm.finetune.adapter.weight"], rtol=1e-3, atol=0)
    tokens = SimpleNamespace(labels=labels, draw=lambda index, epoch: features[index])
    history = method._finetune(tokens, seed=0)
    close(torch.tensor(history), golden["finetune.losses"], atol=AT_100)
    close(method.keys.detach(), golden["finetune.keys_after_3_steps"], atol=1e-6)  # weight decay moves them by 5e-6
    with torch.no_grad():
        close(method.logits(golden["query_features"]), golden["finetune.query_logits"], atol=AT_100)
