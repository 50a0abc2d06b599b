"""From patch logits to pixel maps."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F

Upsampling = Literal["logits", "probs"]


def to_probability(
    logits: torch.Tensor, grid: tuple[int, int], *, size: int, up: Upsampling = "logits"
) -> torch.Tensor:
    """Abnormal probability per pixel from the logits of the pair (normal, abnormal).

    Args:
        logits: f32 (... n 2).
        grid: (gh, gw), n == gh * gw.
        size: Output side in pixels.
        up: ``"logits"``: upsample, then softmax, corners aligned (APRIL-GAN, test.py);
            ``"probs"``: softmax, then upsample, corners not aligned (AnomalyCLIP, test.py).

    Returns:
        f32 (... size size) in [0, 1].
    """
    margin = logits[..., 1] - logits[..., 0]  # softmax over two is a sigmoid of the difference
    x = (margin if up == "logits" else margin.sigmoid()).reshape(-1, *grid)  # (b gh gw), row-major
    maps = resize(x, size, align_corners=up == "logits").view(*logits.shape[:-2], size, size)
    return maps.sigmoid() if up == "logits" else maps


def resize(maps: torch.Tensor, size: int, *, align_corners: bool) -> torch.Tensor:
    """Bilinear (b gh gw) to (b size size)."""
    if maps.shape[-2:] == (size, size):
        return maps
    return F.interpolate(maps[:, None], size=(size, size), mode="bilinear", align_corners=align_corners)[:, 0]


def smooth(maps: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian filter cut at 4 sigma; borders are mirrored including the edge pixel (d c b a | a b c d | d c b a).

    For integer sigmas it equals ``scipy.ndimage.gaussian_filter``, which the references use.

    Args:
        maps: f32 (b h w).
        sigma: In pixels; 0 returns the maps unchanged.
    """
    if sigma == 0:
        return maps
    h, w = maps.shape[-2:]
    rows, columns = (_gaussian(side, sigma, like=maps) for side in (h, w))
    return rows @ (maps @ columns.T)


def _gaussian(side: int, sigma: float, *, like: torch.Tensor) -> torch.Tensor:
    """The filter along one axis as a matrix (side side): two matrix products are faster than a convolution."""
    radius = math.ceil(4 * sigma)
    x = torch.arange(-radius, radius + 1, device=like.device, dtype=like.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    place = torch.arange(-radius, side + radius, device=like.device) % (2 * side)
    place = torch.minimum(place, 2 * side - 1 - place)  # the pixel that each tap reads, mirrored at the borders
    taps = place.unfold(0, len(kernel), 1)  # (side taps)
    return torch.zeros(side, side, device=like.device, dtype=like.dtype).scatter_add_(1, taps, kernel.expand_as(taps))


def largest(maps: torch.Tensor, *, share: float = 0.0) -> torch.Tensor:
    """Image statistic of a map: its maximum, or the mean of its largest values.

    Args:
        maps: (b h w).
        share: Fraction of pixels to average; 0: the maximum. VCP-CLIP's 2000 of 518^2 pixels are 0.0075.

    Returns:
        (b,).
    """
    flat = maps.flatten(1)
    if share == 0:
        return flat.amax(1)
    return flat.topk(max(1, round(share * flat.shape[1])), dim=1).values.mean(1)
