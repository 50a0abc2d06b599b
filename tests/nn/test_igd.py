"""IGD in plain numpy: redrawing error, distance, losses and which network each of them reaches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ultraad.nn.igd import WEIGHTS, Descriptor, redrawing


@pytest.fixture
def descriptor():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Descriptor(features=6, side=32, width=4, codes=5)
    made.settle(torch.randn(20, 6, generator=torch.Generator().manual_seed(1)))
    return made


def pictures(seed, count=3):
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


def ssim(x, y):
    """Both factors of SSIM at every place of a window of 3 x 3, by loops."""
    line = np.exp(-(np.arange(-1, 2) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    h, w = x.shape
    first, second = np.zeros((h - 2, w - 2)), np.zeros((h - 2, w - 2))
    for i in range(h - 2):
        for j in range(w - 2):
            a, b = x[i : i + 3, j : j + 3], y[i : i + 3, j : j + 3]
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb, ab = (
                (window * a * a).sum() - ma**2,
                (window * b * b).sum() - mb**2,
                (window * a * b).sum() - ma * mb,
            )
            first[i, j] = (2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4)
            second[i, j] = (2 * ab + 9e-4) / (va + vb + 9e-4)
    return first, second


def test_redrawing_error_by_loops():
    x = pictures(2)
    y = (x + 0.2 * pictures(3)).clamp(0, 1)
    whole, maps = redrawing(x, y)
    for a, b, got, at in zip(x[:, 0].double().numpy(), y[:, 0].double().numpy(), whole, maps.numpy(), strict=True):
        product, drawn, p, q = 1.0, np.zeros((32, 32)), a, b
        for scale, weight in enumerate(WEIGHTS):
            if scale:
                p, q = (v.reshape(len(v) // 2, 2, -1, 2).mean((1, 3)) for v in (p, q))
            luminance, structure = ssim(p, q)
            product *= (luminance * structure if scale == 3 else structure).mean() ** weight
            places = np.arange(32) * len(luminance) // 32
            drawn += weight * (luminance * structure)[np.ix_(places, places)]
        assert float(got) == pytest.approx(0.85 * (1 - product) + 0.15 * np.abs(a - b).mean(), abs=5e-5)
        np.testing.assert_allclose(at, 0.85 * (1 - drawn / sum(WEIGHTS)) + 0.15 * np.abs(a - b), atol=5e-5)
    same, nothing = redrawing(x, x)
    assert float(same.abs().max()) < 1e-5
    assert float(nothing.max()) < 1e-5


def test_centre_and_spread_are_those_of_the_codes(descriptor):
    features = 3 * torch.randn(20, 6, generator=torch.Generator().manual_seed(4))
    descriptor.settle(features)
    z = features.numpy() @ descriptor.code.weight.detach().numpy().T + descriptor.code.bias.detach().numpy()
    distance = ((z - z.mean(0)) ** 2).sum(1)
    np.testing.assert_allclose(descriptor.centre, z.mean(0), atol=1e-5)
    assert float(descriptor.spread) == pytest.approx(max(1, distance.mean()), rel=1e-5)
    wanted = 1 - np.exp(-distance / max(1, distance.mean()))
    np.testing.assert_allclose(descriptor.far(torch.from_numpy(z)).detach(), wanted, atol=1e-5)
    descriptor.settle(1e-3 * features)
    assert float(descriptor.spread) == 1


def test_the_loss_is_the_sum_of_its_equations(descriptor):
    x, features = pictures(5), torch.randn(3, 6, generator=torch.Generator().manual_seed(6))
    alpha = torch.tensor([0.1, 0.3, 0.5])
    got = float(descriptor.losses(x, features, alpha).detach())
    with torch.no_grad():
        z = descriptor.code(features)
        other = z[[2, 1, 0]]
        drawn, mixed = descriptor.redraw(z), descriptor.redraw(alpha[:, None] * z + (1 - alpha[:, None]) * other)
        judged = descriptor.critic(mixed)[:, 0]
        wanted = redrawing(x, drawn)[0].mean() + descriptor.far(z).mean() + 0.1 * (judged**2).mean()
        wanted += ((judged - alpha) ** 2).mean() + (descriptor.critic(0.8 * drawn + 0.2 * x) ** 2).mean()
    assert got == pytest.approx(float(wanted), rel=1e-5)
    score, maps = descriptor.errors(x, features)
    np.testing.assert_allclose(score.detach(), (redrawing(x, drawn)[0] + descriptor.far(z)).detach() / 2, atol=1e-6)
    np.testing.assert_allclose(maps.detach(), redrawing(x, drawn)[1], atol=1e-6)


def test_the_losses_of_the_critic_reach_the_critic_only(descriptor):
    x, features, alpha = pictures(7), torch.randn(3, 6), torch.tensor([0.1, 0.3, 0.5])
    features.requires_grad_()
    descriptor.losses(x, features, alpha).backward()
    assert features.grad is None, "the encoder stays"
    with torch.no_grad():
        z = descriptor.code(features)
        drawn, mixed = descriptor.redraw(z), descriptor.redraw(alpha[:, None] * z + (1 - alpha[:, None]) * z.flip(0))
    own = {n: p.grad.clone() for n, p in descriptor.named_parameters()}
    descriptor.zero_grad()
    found = (descriptor.critic(mixed)[:, 0] - alpha).square().mean()
    (found + descriptor.critic(drawn + 0.2 * (x - drawn)).square().mean()).backward()
    for name, p in descriptor.critic.named_parameters():
        torch.testing.assert_close(own[f"critic.{name}"], p.grad)
    assert all(bool(own[n].any()) for n in ("code.weight", "unfold.weight", "leave.weight"))
