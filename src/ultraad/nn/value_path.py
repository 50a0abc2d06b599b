"""Attention of patches to values by what correlates with itself, beside the blocks of a frozen tower.

CLIP Surgery and AnomalyCLIP's DPAM correlate values with values; Crane's E-Attn adds queries with queries and keys with
keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ultraad.errors import ConfigError


def value_attention(block: Any, x: torch.Tensor, *, of: str = "v") -> torch.Tensor:  # noqa: ANN401  an open_clip block
    """Attention of a block with a projection in place of both its queries and its keys; the residual is not added.

    ``out(sum_e softmax(e e^T / sqrt(d_h)) v)`` over the projections e in ``of``. With several, the weights of a row sum
    to their number.

    Args:
        block: Its weights are used.
        x: f32 (b m w).
        of: Some of the letters q, k and v: the projections that are correlated with themselves.

    Returns:
        (b m w).

    Raises:
        ConfigError: If the block's attention is not torch's ``MultiheadAttention``.
    """
    attention = block.attn
    if not isinstance(attention, nn.MultiheadAttention):
        msg = f"the value-value path needs torch's MultiheadAttention, this tower has {type(attention).__name__}"
        raise ConfigError(msg)
    w, z = x.shape[-1], block.ln_1(x)

    def projection(name: str) -> torch.Tensor:
        rows = slice("qkv".index(name) * w, ("qkv".index(name) + 1) * w)
        e = F.linear(z, attention.in_proj_weight[rows], attention.in_proj_bias[rows])
        return e.view(*e.shape[:2], attention.num_heads, -1).transpose(1, 2)  # (b heads m d_h)

    v = projection("v")
    seen = [F.scaled_dot_product_attention(e, e, v) for e in (v if name == "v" else projection(name) for name in of)]
    out = torch.stack(seen).sum(0).transpose(1, 2).flatten(2)  # (b m w)
    return torch.as_tensor(block.ls_1(attention.out_proj(out)))


class ValuePath:
    """An ``around`` of the image tower: a second stream a beside its stream h. It never feeds back into h.

    ``a_l = a_(l-1) + value_attention(h_(l-1))`` from block ``first`` on, where a starts as h; there is no MLP.

    Args:
        first: First block with a second stream; before it, the taps are those of the tower.
        layers: Blocks after which the stream is kept.
        of: As in :func:`value_attention`.

    Attributes:
        kept: {layer: (b 1+n w)}, class token first, in the tower's dtype.
    """

    def __init__(self, first: int, layers: Sequence[int], *, of: str = "v") -> None:
        self.first = first
        self.layers = frozenset(layers)
        self.of = of
        self.kept: dict[int, torch.Tensor] = {}
        self._path: torch.Tensor | None = None

    def __call__(self, layer: int, x: torch.Tensor, block: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Run one block on x (b 1+n w), and the path beside it."""
        out = block(x)
        if layer >= self.first:
            self._path = (x if self._path is None else self._path) + value_attention(block, x, of=self.of)
        if layer in self.layers:
            self.kept[layer] = out if self._path is None else self._path
        return out


def value_blocks(first: int) -> Callable[[int, torch.Tensor, Any], torch.Tensor]:
    """An ``around`` of the image tower whose blocks attend by value from block ``first`` on; their MLPs stay."""

    def around(layer: int, x: torch.Tensor, block: Any) -> torch.Tensor:  # noqa: ANN401  an open_clip block
        if layer < first:
            return torch.as_tensor(block(x))
        x = x + value_attention(block, x)
        return x + torch.as_tensor(block.ls_2(block.mlp(block.ln_2(x))))

    return around
