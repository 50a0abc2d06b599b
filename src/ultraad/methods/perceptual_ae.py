"""Deep perceptual autoencoder: redraws the picture, and compares both with the eyes of the backbone.

Paper      Shvetsova et al., IEEE Access 2021, arXiv 2006.13265.
Equations  f(x)   features          tokens of the tapped layers of the frozen backbone
           f~(x)  normalised        (f(x) - mu) / sigma, mu and sigma of each channel
           x'     redrawn           g(e(x)), a convolutional autoencoder
           L      relative          |f~(x) - f~(x')|_1 / |f~(x)|_1 of each layer, averaged over the layers: the loss of
                  perceptual L1     training and the score
           growth progressive       training begins at a quarter of the side, which is doubled twice; the first half of
                                    each stage fades the new layers in
           map    per patch         mean_c |f~(x) - f~(x')| / |f~(x)|_1
           Score and map are given as e / (e + u), u the mean over the normal support images.
Reference  ninatu/anomaly_detection 6fa35f3 (Apache-2.0): dpa/rec_losses.py, dpa/pg_*.py, configs/dpa.
Learned    the autoencoder; the backbone stays frozen.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from ultraad.backbones._gist import listening
from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.augment import from_intensity
from ultraad.nn.autoencoder import convolution, epochs_of, mirrored, relative, shrink, small, upward
from ultraad.nn.labelled import normals
from ultraad.nn.loop import train
from ultraad.nn.maps import resize, smooth
from ultraad.types import Batch, FitReport, Scores

INFO = MethodInfo(
    name="perceptual_ae",
    title="Deep perceptual autoencoder: a redrawn picture, compared by frozen features",
    paper="Shvetsova et al., IEEE Access 2021",
    url="https://arxiv.org/abs/2006.13265",
    reference="ninatu/anomaly_detection 6fa35f3",
    licence="Apache-2.0",
    outputs=frozenset({"score", "map"}),
    needs=Needs(normal_images=True),
    idea="redraws the picture with an autoencoder of normal ones, and compares features of both",
    learned="the autoencoder",
    baseline=True,
    deviations=(
        "features of the backbone's first step instead of VGG-19's r42 on ImageNet (layers)",
        "mu and sigma come from the normal support images instead of ImageNet; the code of the reference divides by "
        "the variance, the paper by the standard deviation, as here",
        "both pictures are enlarged to the backbone's input before they are compared",
        "the autoencoder is plain and small, without residual blocks, to train in minutes on a processor (side, width)",
        "stages have equal shares of a few hundred steps; the paper's have 40,000 each (steps, batch_size)",
        "all stages are compared at the same layer; the reference uses an earlier one below 64 pixels",
        "hyper-parameters are fixed; the paper chooses them with a few labelled abnormal images",
        "errors e are given as e / (e + u), with u that of the normal support images; this changes no ranking",
        "the paper draws no map; ours is the error of each patch",
    ),
)

STAGES = 3


class PerceptualAEConfig(MethodConfig):
    """Every option of the deep perceptual autoencoder."""

    layers: tuple[int, ...] = Field(
        (0,), min_length=1, description="tapped layers that are compared, 0: the backbone's first step (ours)"
    )
    side: int = Field(64, ge=32, multiple_of=16, description="of the grey pictures, in pixels (reference: 64)")
    width: int = Field(8, ge=4, multiple_of=4, description="channels at the full side; x 2, x 4 below (ours)")
    codes: int = Field(16, ge=1, description="channels of the code, side / 16 squared (reference: 4 on side / 8)")
    progressive: bool = Field(default=True, description="grow from a quarter of the side (paper)")
    mirror: bool = Field(default=True, description="mirror half of the pictures left-right (reference: random flips)")
    steps: int = Field(200, ge=1, description="of the optimiser; epochs follow from the number of images (ours)")
    batch_size: int = Field(8, ge=1, description="images per step (ours; reference: 128)")
    lr: float = Field(1e-3, gt=0, description="of Adam, constant (reference configs/dpa)")
    sigma: float = Field(4.0, ge=0, description="smoothing of the map in pixels at 224 (as PatchCore), scaled")


def relative_l1(features: torch.Tensor, redrawn: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """|f~(x) - f~(x')|_1 / |f~(x)|_1 from normalised features (b n w): for images (b,), and for patches (b n)."""
    size = features.abs().mean((1, 2))  # (b,)
    patches = (features - redrawn).abs().mean(2) / size[:, None]  # (b n)
    return patches.mean(1), patches


class Autoencoder(nn.Module):
    """Pictures (b 1 r r) of several sides r to a code of side / 16 and back.

    Args:
        side: Largest r; the others are halves of it.
        width: Channels at ``side``.
        codes: Channels of the code.
        stages: Number of sides.
    """

    def __init__(self, *, side: int, width: int, codes: int, stages: int) -> None:
        super().__init__()
        channels = [width, 2 * width, 4 * width, 4 * width, 4 * width]  # at side, side / 2, ... side / 16
        pairs = list(pairwise(channels))
        self.side, self.stages = side, stages
        self.down = nn.ModuleList(convolution(a, b, stride=2) for a, b in pairs)
        self.up = nn.ModuleList(upward(b, a) for a, b in pairs)
        self.read = nn.ModuleList(nn.Conv2d(1, channels[i], 1) for i in range(stages))
        self.draw = nn.ModuleList(nn.Conv2d(channels[i], 1, 1) for i in range(stages))
        self.code = nn.Conv2d(channels[-1], codes, 1)
        self.uncode = nn.Conv2d(codes, channels[-1], 1)

    def forward(self, pictures: torch.Tensor, *, level: int = 0, fade: float = 1.0) -> torch.Tensor:
        """Redraw pictures of ``side / 2^level`` pixels.

        Args:
            pictures: f32 (b 1 r r).
            level: 0 for the full side; below ``stages``.
            fade: Share of this level's own layers; the rest comes from the level below, as in the stage before.
        """
        x = self.down[level](self.read[level](pictures))
        if fade < 1:
            coarse = self.read[level + 1](shrink(pictures, pictures.shape[-1] // 2))
            x = fade * x + (1 - fade) * coarse
        for down in self.down[level + 1 :]:
            x = down(x)
        x = self.uncode(self.code(x))
        for up in reversed(self.up[level + 1 :]):
            x = up(x)
        drawn: torch.Tensor = self.draw[level](self.up[level](x))
        if fade < 1:
            drawn = fade * drawn + (1 - fade) * F.interpolate(self.draw[level + 1](x), scale_factor=2)
        return drawn


def stage_of(epoch: int, *, epochs: int, stages: int) -> tuple[int, float]:
    """Level (0: the full side) and fade of an epoch; the last stages come first if there are too few epochs for all."""

    def level(e: int) -> int:
        return (epochs - 1 - e) * stages // epochs

    now = level(epoch)
    if now == stages - 1:
        return now, 1.0
    members = [e for e in range(epochs) if level(e) == now]
    return now, min(1.0, 2 * (members.index(epoch) + 1) / len(members))


class PerceptualAE(Method):
    """Deep perceptual autoencoder; see the module's header for the equations."""

    info = INFO
    Config = PerceptualAEConfig
    long = True
    config: PerceptualAEConfig
    centre: torch.Tensor
    spread: torch.Tensor
    usual_score: torch.Tensor
    usual_map: torch.Tensor

    def prepare(self) -> None:
        """Tapped layers."""
        self.layers = self.backbone.check_layers(self.config.layers, first=0)

    def build(self, *, seed: int) -> None:
        """A fresh autoencoder."""
        c, shape = self.config, (len(self.layers), self.backbone.width)
        stages = STAGES if c.progressive else 1
        self.autoencoder = Autoencoder(side=c.side, width=c.width, codes=c.codes, stages=stages)
        self.register_buffer("centre", torch.zeros(shape))  # mu (l w)
        self.register_buffer("spread", torch.ones(shape))  # sigma (l w)
        self.register_buffer("usual_score", torch.zeros(()))
        self.register_buffer("usual_map", torch.zeros(()))

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train on the normal images of the support; others are not used."""
        c, device = self.config, self.backbone.device
        images = normals(support, normal_index=self.normal_index).to(device)
        pictures = small(images, self.backbone.preprocess, c.side)
        with torch.no_grad():
            self._measure(pictures)
        epochs = epochs_of(c.steps, count=len(pictures), batch_size=c.batch_size)

        def loss(index: torch.Tensor, epoch: int) -> torch.Tensor:
            level, fade = stage_of(epoch, epochs=epochs, stages=self.autoencoder.stages)
            x = shrink(pictures[index.to(device)], c.side >> level)
            if c.mirror:
                x = mirrored(x, seed=seed, purpose=f"mirror/{epoch}/{index.tolist()}")
            return self._compare(x, self.autoencoder(x, level=level, fade=fade))[0].mean()

        history = train(
            loss,
            [{"params": [*self.parameters()], "lr": c.lr}],
            count=len(pictures),
            batch_size=c.batch_size,
            seed=seed,
            epochs=epochs,
            optimiser="adam",
            schedule="constant",
            **self.course,
        )
        with torch.no_grad():
            found = [self.errors(part) for part in torch.split(pictures, c.batch_size)]
            self.usual_score.copy_(torch.cat([score for score, _ in found]).mean())
            self.usual_map.copy_(torch.cat([maps for _, maps in found]).mean())
        return FitReport("last epoch", history)

    def _measure(self, pictures: torch.Tensor) -> None:
        """Set mu and sigma to those of the pictures."""
        parts = [self._features(part) for part in torch.split(pictures, self.config.batch_size)]
        for i in range(len(self.layers)):
            tokens = torch.cat([part[i].flatten(0, 1) for part in parts])  # (m w)
            self.centre[i] = tokens.mean(0)
            self.spread[i] = tokens.std(0).clamp(min=1e-6)

    def _features(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """Features f of grey pictures (b 1 r r) in 0..1, for each layer f32 (b n w)."""
        b = self.backbone
        large = F.interpolate(pictures, size=(b.size, b.size), mode="bilinear", align_corners=False)
        with listening(b):  # such pictures say nothing about the image's kind
            tokens = b.embed_image(from_intensity(large.expand(-1, 3, -1, -1), b.preprocess))
        if self.layers == (0,):
            return [tokens[:, 1:].float()]
        patches = b.encode_tokens(tokens, layers=self.layers).patches
        return [patches[layer] for layer in self.layers]

    def _compare(self, pictures: torch.Tensor, redrawn: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """L of pictures and redrawn ones (b 1 r r): for images (b,), and for patches (b n)."""
        with torch.no_grad():
            wanted = self._features(pictures)
        scale = list(zip(self.centre[:, None, None], self.spread[:, None, None], strict=True))  # (1 1 w) each
        pairs = [
            relative_l1((x - mu) / sigma, (y - mu) / sigma)
            for x, y, (mu, sigma) in zip(wanted, self._features(redrawn), scale, strict=True)
        ]
        images, patches = (torch.stack(values).mean(0) for values in zip(*pairs, strict=True))
        return images, patches

    def errors(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """L (b,) and its smoothed map (b s s) of pictures (b 1 side side)."""
        score, patches = self._compare(pictures, self.autoencoder(pictures))
        size = self.backbone.size
        maps = resize(patches.reshape(-1, *self.backbone.grid), size, align_corners=False)
        return score, smooth(maps, self.config.sigma * size / 224)

    def score(self, images: torch.Tensor) -> Scores:
        """Scores and maps (b s s) in [0, 1) of images f32 (b 3 s s)."""
        score, maps = self.errors(small(images, self.backbone.preprocess, self.config.side))
        return Scores(score=relative(score, self.usual_score), map=relative(maps, self.usual_map))


METHOD = PerceptualAE
