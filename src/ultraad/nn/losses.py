"""Losses on probability maps, as in APRIL-GAN's loss.py, which the other methods use, too."""

from __future__ import annotations

from typing import Literal

import torch

SMOOTH = 1e-5  # of the focal loss, APRIL-GAN loss.py


def focal(probs: torch.Tensor, target: torch.Tensor, *, gamma: float = 2.0) -> torch.Tensor:
    """Focal loss per image, averaged over pixels.

    ``q = (1 - s) p_y + s p_(1-y) + s``; loss ``-(1 - q)^gamma log q`` with s = 1e-5 (APRIL-GAN, loss.py).

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
    """Dice loss per image: ``1 - (2 sum(p y) + 1) / (sum p + sum y + 1)`` (APRIL-GAN, loss.py).

    Args:
        probs: f32 (b h w) in [0, 1].
        target: bool (b h w).

    Returns:
        f32 (b,).
    """
    p, y = probs.flatten(1), target.flatten(1).to(probs.dtype)
    return 1 - (2 * (p * y).sum(1) + 1) / (p.sum(1) + y.sum(1) + 1)


def row_dice(probs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Dice loss per image row, averaged over the rows of each image.

    The references compute this for a batch of one, because ``squeeze()`` removes the batch dimension of their target.
    AdaCLIP always has a batch of one.

    Args:
        probs: f32 (b h w) in [0, 1].
        target: bool (b h w).

    Returns:
        f32 (b,).
    """
    b, h, w = probs.shape
    return dice(probs.reshape(b * h, 1, w), target.reshape(b * h, 1, w)).view(b, h).mean(1)


def segmentation(
    probs: torch.Tensor, target: torch.Tensor, *, both: bool, reduction: Literal["image", "row"] = "image"
) -> torch.Tensor:
    """Focal and Dice loss of one map.

    ``focal + dice(p_a, y)`` (APRIL-GAN, MVFA, VCP-CLIP, MediCLIP) or, with ``both``, ``+ dice(p_n, 1 - y)``
    (AnomalyCLIP, AdaCLIP, UltraAD).

    Args:
        probs: f32 (b h w), abnormal probability in [0, 1].
        target: bool (b h w).
        both: Add the Dice loss of the normal side.
        reduction: Dice per image, or per row (:func:`row_dice`).

    Returns:
        f32 (), mean over the batch.
    """
    overlap = dice if reduction == "image" else row_dice
    total = focal(probs, target) + overlap(probs, target)
    if both:
        total = total + overlap(1 - probs, ~target)
    return total.mean()
