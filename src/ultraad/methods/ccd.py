"""CCD: features learned by contrasting normal images with permuted ones, and Gaussians of them at every place.

Paper      Tian et al., MICCAI 2021, arXiv 2103.03423; its two detectors are PaDiM (Defard et al., ICPR 2020) and IGD
           (Chen et al., AAAI 2022, arXiv 2101.10043), whose equations are in ``nn/igd.py``.
Equations  A_k(x)  strong augmentation, k = 0..3: the halves of x exchanged up-down (k >= 2) and left-right (k odd)
           T(x)    weak augmentation: crop and resize, mirror, brightness, contrast
           con     contrast        -log exp(z z'/tau) / sum of exp(z z''/tau) over the other views z'' of the batch;
                                   z, z' are unit projections of two weak views of one A_k(x)
           cls     augmentation    cross-entropy of k from the features of both views
           pos     place           cross-entropy of the direction (one of 8) from a patch to its neighbour
           loss                    con + cls + pos
           d(p)    distance        sqrt((f(p) - m(p))' S(p)^-1 (f(p) - m(p))), f the features at place p; m(p) and
                                   S(p) = cov + 0.01 1 over the normal support images (PaDiM)
           map     d, upsampled and smoothed;  score = the largest of the map  (detector=padim)
           Both are given as e / (e + u), u the mean over the normal support images.
Reference  tianyu0207/CCD 046ecc9 (no licence file): configs, simclr.py, lag_loader.py, train_utils.py; facts only.
Learned    the encoder and its three heads, then the descriptor of IGD; the backbone is not used.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.autoencoder import convolution, epochs_of, relative, small
from ultraad.nn.igd import Descriptor
from ultraad.nn.labelled import normals
from ultraad.nn.loop import train
from ultraad.nn.maps import largest, resize, smooth
from ultraad.nn.prompts import unit
from ultraad.rng import torch_seeded
from ultraad.types import Batch, FitReport, Scores

INFO = MethodInfo(
    name="ccd",
    title="CCD: constrained contrastive features with Gaussians at every place",
    paper="Tian et al., MICCAI 2021",
    url="https://arxiv.org/abs/2103.03423",
    reference="tianyu0207/CCD 046ecc9",
    licence="no licence file; written from the paper and facts",
    outputs=frozenset({"score", "map"}),
    needs=Needs(normal_images=True),
    idea="learns features by telling apart permuted pictures, and measures how unusual those of a place are",
    learned="an encoder with three heads; a mean and a covariance for every place, or a Gaussian of codes",
    baseline=True,
    deviations=(
        "PaDiM is the default of the paper's two detectors; IGD (detector=igd) judges the whole picture with the "
        "frozen encoder, where IGD's reference has a second model for patches",
        "windows and scales of IGD's reference at 32 pixels; centre and spread are taken anew before every pass, there "
        "before every tenth",
        "both the global and the local constraint train one encoder, as in the local half of the reference",
        "a small encoder on grey pictures of 64 x 64 pixels instead of a ResNet-18 on crops of 256 x 256 "
        "(global) and 32 x 32 (local) (side, width)",
        "a few hundred steps instead of 2000 epochs, and Adam instead of SGD (steps)",
        "each image appears with one permutation per pass; the reference stores all four, so that they share batches",
        "cropped, mirrored, brighter or darker weak views; the reference also changes colours, which ultrasound lacks, "
        "and cuts a hole of up to 75 of 256 pixels into the global ones",
        "distances e are given as e / (e + u), with u that of the normal support images; this changes no ranking",
    ),
)

KINDS = 4
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))  # (rows, columns)
CROP = 0.2  # least share of the area that a weak view keeps, of the reference's configuration
JITTER = 0.4  # of brightness and contrast, likewise
SLACK = 0.01  # added to each variance, PaDiM


class CCDConfig(MethodConfig):
    """Every option of CCD."""

    side: int = Field(64, ge=32, multiple_of=16, description="of the grey pictures, in pixels (ours; reference: 256)")
    width: int = Field(16, ge=4, multiple_of=4, description="channels at the first level; x 2, x 4, x 4 below (ours)")
    projection: int = Field(128, ge=1, description="dimensions of z (reference simclr_global.yml)")
    temperature: float = Field(0.2, gt=0, description="tau (reference simclr_global.yml)")
    steps: int = Field(600, ge=1, description="of the optimiser; epochs follow from the number of images (ours)")
    batch_size: int = Field(32, ge=2, description="images per step (reference simclr_global.yml)")
    lr: float = Field(1e-3, gt=0, description="of Adam, cosine to 0 (ours; reference: SGD, 0.01 global, 0.1 local)")
    detector: Literal["padim", "igd"] = Field("padim", description="which of the two detectors of the paper (CCD)")
    features: int = Field(64, ge=1, description="padim: feature channels drawn for the Gaussians (PaDiM: 100)")
    codes: int = Field(128, ge=1, description="igd: dimensions of the code (IGD reference: 128)")
    igd_steps: int = Field(
        600, ge=1, description="igd: of the optimiser, after the others (ours; reference: 256 epochs)"
    )
    sigma: float = Field(4.0, ge=0, description="smoothing of the map in pixels at 224 (PaDiM), scaled")


def permute(pictures: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
    """A_k(x): pictures (b 1 r r) with exchanged halves, by int64 (b,) in 0..3."""
    half = pictures.shape[-1] // 2
    rows, columns = (kinds >= 2).view(-1, 1, 1, 1), (kinds % 2 == 1).view(-1, 1, 1, 1)
    pictures = torch.where(rows, pictures.roll(half, dims=2), pictures)
    return torch.where(columns, pictures.roll(half, dims=3), pictures)


def weak_views(pictures: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    """T(x): a random crop of each picture (b 1 r r), resized, mirrored, with another brightness and contrast."""
    draws = torch.rand(6, len(pictures), generator=generator).to(pictures)
    size = (CROP + (1 - CROP) * draws[0]).sqrt()
    mirror = 1 - 2 * (draws[1] < 0.5).to(pictures)
    zero = torch.zeros_like(size)
    across, down = ((1 - size) * (2 * d - 1) for d in draws[2:4])
    theta = torch.stack([size * mirror, zero, across, zero, size, down], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    x = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    gain, contrast = (1 + JITTER * (2 * d - 1).view(-1, 1, 1, 1) for d in draws[4:])
    mean = x.mean((2, 3), keepdim=True)
    views: torch.Tensor = ((x - mean) * contrast + mean) * gain
    return views.clamp(0, 1)


def neighbours(
    pictures: torch.Tensor, *, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two patches of each picture, a quarter of its side, and the direction from one to the other, int64 (b,)."""
    side = pictures.shape[-1]
    patch, room = side // 4, side // 2  # the first patch leaves a patch of room on all sides
    place = patch + torch.randint(room - patch + 1, (2, len(pictures)), generator=generator)
    kinds = torch.randint(len(DIRECTIONS), (len(pictures),), generator=generator)
    first, second = [], []
    for i, kind in enumerate(kinds.tolist()):
        y, x = place[:, i].tolist()
        dy, dx = (patch * d for d in DIRECTIONS[kind])
        first.append(pictures[i, :, y : y + patch, x : x + patch])
        second.append(pictures[i, :, y + dy : y + dy + patch, x + dx : x + dx + patch])
    return torch.stack(first), torch.stack(second), kinds


