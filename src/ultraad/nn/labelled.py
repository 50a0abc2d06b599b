"""Training data of a detector: the few support images, or an auxiliary set that is read batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch

from ultraad.errors import DataError
from ultraad.nn.loop import minimise, permutations
from ultraad.types import Batch


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Images with the labels that a detector may use.

    Attributes:
        images: f32 (b 3 s s), normalised.
        anomalous: bool (b,).
        masks: bool (b s s), True on lesion; all False where unknown.
        known: bool (b,), whether the mask is known; it is for a normal image, whose mask is empty.
    """

    images: torch.Tensor
    anomalous: torch.Tensor
    masks: torch.Tensor
    known: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)

    def select(self, index: torch.Tensor) -> Labelled:
        """The sub-batch at int64 or bool positions."""
        return Labelled(self.images[index], self.anomalous[index], self.masks[index], self.known[index])


def labelled(batch: Batch, *, normal_index: int | None = None) -> Labelled:
    """A batch as training images.

    Args:
        batch: With labels, or with ``anomalous``.
        normal_index: Label of the normal class; None uses ``batch.anomalous``, as auxiliary sets have other classes.

    Raises:
        DataError: If the batch does not say which images are normal.
    """
    if normal_index is not None and batch.labels is not None:
        anomalous = batch.labels != normal_index
    elif batch.anomalous is not None:
        anomalous = batch.anomalous
    else:
        msg = (
            f"these images are labelled neither normal nor abnormal: {', '.join(batch.ids[:5])}; "
            "training a detector needs images labelled normal or abnormal"
        )
        raise DataError(msg)
    b, _, h, w = batch.images.shape
    masks = torch.zeros(b, h, w, dtype=torch.bool) if batch.masks is None else batch.masks
    known = ~anomalous if batch.mask_known is None else batch.mask_known
    return Labelled(batch.images, anomalous, masks, known)


def normals(support: Batch, *, normal_index: int) -> torch.Tensor:
    """The support's normal images, f32 (m 3 s s), in order."""
    if support.labels is None:
        return support.images[:0]
    return support.images[support.labels == normal_index]


def with_known_masks(batches: Iterable[Labelled], *, name: str) -> Iterator[Labelled]:
    """The images with a known mask, batch by batch, for a loss on pixels; a batch without any is dropped.

    Args:
        batches: Of one epoch.
        name: Of the method, for the error.

    Raises:
        DataError: At the end, if no mask had a lesion; a map cannot be learned without one.
    """
    lesions = False
    for batch in batches:
        known = batch.select(batch.known)
        if len(known):
            lesions = lesions or bool(known.masks.any())
            yield known
    if not lesions:
        msg = f"{name} learns from lesion masks and got none; give it abnormal images with masks, or an auxiliary set"
        raise DataError(msg)


class TrainingSet:
    """The support set or an auxiliary set, with one interface for both.

    Args:
        support: The few labelled images; used if there is no auxiliary set.
        auxiliary: Batches of a larger data set, iterated once per epoch; ``len`` gives their number.
        normal_index: Label of the normal class in the support.
        batch_size: Images per step from the support; an auxiliary set has its own batches.
        seed: Of the image order.

    Attributes:
        steps: Batches per epoch.
        auxiliary: Whether the auxiliary set is used.

    Raises:
        DataError: If the auxiliary set has no length, or an image is labelled neither normal nor abnormal.
    """

    def __init__(
        self, support: Batch, auxiliary: Iterable[Batch] | None, *, normal_index: int, batch_size: int, seed: int
    ) -> None:
        self._batches = auxiliary
        self.auxiliary = auxiliary is not None
        if auxiliary is None:
            self._support = labelled(support, normal_index=normal_index)
            self._orders = permutations(len(support), batch_size, seed=seed)
            self.steps = math.ceil(len(support) / batch_size)
        elif isinstance(auxiliary, Sized):
            self.steps = len(auxiliary)
        else:
            msg = (
                "the auxiliary set has no len(), which must give its number of batches; wrap a plain iterator in a list"
            )
            raise DataError(msg)

    def train(
        self,
        loss: Callable[[Labelled], torch.Tensor],
        groups: Sequence[dict[str, Any]],
        *,
        beta1: float,
        masks_for: str = "",
        **options: Any,  # noqa: ANN401
    ) -> tuple[float, ...]:
        """Adam at a constant rate, the recipe of the detectors; see :func:`ultraad.nn.loop.minimise`.

        Args:
            loss: Of one batch, a scalar.
            groups: ``{"params": [...], "lr": ...}``.
            beta1: First momentum of Adam.
            masks_for: Name of a method whose loss needs masks; images without a known mask are then left out.
            options: Of :func:`ultraad.nn.loop.minimise`: ``epochs``, ``progress``, another optimiser.

        Returns:
            Mean loss of each epoch.

        Raises:
            DataError: If masks are needed and no image has a lesion mask.
        """

        def batches(epoch: int) -> Iterator[Labelled]:
            return with_known_masks(self.epoch(epoch), name=masks_for) if masks_for else self.epoch(epoch)

        return minimise(
            lambda batch, _: loss(batch),
            groups,
            batches,
            steps=self.steps,
            betas=(beta1, 0.999),
            schedule="constant",
            **{"optimiser": "adam", **options},
        )

    def epoch(self, epoch: int) -> Iterator[Labelled]:
        """The batches of one epoch (0-based), for :func:`ultraad.nn.loop.minimise`."""
        if self._batches is None:
            for index in self._orders(epoch):
                yield self._support.select(index)
        else:
            for batch in self._batches:
                yield labelled(batch)
