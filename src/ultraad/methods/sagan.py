"""SAGAN: a generator that restores pseudo-anomalies, with attention and the place of each quarter of the image.

Paper      Zhang et al., MICCAI 2024, arXiv 2405.12872.
Equations  G(x)    generator       tanh(x + g(x)); each quarter of the image goes through g by itself, beside the binary
                                   code of its place; attention gates weight the skip connections
           p(x)    pseudo-anomaly  a normal image with a synthetic anomaly
           gen     generator loss  -D(G(p(x))) + |x - G(x)|_1 + |x - G(p(x))|^2: healthy, identical, restored
           dis     critic loss     D(G(p(x))) - D(x) + 10 (|grad D(m)| - 1)^2, m between x and G(p(x))
           score                   mean |x - G(x)|;  map |x - G(x)|, smoothed; pixels in -1..1
           Both are given as e / (e + u), u the mean over the normal support images.
Reference  zzr728/SAGAN 2fa5bd7 (no licence file): model.py, solver.py, data_loader.py; facts only.
Learned    generator and critic; the backbone is not used.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.func import functional_call

from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.autoencoder import convolution, epochs_of, relative, small, upward
from ultraad.nn.labelled import normals
from ultraad.nn.loop import train
from ultraad.nn.maps import smooth
from ultraad.nn.synthesis import Family, apply, draw
from ultraad.rng import seeded, torch_seeded
from ultraad.types import Batch, FitReport, Scores

if TYPE_CHECKING:
    from ultraad.nn.synthesis import Image

INFO = MethodInfo(
    name="sagan",
    title="SAGAN: restoring pseudo-anomalies with a spatially aware attention GAN",
    paper="Zhang et al., MICCAI 2024",
    url="https://arxiv.org/abs/2405.12872",
    reference="zzr728/SAGAN 2fa5bd7",
    licence="no licence file; written from the paper and facts",
    outputs=frozenset({"score", "map"}),
    needs=Needs(normal_images=True),
    idea="learns to remove synthetic anomalies from normal pictures, and compares a picture with what is left of it",
    learned="generator and critic",
    baseline=True,
    deviations=(
        "normal images alone: pseudo-anomalies take the place of the unlabelled images that the paper makes healthy",
        "pseudo-anomalies of MediCLIP's synthesis (anomalies=blend: a rectangle blended with another image, as in the "
        "reference)",
        "8 channels, two residual blocks and no deep supervision instead of 64 channels and six blocks, to train in "
        "minutes on a processor (width, blocks)",
        "a few hundred steps instead of 100,000 (steps)",
        "the rate is constant; the reference lowers it by a 50,000th every thousandth step of its second half, 0.1 % "
        "in all",
        "generator and critic take every step together; the generator of the reference takes every second one",
        "no pixels are copied from the input at random in training; the reference copies 5 %",
        "the last step is kept; the reference keeps the best one on the test set",
        "errors e are given as e / (e + u), with u that of the normal support images; this changes no ranking",
        "the paper draws no map; ours is the difference of both pictures",
    ),
)

QUARTERS = 4
FAMILIES: tuple[Family, ...] = ("cutpaste", "gauss_intensity", "source", "smooth_intensity")
LEAST_SIDE, MOST_SIDE, CORE = 0.05, 0.2, 0.6  # half sides and places of a blended rectangle, reference data_loader.py


class SAGANConfig(MethodConfig):
    """Every option of SAGAN."""

    side: int = Field(64, ge=32, multiple_of=16, description="of the grey pictures, in pixels (reference: 64)")
    width: int = Field(8, ge=4, multiple_of=4, description="channels at the first level (ours; reference: 64)")
    blocks: int = Field(2, ge=1, description="residual blocks at the bottom (ours; reference: 6)")
    anomalies: Literal["synthesis", "blend"] = Field(
        "synthesis", description="families of nn/synthesis in equal shares (ours), or a blended rectangle (reference)"
    )
    adversarial: float = Field(1.0, ge=0, description="weight of the critic for the generator (reference: 1)")
    identity: float = Field(1.0, ge=0, description="weight of |x - G(x)| (reference: 1)")
    penalty: float = Field(10.0, ge=0, description="weight of the gradient penalty (reference: 10)")
    steps: int = Field(300, ge=1, description="of the optimiser; epochs follow from the number of images (ours)")
    batch_size: int = Field(8, ge=1, description="images per step (ours; reference: 32)")
    lr: float = Field(2e-4, gt=0, description="of Adam, constant (ours; reference: 5e-5, nearly constant)")
    beta1: float = Field(0.5, ge=0, lt=1, description="of Adam (reference main.py)")
    sigma: float = Field(4.0, ge=0, description="smoothing of the map in pixels at 224 (as PatchCore), scaled")


class Gate(nn.Module):
    """Attention gate: a weight in 0..1 for each place of a skip connection, from it and the layer below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.below = nn.Conv2d(channels, channels // 2, 1)
        self.across = nn.Conv2d(channels, channels // 2, 1)
        self.weigh = nn.Conv2d(channels // 2, 1, 1)

    def forward(self, below: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        """The skip connection (b c h w), weighted."""
        weight: torch.Tensor = self.weigh(torch.relu(self.below(below) + self.across(across))).sigmoid()
        return across * weight


class Residual(nn.Module):
    """``x + conv(conv(x))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(convolution(channels, channels), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b c h w) to the same shape."""
        out: torch.Tensor = x + self.inner(x)
        return out


class Generator(nn.Module):
    """G: pictures f32 (b 1 r r) in -1..1 to pictures of the same kind.

    Args:
        width: Channels at the first level.
        blocks: Residual blocks at the bottom.
    """

    place: torch.Tensor

    def __init__(self, *, width: int, blocks: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width]
        self.enter = convolution(1, width)
        self.down = nn.ModuleList(convolution(a, b, stride=2) for a, b in pairwise(widths))
        bits = 2  # of the number of a quarter
        self.tell = nn.ModuleList(nn.Conv2d(c + bits, c, 1) for c in widths[1:])
        self.bottom = nn.Sequential(*(Residual(widths[-1]) for _ in range(blocks)))
        self.up = nn.ModuleList(upward(b, a) for a, b in reversed(list(pairwise(widths))))
        self.gates = nn.ModuleList(Gate(a) for a in reversed(widths[:-1]))
        self.join = nn.ModuleList(convolution(2 * a, a) for a in reversed(widths[:-1]))
        self.leave = nn.Conv2d(width, 1, 3, padding=1)
        number = torch.arange(QUARTERS)
        self.register_buffer("place", torch.stack([number // 2, number % 2], 1).float(), persistent=False)  # (4 2)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """The healthy picture."""
        b, half = pictures.shape[0], pictures.shape[-1] // 2  # len() would fix the batch of an exported graph
        x = self.enter(quarters(pictures))  # (4b c r/2 r/2), the four of an image side by side
        place = self.place.repeat(b, 1)[..., None, None]
        across = [x]
        for down, tell in zip(self.down, self.tell, strict=True):
            x = down(x)
            x = tell(torch.cat([x, place.expand(-1, -1, *x.shape[-2:])], 1))
            across.append(x)
        x = self.bottom(x)
        for up, gate, join, skip in zip(self.up, self.gates, self.join, reversed(across[:-1]), strict=True):
            x = up(x)
            x = join(torch.cat([x, gate(x, skip)], 1))
        return torch.tanh(pictures + whole(self.leave(x), half))


def quarters(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures (b c r r) to their quarters (4b c r/2 r/2): upper left, upper right, lower left, lower right."""
    b, c, r, _ = pictures.shape
    x = pictures.reshape(b, c, 2, r // 2, 2, r // 2).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(4 * b, c, r // 2, r // 2)


def whole(parts: torch.Tensor, half: int) -> torch.Tensor:
    """The inverse of :func:`quarters`; ``half`` is the side of a quarter."""
    c = parts.shape[1]
    x = parts.reshape(-1, 2, 2, c, half, half).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(-1, c, 2 * half, 2 * half)


def critic(width: int) -> nn.Sequential:
    """D: pictures (b 1 r r) to judgements of their parts (b 1 r/16 r/16); no norms, because of the penalty."""
    layers: list[nn.Module] = []
    for a, b in pairwise([1, width, 2 * width, 4 * width, 4 * width]):
        layers += [nn.Conv2d(a, b, 4, 2, padding=1), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers, nn.Conv2d(4 * width, 1, 3, padding=1, bias=False))  # a bias cancels in the loss


def blend(image: Image, sources: list[Image], own: int, rng: np.random.Generator) -> Image:
    """An image f32 (h w) with a rectangle blended with another image, as in the reference's data_loader.py."""
    sides = np.array(image.shape)
    centre = ((1 - CORE) / 2 + CORE * rng.random(2)) * sides
    reach = rng.uniform(LEAST_SIDE, MOST_SIDE) * sides
    (top, left), (bottom, right) = (
        np.clip(np.round(v), 0, sides).astype(int) for v in (centre - reach, centre + reach)
    )
    other = sources[(own + int(rng.integers(1, max(2, len(sources))))) % len(sources)]
    share = np.float32(rng.random())
    changed = image.copy()
    box = np.s_[top:bottom, left:right]
    changed[box] = (1 - share) * image[box] + share * other[box]
    return changed


class SAGAN(Method):
    """SAGAN; see the module's header for the equations."""

    info = INFO
    Config = SAGANConfig
    long = True
    config: SAGANConfig
    usual_score: torch.Tensor
    usual_map: torch.Tensor

    def build(self, *, seed: int) -> None:
        """A fresh generator and critic."""
        self.generator = Generator(width=self.config.width, blocks=self.config.blocks)
        self.critic = critic(self.config.width)
        self.register_buffer("usual_score", torch.zeros(()))
        self.register_buffer("usual_map", torch.zeros(()))

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train on the normal images of the support; others are not used."""
        c, device = self.config, self.backbone.device
        images = normals(support, normal_index=self.normal_index).to(device)
        pictures = small(images, self.backbone.preprocess, c.side)
        grey: list[Image] = [*pictures[:, 0].cpu().numpy()]

        def loss(index: torch.Tensor, epoch: int) -> torch.Tensor:
            changed = [self._anomalous(grey, i, seeded(seed, f"anomaly/{epoch}/{i}")) for i in index.tolist()]
            between = torch.rand(len(index), generator=torch_seeded(seed, f"between/{epoch}/{index.tolist()}"))
            x, y = pictures[index.to(device)], torch.from_numpy(np.stack(changed))[:, None].to(device)
            return self.both_losses(2 * x - 1, 2 * y - 1, between.to(device))

        history = train(
            loss,
            [{"params": [*self.parameters()], "lr": c.lr}],
            count=len(pictures),
            batch_size=c.batch_size,
            seed=seed,
            epochs=epochs_of(c.steps, count=len(pictures), batch_size=c.batch_size),
            optimiser="adam",
            betas=(c.beta1, 0.999),
            schedule="constant",
            **self.course,
        )
        with torch.no_grad():
            found = [self.errors(part) for part in torch.split(pictures, c.batch_size)]
            self.usual_score.copy_(torch.cat([score for score, _ in found]).mean())
            self.usual_map.copy_(torch.cat([maps for _, maps in found]).mean())
        return FitReport("last epoch", history)

    def _anomalous(self, sources: list[Image], own: int, rng: np.random.Generator) -> Image:
        """p(x) of one picture (r r) in 0..1."""
        image = sources[own]
        if self.config.anomalies == "blend":
            return blend(image, sources, own, rng)
        family = FAMILIES[rng.integers(len(FAMILIES))]
        return apply(image, draw(family, rng, shape=image.shape, sources=len(sources)), sources)[0]

    def both_losses(self, x: torch.Tensor, changed: torch.Tensor, between: torch.Tensor) -> torch.Tensor:
        """Both losses, gen + dis; the gradients of each reach its own network only.

        Args:
            x: Normal pictures (b 1 r r) in -1..1.
            changed: p(x).
            between: Where m is between x and G(p(x)), (b,) in 0..1.
        """
        c = self.config
        same, healed = self.generator(x), self.generator(changed)
        frozen = {name: p.detach() for name, p in self.critic.named_parameters()}
        fooled = functional_call(self.critic, frozen, (healed,)).mean()
        generator = -c.adversarial * fooled + c.identity * (x - same).abs().mean() + (x - healed).square().mean()
        made, share = healed.detach(), between.view(-1, 1, 1, 1)
        middle = (share * x + (1 - share) * made).requires_grad_()
        judged = self.critic(middle)
        (slope,) = torch.autograd.grad(judged.sum(), middle, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        total: torch.Tensor = generator + self.critic(made).mean() - self.critic(x).mean() + c.penalty * penalty
        return total

    def errors(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean differences (b,) and their smoothed maps (b side side) of pictures (b 1 side side) in 0..1."""
        x = 2 * pictures - 1
        apart = (x - self.generator(x)).abs()[:, 0]
        return apart.mean((1, 2)), smooth(apart, self.config.sigma * self.config.side / 224)

    def score(self, images: torch.Tensor) -> Scores:
        """Scores and maps (b side side) in [0, 1) of images f32 (b 3 s s)."""
        score, maps = self.errors(small(images, self.backbone.preprocess, self.config.side))
        return Scores(score=relative(score, self.usual_score), map=relative(maps, self.usual_map))


METHOD = SAGAN
