"""A small cycle-consistent network between the looks of two scanners, and how far its way back will miss.

Papers     Zhu et al., CycleGAN, ICCV 2017, arXiv 1703.10593; Upadhyay et al., UGAC, NeurIPS 2021, arXiv 2110.12467.
           Bench et al., arXiv 2501.17570, ask whether such uncertainties are calibrated (of ensembles and dropout).
Equations  G(x), F(x)  there, back    x + c(x); c a convolutional network without norms, so that a pixel depends only on
                                      its surroundings, and a picture of any size gets what its patches would get
           cycle                      2 (|F(G(a)) - a| + |G(F(b)) - b|)
           identity                   1/2 (|G(b) - b| + |F(a) - a|)
           adversarial                (D(G(a)) - 1)^2 and 1/2 ((D(b) - 1)^2 + D(G(a))^2)
           spread                     |F(G(a)) - a| / s + log s: Laplace's law, which is UGAC's generalised Gaussian of
                                      shape 1; s is a second output of F on G(a)
Reference  junyanz/pytorch-CycleGAN-and-pix2pix 032e884 (BSD-2-Clause): cycle_gan_model.py, train_options.py, and
           ExplainableML/UncertaintyAwareCycleConsistency 2070939 (GPL-3.0): src/losses.py; facts only.
Deviations see docs/translation.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import nn
from torch.func import functional_call

from ultraad.config import Strict
from ultraad.nn.loop import Checkpoint, Plan, duration, train
from ultraad.rng import seeded, torch_forked

Grey = NDArray[np.float32]
HALF = 127.5  # grey values 0..255 are seen as -1..1
STEPS_OF_AN_EPOCH = 25  # between two ticks of the progress bar, and two checkpoints at most
_FEWEST = 1e-3  # smallest spread on the scale -1..1, an eighth of a grey value


class CycleConfig(Strict):
    """Every option of ``--by cycle``."""

    side: int | None = Field(
        256, ge=64, description="longer side in pixels at which the network sees pictures; None: as they are (ours)"
    )
    patch: int = Field(96, ge=32, multiple_of=8, description="side of the training patches in pixels (ours)")
    width: int = Field(16, ge=2, description="channels at half the size, twice as many below (ours; CycleGAN: 128)")
    blocks: int = Field(3, ge=0, description="residual blocks (CycleGAN: 9)")
    steps: int = Field(600, ge=1, description="of the optimiser (ours; CycleGAN: 200 passes over the pictures)")
    batch_size: int = Field(4, ge=1, description="patches of each look per step (ours; CycleGAN: 1)")
    lr: float = Field(1e-3, gt=0, description="of Adam, cosine to 0 (ours; CycleGAN: 2e-4)")
    beta1: float = Field(0.5, ge=0, lt=1, description="of Adam (CycleGAN)")
    cycle: float = Field(2.0, ge=0, description="weight of the cycle loss (ours; CycleGAN: 10)")
    identity: float = Field(0.5, ge=0, description="weight of the identity loss (ours; CycleGAN: half of cycle)")
    adversarial: float = Field(1.0, ge=0, description="weight of the adversarial loss (CycleGAN)")
    held_out: float = Field(0.2, gt=0, lt=1, description="share of the patients of FROM kept out, to calibrate (ours)")


@dataclass(frozen=True, slots=True, eq=False)
class There:
    """One picture that was translated and brought back.

    Attributes:
        change: f32 (h w), what is added to each pixel, in grey values.
        spread: f32 (h w), predicted mean absolute error of the way back, in grey values, > 0.
        error: f32 (h w), the error of the way back, in grey values.
        tissue: Errors and spreads (n,) of pixels that are not black, at the size that the network saw.
    """

    change: Grey
    spread: Grey
    error: Grey
    tissue: tuple[NDArray[np.float64], NDArray[np.float64]]


def _layer(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.LeakyReLU(0.2))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(_layer(channels, channels), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.inner(x)
        return out


class Generator(nn.Module):
    """x + c(x), and s, of pictures (b 1 h w) in -1..1 whose sides are multiples of 4; a new one changes nothing.

    It works on squares of 2 x 2 pixels. Outside the picture it sees black.

    Args:
        width: Channels at half the size; twice as many at a quarter.
        blocks: Residual blocks at a quarter of the size.
    """

    def __init__(self, *, width: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.PixelUnshuffle(2), _layer(4, width))
        self.down = _layer(width, 2 * width, stride=2)
        self.bottom = nn.Sequential(*(_Residual(2 * width) for _ in range(blocks)))
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), _layer(2 * width, width))
        self.leave = nn.Sequential(nn.Conv2d(2 * width, 4, 3, padding=1), nn.PixelShuffle(2))
        self.tell = nn.Sequential(_layer(2 * width, width), nn.Conv2d(width, 1, 1), nn.Upsample(scale_factor=2))
        for layer, bias in ((self.leave[0], 0.0), (self.tell[1], -3.0)):  # exp(-3): about six grey values
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.constant_(layer.bias, bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The picture in the other look, and the spread s, whose gradient ends at its own layers: (b 1 h w) each."""
        entered = self.enter(x + 1)  # the zeros of the padding are black
        both = torch.cat([self.up(self.bottom(self.down(entered))), entered], 1)
        return x + self.leave(both), self.tell(both.detach()).exp() + _FEWEST