def contrast(one: torch.Tensor, other: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """The loss con of unit projections (b d) of two views: every view against all others of the batch, averaged."""
    z = torch.cat([one, other])  # (2b d)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    b = len(one)
    partner = torch.arange(2 * b, device=z.device).roll(b)
    return F.cross_entropy(logits, partner)


class CCD(Method):
    """CCD; see the module's header for the equations."""

    info = INFO
    Config = CCDConfig
    long = True
    config: CCDConfig
    drawn: torch.Tensor
    centre: torch.Tensor
    whitening: torch.Tensor
    usual_score: torch.Tensor
    usual_map: torch.Tensor

    def build(self, *, seed: int) -> None:
        """A fresh encoder, fresh heads, and the channels of the Gaussians."""
        c = self.config
        widths = [1, c.width, 2 * c.width, 4 * c.width, 4 * c.width]
        self.levels = nn.ModuleList(convolution(a, b, stride=2) for a, b in pairwise(widths))
        d = widths[-1]
        self.project = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, c.projection))
        self.classify = nn.Linear(d, KINDS)
        self.locate = nn.Sequential(nn.Linear(2 * d, d), nn.ReLU(), nn.Linear(d, len(DIRECTIONS)))
        every = sum(widths[2:])
        chosen = torch.randperm(every, generator=torch_seeded(seed, "features"))[: c.features].sort().values
        places = (c.side // 4) ** 2
        if c.detector == "igd":
            self.igd = Descriptor(features=d, side=c.side, width=c.width, codes=c.codes)
        else:
            self.register_buffer("drawn", chosen)
            self.register_buffer("centre", torch.zeros(places, len(chosen)))  # m
            self.register_buffer("whitening", torch.zeros(places, len(chosen), len(chosen)))  # W with W' W = S^-1
        self.register_buffer("usual_score", torch.zeros(()))
        self.register_buffer("usual_map", torch.zeros(()))

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train on the normal images of the support, then fit the Gaussians; others are not used."""
        c, device = self.config, self.backbone.device
        images = normals(support, normal_index=self.normal_index).to(device)
        pictures = small(images, self.backbone.preprocess, c.side)
        first = epochs_of(c.steps, count=len(pictures), batch_size=c.batch_size)
        more = epochs_of(c.igd_steps, count=len(pictures), batch_size=c.batch_size) if c.detector == "igd" else 0
        settled: list[float] = []  # the pass and the encoder that centre and spread are of

        def loss(index: torch.Tensor, epoch: int) -> torch.Tensor:
            generator = torch_seeded(seed, f"views/{epoch}/{index.tolist()}")
            x = pictures[index.to(device)]
            if epoch >= first:
                with torch.no_grad():
                    now = [float(epoch), *(float(p.sum()) for p in self.levels.parameters())]
                    if settled != now:
                        settled[:] = now
                        self._settle(pictures)
                alpha = torch.rand(len(x), generator=generator).to(device) / 2
                return self.igd.losses(x, self._pooled(x), alpha)
            kinds = torch.randint(KINDS, (len(x),), generator=generator).to(device)
            strong = permute(x, kinds)
            one, other = (weak_views(strong, generator=generator) for _ in range(2))
            return self.three_losses(one, other, kinds, neighbours(x, generator=generator))

        history = train(
            loss,
            [{"params": [*self.parameters()], "lr": c.lr}],
            count=len(pictures),
            batch_size=c.batch_size,
            seed=seed,
            epochs=first + more,
            optimiser="adam",
            **self.course,
        )
        with torch.no_grad():
            parts = torch.split(pictures, c.batch_size)
            if c.detector == "igd":
                self._settle(pictures)
            else:
                self._fit_gaussians(torch.cat([self.places(part) for part in parts]))
            found = [self.errors(part) for part in parts]
            self.usual_score.copy_(torch.cat([score for score, _ in found]).mean())
            self.usual_map.copy_(torch.cat([maps for _, maps in found]).mean())
        return FitReport("last epoch", history)

    def three_losses(
        self,
        one: torch.Tensor,
        other: torch.Tensor,
        kinds: torch.Tensor,
        patches: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """The loss of two views (b 1 r r), their permutations (b,), and what :func:`neighbours` gives."""
        f, g = self.encode(one)[-1].mean((2, 3)), self.encode(other)[-1].mean((2, 3))  # (b d)
        total = contrast(unit(self.project(f)), unit(self.project(g)), temperature=self.config.temperature)
        total = total + F.cross_entropy(self.classify(torch.cat([f, g])), kinds.repeat(2))
        pair = torch.cat([self.encode(patch)[-1].mean((2, 3)) for patch in patches[:2]], 1)
        return total + F.cross_entropy(self.locate(pair), patches[2].to(pair.device))

    def encode(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """Features (b c r' r') of every level, of pictures (b 1 r r)."""
        levels = []
        x = pictures - 0.5
        for level in self.levels:
            x = level(x)
            levels.append(x)
        return levels

    @torch.no_grad()
    def _pooled(self, pictures: torch.Tensor) -> torch.Tensor:
        """Features (b d) of the last level of the frozen encoder, of pictures (b 1 r r)."""
        return self.encode(pictures)[-1].mean((2, 3))

    def _settle(self, pictures: torch.Tensor) -> None:
        parts = torch.split(pictures, self.config.batch_size)
        self.igd.settle(torch.cat([self._pooled(part) for part in parts]))

    def places(self, pictures: torch.Tensor) -> torch.Tensor:
        """Features f (b p d): the drawn channels of all levels but the first, on the grid of the second."""
        levels = self.encode(pictures)[1:]
        size = levels[0].shape[-2:]
        x = torch.cat([F.interpolate(level, size=size, mode="nearest") for level in levels], 1)
        return x[:, self.drawn].flatten(2).mT

    def _fit_gaussians(self, features: torch.Tensor) -> None:
        """Set m and W from features of normal images (m p d)."""
        x = features.double()
        self.centre.copy_(x.mean(0))
        off = (x - x.mean(0)).transpose(0, 1)  # (p m d)
        covariance = off.mT @ off / max(1, len(x) - 1)
        covariance = covariance + SLACK * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        lower = torch.linalg.cholesky(covariance)
        eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device).expand_as(lower)
        self.whitening.copy_(torch.linalg.solve_triangular(lower, eye, upper=False))

    def errors(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (b,) and smoothed maps (b s s) of pictures (b 1 side side): of d, or of IGD."""
        size, grid = self.backbone.size, self.config.side // 4
        if self.config.detector == "igd":
            score, maps = self.igd.errors(pictures, self._pooled(pictures))
            return score, smooth(resize(maps, size, align_corners=False), self.config.sigma * size / 224)
        off = (self.places(pictures) - self.centre).transpose(0, 1)  # (p b d)
        distance = (off @ self.whitening.mT).square().sum(-1).sqrt().T  # (b p)
        maps = resize(distance.reshape(-1, grid, grid), size, align_corners=False)
        maps = smooth(maps, self.config.sigma * size / 224)
        return largest(maps), maps

    def score(self, images: torch.Tensor) -> Scores:
        """Scores and maps (b s s) in [0, 1) of images f32 (b 3 s s)."""
        score, maps = self.errors(small(images, self.backbone.preprocess, self.config.side))
        return Scores(score=relative(score, self.usual_score), map=relative(maps, self.usual_map))


METHOD = CCD
