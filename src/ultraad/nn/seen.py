"""Training images with features that training does not change: the support is encoded once, an auxiliary set anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from ultraad.nn.labelled import Labelled, TrainingSet, labelled
from ultraad.nn.loop import permutations
from ultraad.types import Batch, Features

_AT_ONCE = 16  # images per pass of the tower: bounds the memory, not the result


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Training images with their frozen features.

    Attributes:
        features: What the method reads.
        truth: Their labels and masks.
    """

    features: Features
    truth: Labelled

    def __len__(self) -> int:
        return len(self.truth)

    def select(self, index: torch.Tensor) -> Seen:
        """The images at int64 positions."""
        return Seen(self.features.select(index), self.truth.select(index))


@torch.no_grad()
def see(encode: Callable[[torch.Tensor], Features], truth: Labelled) -> Seen:
    """Encode training images; ``encode`` takes images f32 (b 3 s s)."""
    parts = [encode(images) for images in torch.split(truth.images, _AT_ONCE)]
    features = Features(
        image=torch.cat([f.image for f in parts]),
        patches={layer: torch.cat([f.patches[layer] for f in parts]) for layer in parts[0].patches},
        cls={},
        grid=parts[0].grid,
    )
    return Seen(features, truth)


def seen_batches(
    support: Batch,
    auxiliary: Iterable[Batch] | None,
    encode: Callable[[torch.Tensor], Features],
    *,
    normal_index: int,
    batch_size: int,
    seed: int,
) -> tuple[Callable[[int], Iterator[Seen]], int]:
    """The batches of an epoch, and their number, for :func:`ultraad.nn.loop.minimise`.

    Args:
        support: Used if there is no auxiliary set.
        auxiliary: As in :class:`ultraad.nn.labelled.TrainingSet`.
        encode: As in :func:`see`.
        normal_index: Label of the normal class in the support.
        batch_size: Images per step from the support.
        seed: Of the image order.
    """
    if auxiliary is not None:
        data = TrainingSet(support, auxiliary, normal_index=normal_index, batch_size=batch_size, seed=seed)
        return lambda epoch: (see(encode, truth) for truth in data.epoch(epoch)), data.steps
    seen = see(encode, labelled(support, normal_index=normal_index))
    orders = permutations(len(seen), batch_size, seed=seed)
    return lambda epoch: map(seen.select, orders(epoch)), math.ceil(len(seen) / batch_size)
