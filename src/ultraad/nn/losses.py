"""Losses on probability maps, in the form the whole field uses (methods.md section 0.3)."""

from __future__ import annotations

import torch

SMOOTH = 1e-5  # methods.md 0.3: VAND's focal smoothing


def focal(probs: torch.Tensor, target: torch.Tensor, *, gamma: float = 2.0) -> torch.Tensor:
    """Focal loss per image, averaged over pixels.

    ``q = (1 - s) p_y + s p_(1-y) + s``; loss ``-(1 - q)^gamma log q`` with s = 1e-5 (methods.md 0.3).

    Args:
        probs: f32 (b h w), probability of class 1 in [0, 1].
        target: bool (b h w).
        gamma: Focusing exponent, 2 in every reference.

    Returns:
        f32 (b,).
    """
    p_y = torch.where(target, probs, 1 - probs)
    q = (1 - SMOOTH) * p_y + SMOOTH * (1 - p_y) + SMOOTH
    return (-((1 - q).clamp(min=0) ** gamma) * q.log()).flatten(1).mean(1)


def dice(probs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Dice loss per image: ``1 - (2 sum(p y) + 1) / (sum p + sum y + 1)`` (methods.md 0.3; per image, never per row).

    Args:
        probs: f32 (b h w) in [0, 1].
        target: bool (b h w).

    Returns:
        f32 (b,).
    """
    p, y = probs.flatten(1), target.flatten(1).to(probs.dtype)
    return 1 - (2 * (p * y).sum(1) + 1) / (p.sum(1) + y.sum(1) + 1)
