"""The class head of UltraAD: Eq. 2, its mixture with zero-shot, and what its logits are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from ultraad.methods.ultraad.config import PostConfig
from ultraad.methods.ultraad.readout import refine
from ultraad.nn.class_tokens import beside_texts
from ultraad.nn.evidence import Evidence, Sentences, beside, votes_of
from ultraad.nn.key_value import cache_logits

_CHOSEN = (
    "the support set chose the sentences of this model (memory.text_per, memory.text_select): their adapted part is "
    "not divided, and is in the rest"
)


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """The class head.

    Attributes:
        scale: lambda_t.
        text: T f32 (c d).
        keys: M, unit f32 (m d).
        values: Y, f32 (m c): one-hot, or balanced over the classes (:func:`.readout.balanced`).
        alpha: Weight of the image memory.
        beta: Its sharpness.
        norm: Whether votes are summed, or averaged per class.
        weight: Of the adapted model in p(normal), in [0, 1].
        spread: How many times as wide as zero-shot's the adapted log-odds of normal are.
        grade_weight: The same in p(class | lesion).
        normal_index: Label of the normal class.
        normal_seen: Whether the support set has normal images; if not, the texts alone say p(normal).
        post: How a map that masks have trained refines the classes; None without one.
    """

    scale: float
    text: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    alpha: float | torch.Tensor
    beta: float | torch.Tensor
    norm: Literal["sum", "mean"]
    weight: float | torch.Tensor
    spread: float
    grade_weight: float | torch.Tensor
    normal_index: int
    normal_seen: bool
    post: PostConfig | None

    def logits(self, fh: torch.Tensor, *, own: torch.Tensor | None = None) -> torch.Tensor:
        """S(x) (b c): Eq. 2 of shared class tokens (b d); ``own`` as in :func:`~ultraad.nn.key_value.cache_logits`."""
        own = None if own is None else own.to(self.keys.device)
        votes = cache_logits(fh, self.keys, self.values, beta=self.beta, norm=self.norm, own=own)
        return self.scale * fh @ self.text.T + self.alpha * votes

    def mixed(self, zero: torch.Tensor, fh: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (b c) from p(normal), refined by a trained map, and p(class | lesion); see ``prior``.

        Args:
            zero: Zero-shot logits (b c).
            fh: Shared class tokens (b d).
            a: Statistic of the map (b,).
        """
        return self._mixed(zero, self.logits(fh), a)

    def _mixed(self, zero: torch.Tensor, own: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        graded, zero = self._both(zero, own, a)
        return beside_texts(graded, zero, normal_index=self.normal_index)

    def _both(self, zero: torch.Tensor, own: torch.Tensor, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (b c) for p(class | lesion) and for p(normal)."""
        graded = torch.lerp(zero, own, self.grade_weight)
        if self.normal_seen:  # else the texts alone say whether there is a lesion
            zero = torch.lerp(zero, self._refined(own, a), self.weight) * self._calm
        return graded, zero

    @property
    def _calm(self) -> float | torch.Tensor:
        """What the logits for p(normal) are multiplied by, so that they stay as wide as zero-shot's."""
        return 1 / (1 + (self.spread - 1) * self.weight)

    def _refined(self, own: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return own if self.post is None else refine(own, a, normal_index=self.normal_index, post=self.post)

    def evidence(
        self,
        sentences: Sentences,
        *,
        query: torch.Tensor,
        fh: torch.Tensor,
        a: torch.Tensor,
        zero: torch.Tensor,
        zero_scale: float,
    ) -> Evidence:
        """What :meth:`mixed` is made of.

        Args:
            sentences: Of the zero-shot texts.
            query: Unit class tokens f32 (b d).
            fh: Shared class tokens f32 (b d).
            a: Statistic of the map (b,).
            zero: Zero-shot logits (b c).
            zero_scale: Their scale.
        """
        own, m = self.logits(fh), len(self.keys)
        graded, mixed = self._both(zero, own, a)
        votes = self.alpha * votes_of(fh, self.keys, self.values, beta=self.beta, mean=self.norm == "mean")  # (b m c)
        said, adapted = sentences.parts(query, zero_scale), sentences.parts(fh, self.scale)  # (b t c)
        chosen = not torch.allclose(torch.zeros_like(self.text).index_add_(0, sentences.of, sentences.rows), self.text)
        if chosen:
            adapted = torch.zeros_like(adapted)
        by_map = (self._refined(own, a).log_softmax(-1) - own.log_softmax(-1))[:, None]  # (b 1 c)
        none = torch.zeros_like(by_map)
        of_own = torch.cat([adapted, votes, none], 1)
        of_zero = torch.cat([said, torch.zeros_like(votes), none], 1)
        for_normal = torch.lerp(of_zero, torch.cat([adapted, votes, by_map], 1), self.weight) * self._calm
        parts = beside(
            torch.lerp(of_zero, of_own, self.grade_weight),
            for_normal if self.normal_seen else of_zero,
            graded,
            mixed,
            normal_index=self.normal_index,
        )
        said, votes_in, by_map = torch.split(parts, [said.shape[1], m, 1], dim=1)
        less = (own[:, None] - votes).flatten(0, 1)  # (b*m c), without each key
        without = self._mixed(zero.repeat_interleave(m, 0), less, a.repeat_interleave(m, 0)).view(votes.shape)
        return Evidence(
            logits=beside_texts(graded, mixed, normal_index=self.normal_index),
            sentences=said,
            support=votes_in,
            map=by_map[:, 0],
            without=without,
            similarity=fh @ self.keys.T,
            likeness=query @ sentences.units.T,
            names=sentences.names,
            notes=(_CHOSEN,) if chosen else (),
        )
