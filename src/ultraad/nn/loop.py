"""The training loop of all methods: a loss over batches, parameter groups, epochs, one progress callback."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any, Literal, TypeVar

import torch

from ultraad.rng import seeded

T = TypeVar("T", bound=Sized)
Optimiser = Literal["adamw", "adam", "sgd"]


class EnoughEpochs(Exception):  # noqa: N818  control flow, not an error
    """Raised by ``progress`` to make this epoch the last; ``fit`` then continues as after its own last epoch.

    The schedule keeps its length, so the state is that of the full training at this epoch.
    """


def minimise(
    loss: Callable[[T, int], torch.Tensor],
    groups: Sequence[dict[str, Any]],
    batches: Callable[[int], Iterable[T]],
    *,
    steps: int,
    epochs: int,
    optimiser: Optimiser = "adamw",
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    schedule: Literal["cosine", "constant"] = "cosine",
    per_epoch: bool = False,
    warmup_epochs: int = 0,
    warmup_lr: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[float, ...]:
    """Minimise a loss over batches of any kind; the state after the last step is the result.

    Args:
        loss: Takes a batch and the epoch, returns a scalar.
        groups: ``{"params": [...], "lr": ...}``; groups without parameters are dropped.
        batches: The batches of an epoch (0-based).
        steps: Batches per epoch; the schedule depends on it.
        epochs: At least 0.
        optimiser: ``"adamw"`` (decoupled decay), ``"adam"`` (decay in the gradient) or ``"sgd"``.
        betas: Of Adam.
        eps: Of Adam.
        momentum: Of SGD.
        weight_decay: 0 makes Adam and AdamW the same.
        schedule: ``"cosine"`` to 0 over all steps, or ``"constant"``.
        per_epoch: The cosine is updated once per epoch (CoOp) instead of at every step.
        warmup_epochs: Epochs of warm-up: linear from 0, or constant at ``warmup_lr``.
        warmup_lr: Constant rate during warm-up (CoOp: 1e-5); None: linear.
        progress: Called with (epochs done, epochs); may raise :class:`EnoughEpochs`.

    Returns:
        Mean loss per item of each epoch.
    """
    groups = [g for g in groups if g["params"]]
    if not groups or epochs == 0:
        return ()
    base = [float(g["lr"]) for g in groups]
    opt: torch.optim.Optimizer
    if optimiser == "sgd":
        opt = torch.optim.SGD(groups, momentum=momentum, weight_decay=weight_decay)
    else:
        kind = torch.optim.AdamW if optimiser == "adamw" else torch.optim.Adam
        opt = kind(groups, betas=betas, eps=eps, weight_decay=weight_decay)
    total, warm = epochs * steps, warmup_epochs * steps

    def rate(step: int, lr: float) -> float:
        at = step // steps * steps if per_epoch else step
        value = lr * (0.5 * (1 + math.cos(math.pi * at / total)) if schedule == "cosine" else 1.0)
        if step < warm:
            return value * (step + 1) / warm if warmup_lr is None else warmup_lr
        return value

    history, step = [], 0
    with torch.enable_grad():
        for epoch in range(epochs):
            sum_, seen = 0.0, 0
            for batch in batches(epoch):
                for group, lr in zip(opt.param_groups, base, strict=True):
                    group["lr"] = rate(step, lr)
                opt.zero_grad(set_to_none=True)
                value = loss(batch, epoch)
                value.backward()  # type: ignore[no-untyped-call]
                opt.step()
                step, seen = step + 1, seen + len(batch)
                sum_ += float(value.detach()) * len(batch)
            history.append(sum_ / max(1, seen))
            if progress is not None:
                try:
                    progress(epoch + 1, epochs)
                except EnoughEpochs:
                    break
    return tuple(history)


def permutations(count: int, batch_size: int, *, seed: int) -> Callable[[int], Iterator[torch.Tensor]]:
    """Batches of indices int64 (b,) of ``count`` items, in a new order at every call; the last may be smaller."""
    rng = seeded(seed, "order")

    def batches(epoch: int) -> Iterator[torch.Tensor]:  # noqa: ARG001  epochs come in order
        order = torch.from_numpy(rng.permutation(count))
        yield from torch.split(order, batch_size)

    return batches


def train(
    loss: Callable[[torch.Tensor, int], torch.Tensor],
    groups: Sequence[dict[str, Any]],
    *,
    count: int,
    batch_size: int,
    seed: int,
    epochs: int,
    **options: Any,  # noqa: ANN401
) -> tuple[float, ...]:
    """:func:`minimise` over ``count`` items in memory.

    Args:
        loss: Takes int64 (b,) indices and the epoch, returns a scalar.
        groups: As in :func:`minimise`.
        count: Items; an epoch is one permutation of them.
        batch_size: Items per step; the last batch of an epoch may be smaller.
        seed: Of the item order.
        epochs: As in :func:`minimise`.
        options: Of :func:`minimise`.

    Returns:
        Mean loss of each epoch.
    """
    return minimise(
        loss,
        groups,
        permutations(count, batch_size, seed=seed),
        steps=math.ceil(count / batch_size),
        epochs=epochs,
        **options,
    )
