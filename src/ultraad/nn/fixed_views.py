"""MVFA's eleven views of an image, the same for every image and seed; MadCLIP adds magnified ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def fixed_views(images: torch.Tensor, *, zooms: Sequence[float] = ()) -> torch.Tensor:
    """Original, four rotations, four translations, mirrored left-right, mirrored up-down (MVFA's medical_few.py).

    Args:
        images: f32 (b 3 s s), or masks (b 1 s s).
        zooms: Factors > 1 of further views, magnified around the middle (MadCLIP's utils.py).

    Returns:
        f32 (b v 3 s s), v = 11 and one for each zoom; bilinear, borders reflected.
    """
    views = [images]
    for degrees, x, y in MOVES:
        sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        theta = images.new_tensor([[cos, -sin, x], [sin, cos, y]]).expand(len(images), -1, -1)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        views.append(F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False))
    side = images.shape[-1]
    for zoom in zooms:
        new = int(side / zoom)
        inside = slice((side - new) // 2, (side - new) // 2 + new)
        views.append(F.interpolate(images[..., inside, inside], size=(side, side), mode="bilinear"))
    return torch.stack([*views, images.flip(-1), images.flip(-2)], dim=1)


def with_fixed_views(batch: Batch, *, zooms: Sequence[float] = ()) -> Batch:
    """All views of every image, those of one image in a row; masks (b s s) are moved with it and stay bool."""
    copies = batch.select([i for i in range(len(batch)) for _ in range(VIEWS + len(zooms))])
    masks = batch.masks
    if masks is not None:
        masks = fixed_views(masks[:, None].float(), zooms=zooms).flatten(0, 1)[:, 0] > 0.5
    return replace(copies, images=fixed_views(batch.images, zooms=zooms).flatten(0, 1), masks=masks)
