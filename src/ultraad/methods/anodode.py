"""AnoDODE: the density of an image's features, by the ordinary differential equation of a diffusion model.

Paper      Hu and Jin, 2023, arXiv 2310.06420. Only its abstract and introduction could be read here, and no code of its
           authors was found; the equations are those of Song et al., ICLR 2021, arXiv 2011.13456 (sections 4.3, B, C,
           D.2).
Equations  x_0       features        frozen tokens of the image at several scales, their first principal components over
                                     the normal support images, each with variance 1: (d gh gw)
           x_t       noised (B)      a(t) x_0 + s(t) e, a = exp(-1/2 int_0^t b), s^2 = 1 - a^2, b(t) = 0.1 + 19.9 t
           loss      (Song 7)        |e - e(x_t, t)|^2, e a normal draw, t uniform: the network learns the noise
           dx/dt     ODE (Song 13)   -1/2 b(t) (x - e(x, t) / s(t))
           log p     (Song 39)       log N(x_1; 0, 1) + int_0^1 div(dx/dt) dt; the divergence by v' (d/dx) v, v = +-1
           bits      score           -log p / (d gh gw ln 2)
           map       restored        |x_0 - x|^2 averaged over d; x follows the ODE from a noised x_0 to the start
           Scores are given as 1/2 + atan((bits - m) / r) / pi, m and r the mean and spread of the normal support
           images, maps as e / (e + u), u their mean.
Reference  none; the tests compare with the equations in plain numpy.
Learned    the noise network; the backbone stays frozen.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.autoencoder import GROUPS, epochs_of, normal, relative, shrink
from ultraad.nn.labelled import normals
from ultraad.nn.loop import train
from ultraad.nn.maps import resize, smooth
from ultraad.rng import torch_seeded
from ultraad.types import Batch, Features, FitReport, Scores

INFO = MethodInfo(
    name="anodode",
    title="AnoDODE: density of frozen features by a diffusion ODE",
    paper="Hu and Jin, 2023; Song et al., ICLR 2021",
    url="https://arxiv.org/abs/2310.06420",
    reference="none; the equations are those of Song et al.",
    licence="Apache-2.0",
    outputs=frozenset({"score", "map"}),
    needs=Needs(normal_images=True),
    idea="learns to remove noise from features of normal images, and computes how probable those of an image are",
    learned="a small network that predicts noise",
    baseline=True,
    deviations=(
        "only the abstract of the paper could be read here: network, schedule and solver are ours, after Song et al.",
        "features of the frozen backbone, reduced to principal components (layers, components)",
        "one network for the features of all scales; the paper scores each scale (scales=[1.0]: one scale)",
        "a fixed number of Heun's steps instead of an adaptive solver, and one fixed probe for the divergence "
        "(solver_steps)",
        "bits and errors are mapped to [0, 1] by fixed functions; this changes no ranking",
    ),
)

LEAST, MOST = 0.1, 20.0  # b(t), Song et al. appendix C


class AnoDODEConfig(MethodConfig):
    """Every option of AnoDODE."""

    layers: tuple[int, ...] | None = Field(
        None, min_length=1, description="tapped layers, 0: patch embedding; None: first half of the quarters (ours)"
    )
    scales: tuple[float, ...] = Field(
        (1.0, 0.5), min_length=1, description="shares of the side at which the image is seen (paper: several; ours)"
    )
    components: int = Field(16, ge=1, description="principal components kept, d (ours)")
    width: int = Field(32, ge=4, multiple_of=4, description="channels of the network (ours)")
    blocks: int = Field(2, ge=1, description="residual blocks of the network (ours)")
    steps: int = Field(1200, ge=1, description="of the optimiser; epochs follow from the number of images (ours)")
    batch_size: int = Field(16, ge=1, description="images per step (ours)")
    lr: float = Field(1e-3, gt=0, description="of Adam, cosine to 0 (ours)")
    start: float = Field(0.01, gt=0, lt=1, description="time at which the ODE begins (ours; Song et al.: 1e-5)")
    solver_steps: int = Field(12, ge=1, description="of Heun from the start to 1, denser at the start (ours)")
    noised: float = Field(0.3, gt=0, le=1, description="time to which the map noises the features (ours)")
    sigma: float = Field(4.0, ge=0, description="smoothing of the map in pixels at 224 (as PatchCore), scaled")


def rate(t: torch.Tensor) -> torch.Tensor:
    """b(t) of times in [0, 1]."""
    return LEAST + (MOST - LEAST) * t


def scales_at(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """a(t) and s(t)."""
    log = -0.5 * (LEAST * t + 0.5 * (MOST - LEAST) * t.square())
    return log.exp(), (-torch.expm1(2 * log)).sqrt()


def times(first: float, last: float, count: int) -> torch.Tensor:
    """Times (count + 1,) from ``first`` to ``last``, closer together at the smaller end: f64."""
    share = torch.linspace(0, 1, count + 1, dtype=torch.float64)
    return first + (last - first) * (share.square() if last > first else 1 - (1 - share).square())


class NoiseNetwork(nn.Module):
    """e(x, t): residual convolutions that also see the place and the time.

    Args:
        channels: d of x (b d gh gw).
        width: Channels inside.
        blocks: Residual blocks.
    """

    def __init__(self, *, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.width = width
        self.enter = nn.Conv2d(channels + 2, width, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, width) for _ in range(blocks))
        self.first = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.time = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(blocks))
        self.leave = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Noise (b d gh gw) in x (b d gh gw) at times t (b,)."""
        b, _, h, w = x.shape
        rows = torch.linspace(-1, 1, h).to(x).view(1, 1, h, 1).expand(b, 1, h, w)
        columns = torch.linspace(-1, 1, w).to(x).view(1, 1, 1, w).expand(b, 1, h, w)
        waves = t[:, None] * (2 * math.pi * 2 ** (torch.arange(self.width // 2).to(x) % 8))
        told = torch.cat([waves.sin(), waves.cos()], 1)  # (b width)
        y = self.enter(torch.cat([x, rows, columns], 1))
        for norm, first, second, time in zip(self.norms, self.first, self.second, self.time, strict=True):
            scale, shift = time(told)[..., None, None].chunk(2, dim=1)
            y = y + second(F.silu(first(F.silu(norm(y) * (1 + scale) + shift))))
        noise: torch.Tensor = self.leave(F.silu(y))
        return noise


class AnoDODE(Method):
    """AnoDODE; see the module's header for the equations."""

    info = INFO
    Config = AnoDODEConfig
    long = True
    untraceable = "it integrates an equation with the gradients of its network"
    config: AnoDODEConfig
    centre: torch.Tensor
    basis: torch.Tensor
    probe: torch.Tensor
    noise: torch.Tensor
    usual_bits: torch.Tensor
    usual_map: torch.Tensor

    def prepare(self) -> None:
        """Tapped layers."""
        quarters = self.backbone.default_layers
        self.layers = self.backbone.check_layers(self.config.layers or quarters[: (len(quarters) + 1) // 2], first=0)

    def build(self, *, seed: int) -> None:
        """A fresh network, probe and noise."""
        c = self.config
        width = len(self.layers) * len(c.scales) * self.backbone.width
        d = min(c.components, width)
        shape = (1, d, *self.backbone.grid)
        self.network = NoiseNetwork(channels=d, width=c.width, blocks=c.blocks)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("basis", torch.zeros(width, d))  # components, divided by their spread
        generator = torch_seeded(seed, "probe")
        self.register_buffer("probe", 2.0 * torch.randint(2, shape, generator=generator) - 1)  # v
        self.register_buffer("noise", torch.randn(shape, generator=generator))
        self.register_buffer("usual_bits", torch.tensor([0.0, 1.0]))  # m, r
        self.register_buffer("usual_map", torch.zeros(()))

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train on the normal images of the support; others are not used."""
        c, device = self.config, self.backbone.device
        images = normals(support, normal_index=self.normal_index)
        with torch.no_grad():
            cache = self.backbone.cache
            tokens = self._tokens(cache.encode(x, layers=self.layers) for x in self._at_scales(images))
            self._reduce_by(tokens.flatten(0, 1))
            x0 = self.reduced(tokens)

        def loss(index: torch.Tensor, epoch: int) -> torch.Tensor:
            stream = f"{epoch}/{index.tolist()}"
            x = x0[index.to(device)]
            t = torch.rand(len(x), generator=torch_seeded(seed, f"time/{stream}")).to(x)
            t = c.start + (1 - c.start) * t
            return self.misfit(x, t, normal(tuple(x.shape), seed=seed, purpose=f"noise/{stream}", like=x))

        history = train(
            loss,
            [{"params": [*self.parameters()], "lr": c.lr}],
            count=len(x0),
            batch_size=c.batch_size,
            seed=seed,
            epochs=epochs_of(c.steps, count=len(x0), batch_size=c.batch_size),
            optimiser="adam",
            **self.course,
        )
        with torch.no_grad():
            parts = torch.split(x0, c.batch_size)
            bits = torch.cat([self.bits(part) for part in parts])
            self.usual_bits.copy_(torch.stack([bits.mean(), bits.std(correction=0).clamp(min=1e-3)]))
            self.usual_map.copy_(torch.cat([self.restored_error(part) for part in parts]).mean())
        return FitReport("last epoch", history)

    def _at_scales(self, images: torch.Tensor) -> Iterator[torch.Tensor]:
        """Images (b 3 s s) as they are and coarser, all of the backbone's size."""
        for scale in self.config.scales:
            side = max(1, round(scale * images.shape[-1]))
            coarse = images if scale == 1 else shrink(images, side)
            yield F.interpolate(coarse, size=images.shape[-2:], mode="bilinear") if scale != 1 else images

    def _tokens(self, features: Iterable[Features]) -> torch.Tensor:
        """All layers of all scales side by side, (b n w')."""
        return torch.cat([f.patches[layer] for f in features for layer in self.layers], -1)

    def _reduce_by(self, rows: torch.Tensor) -> None:
        """Set centre and basis to those of rows (m w'); directions of equal channels are kept as they come."""
        rows = rows.double()
        centre, spread = rows.mean(0), rows.std(0, correction=0).clamp(min=1e-6)
        scaled = (rows - centre) / spread
        values, vectors = torch.linalg.eigh(scaled.T @ scaled / len(rows))  # in rising order
        d = self.basis.shape[1]
        chosen = vectors[:, -d:].flip(1) / values[-d:].flip(0).clamp(min=1e-6).sqrt()
        self.centre.copy_(centre)
        self.basis.copy_(chosen / spread[:, None])

    def reduced(self, tokens: torch.Tensor) -> torch.Tensor:
        """x_0 (b d gh gw) of tokens (b n w')."""
        x = ((tokens - self.centre) @ self.basis).mT  # (b d n)
        return x.reshape(*x.shape[:2], *self.backbone.grid)

    def misfit(self, x: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The loss for x_0 (b d gh gw), times (b,) and noise e: a scalar."""
        a, s = (v.view(-1, 1, 1, 1) for v in scales_at(t))
        guess: torch.Tensor = self.network(a * x + s * noise, t)
        return (noise - guess).square().mean()

    def drift(self, x: torch.Tensor, t: torch.Tensor, *, divergence: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """dx/dt (b d gh gw) at one time, and its divergence (b,); 0 if that is not wanted."""
        b, s = rate(t), scales_at(t)[1]
        with torch.set_grad_enabled(divergence):
            at = x.detach().requires_grad_(divergence)
            noise = self.network(at, t.expand(len(x)).to(x))
            trace = x.new_zeros(len(x))
            if divergence:
                (slope,) = torch.autograd.grad((noise * self.probe).sum(), at)
                trace = (slope * self.probe).flatten(1).sum(1)
        noise, b, s = noise.detach(), b.to(x), s.to(x)
        flow = -0.5 * b * (x - noise / s)
        return flow, -0.5 * b * (x[0].numel() - trace / s) if divergence else trace

    def follow(self, x: torch.Tensor, at: torch.Tensor, *, divergence: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Heun's method along times (k + 1,): the end of x (b d gh gw) and the integral of the divergence (b,)."""
        total = x.new_zeros(len(x))
        for t, then in pairwise(at):
            step = (then - t).to(x)
            flow, div = self.drift(x, t, divergence=divergence)
            flow_then, div_then = self.drift(x + step * flow, then, divergence=divergence)
            x = x + step * (flow + flow_then) / 2
            total = total + step * (div + div_then) / 2
        return x, total

    def bits(self, x: torch.Tensor) -> torch.Tensor:
        """Bits per dimension (b,) of x_0 (b d gh gw)."""
        size = x[0].numel()
        end, change = self.follow(x, times(self.config.start, 1.0, self.config.solver_steps), divergence=True)
        log = -0.5 * (end.square().flatten(1).sum(1) + size * math.log(2 * math.pi)) + change
        return -log / (size * math.log(2))

    def restored_error(self, x: torch.Tensor) -> torch.Tensor:
        """Squared error (b gh gw) of x_0 (b d gh gw) that was noised and followed back."""
        c = self.config
        a, s = scales_at(torch.tensor(c.noised))
        count = max(1, round(c.solver_steps * math.sqrt(c.noised)))
        back, _ = self.follow(a * x + s * self.noise, times(c.noised, c.start, count), divergence=False)
        return (x - back).square().mean(1)

    def score(self, images: torch.Tensor) -> Scores:
        """Scores and maps (b s s) in [0, 1] of images f32 (b 3 s s)."""
        size = self.backbone.size
        features = (self.backbone.encode_image(x, layers=self.layers) for x in self._at_scales(images))
        x = self.reduced(self._tokens(features))
        maps = resize(self.restored_error(x), size, align_corners=False)
        maps = relative(smooth(maps, self.config.sigma * size / 224), self.usual_map)
        usual, spread = self.usual_bits
        return Scores(score=0.5 + torch.atan((self.bits(x) - usual) / spread) / math.pi, map=maps)


METHOD = AnoDODE
