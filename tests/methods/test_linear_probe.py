"""The linear probe against scikit-learn's probabilities and the gradient of its own objective."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.methods.conftest import CLASSES, empty_batch, make_batch
from ultraad.errors import DataError
from ultraad.methods import get
from ultraad.methods.linear_probe import LinearProbe, LinearProbeConfig
from ultraad.nn.prompts import unit


def build(backbone, classes=CLASSES, **options):
    return LinearProbe(backbone, LinearProbeConfig(**options), classes=classes, normal_class="normal")


def test_registered_under_its_name():
    assert get("linear_probe") is LinearProbe


@pytest.mark.parametrize("classes", [CLASSES, ("benign", "normal")])
@pytest.mark.parametrize("features", ["raw", "unit"])
def test_probabilities_equal_those_of_scikit_learn(backbone, classes, features):
    batch, queries = make_batch(backbone, 3, classes=classes), make_batch(backbone, 4, seed=5, classes=classes)
    method = build(backbone, classes, features=features)
    method.fit(batch, seed=0)
    with torch.no_grad():
        x, q = (backbone.encode_image(b.images).image for b in (batch, queries))
        scores = method.score(queries.images)
    x, q = (unit(x), unit(q)) if features == "unit" else (x, q)
    oracle = LogisticRegression(C=0.316, max_iter=1000).fit(x.double().numpy(), batch.labels.numpy())
    want = torch.from_numpy(oracle.predict_proba(q.double().numpy())).float()
    torch.testing.assert_close(scores.logits.softmax(1), want, atol=1e-4, rtol=0)
    torch.testing.assert_close(scores.score, 1 - want[:, classes.index("normal")], atol=1e-4, rtol=0)


@pytest.mark.parametrize("layers", [(0,), (1, 2)])
def test_moments_are_those_of_numpy_standardised_by_scikit_learn(backbone, layers):
    batch, queries = make_batch(backbone, 3), make_batch(backbone, 4, seed=5)
    method = build(backbone, features="moments", layers=layers)
    method.fit(batch, seed=0)
    with torch.no_grad():
        encoded = [backbone.encode_image(b.images, layers=layers) for b in (batch, queries)]
        found = method.score(queries.images).logits.softmax(1)
    patches = [[f.patches[n].double().numpy() for n in layers] for f in encoded]
    x, q = (np.concatenate([p.mean(1) for p in some] + [p.std(1) for p in some], 1) for some in patches)
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=0.316, max_iter=1000)).fit(x, batch.labels.numpy())
    np.testing.assert_allclose(found.numpy(), oracle.predict_proba(q), atol=2e-3)


def test_it_is_the_optimum(backbone):
    batch = make_batch(backbone, 3)
    method = build(backbone, C=0.05)
    report = method.fit(batch, seed=0)
    assert report.learned == {"weight": 3 * backbone.dim, "bias": 3}
    with torch.no_grad():
        x = backbone.encode_image(batch.images).image.double()
    w, b = method.weight.double().requires_grad_(), method.bias.double().requires_grad_()
    loss = F.cross_entropy(x @ w.T + b, batch.labels, reduction="sum") + w.square().sum() / (2 * 0.05)
    slopes = torch.autograd.grad(loss, (w, b))
    assert all(float(slope.abs().max()) < 2e-2 for slope in slopes)
    start = F.cross_entropy(torch.zeros(9, 3).double(), batch.labels, reduction="sum")
    assert loss.item() < start.item()


def test_views_are_examples(tiny):
    batch = make_batch(tiny, 3)
    a, b = build(tiny), build(tiny, views=3)
    a.fit(batch, seed=0)
    b.fit(batch, seed=0)
    assert not torch.allclose(a.weight, b.weight)


def test_missing_images_and_classes_are_refused(tiny):
    with pytest.raises(DataError, match="learns from images and got none"):
        build(tiny).fit(empty_batch(tiny), seed=0)
    with pytest.raises(DataError, match="found none of: benign"):
        build(tiny).fit(make_batch(tiny).select([0, 1, 4, 5]), seed=0)
