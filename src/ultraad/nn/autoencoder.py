"""Parts of the methods that learn to draw normal images: small pictures, convolutions, errors as scores."""

from __future__ import annotations

import math

import torch
from torch import nn

from ultraad.nn.augment import grey
from ultraad.rng import torch_seeded
from ultraad.types import PreprocessConfig

GROUPS = 4
"""Channels of a group norm are divided into so many groups; every width is a multiple of it."""


def small(images: torch.Tensor, preprocess: PreprocessConfig, side: int) -> torch.Tensor:
    """Normalised images (b 3 s s) as grey pictures f32 (b 1 side side) in 0..1."""
    return shrink(grey(images, preprocess), side)


def shrink(images: torch.Tensor, side: int) -> torch.Tensor:
    """Images (b c s s) to (b c side side); each new pixel is the mean of the area that it covers."""
    areas = _areas(images.shape[-1], side).to(images)
    return areas @ images @ areas.T


def _areas(size: int, side: int) -> torch.Tensor:
    """Share of each old pixel in each new one along an axis, f32 (side size); rows sum to 1."""
    edges = torch.arange(side + 1, dtype=torch.float64) * size / side
    pixels = torch.arange(size, dtype=torch.float64)
    upper = torch.minimum(edges[1:, None], pixels + 1)
    lower = torch.maximum(edges[:-1, None], pixels)
    return ((upper - lower).clamp(min=0) * side / size).float()


def mirrored(images: torch.Tensor, *, seed: int, purpose: str) -> torch.Tensor:
    """Every image (b c h w) mirrored left-right with probability 1/2; the purpose names the stream."""
    flip = torch.rand(len(images), generator=torch_seeded(seed, purpose)) < 0.5
    return torch.where(flip.to(images.device).view(-1, 1, 1, 1), images.flip(-1), images)


def normal(shape: tuple[int, ...], *, seed: int, purpose: str, like: torch.Tensor) -> torch.Tensor:
    """Standard normal numbers f32 on the device of ``like``; the purpose names the stream."""
    return torch.randn(shape, generator=torch_seeded(seed, purpose)).to(like)


def convolution(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """3 x 3 convolution, group norm, SiLU."""
    norm = nn.GroupNorm(GROUPS, outputs)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), norm, nn.SiLU())


def upward(inputs: int, outputs: int) -> nn.Sequential:
    """Twice the side by repetition, then :func:`convolution`."""
    return nn.Sequential(nn.Upsample(scale_factor=2), convolution(inputs, outputs))


def epochs_of(steps: int, *, count: int, batch_size: int) -> int:
    """Passes over ``count`` images that make about so many steps, at least one."""
    return max(1, round(steps / math.ceil(count / batch_size)))


def relative(errors: torch.Tensor, usual: torch.Tensor) -> torch.Tensor:
    """Errors >= 0 as values in [0, 1): ``e / (e + u)``, so that the usual error u of a normal image is 0.5."""
    return errors / (errors + usual.clamp(min=torch.finfo(usual.dtype).tiny))
