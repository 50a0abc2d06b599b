"""What would silently spoil a training run.

A forward pass that is not open_clip's, labels that change on disk, masks that do not follow their image.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pretraining.augment import augment
from pretraining.images import FACTS, decode, encode
from pretraining.prompts import ATTRIBUTE_PROMPTS, CLASS_PROMPTS, PAIRS
from pretraining.tower import TAPS, Words, encode_images, encode_texts, tokenizer

from pretraining import export
from ultraad.backbones._embedded_tower import MEAN, STD, build
from ultraad.backbones._torchvision import ensure_torchvision
from ultraad.simulate import LABELS, LEXICON
from ultraad.simulate.attributes import draw_attributes

SENTENCES = ["a benign breast ultrasound image with an oval shape", "normal tissue"]


@pytest.fixture(scope="module")
def model():
    ensure_torchvision()
    torch.manual_seed(0)
    return build().eval()


@torch.no_grad()
def test_images_are_encoded_as_open_clip_does(model):
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    token, patches, grid = encode_images(model, images)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    expected = model.visual.forward_intermediates(
        (images - mean) / std, indices=[t - 1 for t in TAPS], output_fmt="NLC"
    )
    torch.testing.assert_close(token, model.encode_image((images - mean) / std, normalize=True), atol=1e-5, rtol=0)
    assert grid == (14, 14)
    for ours, raw in zip(patches, expected["image_intermediates"], strict=True):
        projected = model.visual.ln_post(raw) @ model.visual.proj
        torch.testing.assert_close(ours, projected / projected.norm(dim=-1, keepdim=True), atol=1e-5, rtol=0)


@torch.no_grad()
def test_texts_are_encoded_as_open_clip_does(model):
    words = Words(SENTENCES, tokenizer=tokenizer())
    small = torch.randn(len(words), model.token_embedding.embedding_dim, generator=torch.Generator().manual_seed(0))
    model.token_embedding.weight.copy_(words.table(model.token_embedding.weight, small))
    torch.testing.assert_close(words.small(model.token_embedding.weight), small, rtol=0, atol=0)
    said = [*SENTENCES, "an anechoic zebra"]  # the last with words that were never seen
    expected = model.encode_text(tokenizer()(said), normalize=True)
    torch.testing.assert_close(encode_texts(model, small, words.rows(said)), expected, atol=1e-5, rtol=0)
    assert 0 in words.rows(["zebra"])
    assert 0 not in words.rows(SENTENCES)


def test_runs_are_averaged_and_only_the_trunk_goes_back_toward_imagenet(monkeypatch):
    kernel, other, count = (
        "visual.conv1.trunk.conv_stem.weight",
        "visual.proj",
        "visual.conv1.trunk.bn1.num_batches_tracked",
    )
    states = [{kernel: torch.full((2,), v), other: torch.full((2,), v), count: torch.tensor(7)} for v in (1.0, 3.0)]
    mean = export.mean(states)
    assert (mean[kernel].tolist(), mean[other].tolist(), int(mean[count])) == ([2, 2], [2, 2], 7)
    monkeypatch.setattr(export, "imagenet_trunk", lambda trunk: {"conv_stem.weight": torch.tensor([10.0, -10.0])})
    mixed = export.toward_imagenet(mean, share=0.75)
    assert (mixed[kernel].tolist(), mixed[other].tolist(), int(mixed[count])) == ([4, -1], [2, 2], 7)


def test_facts_survive_the_disk():
    rng = np.random.default_rng(0)
    for label in LABELS * 20:
        attributes = None if label == "normal" else draw_attributes(rng, label)
        row = np.array(encode(label, attributes), np.int8)
        assert row.shape == (len(FACTS),)
        assert decode(row) == (label, attributes)


def test_masks_follow_their_image():
    images = torch.zeros(16, 3, 96, 96)
    masks = torch.zeros(16, 96, 96)
    masks[:, 30:50, 20:60] = 1
    images[:, :, 30:50, 20:60] = 1
    x, y = augment(images, masks, side=64, generator=torch.Generator().manual_seed(0))
    assert x.shape == (16, 3, 64, 64)
    assert y.shape == (16, 64, 64)
    assert 0 <= float(x.min()) <= float(x.max()) <= 1
    for image, mask in zip(x.mean(1), y, strict=True):
        assert mask.any()
        assert image[mask > 0.9].mean() > image[mask < 0.1].mean() + 0.3


def test_prompts_cover_the_lexicon_without_contradiction():
    assert set(CLASS_PROMPTS) == set(LABELS)
    for name, words in LEXICON.items():
        assert len(ATTRIBUTE_PROMPTS[name]) == len(words)
    said = [set(words) for words in CLASS_PROMPTS.values()]
    assert sum(map(len, said)) == len(set.union(*said))
    assert all(a != b for a, b in PAIRS)
    assert not {a for a, _ in PAIRS} & {b for _, b in PAIRS}
