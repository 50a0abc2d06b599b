"""LP++ against its reference: start, step sizes, 25 steps with the summed gradient of alpha, logits."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from tests.parity import fixtures
from ultraad.methods.lp_plus_plus import LPPlusPlus, LPPlusPlusConfig, alpha_rate, first_alpha, weight_rate
from ultraad.nn.class_texts import text_classifier

CLASSES = ("normal", "benign", "malignant_tumour")
START, END = 1e-4, 1e-3  # relative tolerances of first values and after 25 steps


@pytest.fixture(scope="module")
def golden():
    return fixtures.golden("lpp")


@pytest.fixture(scope="module")
def backbone():
    return fixtures.mini()


def close(ours, theirs, *, rtol):
    """Relative to the largest value: entries near zero carry the others' rounding."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=rtol * float(theirs.abs().max()))


def build(backbone, golden, **options):
    method = LPPlusPlus(backbone, LPPlusPlusConfig(**options), classes=CLASSES, normal_class="normal")
    method.text = golden["clip_weights"].T
    method.start(golden["support_features"], golden["support_labels"])
    with torch.no_grad():
        method.linear.bias.copy_(golden["init.classifier_bias"])
    return method


def test_texts_and_features(golden, backbone):
    templates = ("a breast ultrasound image of a {} case.", "a photo of a {}.")
    names = [name.replace("_", " ") for name in CLASSES]
    ours = text_classifier(backbone, [[t.format(n) for t in templates] for n in names])
    torch.testing.assert_close(ours, golden["clip_weights"].T, atol=1e-4, rtol=0)
    images = fixtures.golden("inputs")["image_clip"]
    support = torch.stack([images, images.flip(-1), images.flip(-2)], dim=1).flatten(0, 1)
    with torch.no_grad():
        f = F.normalize(backbone.encode_image(support).image, dim=-1)
    torch.testing.assert_close(f, golden["support_features"], atol=1e-4, rtol=0)


def test_start(golden, backbone):
    f, labels, text = golden["support_features"], golden["support_labels"], golden["clip_weights"].T
    assert weight_rate(f) == pytest.approx(float(golden["init.lr_w_f64"]), rel=START)
    assert alpha_rate(f, text) == pytest.approx(float(golden["init.lr_alpha_f64"]), rel=START)
    assert float(first_alpha(f, labels, text)) == pytest.approx(float(golden["init.alpha_f64"]), rel=START)
    method = build(backbone, golden)
    close(method.linear.weight.detach(), golden["init.classifier_weight"], rtol=START)
    logits = method.blended(f)
    close(logits.detach(), golden["step0.logits"], rtol=START)
    parameters = (method.linear.weight, method.linear.bias, method.alpha)
    grads = torch.autograd.grad(F.cross_entropy(logits, labels), parameters)
    close(grads[0].norm()[None], golden["gradnorm.step0.weight"], rtol=1e-3)
    close(grads[1].norm()[None], golden["gradnorm.step0.bias"], rtol=1e-3)
    close(grads[2][None], golden["step0.alpha_grad"], rtol=1e-3)
    with torch.no_grad():
        close(method.blended(golden["query_features"]), golden["step0.query_logits"], rtol=START)


def test_25_steps(golden, backbone):
    method = build(backbone, golden, steps=25)
    alphas = []
    method.progress = lambda done, total: alphas.append(method.alpha.detach().clone())
    losses = method.descend(golden["support_features"], golden["support_labels"])
    close(torch.tensor(losses), golden["losses"], rtol=END)
    close(torch.stack(alphas), golden["alpha_history"], rtol=1e-5)
    moved = torch.stack(alphas)[-1] - alphas[0]
    close(moved, golden["alpha_history"][-1] - golden["alpha_history"][0], rtol=END)
    close(method.linear.weight.detach(), golden["final.classifier_weight"], rtol=END)
    close(method.linear.bias.detach(), golden["final.classifier_bias"], rtol=END)
    with torch.no_grad():
        close(method.blended(golden["query_features"]), golden["final.query_logits"], rtol=END)


def test_queries_from_pixels(golden, backbone):
    images = fixtures.golden("inputs")["image_clip"]
    turned = torch.stack([images.rot90(2, dims=(-2, -1)), images.mT], dim=1).flatten(0, 1)
    method = build(backbone, golden)
    with torch.no_grad():
        scores = method.score(turned)
        f = F.normalize(backbone.encode_image(turned).image, dim=-1)
    torch.testing.assert_close(f, golden["query_features"], atol=1e-4, rtol=0)
    torch.testing.assert_close(scores.logits, golden["step0.query_logits"], atol=1e-4, rtol=1e-4)
    assert scores.logits.argmax(1).tolist() == golden["step0.query_logits"].argmax(1).tolist()
    assert golden["query_labels"].tolist() == [0, 0, 1, 1, 2, 2]


def test_alpha_follows_the_last_gradient_only_if_asked(golden, backbone):
    """The quirk put right: with one step per iteration it is plain gradient descent on alpha."""
    f, labels, text = golden["support_features"], golden["support_labels"], golden["clip_weights"].T
    moved = {}
    for kind in ("accumulate", "last"):
        method = build(backbone, golden, steps=3, alpha_every=1, alpha_grad=kind)
        seen = []

        def note(done, total, method=method, seen=seen):
            seen.append((method.linear.weight.clone(), method.linear.bias.clone(), method.alpha.clone()))

        before = (method.linear.weight.clone(), method.linear.bias.clone(), method.alpha.clone())
        method.progress = note
        method.descend(f, labels)
        total, states = torch.zeros(3), [before, *seen]
        for (w, b, a), (_, _, after) in pairwise(states):
            logits = (f @ w.T + b + a * (f @ text.T)).detach()
            error = (logits.softmax(1) - F.one_hot(labels, 3)) / len(f)
            grad = (error * (f @ text.T)).sum(0)
            total = total + grad if kind == "accumulate" else grad
            torch.testing.assert_close((a - after).detach(), alpha_rate(f, text) * total, rtol=1e-4, atol=2e-5)
        moved[kind] = (states[-1][2] - states[0][2]).detach()
    assert (moved["accumulate"] - moved["last"]).abs().max() > 1e-2
