"""Lookups in stored features: key-value votes (Tip-Adapter, UltraAD Eq. 2) and nearest-neighbour distances."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

from ultraad.nn.maps import resize


def cache_logits(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    beta: float | torch.Tensor,
    norm: Literal["sum", "mean"] = "sum",
    own: torch.Tensor | None = None,
) -> torch.Tensor:
    """exp(-beta (1 - q k^T)) Y (Tip-Adapter Eq. 6; UltraAD Eq. 2).

    Args:
        query: Unit f32 (b d).
        keys: Unit f32 (m d).
        values: One-hot f32 (m c).
        beta: Sharpness; 5.5 in Tip-Adapter's paper.
        norm: ``"sum"`` (Tip-Adapter) or ``"mean"`` over each class's members, for classes of different size.
        own: int64 (b,), each query's own row in the memory, whose vote is dropped; -1 keeps all. For training,
            where a support image would otherwise find itself.

    Returns:
        f32 (b c).
    """
    affinity = torch.exp(-beta * (1 - query @ keys.T))  # (b m)
    if own is not None:
        column = torch.arange(len(keys), device=keys.device)
        affinity = affinity * (column[None] != own[:, None])
    votes = affinity @ values  # (b c)
    return votes if norm == "sum" else votes / values.sum(0).clamp(min=1)


def distance(query: torch.Tensor, bank: torch.Tensor, *, unit_bank: bool = False, chunk: int = 1024) -> torch.Tensor:
    """Cosine distance to the nearest row of a memory bank: min_m (1 - cos(q, m)), in [0, 2].

    Used by the few-shot branches of APRIL-GAN, MVFA and WinCLIP, and by PatchCore.

    Args:
        query: f32 (... w), any length.
        bank: f32 (m w), any length, m >= 1.
        unit_bank: The rows of the bank have length 1, so a large bank need not be normalised for every query.
        chunk: Rows of the bank at a time; limits memory use and does not change the result.

    Returns:
        f32 (...).
    """
    q = F.normalize(query, dim=-1)
    best = q.new_full(q.shape[:-1], -1.0)
    for part in torch.split(bank if unit_bank else F.normalize(bank, dim=-1), chunk):
        best = torch.maximum(best, (q @ part.T).amax(-1))
    return 1 - best


def distance_maps(
    query: torch.Tensor, bank: torch.Tensor, grid: tuple[int, int], *, size: int, unit_bank: bool = False
) -> torch.Tensor:
    """:func:`distance` of every patch to the bank of its layer, upsampled: the memory branch of APRIL-GAN and MVFA.

    Args:
        query: f32 (l b n w).
        bank: f32 (l m w).
        grid: (gh, gw), n == gh * gw.
        size: Output side in pixels; bilinear, corners aligned.
        unit_bank: As in :func:`distance`.

    Returns:
        f32 (l b size size) in [0, 2].
    """
    pairs = zip(query, bank, strict=True)
    near = [distance(q, own, unit_bank=unit_bank).view(q.shape[0], *grid) for q, own in pairs]  # (b gh gw) each
    return torch.stack([resize(d, size, align_corners=True) for d in near])
