"""The one training loop: a loss over indices, parameter groups, epochs. No engine, no callbacks but one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch

from ultraad.rng import seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def train(
    loss: Callable[[torch.Tensor, int], torch.Tensor],
    groups: Sequence[dict[str, Any]],
    *,
    count: int,
    epochs: int,
    batch_size: int,
    seed: int,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
    schedule: Literal["cosine", "constant"] = "cosine",
    warmup_epochs: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[float, ...]:
    """Minimise a loss over ``count`` items; the state after the last step is the result.

    Args:
        loss: Takes int64 (b,) indices and the epoch, returns a scalar.
        groups: ``{"params": [...], "lr": ...}``; groups without parameters are dropped.
        count: Items; an epoch is one permutation of them.
        epochs: At least 0.
        batch_size: Items per step; the last batch of an epoch may be smaller.
        seed: Of the item order.
        betas: Of Adam.
        weight_decay: Decoupled (AdamW).
        schedule: ``"cosine"`` to 0 over all steps, or ``"constant"``.
        warmup_epochs: Linear from 0 at the start.
        progress: Called with (epochs done, epochs).

    Returns:
        Mean loss of each epoch.
    """
    groups = [g for g in groups if g["params"]]
    if not groups or epochs == 0:
        return ()
    optimiser = torch.optim.AdamW(groups, betas=betas, weight_decay=weight_decay)
    per_epoch = math.ceil(count / batch_size)
    total, warm = epochs * per_epoch, warmup_epochs * per_epoch

    def factor(step: int) -> float:
        ramp = min(1.0, (step + 1) / warm) if warm else 1.0
        return ramp * (0.5 * (1 + math.cos(math.pi * step / total)) if schedule == "cosine" else 1.0)

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    rng = seeded(seed, "order")
    history = []
    with torch.enable_grad():
        for epoch in range(epochs):
            order = torch.from_numpy(rng.permutation(count))
            sum_ = 0.0
            for start in range(0, count, batch_size):
                index = order[start : start + batch_size]
                optimiser.zero_grad(set_to_none=True)
                value = loss(index, epoch)
                value.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                scheduler.step()
                sum_ += float(value.detach()) * len(index)
            history.append(sum_ / count)
            if progress is not None:
                progress(epoch + 1, epochs)
    return tuple(history)
