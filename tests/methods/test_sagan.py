"""SAGAN against its equations in plain numpy and by differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from tests.methods.conftest import CLASSES, make_batch
from ultraad.methods.sagan import METHOD, Generator, SAGANConfig, blend, quarters, whole
from ultraad.nn.autoencoder import small
from ultraad.rng import seeded


def made(backbone, **options):
    config = SAGANConfig(**{"side": 32, "width": 4, "blocks": 1, "steps": 2, **options})
    return METHOD(backbone, config, classes=CLASSES, normal_class="normal")


def pictures(count, seed=0):
    return 2 * torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed)) - 1


def test_quarters_and_back():
    x = torch.arange(2 * 16.0).view(2, 1, 4, 4)
    parts = quarters(x)
    for part, wanted in zip(
        parts[4:, 0], (x[1, 0, :2, :2], x[1, 0, :2, 2:], x[1, 0, 2:, :2], x[1, 0, 2:, 2:]), strict=True
    ):
        assert torch.equal(part, wanted)
    assert torch.equal(whole(parts, 2), x)


def test_every_quarter_goes_by_itself_and_knows_its_place():
    torch.manual_seed(0)
    net, x = Generator(width=4, blocks=1).eval(), pictures(1)
    other = x.clone()
    other[..., 16:, 16:] = 0.3
    same = x.clone()
    same[..., :16, 16:] = x[..., :16, :16]
    with torch.no_grad():
        one, two, three = net(x), net(other), net(same)
    assert torch.equal(one[..., :16, :], two[..., :16, :])
    assert torch.equal(one[..., 16:, :16], two[..., 16:, :16])
    assert not torch.allclose(three[..., :16, :16], three[..., :16, 16:], atol=1e-4), "the same quarter elsewhere"
    assert float(one.abs().max()) < 1


def test_the_loss_by_its_parts_and_the_penalty_by_differences(tiny):
    method = made(tiny, adversarial=0.7, identity=0.6, penalty=9.0).double()
    x, changed = pictures(2).double(), pictures(2, 1).double()
    between = torch.tensor([0.2, 0.9]).double()
    found = method.both_losses(x, changed, between)
    with torch.no_grad():
        same, healed = method.generator(x), method.generator(changed)
        judge = lambda y: method.critic(y).numpy()  # noqa: E731
        share = between.view(-1, 1, 1, 1)
        middle = share * x + (1 - share) * healed
        wanted = -0.7 * judge(healed).mean() + 0.6 * np.abs((x - same).numpy()).mean()
        wanted += ((x - healed).numpy() ** 2).mean() + judge(healed).mean() - judge(x).mean()
        norms = []
        for i in range(2):
            slope = []
            for place in range(32 * 32):
                step = torch.zeros(1, 1, 32 * 32, dtype=torch.float64)
                step[..., place] = 1e-5
                step = step.view(1, 1, 32, 32)
                ends = torch.cat([middle[i : i + 1] + step, middle[i : i + 1] - step])
                up, down = judge(ends).reshape(2, -1).sum(1)
                slope.append((up - down) / 2e-5)
            norms.append(np.linalg.norm(slope))
        wanted += 9.0 * np.mean((np.array(norms) - 1) ** 2)
    assert float(found.detach()) == pytest.approx(wanted, rel=1e-5)


def test_each_network_learns_from_its_own_loss(tiny):
    method = made(tiny)
    x, changed, between = pictures(2), pictures(2, 1), torch.tensor([0.2, 0.9])
    method.both_losses(x, changed, between).backward()
    found = {name: p.grad.clone() for name, p in method.named_parameters()}
    method.zero_grad()
    same, healed = method.generator(x), method.generator(changed)
    gen = -method.critic(healed).mean() + (x - same).abs().mean() + (x - healed).square().mean()
    gen.backward()
    for name, p in method.generator.named_parameters():
        torch.testing.assert_close(found[f"generator.{name}"], p.grad, msg=name)
    method.zero_grad()
    healed = healed.detach()
    middle = (between.view(-1, 1, 1, 1) * x + (1 - between.view(-1, 1, 1, 1)) * healed).requires_grad_()
    (slope,) = torch.autograd.grad(method.critic(middle).sum(), middle, create_graph=True)
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    (method.critic(healed).mean() - method.critic(x).mean() + 10 * penalty).backward()
    for name, p in method.critic.named_parameters():
        torch.testing.assert_close(found[f"critic.{name}"], p.grad, msg=name)


def test_a_blended_rectangle():
    images = [np.full((40, 40), v, np.float32) for v in (0.2, 0.6, 0.6)]
    for n in range(20):
        found = blend(images[0], images, 0, seeded(n, "blend"))
        rows, columns = np.nonzero(found != np.float32(0.2))
        assert len(rows)
        assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1), "a rectangle"
        assert max(np.ptp(rows), np.ptp(columns)) + 1 <= 17
        assert 0.2 < found.max() <= np.float32(0.6)
    assert (images[0] == np.float32(0.2)).all()


@pytest.mark.parametrize("anomalies", ["synthesis", "blend"])
def test_score_and_map(backbone, anomalies):
    method, support = made(backbone, anomalies=anomalies), make_batch(backbone)
    method.fit(support, seed=0)
    images = make_batch(backbone, 1, seed=7).images

    def apart(batch):
        with torch.no_grad():
            x = 2 * small(batch, backbone.preprocess, 32) - 1
            return np.abs((x - method.generator(x))[:, 0].numpy())

    usual, errors = apart(support.images[:2]), apart(images)
    assert float(method.usual_score) == pytest.approx(usual.mean(), rel=1e-4)
    with torch.no_grad():
        found = method.score(images)
    wanted = errors.mean((1, 2))
    np.testing.assert_allclose(found.score.numpy(), wanted / (wanted + usual.mean()), rtol=1e-4)
    maps = np.stack([gaussian_filter(e, 4 * 32 / 224) for e in errors])
    np.testing.assert_allclose(found.map.numpy(), maps / (maps + float(method.usual_map)), atol=1e-4)
