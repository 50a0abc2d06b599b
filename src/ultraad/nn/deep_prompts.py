"""Deep prompts: learned vectors that replace tokens before a block; sentences with learned words read through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ultraad.backbones._door import Backbone
from ultraad.nn.prompts import Template, together, unit

Rounding = Literal["none", "float16"]


@dataclass(slots=True, eq=False)
class Replace:
    """An ``around`` of either tower: before block l, the tokens from ``start`` on are ``vectors[l]``.

    Later tokens are kept. The next blocks see the output for these vectors, unless they are replaced again.

    Attributes:
        vectors: {layer: f32 (r w) for all rows, or (b r w)}; layers are 1-based.
        start: Position of the first replaced token; 1 is the first after the start token.
    """

    vectors: Mapping[int, torch.Tensor]
    start: int = 1

    def __call__(self, layer: int, x: torch.Tensor, block: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Run one block on x (b m w)."""
        new = self.vectors.get(layer)
        if new is not None:
            new = new.to(x.dtype).expand(x.shape[0], -1, -1)  # (b r w)
            x = torch.cat([x[:, : self.start], new, x[:, self.start + new.shape[1] :]], dim=1)
        return block(x)


def encode_sentences(
    backbone: Backbone,
    templates: Sequence[Template],
    words: torch.Tensor,
    deep: torch.Tensor,
    *,
    context: torch.Tensor | None = None,
    rounding: Rounding = "none",
) -> torch.Tensor:
    """Sentences that begin with learned words, read through deep tokens (AnomalyCLIP; Crane adds a context).

    Args:
        backbone: Its text tower reads the sentences.
        templates: One for each sentence, with its slot at the start.
        words: f32 (t r text_width), the learned words of each sentence.
        deep: f32 (l length text_width), which replace the first words before block 2, 3, ...
        context: f32 (b text_width), one more word after the learned ones for each of b images; None: no such word.
        rounding: Of the deep tokens.

    Returns:
        Unit f32 (t d), or (b t d) with a context.
    """
    deep = deep.to(torch.float16).to(deep.dtype) if rounding == "float16" else deep
    slots = words[:, None]  # (t 1 r w)
    if context is not None:
        slots = torch.cat(
            [slots.expand(-1, len(context), -1, -1), context.expand(len(words), -1, -1)[:, :, None]], dim=2
        )
    filled = [template.fill(own) for template, own in zip(templates, slots, strict=True)]
    texts = unit(backbone.encode_prompts(*together(filled), around=Replace(dict(enumerate(deep, start=2)))))
    return texts if context is None else texts.view(len(words), len(context), -1).transpose(0, 1)


@torch.no_grad()
def text_layers(backbone: Backbone) -> int:
    """Number of blocks in the text tower."""
    seen = [0]

    def count(layer: int, x: torch.Tensor, block: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:  # noqa: ARG001
        seen.append(layer)
        return x

    tokens = backbone.tokenize(["a"])
    backbone.encode_prompts(backbone.embed_text(tokens), backbone.end_of_text(tokens), around=count)
    return seen[-1]
