"""What class logits are made of: the share of each sentence, of each support image, and of the map.

Logits that are a sum fall apart exactly. A prompt ensemble is a sum too: T_c = n(mean_j n(e_cj)) is a sum over its
sentences j, as the length of the mean is one number. A constant that all logits of an image share changes no
probability, so each sentence is counted against the mean logit of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ultraad.backbones._door import Backbone
from ultraad.nn.class_tokens import without_normal
from ultraad.nn.prompts import unit


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the class logits of images are made of.

    Attributes:
        logits: f32 (b c), as :class:`~ultraad.types.Scores` has them.
        sentences: f32 (b t c), what each sentence adds to each logit.
        support: f32 (b m c), what each support image adds, in the order of the support set; m is 0 without a memory.
        map: f32 (b c), what the map adds.
        without: f32 (b m c), the logits if the memory had no key of that support image.
        similarity: f32 (b m), cosine with the key of each support image.
        likeness: f32 (b t), cosine with each sentence.
        names: (class, sentence) of each sentence.
        notes: What could not be divided.
    """

    logits: torch.Tensor
    sentences: torch.Tensor
    support: torch.Tensor
    map: torch.Tensor
    without: torch.Tensor
    similarity: torch.Tensor
    likeness: torch.Tensor
    names: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


class Sentences:
    """The sentences behind class texts, each as its part of them.

    Args:
        backbone: Its text tower reads them.
        classes: Class names in label order.
        sentences: Those of each class.

    Attributes:
        names: (class, sentence), t of them.
        units: n(e_cj), unit f32 (t d).
        rows: f32 (t d); the sum of those of a class is its text, as of :func:`~ultraad.nn.prompts.encode_ensemble`.
        of: int64 (t), the class of each.
    """

    @torch.no_grad()
    def __init__(self, backbone: Backbone, classes: Sequence[str], sentences: Sequence[Sequence[str]]) -> None:
        self.names = tuple((name, s) for name, some in zip(classes, sentences, strict=True) for s in some)
        encoded = [unit(backbone.encode_text(list(some))) for some in sentences]  # (j d) each
        self.units = torch.cat(encoded)
        self.rows = torch.cat([e / len(e) / e.mean(0).norm() for e in encoded])
        self.of = torch.cat([torch.full((len(e),), c) for c, e in enumerate(encoded)]).to(self.rows.device)
        self._classes = len(classes)

    def parts(self, query: torch.Tensor, scale: float | torch.Tensor) -> torch.Tensor:
        """What each sentence adds to ``scale * query @ texts.T``, less the mean logit of the image.

        Args:
            query: Unit class tokens f32 (b d).
            scale: Of the logits.

        Returns:
            f32 (b t c), zero except in the sentence's own class.
        """
        own = torch.nn.functional.one_hot(self.of, self._classes).to(query.dtype)  # (t c)
        logits = scale * query @ self.rows.T  # (b t)
        mean = logits.sum(1, keepdim=True) / self._classes  # (b 1)
        return (logits - mean / own.sum(0)[self.of])[..., None] * own


def votes_of(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, beta: float | torch.Tensor, mean: bool = False
) -> torch.Tensor:
    """The votes f32 (b m c) whose sum over m is :func:`ultraad.nn.key_value.cache_logits`, with its arguments."""
    votes = torch.exp(-beta * (1 - query @ keys.T))[..., None] * values  # (b m c)
    return votes / values.sum(0).clamp(min=1) if mean else votes


def beside(
    graded_parts: torch.Tensor,
    zero_parts: torch.Tensor,
    graded: torch.Tensor,
    zero: torch.Tensor,
    *,
    normal_index: int,
) -> torch.Tensor:
    """Parts of :func:`ultraad.nn.class_tokens.beside_texts`, with its arguments.

    A log-sum over the lesion classes is a mean of their logits, weighted by their probabilities, plus the entropy of
    these. The means fall apart into parts; the entropies do not, and are left out here.

    Args:
        graded_parts: f32 (b p c), parts of ``graded``.
        zero_parts: f32 (b p c), parts of ``zero``.
        graded: f32 (b c).
        zero: f32 (b c).
        normal_index: Label of the normal class.

    Returns:
        f32 (b p c).
    """
    lesions = partial(without_normal, normal_index=normal_index)
    in_zero = (lesions(zero).softmax(-1)[:, None] * zero_parts).sum(-1, keepdim=True)  # (b p 1)
    in_graded = (lesions(graded).softmax(-1)[:, None] * graded_parts).sum(-1, keepdim=True)
    normal = torch.arange(zero.shape[1], device=zero.device) == normal_index
    return torch.where(normal, zero_parts, in_zero + graded_parts - in_graded)
