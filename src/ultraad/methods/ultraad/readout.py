"""The last step of UltraAD: from logits to the map, the refined classes and the image score (sections 2.3, 2.4)."""

from __future__ import annotations

from collections.abc import Callable
from statistics import harmonic_mean
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from ultraad.methods.ultraad.config import BinaryConfig, PostConfig, UltraADConfig
from ultraad.nn.maps import largest, resize, smooth, to_probability
from ultraad.types import Features

PatchLogits = Callable[[Features], dict[int, torch.Tensor]]
"""Features to {layer: (b n 2)}."""


def prior_weight(prior: float | Literal["shots"], shots: float | torch.Tensor, worth: int) -> float | torch.Tensor:
    """Weight in [0, 1] of a model adapted on ``shots`` > 0 images per class (:class:`PriorConfig`)."""
    return shots / (shots + worth) if prior == "shots" else prior


def balanced(one_hot: torch.Tensor) -> torch.Tensor:
    """Values of the image memory (m c) from labels (m c), so that all classes vote with the same weight together.

    This weight is the harmonic mean of the numbers of images, which few images of one class make small: the
    difference of two class means is as uncertain as with so many images of each. With as many images of each class the
    values are one-hot.
    """
    counts = [int(n) for n in one_hot.sum(0)]
    worth = harmonic_mean([n for n in counts if n])
    return one_hot * one_hot.new_tensor([worth / n if n else 0.0 for n in counts])


def loss_weights(values: torch.Tensor) -> torch.Tensor:
    """Weights (m,) of the support images in the loss, with mean 1, from :func:`balanced`: classes weigh the same."""
    return values.sum(1) / values.sum(1).mean()


def pair_logits(cosines: torch.Tensor, reduce: Literal["max", "mean"]) -> torch.Tensor:
    """(b n rows) to (b n 2); ``concat_rows`` has several rows per side, which are reduced."""
    if cosines.shape[-1] == 2:
        return cosines
    sides = cosines[..., :2], cosines[..., 2:]
    return torch.stack([s.amax(-1) if reduce == "max" else s.mean(-1) for s in sides], -1)


def mixed_patch_logits(
    adapted: PatchLogits, zero_shot: PatchLogits, f: Features, finer: Features, *, weight: float
) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
    """{layer: (b n 2)}, ``weight`` adapted and the rest zero-shot logits: on the grid of ``finer``, on that of ``f``.

    Adapted patches are those of the tower, as in training. Finer ones are read zero-shot, and move as far as the shots
    move the patch that they are part of (ours). Zero-shot, both are the first.
    """
    if weight == 1:
        own = adapted(f)
        return own, own
    zero = zero_shot(finer)
    if weight == 0:
        return zero, zero
    own, coarse = adapted(f), zero if finer is f else zero_shot(f)
    mixed = {layer: (1 - weight) * coarse[layer] + weight * x for layer, x in own.items()}
    if finer is f:
        return mixed, mixed
    drawn = {k: zero[k] + _enlarged(weight * (x - coarse[k]), f.grid, to=finer.grid) for k, x in own.items()}
    return drawn, mixed


def _enlarged(logits: torch.Tensor, grid: tuple[int, int], *, to: tuple[int, int]) -> torch.Tensor:
    maps = logits.mT.reshape(logits.shape[0], 2, *grid)
    return F.interpolate(maps, to, mode="bilinear", align_corners=False).flatten(2).mT


def pixel_map(
    logits: torch.Tensor,
    grid: tuple[int, int],
    location: torch.Tensor | None = None,
    *,
    size: int,
    tau: float | torch.Tensor,
    c: UltraADConfig,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The smoothed map and its image statistic a(x).

    Args:
        logits: Of (normal, abnormal), f32 (l b n 2).
        grid: (gh, gw), n == gh * gw.
        location: Log-odds (h w) of a lesion by place, which count by ``map.location``; None for no such prior.
        size: Side of the map in pixels.
        tau: Temperature of the logits; only ``post.a_space=logit`` uses it.
        c: Its parts ``map`` and ``post``.

    Returns:
        f32 (b size size) in [0, 1] (``layer_reduce=sum``: [0, layers]), and f32 (b,) in [0, 1].
    """
    how, post = c.map, c.post
    if location is not None:
        place = F.interpolate(location[None, None], grid, mode="bilinear", align_corners=False).flatten()  # (n,)
        logits = logits + how.location * place[:, None] * logits.new_tensor([0.0, 1.0])
    sigma = post.sigma * size / 336
    share = post.topk if post.map_stat == "topk" else 0.0
    if how.layer_reduce == "mean_logit":
        maps = to_probability(logits.mean(0), grid, size=size, up=how.up)
    else:
        maps = to_probability(logits, grid, size=size, up=how.up).mean(0)
    maps = smooth(maps, sigma).clamp(0, 1)
    if post.a_space == "logit":
        margin = (logits[..., 1] - logits[..., 0]).mean(0) * tau  # cosine difference in [-2, 2]
        up = resize(margin.reshape(-1, *grid), size, align_corners=how.up == "logits")
        a = (largest(smooth(up, sigma), share=share) / 4 + 0.5).clamp(0, 1)
    else:
        a = largest(maps, share=share)
    return maps * len(logits) if how.layer_reduce == "sum" else maps, a


def refine(logits: torch.Tensor, a: torch.Tensor, *, normal_index: int, post: PostConfig) -> torch.Tensor:
    """Log-probabilities (b c) of class logits (b c), refined by the map's statistic a(x) (b,)."""
    abnormal = torch.ones_like(logits)
    abnormal[:, normal_index] = 0
    if post.refine == "logit":
        return (logits + post.gamma * a[:, None] * abnormal).log_softmax(-1)
    p = logits.softmax(-1)
    if post.refine == "poe":
        p = p * torch.where(abnormal.bool(), a[:, None], 1 - a[:, None]).clamp(min=1e-6)
    elif post.refine == "mix":
        p_normal = p[:, normal_index : normal_index + 1]
        q = ((1 - p_normal) + a[:, None]) / 2
        p = torch.where(abnormal.bool(), q * (p * abnormal / (1 - p_normal).clamp(min=1e-12)), 1 - q)
    return p.clamp(min=1e-12).log().log_softmax(-1)


def image_score(cls: torch.Tensor, a: torch.Tensor, how: BinaryConfig) -> torch.Tensor:
    """Image-level score (b,) in [0, 1] from the class side and the map side, (b,) each."""
    if how.fuse == "mean":
        return (cls + a) / 2
    if how.fuse == "product":
        return cls * a
    if how.fuse == "max":
        return torch.maximum(cls, a)
    return a if how.fuse == "map_only" else cls


def sharing(
    fusion: nn.ModuleList | None, layers: tuple[int, ...], share: Literal["shared", "per_layer", "last_only"]
) -> list[tuple[nn.Module | None, tuple[int, ...]]]:
    """Each fusion (None: no fusion) with the layers that share it, which are computed in one pass."""
    if fusion is None:
        return [(None, layers)]
    if share == "shared":
        return [(fusion[0], layers)]
    if share == "per_layer":
        return [(net, (layer,)) for net, layer in zip(fusion, layers, strict=True)]
    alone: list[tuple[nn.Module | None, tuple[int, ...]]] = [(None, layers[:-1])] if layers[:-1] else []
    return [*alone, (fusion[0], layers[-1:])]
