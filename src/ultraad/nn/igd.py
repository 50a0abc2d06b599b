"""Interpolated Gaussian descriptor: the distance of a picture from normal codes, and from what is redrawn of it.

Paper      Chen et al., AAAI 2022, arXiv 2101.10043.
Equations  z       code            a linear layer on frozen features of the picture x;  x' = g(z), redrawn
           rec     redrawing       0.85 (1 - MS-SSIM(x, x')) + 0.15 |x - x'|
           gac     Gaussian        mean of 1 - exp(-|z - c|^2 / s); c the mean code of the normal pictures, s the mean
                   classifier      of |z - c|^2, at least 1; both are taken anew before every pass
           inter   interpolation   0.1 D(g(e))^2, e = a z + (1 - a) z', z' of another picture, a uniform in 0..1/2
           critic                  (D(g(e)) - a)^2 + D(x' + 0.2 (x - x'))^2: D tells how much of another picture is in
           loss                    rec + gac + inter, and the critic's
           score                   (rec + gac) / 2;  map: rec at every pixel, SSIM of all scales enlarged and weighted
Reference  tianyu0207/IGD 1ce9952 (no licence file): p256/ssim_main.py, multi_scale/inference_loc.py; facts only. Window
           of 3 pixels and four scales are those of its pictures of 32 pixels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from ultraad.nn.autoencoder import upward

SHARE = 0.85  # of MS-SSIM in rec
WEIGHTS = (0.0516, 0.3295, 0.3463, 0.2726)  # of the scales, reference inference_loc.py
WINDOW, SIGMA = 3, 1.5  # of the means in SSIM; the sigma is that of Wang et al., 2004
C1, C2 = 0.01**2, 0.03**2  # Wang et al., 2004, for pixels in 0..1
INTERPOLATION = 0.1  # weight of inter
MIXED = 0.2  # share of the picture in what the critic should find pure


class Descriptor(nn.Module):
    """Code, decoder and critic of pictures (b 1 r r) in 0..1, from features (b d).

    Args:
        features: d.
        side: r, a multiple of 16.
        width: Channels of the decoder at the full side; x 2, x 4, x 4 below.
        codes: Dimensions of z.
    """

    centre: torch.Tensor
    spread: torch.Tensor

    def __init__(self, *, features: int, side: int, width: int, codes: int) -> None:
        super().__init__()
        self.grid = side // 16
        self.code = nn.Linear(features, codes)
        self.unfold = nn.Linear(codes, 4 * width * self.grid**2)
        widths = (4 * width, 4 * width, 2 * width, width, width)
        self.up = nn.Sequential(*(upward(a, b) for a, b in pairwise(widths)))
        self.leave = nn.Conv2d(width, 1, 3, padding=1)
        judge: list[nn.Module] = []
        for a, b in ((1, width), (width, 2 * width), (2 * width, 4 * width), (4 * width, 4 * width)):
            judge += [nn.Conv2d(a, b, 4, 2, padding=1), nn.LeakyReLU(0.2)]
        self.critic = nn.Sequential(*judge, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 1))
        self.register_buffer("centre", torch.zeros(codes))  # c
        self.register_buffer("spread", torch.ones(()))  # s

    @torch.no_grad()
    def settle(self, features: torch.Tensor) -> None:
        """Take c and s from the features of all normal pictures (m d)."""
        z = self.code(features)
        self.centre.copy_(z.mean(0))
        self.spread.copy_((z - self.centre).square().sum(1).mean().clamp(min=1))

    def redraw(self, z: torch.Tensor) -> torch.Tensor:
        """g(z): pictures (b 1 r r) in 0..1 of codes (b codes)."""
        x = self.unfold(z).unflatten(1, (-1, self.grid, self.grid))
        drawn: torch.Tensor = self.leave(self.up(x)).sigmoid()
        return drawn

    def far(self, z: torch.Tensor) -> torch.Tensor:
        """Gac (b,) of codes, in [0, 1)."""
        far: torch.Tensor = 1 - torch.exp(-(z - self.centre).square().sum(1) / self.spread)
        return far

    def losses(self, pictures: torch.Tensor, features: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """The sum of all losses; the gradients of the critic's reach the critic only, and of the others all but it.

        Args:
            pictures: x, (b 1 r r).
            features: Of the same pictures, (b d); no gradient is passed on to them.
            alpha: a, (b,) in 0..1/2.
        """
        z = self.code(features.detach())
        drawn, mixed = self.redraw(z), self.redraw(alpha[:, None] * z + (1 - alpha[:, None]) * z.flip(0))
        frozen = {name: p.detach() for name, p in self.critic.named_parameters()}
        inter = functional_call(self.critic, frozen, (mixed,)).square().mean()
        own = redrawing(pictures, drawn)[0].mean() + self.far(z).mean() + INTERPOLATION * inter
        pure = (drawn + MIXED * (pictures - drawn)).detach()
        found = (self.critic(mixed.detach())[:, 0] - alpha).square().mean() + self.critic(pure).square().mean()
        total: torch.Tensor = own + found
        return total

    def errors(self, pictures: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (b,) and maps (b r r) >= 0 of pictures (b 1 r r) and their features (b d)."""
        z = self.code(features)
        whole, maps = redrawing(pictures, self.redraw(z))
        return (whole + self.far(z)) / 2, maps


def redrawing(x: torch.Tensor, drawn: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rec of pictures (b 1 r r) in 0..1, (b,), and at every pixel, (b r r)."""
    whole, maps = _similarity(x, drawn)
    apart = (x - drawn).abs()
    rec = SHARE * (1 - whole) + (1 - SHARE) * apart.mean((1, 2, 3))
    return rec, (SHARE * (1 - maps) + (1 - SHARE) * apart)[:, 0].clamp(min=0)


def _similarity(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """MS-SSIM (b,) (Wang et al., 2003), and the weighted mean of the SSIM of all scales, enlarged (b 1 r r)."""
    size, whole, maps = x.shape[-2:], x.new_ones(len(x)), torch.zeros_like(x)
    for i, weight in enumerate(WEIGHTS):
        if i:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        luminance, structure = _ssim(x, y)
        last = i == len(WEIGHTS) - 1
        part = (luminance * structure if last else structure).mean((1, 2, 3)).clamp(min=1e-6)
        whole = whole * part**weight
        maps = maps + weight * F.interpolate(luminance * structure, size=size, mode="nearest")
    return whole, maps / sum(WEIGHTS)


def _ssim(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both factors of SSIM, where the window fits: of the means, and of contrast and structure."""
    at = torch.arange(WINDOW).to(x) - WINDOW // 2
    line = torch.exp(-at.square() / (2 * SIGMA**2))
    window = (line[:, None] * line / line.sum() ** 2)[None, None]
    mx, my, xx, yy, xy = (F.conv2d(v, window) for v in (x, y, x * x, y * y, x * y))
    luminance = (2 * mx * my + C1) / (mx.square() + my.square() + C1)
    return luminance, (2 * (xy - mx * my) + C2) / (xx - mx.square() + yy - my.square() + C2)
