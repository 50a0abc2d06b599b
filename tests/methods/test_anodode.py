"""AnoDODE against closed forms of Gaussian features and its equations in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import nn

from tests.methods.conftest import CLASSES, make_batch
from ultraad.methods.anodode import METHOD, AnoDODEConfig, rate, scales_at, times


def made(backbone, **options):
    config = AnoDODEConfig(**{"components": 4, "width": 8, "steps": 3, "solver_steps": 4, **options})
    return METHOD(backbone, config, classes=CLASSES, normal_class="normal")


class Exact(nn.Module):
    """The true noise in x_t if x_0 is normal with this variance."""

    def __init__(self, variance):
        super().__init__()
        self.variance = variance

    def spread(self, t):
        a, s = scales_at(torch.as_tensor(t))
        return a**2 * self.variance + s**2

    def forward(self, x, t):
        return scales_at(t)[1].view(-1, 1, 1, 1) * x / self.spread(t).view(-1, 1, 1, 1)


def test_the_schedule_is_the_integral_of_the_rate():
    for t in (0.01, 0.3, 1.0):
        a, s = (float(v) for v in scales_at(torch.tensor(t, dtype=torch.float64)))
        assert a == pytest.approx(np.exp(-0.5 * quad(lambda u: float(rate(torch.tensor(u))), 0, t)[0]), rel=1e-6)
        assert a**2 + s**2 == pytest.approx(1)


def test_times_are_denser_at_the_small_end():
    up, down = times(0.01, 1, 5), times(0.3, 0.01, 5)
    assert (float(up[0]), float(up[-1]), float(down[0]), float(down[-1])) == pytest.approx((0.01, 1, 0.3, 0.01))
    assert (up.diff() > 0).all()
    assert (up.diff().diff() > 0).all()
    assert (down.diff().abs().diff() < 0).all()


def test_density_of_gaussian_features_is_that_of_the_gaussian(tiny):
    method = made(tiny, solver_steps=400)
    method.network = Exact(torch.tensor(3.0))
    x = 2 * torch.randn(3, *method.probe.shape[1:], generator=torch.Generator().manual_seed(0))
    spread = float(method.network.spread(0.01))
    wanted = [-norm(0, np.sqrt(spread)).logpdf(v.flatten().numpy()).sum() / v.numel() / np.log(2) for v in x]
    np.testing.assert_allclose(method.bits(x).numpy(), wanted, rtol=2e-3)
    end, _ = method.follow(x, times(0.01, 1.0, 400), divergence=False)
    torch.testing.assert_close(end, x * (float(method.network.spread(1.0)) / spread) ** 0.5, rtol=2e-3, atol=2e-3)


def test_drift_and_divergence_by_differences(tiny):
    method = made(tiny).double()
    x = torch.randn(2, *method.probe.shape[1:], generator=torch.Generator().manual_seed(0)).double()
    t = torch.tensor(0.4, dtype=torch.float64)

    def flow(y):
        with torch.no_grad():
            noise = method.network(y, t.expand(len(y))).numpy()
        b, s = 0.1 + 19.9 * 0.4, np.sqrt(1 - np.exp(-(0.1 * 0.4 + 19.9 * 0.4**2 / 2)))
        return -0.5 * b * y.numpy() + 0.5 * b / s * noise

    found, divergence = method.drift(x, t, divergence=True)
    np.testing.assert_allclose(found.numpy(), flow(x), rtol=1e-6, atol=1e-6)
    v = method.probe
    assert set(v.flatten().tolist()) == {-1.0, 1.0}
    slope = (flow(x + 1e-5 * v) - flow(x - 1e-5 * v)) / 2e-5
    np.testing.assert_allclose(divergence.numpy(), (v.numpy() * slope).reshape(2, -1).sum(1), rtol=1e-5)


def test_the_loss_by_loops(tiny):
    method = made(tiny)
    x, e = torch.randn(2, 2, *method.probe.shape[1:], generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.2, 0.9])
    total = 0.0
    for i in range(2):
        a, s = (float(v) for v in scales_at(t[i]))
        with torch.no_grad():
            guess = method.network((a * x[i] + s * e[i])[None], t[i : i + 1])[0]
        total += float(((e[i] - guess) ** 2).mean()) / 2
    assert float(method.misfit(x, t, e).detach()) == pytest.approx(total, rel=1e-5)


def test_features_have_variance_one_and_no_correlation(tiny):
    method = made(tiny)
    rows = torch.randn(400, 2 * len(method.layers) * tiny.width, generator=torch.Generator().manual_seed(0))
    rows[:, 0] += 3 * rows[:, 1]
    method._reduce_by(rows)
    x = ((rows - method.centre) @ method.basis).double().numpy()
    np.testing.assert_allclose(np.cov(x.T, bias=True), np.eye(4), atol=1e-3)
    scaled = (rows - rows.mean(0)) / rows.std(0, correction=0)
    values = np.linalg.eigvalsh(np.cov(scaled.double().numpy().T, bias=True))
    along = [
        np.var(scaled.double().numpy() @ (u / np.linalg.norm(u)))
        for u in (method.basis.T * rows.std(0)).double().numpy()
    ]
    np.testing.assert_allclose(along, values[::-1][:4], rtol=0.02)


def test_scores_and_maps(backbone):
    method, images = made(backbone), make_batch(backbone, 1, seed=7).images
    batch = make_batch(backbone)
    method.fit(batch, seed=0)
    with torch.no_grad():
        found = method.score(images)
        tokens = method._tokens(backbone.encode_image(x, layers=method.layers) for x in method._at_scales(images))
        x = method.reduced(tokens)
        bits, usual = method.bits(x), method.usual_bits.tolist()
        known = method.reduced(
            method._tokens(backbone.encode_image(y, layers=method.layers) for y in method._at_scales(batch.images[:2]))
        )
        own = method.bits(known)
    assert tokens.shape[-1] == 2 * len(method.layers) * backbone.width
    assert usual[0] == pytest.approx(float(own.mean()), rel=1e-3)
    assert usual[1] == pytest.approx(max(1e-3, float(own.std(correction=0))), rel=1e-2)
    z = (bits.double().numpy() - usual[0]) / usual[1]
    np.testing.assert_allclose(found.score.numpy(), 0.5 + np.arctan(z) / np.pi, atol=1e-4)


def test_restored_features_of_the_gaussian(tiny):
    method = made(tiny, solver_steps=400, noised=0.3)
    method.network = Exact(torch.tensor(3.0))
    x = torch.randn(2, *method.probe.shape[1:], generator=torch.Generator().manual_seed(0))
    a, s = (float(v) for v in scales_at(torch.tensor(0.3)))
    shrink = float(method.network.spread(0.01) / method.network.spread(0.3)) ** 0.5
    back = shrink * (a * x + s * method.noise)
    torch.testing.assert_close(method.restored_error(x), (x - back).square().mean(1), rtol=5e-3, atol=5e-3)