def _critic(width: int) -> nn.Sequential:
    """Judgements (b 1 h/8 w/8) of pictures (b 1 h w): PatchGAN without norms."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [nn.Conv2d(inputs, outputs, 4, 2, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(4 * width, 1, 3, padding=1))


class Cycle(nn.Module):
    """Both generators and both critics."""

    def __init__(self, config: CycleConfig, *, seed: int) -> None:
        super().__init__()
        self.config = config
        with torch_forked(seed, "cycle/init"):
            self.there = Generator(width=config.width, blocks=config.blocks)
            self.back = Generator(width=config.width, blocks=config.blocks)
            self.judge_there = _critic(config.width)
            self.judge_back = _critic(config.width)

    def losses(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """The sum of all losses for patches of both looks (n 1 p p) in -1..1; each gradient reaches its own network."""
        c = self.config
        made_b, same_b = self.there(torch.cat([a, b]))[0].chunk(2)
        made_a, same_a = self.back(torch.cat([b, a]))[0].chunk(2)
        total = c.identity * ((same_b - b).abs().mean() + (same_a - a).abs().mean())
        for real, made, judge, home in (
            (b, made_b, self.judge_there, self.back),
            (a, made_a, self.judge_back, self.there),
        ):
            first = a if real is b else b
            again, spread = home(made)
            off = (again - first).abs()
            frozen = {name: p.detach() for name, p in judge.named_parameters()}
            fooled = (functional_call(judge, frozen, (made,)) - 1).square().mean()
            told = (off.detach() / spread + spread.log()).mean()
            judged = ((judge(real) - 1).square().mean() + judge(made.detach()).square().mean()) / 2
            total = total + c.cycle * off.mean() + c.adversarial * fooled + told + judged
        return torch.as_tensor(total)

    @torch.no_grad()
    def apply_to(self, grey: Grey) -> There:
        """One picture f32 (h w) in 0..255 there and back; the way back starts at whole grey values, as are saved."""
        seen = seen_at(grey, self.config)
        x = torch.from_numpy(seen / HALF - 1)[None, None].to(next(self.parameters()).device)
        made = _cropped(self.there(_padded(x))[0], seen.shape)
        saved = ((made + 1) * HALF).round().clamp(0, 255)
        again, spread = (_cropped(v, seen.shape) for v in self.back(_padded(saved / HALF - 1)))
        values = [HALF * v[0, 0].float().cpu().numpy() for v in (made - x, spread, (again - x).abs())]
        tissue = seen > 0
        at = (values[2][tissue].astype(np.float64), values[1][tissue].astype(np.float64))
        size = grey.shape[1], grey.shape[0]
        change, spreads, error = (
            np.asarray(cv2.resize(v, size, interpolation=cv2.INTER_LINEAR), np.float32) for v in values
        )
        return There(change=change, spread=spreads, error=error, tissue=at)


def seen_at(grey: Grey, config: CycleConfig) -> Grey:
    """A picture f32 (h w) at the size that the network sees; its shorter side is at least that of a patch."""
    h, w = grey.shape
    scale = 1.0 if config.side is None else config.side / max(h, w)
    scale = max(scale, config.patch / min(h, w))
    if scale == 1:
        return grey
    size = (max(config.patch, round(w * scale)), max(config.patch, round(h * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, size, interpolation=way), np.float32)


def _padded(x: torch.Tensor) -> torch.Tensor:
    """Sides to multiples of 4, by reflection at the right and the bottom."""
    return F.pad(x, (0, -x.shape[-1] % 4, 0, -x.shape[-2] % 4), mode="reflect")


def _cropped(x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return x[..., : shape[0], : shape[1]]


def patches(pictures: Sequence[NDArray[np.uint8]], size: int, *, rng: np.random.Generator, count: int) -> torch.Tensor:
    """Random patches f32 (count 1 size size) in -1..1, half of them mirrored; mostly of tissue where there is some."""
    found = []
    for _ in range(count):
        picture = pictures[int(rng.integers(len(pictures)))]
        room = picture.shape[0] - size + 1, picture.shape[1] - size + 1
        places = [(int(rng.integers(room[0])), int(rng.integers(room[1]))) for _ in range(4)]
        cuts = [picture[y : y + size, x : x + size] for y, x in places]
        cut = max(cuts, key=lambda p: min(float((p > 0).mean()), 0.9))  # all that are nearly full count the same
        found.append(cut[:, ::-1] if rng.random() < 0.5 else cut)
    return torch.from_numpy(np.stack(found).astype(np.float32) / HALF - 1)[:, None]


def fit(
    network: Cycle,
    here: Sequence[NDArray[np.uint8]],
    there: Sequence[NDArray[np.uint8]],
    *,
    seed: int,
    device: str = "cpu",
    announce: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[float, ...]:
    """Train a network on pictures u8 (h w) of both looks, of the size that it sees (:func:`seen_at`).

    Args:
        network: A new one.
        here: Pictures in the look of FROM, at least one.
        there: Pictures in the look of TO, at least one.
        seed: Of the patches.
        device: Where it is trained, and stays.
        announce: Called before the first step with a sentence about size, time and memory.
        progress: Called with (parts done, parts); a part has 25 steps.
        checkpoint: See :class:`ultraad.nn.loop.Checkpoint`.

    Returns:
        Mean loss of each part.
    """
    c = network.config
    network.to(device)

    def loss(index: torch.Tensor, epoch: int) -> torch.Tensor:
        first = int(index[0])
        a, b = (
            patches(set_, c.patch, rng=seeded(seed, f"cycle/{name}/{epoch}/{first}"), count=len(index)).to(device)
            for name, set_ in (("here", here), ("there", there))
        )
        return network.losses(a, b)

    def tell(plan: Plan) -> None:
        if announce is not None:
            announce(_in_words(plan, len(here), len(there), c))

    return train(
        loss,
        [{"params": [*network.parameters()], "lr": c.lr}],
        count=STEPS_OF_AN_EPOCH * c.batch_size,
        batch_size=c.batch_size,
        seed=seed,
        epochs=max(1, round(c.steps / STEPS_OF_AN_EPOCH)),
        optimiser="adam",
        betas=(c.beta1, 0.999),
        announce=tell,
        progress=progress,
        checkpoint=checkpoint,
    )


def _in_words(plan: Plan, here: int, there: int, c: CycleConfig) -> str:
    return (
        f"{plan.values:,} values are trained on patches of {c.patch} x {c.patch} pixels of {here} and {there} "
        f"pictures, {plan.steps:,} steps: about {duration(plan.seconds)}, and {plan.memory / 1e6:,.0f} MB beside them"
    )


def digest(pictures: Sequence[NDArray[np.uint8]]) -> str:
    """What tells two lists of pictures apart."""
    found = hashlib.sha256()
    for picture in pictures:
        found.update(repr(picture.shape).encode())
        found.update(np.ascontiguousarray(picture).tobytes())
    return found.hexdigest()
