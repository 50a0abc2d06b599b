"""Deep prompts: learned vectors that replace tokens before a block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from ultraad.backbones._door import Backbone


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
