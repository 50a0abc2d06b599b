"""Tokens of a frozen tower before its first learned part, so that they are computed once."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ultraad.backbones._door import Around, Backbone
from ultraad.types import Features


def tokens_after(f: Features, layer: int) -> torch.Tensor:
    """Tokens f32 (b 1+n w) after a block, class token first; layer 0 is the input of the first block."""
    return torch.cat([f.cls[layer][:, None], f.patches[layer]], dim=1)


@torch.no_grad()
def after_first_block(backbone: Backbone, embeds: torch.Tensor, eot: torch.Tensor) -> torch.Tensor:
    """Output of the text tower's first block for word embeddings: f32 (t m text_width), m up to the last ``eot``.

    Args:
        backbone: Its text tower is used.
        embeds: f32 (t m text_width), as for ``encode_prompts``.
        eot: int64 (t,), as for ``encode_prompts``.
    """
    kept: list[torch.Tensor] = []

    def first_only(layer: int, x: torch.Tensor, block: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        if layer == 1:
            kept.append(block(x))
        return x

    backbone.encode_prompts(embeds, eot, around=first_only)
    return kept[0]


def from_second_block(first: torch.Tensor, around: Around) -> Around:
    """An ``around`` that returns ``first`` (t m w) in place of block 1 and passes the other blocks to ``around``.

    Only the shape of the embeddings that enter the tower then matters.
    """

    def skip(layer: int, x: torch.Tensor, block: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        return first if layer == 1 else around(layer, x, block)

    return skip
