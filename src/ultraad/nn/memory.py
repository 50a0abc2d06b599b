"""Key-value memory of the support images (Tip-Adapter, the second term of UltraAD's Eq. 2)."""

from __future__ import annotations

from typing import Literal

import torch


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
        own: int64 (b,), each query's own row in the memory, whose vote is dropped; -1 keeps all. Training only:
            an image that finds itself teaches nothing.

    Returns:
        f32 (b c).
    """
    affinity = torch.exp(-beta * (1 - query @ keys.T))  # (b m)
    if own is not None:
        column = torch.arange(len(keys), device=keys.device)
        affinity = affinity * (column[None] != own[:, None])
    votes = affinity @ values  # (b c)
    return votes if norm == "sum" else votes / values.sum(0).clamp(min=1)
