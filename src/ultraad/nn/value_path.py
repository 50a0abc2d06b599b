"""Value-value attention of patches, beside the blocks of a frozen tower (CLIP Surgery; AnomalyCLIP's DPAM)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ultraad.errors import ConfigError


def value_attention(block: Any, x: torch.Tensor) -> torch.Tensor:  # noqa: ANN401  an open_clip block
    """Attention of a block with its values as queries and keys; x (b m w), the residual is not added.

    Raises:
        ConfigError: If the block's attention is not torch's ``MultiheadAttention``.
    """
    attention = block.attn
    if not isinstance(attention, nn.MultiheadAttention):
        msg = f"the value-value path needs torch's MultiheadAttention, this tower has {type(attention).__name__}"
        raise ConfigError(msg)
    w = x.shape[-1]
    v = F.linear(block.ln_1(x), attention.in_proj_weight[2 * w :], attention.in_proj_bias[2 * w :])
    v = v.view(*v.shape[:2], attention.num_heads, -1).transpose(1, 2)  # (b heads m d_h)
    out = F.scaled_dot_product_attention(v, v, v).transpose(1, 2).flatten(2)  # (b m w)
    return torch.as_tensor(block.ls_1(attention.out_proj(out)))


class ValuePath:
    """An ``around`` of the image tower: a second stream a beside its stream h. It never feeds back into h.

    ``a_l = a_(l-1) + Attn(v, v, v)(ln_1(h_(l-1)))`` from block ``first`` on, where a starts as h; there is no MLP.

    Args:
        first: First block with a second stream; before it, the taps are those of the tower.
        layers: Blocks after which the stream is kept.

    Attributes:
        kept: {layer: (b 1+n w)}, class token first, in the tower's dtype.
    """

    def __init__(self, first: int, layers: Sequence[int]) -> None:
        self.first = first
        self.layers = frozenset(layers)
        self.kept: dict[int, torch.Tensor] = {}
        self._path: torch.Tensor | None = None

    def __call__(self, layer: int, x: torch.Tensor, block: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Run one block on x (b 1+n w), and the path beside it."""
        out = block(x)
        if layer >= self.first:
            self._path = (x if self._path is None else self._path) + value_attention(block, x)
        if layer in self.layers:
            self.kept[layer] = out if self._path is None else self._path
        return out
