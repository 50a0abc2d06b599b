"""APRIL-GAN against outputs of the reference."""

from __future__ import annotations

import pytest
import torch

from tests.parity import fixtures
from ultraad.methods.april_gan import METHOD, AprilGANConfig
from ultraad.nn.labelled import Labelled
from ultraad.types import Batch, Geometry

REFERENCE = AprilGANConfig(states="industrial", scale=100.0, epochs=0)


def close(ours, golden, *, atol=1e-4):
    torch.testing.assert_close(ours, golden, atol=atol, rtol=0)


def build(backbone, golden):
    """The method with the reference's linear layers."""
    method = METHOD(backbone, REFERENCE, classes=("normal", "abnormal"), normal_class="normal")
    load(method, golden)
    return method


def load(method, golden):
    with torch.no_grad():
        for i, layer in enumerate(method.layers):
            method.adapters[str(layer)].weight.copy_(golden[f"param.fc.{i}.weight"])
            method.adapters[str(layer)].bias.copy_(golden[f"param.fc.{i}.bias"])


@pytest.fixture(scope="module")
def golden():
    return fixtures.golden("aprilgan")


@pytest.fixture(scope="module")
def inputs():
    return fixtures.golden("inputs")


@pytest.fixture(scope="module")
def zero_shot(golden):
    return build(fixtures.mini(gelu=True), golden)


@pytest.fixture(scope="module")
def features(zero_shot, inputs):
    return zero_shot.backbone.encode_image(inputs["image_clip"], layers=zero_shot.layers)


@pytest.fixture(scope="module")
def few_shot(zero_shot, golden, inputs):
    """Image 0 and its mirror image are remembered, as in the reference run."""
    method = METHOD(zero_shot.backbone, REFERENCE, classes=("normal", "abnormal"), normal_class="normal")
    geometry = Geometry((112, 112), 112, (1.0, 1.0), pad=(0, 0), content_hw=(112, 112))
    image = inputs["image_clip"][0]
    support = Batch(
        ids=("0", "0 mirrored"),
        images=torch.stack([image, image.flip(-1)]),
        geometry=(geometry, geometry),
        classes=method.classes,
        labels=torch.tensor([0, 0]),
    )
    method.fit(support, seed=0)
    load(method, golden)
    method.has_text_map.fill_(True)
    return method


def test_layers_are_the_references(zero_shot):
    assert zero_shot.layers == (6, 12, 18, 24)


def test_text(zero_shot, golden):
    close(zero_shot.text.T, golden["text_features"])


def test_class_token_and_zero_shot_score(zero_shot, features, golden):
    close(torch.nn.functional.normalize(features.image, dim=-1), golden["image_features"])
    close(zero_shot.class_score(features), golden["image_score"])


def test_patch_logits(zero_shot, features, golden):
    with torch.no_grad():
        close(zero_shot.patch_logits(features).transpose(0, 1), golden["patch_logits"], atol=1e-3)


def test_memory_map(few_shot, features, golden):
    close(few_shot.memory_maps(features).sum(0)[1:], golden["few.map"])


def test_both_maps_together(few_shot, features, golden):
    with torch.no_grad():
        both = few_shot.text_maps(features).sum(0) + few_shot.memory_maps(features).sum(0)
    close(both.amax((1, 2)), golden["few.map_maximum"])


def test_few_shot_score_but_for_the_minimum_and_maximum_over_the_test_set(few_shot, inputs, features, golden):
    with torch.no_grad():
        scores = few_shot.score(inputs["image_clip"])
        largest = scores.map.amax((1, 2)) * 2 * len(few_shot.layers)  # no distance is above 1: the reference's sum
        over = (largest - largest.min()) / (largest.max() - largest.min())
        close(largest, golden["few.map_maximum"])
        close((few_shot.class_score(features) + over) / 2, golden["few.image_score"])
        close(scores.score, (golden["image_score"] + golden["few.map_maximum"] / 8) / 2)


def test_loss_and_gradients(zero_shot, golden, inputs):
    batch = Labelled(
        inputs["image_clip"], inputs["label"] > 0, inputs["mask"][:, 0] > 0, torch.ones(3, dtype=torch.bool)
    )
    zero_shot.zero_grad()
    loss = zero_shot._loss(batch)
    loss.backward()
    close(loss.detach()[None], golden["train.loss"])
    for i, layer in enumerate(zero_shot.layers):
        for part in ("weight", "bias"):
            ours = getattr(zero_shot.adapters[str(layer)], part).grad.norm()
            torch.testing.assert_close(ours[None], golden[f"gradnorm.fc.{i}.{part}"], atol=0, rtol=1e-3)


def test_with_quick_gelu(golden, inputs):
    method = build(fixtures.mini(), golden)
    with torch.no_grad():
        scores = method.score(inputs["image_clip"][1:2])
    close(scores.map * len(method.layers), golden["quickgelu.image1.anomaly_map"])
    close(scores.score, golden["quickgelu.image1.image_score"])
