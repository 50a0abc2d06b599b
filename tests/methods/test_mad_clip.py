"""MadCLIP against its equations, written again in numpy, slowly; and its options."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.methods.conftest import CLASSES, empty_batch, make_batch
from ultraad.bench.run.protocol import HABITS
from ultraad.methods.mad_clip import MadCLIP, MadCLIPConfig
from ultraad.nn.labelled import labelled
from ultraad.nn.prompts import word_embeddings


def build(backbone, **options):
    config = MadCLIPConfig.model_validate({"epochs": 1, "augment": False, **options})
    return MadCLIP(backbone, config, classes=CLASSES, normal_class="normal")


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def logits_by_hand(method, features, task):
    """S of one task, (l b n 2), patch by patch."""
    t_n, t_a = unit(method.encode_text().detach().double().numpy())
    found = []
    for layer in method.layers:
        patches = features.patches[layer].double().numpy()
        own = np.empty((*patches.shape[:2], 2))
        for side, (branch, same, other) in enumerate(((method.normal, t_n, t_a), (method.abnormal, t_a, t_n))):
            parts = branch[str(layer)]
            shared, head = (m.weight.detach().double().numpy() for m in (parts.shared, getattr(parts, task)))
            for at in np.ndindex(own.shape[:2]):
                h = leaky(shared @ patches[at])
                o = unit(leaky(head @ ((h - h.mean()) / np.sqrt(h.var() + 1e-5))))
                own[(*at, side)] = o @ same - o @ other
        found.append(own)
    return np.stack(found)


def test_logits_score_and_loss_are_the_equations(backbone):
    method, batch = build(backbone, layers=(1, 3)), make_batch(backbone, per_class=1)
    method._encode()
    f = method._see(batch.images)
    seg, det = (logits_by_hand(method, f, task) for task in ("seg", "det"))
    with torch.no_grad():
        np.testing.assert_allclose(method.logits(f, method.text), np.stack([seg, det]), atol=1e-5)
        detection = build_like(method, image_score="detection").score(batch.images)
        scores = method.score(batch.images)
    p = np.exp(det[..., 1]) / np.exp(det).sum(-1)
    np.testing.assert_allclose(detection.score, p.mean((0, 2)), atol=1e-5)
    torch.testing.assert_close(scores.score, scores.map.amax((1, 2)))

    y = np.array([-1.0, 1.0, 1.0])
    agrees = np.log(1 / (1 + np.exp(-np.stack([-y[:, None] * det[..., 0], y[:, None] * det[..., 1]], -1))))
    total = -agrees.mean(2).sum(-1).mean(1).sum()  # over patches, sides, images, layers
    for maps in method.maps(torch.tensor(seg, dtype=torch.float32)).double().numpy():
        for i, p in enumerate(maps):
            truth = batch.masks[i].numpy()
            q = np.where(truth, p, 1 - p) * (1 - 1e-5) + 1e-5 * np.where(truth, 1 - p, p) + 1e-5
            focal = np.mean(-((1 - q) ** 2) * np.log(q))
            total += (focal + 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)) / 3
    np.testing.assert_allclose(method.loss(labelled(batch, normal_index=0)).item(), total, rtol=1e-3)


def build_like(method, **options):
    other = build(method.backbone, layers=method.layers, **options)
    other.load_state_dict(method.state_dict())
    return other


@torch.no_grad()
def test_a_text_is_the_mean_over_sentences_with_words_before_after_and_around(backbone):
    method = build(backbone, words=3)
    start, end = method.templates[0].before, method.templates[0].after[-1:]
    states = ["normal {}", "healthy {}", "unremarkable {}", "{} of normal tissue", "{} without lesion"]
    states += ["{} without mass", "{} without abnormality"]
    raw = []
    for position, own in enumerate(method.words):
        for state, words in zip(states, own, strict=False):
            body, stop = word_embeddings(backbone, state.format("breast ultrasound")), word_embeddings(backbone, ".")
            order = {0: [words, body], 1: [body, words], 2: [words[:1], body, words[1:]]}[position]
            row = torch.cat([start, *order, stop, end])
            raw.append(backbone.encode_prompts(row[None], torch.tensor([len(row) - 1]))[0])
    want = torch.nn.functional.normalize(torch.stack(raw).mean(0), dim=0)
    torch.testing.assert_close(method.encode_text()[0], want, atol=1e-5, rtol=0)


def test_without_masks_only_detection_is_trained(tiny):
    method = build(tiny, epochs=2)
    report = method.fit(make_batch(tiny, masks=False), seed=0)
    assert "there is no map" in " ".join(report.notes)
    assert not any(".seg." in name for name in report.learned)
    with torch.no_grad():
        assert method.score(make_batch(tiny).images).map is None


@pytest.mark.parametrize("augment", [True, False])
def test_training_finds_lesions_and_each_view_is_encoded_once(tiny, monkeypatch, augment):
    seen, look = [], tiny._look
    monkeypatch.setattr(tiny, "_look", lambda x: seen.append(len(x)) or look(x))
    tiny.cache.clear()
    batch = make_batch(tiny)
    method = build(tiny, epochs=3 if augment else 20, augment=augment)
    report = method.fit(batch, seed=0)
    assert sum(seen) == len(batch) * (15 if augment else 1)
    assert report.loss[-1] < 0.9 * report.loss[0]
    with torch.no_grad():
        maps = method.score(batch.images).map
    assert maps[batch.masks].mean() > maps[~batch.masks].mean() + 0.05


def test_an_auxiliary_set_replaces_the_support_and_is_not_augmented(tiny):
    auxiliary, states = [make_batch(tiny, seed=3, classes=("good", "bad"))], []
    for augment in (True, False):
        method = build(tiny, augment=augment)
        method.fit(empty_batch(tiny), auxiliary=auxiliary, seed=0)
        states.append(method.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_the_published_protocol_takes_the_best_epoch_on_the_test_set():
    habit = HABITS["mad_clip"]
    assert habit.criterion == ("image_auroc", "pixel_auroc")
    assert habit.min_max
