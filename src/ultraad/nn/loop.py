"""The training loop of all methods: a loss over batches, parameter groups, epochs, one progress callback.

A training of minutes also says how long it will take (:class:`Plan`) and goes on after an interruption
(:class:`Checkpoint`). Both ask more of its loss: the same batch and epoch must always give the same value, so whatever
is random in it is drawn from :func:`ultraad.rng.torch_seeded` with the epoch and the batch in the name of the stream.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import torch

from ultraad.rng import seeded

T = TypeVar("T", bound=Sized)
Optimiser = Literal["adamw", "adam", "sgd"]


class Checkpoint(Protocol):
    """Keeps the state of a training, so that an interrupted one goes on with the same bits."""

    def load(self) -> Mapping[str, torch.Tensor] | None:
        """The state that was saved last; None if there is none."""

    def due(self) -> bool:
        """Whether it is time to save again."""

    def save(self, state: Mapping[str, torch.Tensor]) -> None:
        """Replace the saved state."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of a training that is about to start.

    Attributes:
        values: Values that the optimiser changes.
        images: Images of an epoch.
        epochs: Passes over them.
        steps: Steps in all.
        seconds: Estimated from single steps of the first, the middle and the last epoch.
        memory: Bytes of values, gradients, moments and what one step keeps for its gradients.
    """

    values: int
    images: int
    epochs: int
    steps: int
    seconds: float
    memory: int

    def __str__(self) -> str:
        return (
            f"{self.values:,} values are trained on {self.images} images, {self.steps:,} steps: "
            f"about {duration(self.seconds)}, and {self.memory / 1e6:,.0f} MB beside the backbone and the images"
        )


def duration(seconds: float) -> str:
    """``"40 s"``, ``"12 min"``, ``"3.5 h"``."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


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
    checkpoint: Checkpoint | None = None,
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
        checkpoint: Saved between epochs and after the last; a training that finds one goes on behind it.

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

    history: list[float] = []
    if checkpoint is not None and (saved := checkpoint.load()) is not None:
        history = _restore(opt, saved)
        for epoch in range(len(history)):
            next(iter(batches(epoch)), None)  # draws the order of an epoch that is done
        if progress is not None:
            progress(len(history), epochs)
    step = len(history) * steps
    with torch.enable_grad():
        for epoch in range(len(history), epochs):
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
            if checkpoint is not None and (epoch + 1 == epochs or checkpoint.due()):
                checkpoint.save(_state(opt, history))
            if progress is not None:
                try:
                    progress(epoch + 1, epochs)
                except EnoughEpochs:
                    break
    return tuple(history)


def _parameters(opt: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p for group in opt.param_groups for p in group["params"]]


def _state(opt: torch.optim.Optimizer, history: Sequence[float]) -> dict[str, torch.Tensor]:
    """The losses so far, the parameters and what the optimiser remembers of them."""
    state = {"history": torch.tensor(history, dtype=torch.float64)}
    for i, p in enumerate(_parameters(opt)):
        state[f"{i}"] = p.detach()
        state |= {f"{i}.{name}": v for name, v in opt.state[p].items() if isinstance(v, torch.Tensor)}
    return state


def _restore(opt: torch.optim.Optimizer, state: Mapping[str, torch.Tensor]) -> list[float]:
    """Put back what :func:`_state` took; returns the losses."""
    for i, p in enumerate(_parameters(opt)):
        with torch.no_grad():
            p.copy_(state[f"{i}"])
        head = f"{i}."
        opt.state[p].update({key.removeprefix(head): v.clone() for key, v in state.items() if key.startswith(head)})
    history: list[float] = state["history"].tolist()
    return history


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
    announce: Callable[[Plan], None] | None = None,
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
        announce: Called with the :class:`Plan` before the first step.
        options: Of :func:`minimise`.

    Returns:
        Mean loss of each epoch.
    """
    if announce is not None and epochs:
        announce(_plan(loss, groups, count=count, batch_size=batch_size, epochs=epochs))
    return minimise(
        loss,
        groups,
        permutations(count, batch_size, seed=seed),
        steps=math.ceil(count / batch_size),
        epochs=epochs,
        **options,
    )


def _plan(
    loss: Callable[[torch.Tensor, int], torch.Tensor],
    groups: Sequence[dict[str, Any]],
    *,
    count: int,
    batch_size: int,
    epochs: int,
) -> Plan:
    """Try single steps without changing anything."""
    parameters = [p for group in groups for p in group["params"]]
    index = torch.arange(min(count, batch_size))
    kept: dict[int, int] = {}  # {address: bytes} of the memory that the gradients will need

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    seconds = []
    with torch.enable_grad():
        for epoch in (epochs - 1, 0, epochs // 2, epochs - 1):
            started = time.perf_counter()
            kept.clear()
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
                value = loss(index, epoch)
            value.backward()  # type: ignore[no-untyped-call]
            seconds.append(time.perf_counter() - started)
    for p in parameters:
        p.grad = None
    values, steps = sum(p.numel() for p in parameters), epochs * math.ceil(count / batch_size)
    share = count / (math.ceil(count / batch_size) * len(index))  # the last batch of an epoch may be smaller
    return Plan(
        values=values,
        images=count,
        epochs=epochs,
        steps=steps,
        seconds=steps * share * sum(seconds[1:]) / len(seconds[1:]),  # the first one also warms up
        memory=16 * values + sum(kept.values()),
    )
