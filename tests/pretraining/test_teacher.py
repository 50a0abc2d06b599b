"""Learning from a larger tower: the losses beside a slow version, and nothing to learn from oneself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretraining.teacher import Seen, taught

CHOICES, PAIRS = [slice(0, 3), slice(3, 5)], [slice(3, 5), slice(5, 7)]


def seen(seed: int, grid: tuple[int, int], scale: float) -> Seen:
    g = torch.Generator().manual_seed(seed)

    def units(*shape: int) -> torch.Tensor:
        return F.normalize(torch.randn(*shape, 8, generator=g), dim=-1)

    return Seen(units(2), [units(2, grid[0] * grid[1]) for _ in range(3)], grid, units(7), torch.tensor(scale))


def test_against_a_slow_version():
    own, teacher = seen(0, (2, 2), 5.0), seen(1, (2, 2), 9.0)
    kl = []
    for c in CHOICES:
        for b in range(2):
            p, q = (
                np.exp(s.scale.numpy() * s.text[c].numpy() @ s.image[b].numpy().astype(np.float64))
                for s in (own, teacher)
            )
            p, q = p / p.sum(), q / q.sum()
            kl.append((q * np.log(q / p)).sum())
    dense = []
    for k in range(3):
        pair = PAIRS[k % 2]
        for b in range(2):
            for n in range(4):
                x, y = (
                    float(s.scale * s.patches[k][b, n] @ (s.text[pair][1] - s.text[pair][0])) for s in (own, teacher)
                )
                p, q = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(-y))
                dense.append(-(1 + 2 * q) * (q * np.log(p) + (1 - q) * np.log(1 - p)))
    losses = taught(own, teacher, CHOICES, PAIRS)
    assert float(losses["taught"]) == pytest.approx(np.mean(kl), rel=1e-5)
    assert float(losses["taught dense"]) == pytest.approx(np.mean(dense), rel=1e-5)


def test_there_is_nothing_to_learn_from_oneself():
    own = seen(0, (3, 3), 5.0)
    for tensor in (own.image, *own.patches):
        tensor.requires_grad_()
    itself = Seen(own.image.detach(), [x.detach() for x in own.patches], own.grid, own.text, own.scale)
    losses = taught(own, itself, CHOICES, PAIRS)
    assert float(losses["taught"].detach()) == pytest.approx(0, abs=1e-6)
    sum(losses.values()).backward()
    assert all(float(x.grad.abs().max()) < 1e-6 for x in (own.image, *own.patches))


def test_a_teacher_with_more_patches_is_read_on_the_grid_of_the_tower():
    own, teacher = seen(0, (2, 2), 5.0), seen(1, (4, 4), 9.0)
    same = Seen(teacher.image, [torch.ones(2, 16, 8) / 8**0.5] * 3, (4, 4), teacher.text, teacher.scale)
    few = Seen(same.image, [x[:, :4] for x in same.patches], (2, 2), same.text, same.scale)
    a, b = (taught(own, s, CHOICES, PAIRS)["taught dense"] for s in (same, few))
    assert float(a) == pytest.approx(float(b), rel=1e-5)
