"""The support set of the few-shot classifiers: class tokens of augmented views, each encoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
import torch.nn.functional as F

from ultraad.backbones._door import Backbone
from ultraad.nn.augment import support_views
from ultraad.nn.loop import train
from ultraad.nn.prompts import unit
from ultraad.rng import seeded
from ultraad.types import Batch, Scores


class SGDOptions(Protocol):
    """The options of a method that is trained with CoOp's recipe."""

    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def lr(self) -> float: ...  # noqa: D102
    @property
    def momentum(self) -> float: ...  # noqa: D102
    @property
    def weight_decay(self) -> float: ...  # noqa: D102
    @property
    def warmup_epochs(self) -> int: ...  # noqa: D102
    @property
    def warmup_lr(self) -> float: ...  # noqa: D102


class ClassTokens:
    """Class tokens of augmented views of a labelled batch.

    Args:
        backbone: Its cache encodes each view once, also across the folds of a cross-validation.
        support: Labelled, at least one image.
        count: Views per image; the first is the image itself.
        epochs: Number of epochs that views are drawn for.
        seed: Of the augmentation and of the draws.

    Attributes:
        views: Raw f32 (v m d).
        labels: int64 (m,).
    """

    def __init__(self, backbone: Backbone, support: Batch, *, count: int, epochs: int = 0, seed: int) -> None:
        assert support.labels is not None  # checked by Method.fit
        views = support_views(support, count, seed=seed, preprocess=backbone.preprocess)
        self.views = torch.stack([backbone.cache.encode(images, layers=()).image for images, _ in views])
        self.labels = support.labels.to(backbone.device)
        self._choice = torch.from_numpy(seeded(seed, "views").integers(count, size=(epochs, len(support))))

    def draw(self, index: torch.Tensor, epoch: int) -> torch.Tensor:
        """One view of each image in ``index``, int64 (b,), for this epoch (0-based); raw (b d)."""
        return self.views[self._choice[epoch, index], index]

    def train(
        self,
        logits: Callable[[torch.Tensor], torch.Tensor],
        parameters: Iterable[torch.nn.Parameter],
        *,
        options: SGDOptions,
        epochs: int,
        seed: int,
        progress: Callable[[int, int], None] | None,
    ) -> tuple[float, ...]:
        """Cross-entropy with CoOp's recipe: SGD, a constant warm-up, a cosine that is updated once per epoch.

        Args:
            logits: Class logits (b c) of raw class tokens (b d).
            parameters: Trained parameters.
            options: Of the method.
            epochs: At most the number that views were drawn for.
            seed: Of the image order.
            progress: Called with (epochs done, epochs).

        Returns:
            Mean loss of each epoch.
        """
        return train(
            lambda index, epoch: F.cross_entropy(logits(self.draw(index, epoch)), self.labels[index]),
            [{"params": [*parameters], "lr": options.lr}],
            count=len(self.labels),
            batch_size=options.batch_size,
            seed=seed,
            epochs=epochs,
            optimiser="sgd",
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            per_epoch=True,
            warmup_epochs=options.warmup_epochs,
            warmup_lr=options.warmup_lr,
            progress=progress,
        )

    def keys(self) -> torch.Tensor:
        """n(mean over views of the raw tokens), f32 (m d): Tip-Adapter's keys."""
        return unit(self.views.mean(0))

    def one_hot(self, classes: int) -> torch.Tensor:
        """Labels as f32 (m classes)."""
        return F.one_hot(self.labels, classes).float()


def epochs_by_shots(support: Batch) -> int:
    """CoOp's training length: 50 epochs for 1 image in the largest class, 100 for 2 to 7, 200 for more."""
    assert support.labels is not None  # checked by Method.fit
    shots = int(support.labels.bincount().max())
    return 50 if shots == 1 else 100 if shots < 8 else 200


def without_normal(logits: torch.Tensor, *, normal_index: int) -> torch.Tensor:
    """Class logits (b c) with the normal class at minus infinity, so that a loss only tells lesion classes apart."""
    normal = torch.arange(logits.shape[1], device=logits.device) == normal_index
    return logits.masked_fill(normal, -torch.inf)


def beside_texts(logits: torch.Tensor, texts: torch.Tensor, *, normal_index: int) -> torch.Tensor:
    """Log-probabilities (b c) of a model that has seen no normal image.

    p(normal) is that of the texts: p(c) = p_texts(lesion) p(c | lesion), where only the second factor was adapted.

    Args:
        logits: Adapted class logits (b c).
        texts: Zero-shot class logits (b c).
        normal_index: Label of the normal class.
    """
    among = without_normal(logits, normal_index=normal_index).log_softmax(-1)  # log p(c | lesion)
    zero = texts.log_softmax(-1)
    lesion = without_normal(zero, normal_index=normal_index).logsumexp(-1, keepdim=True)
    normal = torch.arange(logits.shape[1], device=logits.device) == normal_index
    return torch.where(normal, zero, among + lesion)


def grade(logits: torch.Tensor, *, normal_index: int, texts: torch.Tensor | None = None) -> Scores:
    """Scores of a classifier: ``1 - p(normal)`` and its logits (b c).

    Args:
        logits: Adapted class logits (b c).
        normal_index: Label of the normal class.
        texts: Zero-shot class logits (b c), for a model that has seen no normal image; see :func:`beside_texts`.
    """
    if texts is not None:
        logits = beside_texts(logits, texts, normal_index=normal_index)
    return Scores(score=1 - logits.softmax(-1)[:, normal_index], logits=logits)
