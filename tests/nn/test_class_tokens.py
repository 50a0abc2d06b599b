"""Class tokens of views, and the small rules beside them."""

from __future__ import annotations

import pytest
import torch

from tests.methods.conftest import make_batch
from ultraad.backbones import load_backbone
from ultraad.nn.augment import apply_view, sample_views
from ultraad.nn.blocks import MiniNet, silence
from ultraad.nn.class_tokens import ClassTokens, epochs_by_shots, grade
from ultraad.nn.prompts import unit
from ultraad.nn.views import SupportViews
from ultraad.types import Batch


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("tiny")


def test_views_are_encoded_by_the_tower(backbone):
    batch = make_batch(backbone)
    tokens = ClassTokens(backbone, batch, count=3, epochs=4, seed=5)
    assert tokens.views.shape == (3, 6, backbone.dim)
    with torch.no_grad():
        torch.testing.assert_close(tokens.views[0], backbone.encode_image(batch.images).image)
        for i, id_ in enumerate(batch.ids):
            for v, view in enumerate(sample_views(id_, 3, seed=5)):
                image, _ = apply_view(batch.images[i], batch.masks[i], view, preprocess=backbone.preprocess)
                torch.testing.assert_close(tokens.views[v, i], backbone.encode_image(image[None]).image[0])
    torch.testing.assert_close(tokens.keys(), unit(tokens.views.mean(0)))
    assert torch.equal(tokens.one_hot(4), torch.eye(4)[batch.labels])


def test_draws_equal_those_of_ultraad(backbone):
    """Same seed, same views: what the methods learn from differs in nothing but the method."""
    batch = make_batch(backbone)
    tokens = ClassTokens(backbone, batch, count=3, epochs=4, seed=5)
    other = SupportViews(backbone, batch, normal_index=0, layers=(), count=3, mask_size=4, epochs=4, seed=5)
    index = torch.tensor([4, 0, 2])
    for epoch in range(4):
        assert torch.equal(tokens.draw(index, epoch), other.draw(index, epoch)[0].image)
    assert torch.equal(tokens.keys(), other.keys)


@pytest.mark.parametrize(("shots", "epochs"), [(1, 50), (2, 100), (4, 100), (7, 100), (8, 200), (16, 200)])
def test_epochs_by_shots(shots, epochs):
    labels = torch.tensor([0, *[1] * shots])
    batch = Batch(ids=("",) * len(labels), images=torch.zeros(len(labels), 3, 2, 2), geometry=(), labels=labels)
    assert epochs_by_shots(batch) == epochs


def test_grade():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]])
    scores = grade(logits, normal_index=1)
    torch.testing.assert_close(scores.score, 1 - logits.softmax(1)[:, 1])
    assert scores.logits is logits
    assert scores.map is None


@pytest.mark.parametrize("kind", ["cocoop", "clip_adapter", "linear"])
def test_a_silent_network(kind):
    net = MiniNet(32, 8, kind=kind)
    silence(net)
    assert torch.equal(net(torch.randn(5, 32)), torch.zeros(5, 8))
