"""Small trainable blocks."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

MiniNetType = Literal["cocoop", "clip_adapter", "linear"]


class MiniNet(nn.Module):
    """Bottleneck on the class token, (b d) to (b out).

    Args:
        dim: Input dimension d.
        out: Output dimension.
        kind: ``"cocoop"``: d -> d/16 -> out, ReLU, biases (CoCoOp's meta-net, 74,544 values at d = 768);
            ``"clip_adapter"``: d -> d/4 -> out, ReLU after both, no biases (CLIP-Adapter); ``"linear"``: one layer.
        zero_init: Start at zero output; ignored for ``"clip_adapter"``, whose final ReLU would block the gradient.
    """

    def __init__(self, dim: int, out: int, *, kind: MiniNetType = "cocoop", zero_init: bool = False) -> None:
        super().__init__()
        if kind == "cocoop":
            hidden = max(1, dim // 16)
            self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, out))
        elif kind == "clip_adapter":
            hidden = max(1, dim // 4)
            self.layers = nn.Sequential(
                nn.Linear(dim, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, out, bias=False), nn.ReLU()
            )
        else:
            self.layers = nn.Sequential(nn.Linear(dim, out))
        last = self.layers[-1]
        if zero_init and isinstance(last, nn.Linear):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b d) to (b out)."""
        y: torch.Tensor = self.layers(x)
        return y


@torch.no_grad()
def silence(net: MiniNet) -> None:
    """Zero the last linear layer, so that the output is zero for every input."""
    last = [layer for layer in net.layers if isinstance(layer, nn.Linear)][-1]
    for values in last.parameters():
        nn.init.zeros_(values)


class PatchFusion(nn.Module):
    """Multi-head attention of text rows over patch tokens with three projections (UltraAD Eq. 3, VCP-CLIP's Post-VCP).

    ``O_h = softmax(Q_h K_h^T / sqrt(d_h)) V_h``, heads concatenated.

    Args:
        text_dim: Dimension of the text rows.
        patch_dim: Dimension of the patch tokens, and of the result.
        heads: Must divide ``patch_dim``.
        scale: ``"sqrt_d"``, or ``"none"`` as in VCP-CLIP.
        out_proj: Add a fourth, output projection.
        init: ``"zero_v"``: W_V = 0, so that a residual path starts as the identity; ``"identity"``: W near identity,
            for the form without a residual, where random rows would give almost equal mixtures; ``"default"``: torch's.
    """

    def __init__(
        self,
        text_dim: int,
        patch_dim: int,
        *,
        heads: int = 8,
        scale: Literal["sqrt_d", "none"] = "sqrt_d",
        out_proj: bool = False,
        init: Literal["zero_v", "identity", "default"] = "zero_v",
    ) -> None:
        super().__init__()
        self.heads = heads
        self.scale = 1 / math.sqrt(patch_dim // heads) if scale == "sqrt_d" else 1.0
        self.q = nn.Linear(text_dim, patch_dim)
        self.k = nn.Linear(patch_dim, patch_dim, bias=False)  # a bias would cancel in the softmax
        self.v = nn.Linear(patch_dim, patch_dim)
        self.out = nn.Linear(patch_dim, patch_dim) if out_proj else nn.Identity()
        if init == "zero_v":
            nn.init.zeros_(self.v.weight)
            nn.init.zeros_(self.v.bias)
            if isinstance(self.out, nn.Linear):
                nn.init.zeros_(self.out.bias)
        elif init == "identity":
            for layer in (self.q, self.k, self.v):
                with torch.no_grad():
                    layer.weight.mul_(0.1).add_(torch.eye(*layer.weight.shape))
                    if layer.bias is not None:
                        layer.bias.zero_()

    def forward(self, text: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Rows (b t d) attend to patches (b n w); returns (b t w).

        There are few rows and many patches, so W_K is folded into the rows and W_V is applied after the average:
        ``Q (P W_K)^T = (Q W_K^T) P^T`` and ``A (P W_V) = (A P) W_V``: the same result for a fraction of the work.
        """
        b, t, _ = text.shape
        w = patches.shape[-1]
        w_k, w_v = (x.weight.view(self.heads, w // self.heads, w) for x in (self.k, self.v))  # (heads d_h w)
        q = self.q(text).view(b, t, self.heads, -1)  # (b t heads d_h)
        rows = torch.einsum("bthe,hew->bhtw", q, w_k).flatten(1, 2) * self.scale  # (b heads*t w)
        attention = (rows @ patches.mT).softmax(-1)  # (b heads*t n)
        seen = (attention @ patches).view(b, self.heads, t, w)
        out = torch.einsum("bhtw,hew->bthe", seen, w_v).flatten(2) + self.v.bias  # (b t w)
        return torch.as_tensor(self.out(out))


class ResidualAdapter(nn.Module):
    """MVFA's bottleneck: m = lrelu(W1 h) in text space, o = lrelu(W2 m) back in the tower's width.

    Args:
        width: Tower width w.
        dim: Joint dimension d.
        deepest: Last level, where nothing reads o: W2 does not exist and o is None.
    """

    def __init__(self, width: int, dim: int, *, deepest: bool = False) -> None:
        super().__init__()
        self.down = nn.Linear(width, dim, bias=False)
        self.up = None if deepest else nn.Linear(dim, width, bias=False)

    def forward(self, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Tokens (b 1+n w) to m (b 1+n d) and o (b 1+n w)."""
        m = F.leaky_relu(self.down(h))
        return m, None if self.up is None else F.leaky_relu(self.up(m))
