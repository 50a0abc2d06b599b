"""The latent dissimilarity against its equations in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import norm

from tests.methods.conftest import CLASSES, make_batch
from ultraad.methods.latent_dissimilarity import METHOD, LatentDissimilarityConfig, divergence, symmetric_divergence
from ultraad.nn.autoencoder import small


def fitted(backbone, **options):
    config = LatentDissimilarityConfig(**{"side": 32, "codes": 3, "steps": 3, **options})
    method = METHOD(backbone, config, classes=CLASSES, normal_class="normal")
    method.fit(make_batch(backbone), seed=0)
    return method


def numeric_divergence(p, q):
    """KL(p | q) of two one-dimensional Gaussians by a sum over a fine grid."""
    x = np.linspace(-40, 40, 400_001)
    return float(np.sum(p.pdf(x) * (p.logpdf(x) - q.logpdf(x))) * (x[1] - x[0]))


def test_divergences_are_the_integrals():
    rng = np.random.default_rng(0)
    m, v, n, w = (rng.normal(0, 1, 2) for _ in range(4))
    p = [norm(a, np.exp(b / 2)) for a, b in zip(m, v, strict=True)]
    q = [norm(a, np.exp(b / 2)) for a, b in zip(n, w, strict=True)]
    rows = [torch.tensor(x)[None] for x in (m, v, n, w)]
    standard = sum(numeric_divergence(a, norm(0, 1)) for a in p)
    assert float(divergence(*rows[:2])) == pytest.approx(standard, abs=1e-6)
    both = sum(numeric_divergence(a, b) + numeric_divergence(b, a) for a, b in zip(p, q, strict=True))
    assert float(symmetric_divergence(*rows)) == pytest.approx(both, abs=1e-6)


def test_the_loss_is_the_bound(tiny):
    method = fitted(tiny, noise=0.3, beta=0.7)
    x = small(make_batch(tiny, 1, seed=4).images, tiny.preprocess, 32)
    noise = torch.randn(len(x), 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = float(method.bound(x, noise))
        means, logs = (y.double().numpy() for y in method.encode(x))
        z = means + np.sqrt(np.exp(logs)) * noise.numpy()
        drawn = method.decoder(torch.tensor(z, dtype=torch.float32)).double().numpy()
    total = 0.0
    for i in range(len(x)):
        minus_log = -norm(drawn[i], 0.3).logpdf(x[i].double().numpy()).sum() - 32 * 32 * np.log(
            0.3 * np.sqrt(2 * np.pi)
        )
        kl = sum(-0.5 * (1 + lv - mu**2 - np.exp(lv)) for mu, lv in zip(means[i], logs[i], strict=True))
        total += (minus_log + 0.7 * kl) / 32**2
    assert found == pytest.approx(total / len(x), rel=1e-5)


@pytest.mark.parametrize("kind", ["divergence", "distance"])
def test_score_and_map(backbone, kind):
    method = fitted(backbone, dissimilarity=kind)
    images = make_batch(backbone, 1, seed=7).images
    with torch.no_grad():
        scores = method.score(images)
        x = small(images, backbone.preprocess, 32)
        means, logs = method.encode(x)
        redrawn = method.decoder(means)
        others = method.encode(redrawn)
    m, lv, n, lw = (y.double().numpy() for y in (means, logs, *others))
    if kind == "distance":
        wanted = ((m - n) ** 2).sum(1)
    else:
        v, w = np.exp(lv), np.exp(lw)
        one = np.log(np.sqrt(w / v)) + (v + (m - n) ** 2) / (2 * w) - 0.5
        two = np.log(np.sqrt(v / w)) + (w + (m - n) ** 2) / (2 * v) - 0.5
        wanted = (one + two).sum(1)
    np.testing.assert_allclose(scores.score.numpy(), wanted / (wanted + float(method.usual_score)), rtol=1e-4)
    errors = np.abs((x - redrawn)[:, 0].numpy())
    maps = np.stack([gaussian_filter(e, 4 * 32 / 224) for e in errors])
    np.testing.assert_allclose(scores.map.numpy(), maps / (maps + float(method.usual_map)), atol=1e-4)


def test_the_usual_errors_are_those_of_the_normal_images(tiny):
    method, batch = fitted(tiny), make_batch(tiny)
    with torch.no_grad():
        score, maps = method.errors(small(batch.images[:2], tiny.preprocess, 32))
    assert float(method.usual_score) == pytest.approx(float(score.mean()), rel=1e-5)
    assert float(method.usual_map) == pytest.approx(float(maps.mean()), rel=1e-5)


def test_it_learns_to_draw_what_it_has_seen(tiny):
    batch = make_batch(tiny)
    x = small(batch.images[:2], tiny.preprocess, 32)
    with torch.no_grad():
        before, after = (fitted(tiny, steps=n, mirror=False).errors(x)[1].mean() for n in (1, 60))
    assert after < 0.7 * before
