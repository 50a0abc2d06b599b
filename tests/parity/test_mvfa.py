"""MVFA against outputs of the reference."""

from __future__ import annotations

import pytest
import torch

from tests.parity import fixtures
from ultraad.methods.mvfa import METHOD, MVFAConfig
from ultraad.nn.augment import to_intensity
from ultraad.nn.fixed_views import VIEWS, fixed_views
from ultraad.texts.bank import TextBank

BRAIN = TextBank(organ="brain", object="Brain", classes={})
PARTS = {"fc1.0": "down", "fc2.0": "up"}


def close(ours, golden, *, atol=1e-4):
    torch.testing.assert_close(ours, golden, atol=atol, rtol=0)


def build(backbone, golden, **options):
    """The method with the reference's adapters and options."""
    config = MVFAConfig(texts=BRAIN, states="industrial", scale=100.0, normalise=False, **options)
    method = METHOD(backbone, config, classes=("normal", "abnormal"), normal_class="normal")
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            parameter.copy_(golden[f"param.{reference_name(method, name)}"])
    return method


def reference_name(method, name):
    """``seg.6.down.weight`` is ``seg_adapters.0.fc1.0.weight`` there."""
    kind, layer, part, _ = name.split(".")
    theirs = next(key for key, value in PARTS.items() if value == part)
    return f"{kind}_adapters.{method.layers.index(int(layer))}.{theirs}.weight"


def scaled(x):
    """The reference's normalisation over the test set."""
    return (x - x.min()) / (x.max() - x.min())


@pytest.fixture(scope="module")
def golden():
    return fixtures.golden("mvfa")


@pytest.fixture(scope="module")
def inputs():
    return fixtures.golden("inputs")


@pytest.fixture(scope="module")
def backbone():
    return fixtures.mini(gelu=True)


@pytest.fixture(scope="module")
def method(backbone, golden):
    return build(backbone, golden)


@pytest.fixture(scope="module")
def patches(method, inputs):
    """(2 l b n d): segmentation and detection tokens of the three images."""
    with torch.no_grad():
        return method.tokens(inputs["image_clip"])[:, :, :, 1:]


def test_every_parameter_has_its_counterpart(method, golden):
    ours = {f"param.{reference_name(method, name)}" for name, _ in method.named_parameters()}
    assert ours == {name for name in golden if name.startswith("param.")}


def test_text(method, golden):
    close(method.text.T, golden["text_features"])


def test_patch_logits_of_segmentation(method, patches, golden):
    close(method.patch_logits(patches[0]).transpose(0, 1), golden["zero.patch_logits"], atol=1e-3)


def test_zero_shot_score(method, patches, golden):
    close(method.text_scores(patches[1]).sum(0), golden["zero.image_score"])


def test_frozen_blocks_from_the_cache_change_nothing(method, patches, inputs):
    with torch.no_grad():
        again = method.tokens(inputs["image_clip"], frozen=True)[:, :, :, 1:]
    close(again, patches, atol=1e-5)


def test_memory_of_flips(backbone, golden, inputs, patches):
    method = build(backbone, golden, augment=False)
    image = inputs["image_clip"][0]
    method._remember(torch.stack([image, image.flip(-1), image.flip(-2)]))
    assert [len(bank) for bank in method.memory[0]] == golden["few.memory_rows"].tolist()
    zero, few = method.text_maps(patches[0]).sum(0), method.memory_maps(patches[0], 0).sum(0)
    few_scores = method.memory_maps(patches[1], 1).sum(0).mean((1, 2))
    close(few_scores, golden["few.flips.det_score"])
    combined = (scaled(zero) + scaled(few)) / 2
    close(combined[1:2], golden["few.flips.combined_map"])
    close(combined.amax((1, 2)), golden["few.flips.combined_image_score"])
    zero_scores = method.text_scores(patches[1]).sum(0)
    close((scaled(zero_scores) + scaled(few_scores)) / 2, golden["few.flips.combined_det_score"])
    with torch.no_grad():
        scores = method.score(inputs["image_clip"])
    close(scores.map, (zero + few) / 8)  # the same halves, as they are; no distance is above 1
    close(scores.score, scores.map.amax((1, 2)))


def test_memory_of_the_fixed_views(method, golden, inputs, patches):
    method._remember(inputs["image_clip"][:1])
    close(method.memory_maps(patches[1], 1).sum(0).mean((1, 2)), golden["few.augmented.det_score"])


def test_fixed_views(backbone, golden, inputs):
    views = fixed_views(to_intensity(inputs["image_clip"][:1], backbone.preprocess))
    assert views.shape == (1, VIEWS, 3, 112, 112)
    close(views.mean((0, 3, 4)), golden["augment.all_means"])
    masks = fixed_views(inputs["mask"][1:2].float())
    close(masks.sum((0, 2, 3, 4)), golden["augment.mask_sums"], atol=1e-3)


@pytest.mark.parametrize("i", [0, 1])
def test_losses_and_gradients(method, golden, inputs, i):
    method.zero_grad()
    seg, det = method.tokens(inputs["image_clip"][i : i + 1])[:, :, :, 1:]
    of_seg = method.segmentation_loss(seg, inputs["mask"][i : i + 1, 0] > 0)
    of_det = method.detection_loss(det, inputs["label"][i : i + 1] > 0)
    (of_seg + of_det).backward()
    close(of_seg.detach()[None], golden[f"train.image{i}.seg_loss"])
    close(of_det.detach()[None], golden[f"train.image{i}.det_loss"])
    close((of_seg + of_det).detach()[None], golden[f"train.image{i}.total_loss"])
    for name, parameter in method.named_parameters():
        theirs = reference_name(method, name)
        norm = golden[f"gradnorm.image{i}.{theirs}"]
        torch.testing.assert_close(parameter.grad.norm()[None], norm, atol=0, rtol=1e-3, msg=name)
        if f"grad.image{i}.{theirs}" in golden:
            close(parameter.grad, golden[f"grad.image{i}.{theirs}"])


def test_at_another_size(golden, inputs):
    method = build(fixtures.mini(gelu=True, size=154), golden, memory=False)
    with torch.no_grad():
        scores = method.score(inputs["image_clip_154"])
    close(scores.map * 4, golden["res154.zero.anomaly_map"])
    close(scores.score * 4, golden["res154.zero.image_score"])


def test_with_quick_gelu(golden, inputs):
    method = build(fixtures.mini(), golden)
    with torch.no_grad():
        close(method.text.T, golden["quickgelu.text_features"])
        close(method.score(inputs["image_clip"]).score * 4, golden["quickgelu.zero.image_score"])
