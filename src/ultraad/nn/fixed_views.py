"""MVFA's eleven views of an image, the same for every image and seed."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from ultraad.types import Batch

MOVES: tuple[tuple[float, float, float], ...] = (
    (-22.5, 0.0, 0.0),
    (-11.25, 0.0, 0.0),
    (11.25, 0.0, 0.0),
    (22.5, 0.0, 0.0),
    (0.0, 0.1, 0.1),
    (0.0, -0.1, 0.1),
    (0.0, -0.1, -0.1),
    (0.0, 0.1, -0.1),
)
"""Rotation in degrees, translation (x, y) as a fraction of half the side."""
VIEWS = 1 + len(MOVES) + 2


def fixed_views(images: torch.Tensor) -> torch.Tensor:
    """Original, four rotations, four translations, mirrored left-right, mirrored up-down (MVFA's medical_few.py).

    Args:
        images: f32 (b 3 s s), or masks (b 1 s s).

    Returns:
        f32 (b 11 3 s s); bilinear, borders reflected.
    """
    views = [images]
    for degrees, x, y in MOVES:
        sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        theta = images.new_tensor([[cos, -sin, x], [sin, cos, y]]).expand(len(images), -1, -1)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        views.append(F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False))
    return torch.stack([*views, images.flip(-1), images.flip(-2)], dim=1)


def with_fixed_views(batch: Batch) -> Batch:
    """All views of every image, those of one image in a row; masks (b s s) are moved with it and stay bool."""
    copies = batch.select([i for i in range(len(batch)) for _ in range(VIEWS)])
    masks = None if batch.masks is None else fixed_views(batch.masks[:, None].float()).flatten(0, 1)[:, 0] > 0.5
    return replace(copies, images=fixed_views(batch.images).flatten(0, 1), masks=masks)
