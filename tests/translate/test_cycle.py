"""The trained way: its equations in plain numpy, what its network may see, and that it learns a look."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ultraad.translate.cycle import Cycle, CycleConfig, fit, patches, seen_at

SMALL = CycleConfig(side=64, patch=32, width=4, blocks=1, steps=75, batch_size=4, lr=3e-3)
RNG = np.random.default_rng(0)


@pytest.fixture
def network():
    """One whose every part does something."""
    made = Cycle(SMALL, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in made.parameters():
            p += 0.05 * torch.randn(p.shape, generator=generator)
    return made


def test_a_new_network_changes_nothing():
    x = torch.rand(2, 1, 20, 28) * 2 - 1
    there, spread = Cycle(SMALL, seed=0).there(x)
    assert torch.equal(there, x)
    assert torch.allclose(spread, torch.full_like(x, np.exp(-3) + 1e-3))


def test_the_loss_is_the_sum_of_its_equations(network):
    c = SMALL
    a, b = (torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(s)) * 2 - 1 for s in (2, 3))
    with torch.no_grad():
        g, f = (lambda x: network.there(x)[0].numpy()), (lambda x: network.back(x)[0].numpy())
        made_b, made_a = torch.from_numpy(g(a)), torch.from_numpy(f(b))
        spread_a, spread_b = network.back(made_b)[1].numpy(), network.there(made_a)[1].numpy()
        judged = {
            name: judge(x).numpy()
            for name, judge, x in (
                ("b", network.judge_there, b),
                ("made b", network.judge_there, made_b),
                ("a", network.judge_back, a),
                ("made a", network.judge_back, made_a),
            )
        }
        off_a, off_b = np.abs(f(made_b) - a.numpy()), np.abs(g(made_a) - b.numpy())
        wanted = c.cycle * (off_a.mean() + off_b.mean())
        wanted += c.identity * (np.abs(g(b) - b.numpy()).mean() + np.abs(f(a) - a.numpy()).mean())
        wanted += c.adversarial * sum(((judged[n] - 1) ** 2).mean() for n in ("made a", "made b"))
        wanted += sum(((judged[n] - 1) ** 2).mean() / 2 for n in ("a", "b"))
        wanted += sum((judged[n] ** 2).mean() / 2 for n in ("made a", "made b"))
        wanted += sum((o / s + np.log(s)).mean() for o, s in ((off_a, spread_a), (off_b, spread_b)))
        assert float(network.losses(a, b)) == pytest.approx(float(wanted), rel=1e-5)


def test_each_gradient_reaches_its_own_network_only(network):
    a, b = (torch.rand(2, 1, 32, 32) * 2 - 1 for _ in range(2))
    network.config = SMALL.model_copy(update={"cycle": 0.0, "identity": 0.0, "adversarial": 0.0})
    network.losses(a, b).backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None and bool(p.grad.any())}
    expected = {n for n, _ in network.named_parameters() if n.startswith("judge") or ".tell." in n}
    assert reached == expected, "critics and spreads do not move the translation"
    network.zero_grad(set_to_none=True)
    network.config = SMALL.model_copy(update={"cycle": 0.0, "identity": 0.0})
    network.losses(a, b).backward()
    own = {n: p.grad.clone() for n, p in network.named_parameters() if n.startswith("judge")}
    network.zero_grad(set_to_none=True)
    network.config = SMALL
    network.losses(a, b).backward()
    assert all(torch.allclose(p.grad, own[n]) for n, p in network.named_parameters() if n in own)


def test_a_whole_picture_gets_what_its_parts_would_get(network):
    x = torch.rand(1, 1, 120, 136, generator=torch.Generator().manual_seed(4)) * 2 - 1
    with torch.no_grad():
        whole, part = network.there(x)[0], network.there(x[..., 20:100, 24:120])[0]
    margin = 28
    assert torch.allclose(
        whole[..., 20 + margin : 100 - margin, 24 + margin : 120 - margin],
        part[..., margin:-margin, margin:-margin],
        atol=1e-5,
    )
    assert not torch.allclose(whole[..., 20:100, 24:120], part, atol=1e-5), "at its border a part sees less"


@pytest.mark.parametrize("shape", [(50, 70), (33, 200), (64, 64), (301, 257)])
def test_any_size_keeps_its_size(network, shape):
    grey = RNG.integers(0, 255, shape).astype(np.float32)
    there = network.apply_to(grey)
    assert there.change.shape == there.spread.shape == there.error.shape == shape
    assert (there.spread > 0).all()
    seen = seen_at(grey, SMALL)
    assert min(seen.shape) >= SMALL.patch
    assert len(there.tissue[0]) == (seen > 0).sum()


def test_the_way_back_starts_at_whole_grey_values(network):
    grey = RNG.integers(1, 255, (64, 64)).astype(np.float32)
    there = network.apply_to(grey)
    saved = (grey + there.change).round().clip(0, 255)
    with torch.no_grad():
        again, spread = network.back(torch.from_numpy(saved / 127.5 - 1)[None, None])
    assert np.allclose(there.error, np.abs((again[0, 0].numpy() + 1) * 127.5 - grey), atol=1e-2)
    assert np.allclose(there.spread, 127.5 * spread[0, 0].numpy(), atol=1e-3)


def test_patches_are_cut_from_tissue_where_there_is_some():
    picture = np.zeros((96, 96), np.uint8)
    picture[:, :48] = RNG.integers(1, 255, (96, 48))
    found = patches([picture], 32, rng=np.random.default_rng(0), count=60)
    assert found.shape == (60, 1, 32, 32)
    assert float(((found > -1).float().mean((1, 2, 3)) > 0.5).float().mean()) > 0.8


def test_it_learns_the_look_of_the_other_set_and_says_before_how_long():
    dark = [RNG.integers(10, 90, (64, 80)).astype(np.uint8) for _ in range(6)]
    bright = [RNG.integers(120, 220, (64, 80)).astype(np.uint8) for _ in range(6)]
    said, done = [], []
    network = Cycle(SMALL, seed=0)
    history = fit(network, dark, bright, seed=0, announce=said.append, progress=lambda *about: done.append(about))
    assert len(history) == 3
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert "of 6 and 6 pictures, 75 steps: about" in said[0]
    assert "MB" in said[0]
    there = network.apply_to(dark[0].astype(np.float32))
    assert there.change.mean() > 40
    again = fit(Cycle(SMALL, seed=0), dark, bright, seed=0)
    assert again == history
