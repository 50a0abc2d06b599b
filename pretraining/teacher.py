"""A larger tower that a smaller one learns from (distillation: Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from pretraining.tower import Words, encode_images, encode_texts
from ultraad.backbones._embedded_tower import load

if TYPE_CHECKING:
    from collections.abc import Sequence

WEIGHTS = {"taught": 3.0, "taught dense": 3.0}


@dataclass(frozen=True)
class Seen:
    """What one tower makes of a batch: unit vectors.

    Attributes:
        image: (b d).
        patches: (b n d) of each block.
        grid: (gh, gw), n == gh * gw.
        text: (t d), of the sentences of the step.
        scale: The tower's logit scale.
    """

    image: torch.Tensor
    patches: list[torch.Tensor]
    grid: tuple[int, int]
    text: torch.Tensor
    scale: torch.Tensor


class Teacher:
    """A tower that stays as it is.

    Args:
        weights: Its file.
        words: The sentences of training.
        side: Input side in pixels.
    """

    def __init__(self, weights: Path, words: Words, *, side: int) -> None:
        self.model, self.side = load(weights).requires_grad_(requires_grad=False), side
        self.table = words.small(self.model.token_embedding.weight)

    @torch.no_grad()
    def look(self, images: torch.Tensor, rows: torch.Tensor, *, bf16: bool) -> Seen:
        """Images (b 3 s s) in 0..1 and rows of sentences (t L)."""
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            image, patches, grid = encode_images(self.model, images)
        text = encode_texts(self.model, self.table, rows)
        return Seen(image, patches, grid, text, self.model.logit_scale.exp())


def taught(own: Seen, teacher: Seen, choices: Sequence[slice], pairs: Sequence[slice]) -> dict[str, torch.Tensor]:
    """How far the answers are from the teacher's.

    Args:
        own: Of the tower in training.
        teacher: Of the teacher, on the same images and sentences.
        choices: Sentences that exclude one another, of whole images.
        pairs: Sentences for normal and lesion, for patches; blocks take them in turn.
    """
    whole = [
        F.kl_div(
            (own.scale * own.image @ own.text[c].T).log_softmax(1),
            (teacher.scale * teacher.image @ teacher.text[c].T).log_softmax(1),
            log_target=True,
            reduction="batchmean",
        )
        for c in choices
    ]
    places = []
    for k, (mine, its) in enumerate(zip(own.patches, teacher.patches, strict=True)):
        pair = pairs[k % len(pairs)]
        margins = [s.scale * x @ (s.text[pair][1] - s.text[pair][0]) for s, x in ((own, mine), (teacher, its))]
        grid = margins[1].sigmoid().reshape(-1, 1, *teacher.grid)
        wanted = F.interpolate(grid, own.grid, mode="bilinear", antialias=True, align_corners=False).flatten(1)
        places.append(F.binary_cross_entropy_with_logits(margins[0], wanted, weight=1 + 2 * wanted))
    return {"taught": torch.stack(whole).mean(), "taught dense": torch.stack(places).mean()}
