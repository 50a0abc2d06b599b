"""Latent dissimilarity: how far the code of an image is from the code of what a variational autoencoder makes of it.

Paper      arXiv 2007.12455, 2020: a variational autoencoder of normal slices, and a dissimilarity in its latent space.
           Neither its text nor code of its authors could be read here; the equations are those of Kingma and
           Welling, ICLR 2014 (sections 2.2 to 3), and our own choices are listed in the deviations.
Equations  q(z|x)  encoder       N(m(x), diag v(x)) of the small grey picture x
           p(x|z)  decoder       N(d(z), s^2)
           loss    (Kingma 7)    (|x - d(z)|^2 / 2 s^2 + beta KL(q(z|x) | N(0, 1))) / pixels, z = m(x) + sqrt(v(x)) e
           x'      redrawn       d(m(x))
           score   dissimilarity KL(q(z|x) | q(z|x')) + KL(q(z|x') | q(z|x)), or |m(x) - m(x')|^2
           map                   |x - x'|, smoothed
           Both are given as e / (e + u), u the mean over the normal support images.
Reference  none; the tests compare with the equations in plain numpy.
Learned    encoder and decoder; the backbone is not used.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.autoencoder import convolution, epochs_of, mirrored, normal, relative, small, upward
from ultraad.nn.labelled import normals
from ultraad.nn.loop import train
from ultraad.nn.maps import smooth
from ultraad.types import Batch, FitReport, Scores

INFO = MethodInfo(
    name="latent_dissimilarity",
    title="Latent dissimilarity: a variational autoencoder of normal pictures",
    paper="arXiv 2007.12455, 2020; Kingma and Welling, ICLR 2014",
    url="https://arxiv.org/abs/2007.12455",
    reference="none; the equations are those of Kingma and Welling",
    licence="Apache-2.0",
    outputs=frozenset({"score", "map"}),
    needs=Needs(normal_images=True),
    idea="redraws the picture from a code that was learned on normal ones, and compares the codes of both",
    learned="encoder and decoder of a variational autoencoder",
    baseline=True,
    deviations=(
        "the text of the paper could not be read here: network, loss and weights are ours, after Kingma and Welling",
        "pictures of breast ultrasound instead of the slices of a volume; each is scored by itself",
        "two dissimilarities, as it is not known which one is the paper's (dissimilarity=distance is the other one)",
        "64 x 64 pixels and 0.1 million values, to train in minutes on a processor (side, width, codes, steps)",
        "errors e are given as e / (e + u), with u that of the normal support images; this changes no ranking",
    ),
)


class LatentDissimilarityConfig(MethodConfig):
    """Every option of the latent dissimilarity."""

    side: int = Field(64, ge=32, multiple_of=16, description="of the grey pictures, in pixels (ours)")
    width: int = Field(8, ge=4, multiple_of=4, description="channels at the first level; x 2, x 4, x 4 below (ours)")
    codes: int = Field(64, ge=1, description="dimensions of z (ours)")
    noise: float = Field(0.1, gt=0, description="s, standard deviation of a pixel in 0..1 (ours)")
    beta: float = Field(1.0, ge=0, description="weight of the divergence from N(0, 1) (Kingma and Welling: 1)")
    dissimilarity: Literal["divergence", "distance"] = Field(
        "divergence", description="symmetric divergence of both codes, or squared distance of their means (ours)"
    )
    mirror: bool = Field(default=True, description="mirror half of the pictures left-right in training (ours)")
    steps: int = Field(1200, ge=1, description="of the optimiser; epochs follow from the number of images (ours)")
    batch_size: int = Field(16, ge=1, description="images per step (ours)")
    lr: float = Field(1e-3, gt=0, description="of Adam, cosine to 0 (ours)")
    sigma: float = Field(4.0, ge=0, description="smoothing of the map in pixels at 224 (as PatchCore), scaled")


def divergence(means: torch.Tensor, logs: torch.Tensor) -> torch.Tensor:
    """KL(N(m, diag v) | N(0, 1)): (b,) from m and log v (b d)."""
    return 0.5 * (means.square() + logs.exp() - 1 - logs).sum(1)


def symmetric_divergence(
    means: torch.Tensor, logs: torch.Tensor, other_means: torch.Tensor, other_logs: torch.Tensor
) -> torch.Tensor:
    """KL(p | q) + KL(q | p) of two Gaussians with diagonal covariances: (b,) from means and log variances (b d)."""
    apart = (means - other_means).square()
    ratio = (logs - other_logs).exp()
    return 0.5 * (ratio + 1 / ratio - 2 + apart * ((-logs).exp() + (-other_logs).exp())).sum(1)


class LatentDissimilarity(Method):
    """Latent dissimilarity; see the module's header for the equations."""

    info = INFO
    Config = LatentDissimilarityConfig
    long = True
    config: LatentDissimilarityConfig
    usual_score: torch.Tensor
    usual_map: torch.Tensor

    def build(self, *, seed: int) -> None:
        """Fresh encoder and decoder."""
        c = self.config
        widths, corner = [1, c.width, 2 * c.width, 4 * c.width, 4 * c.width], c.side // 16
        self.encoder = nn.Sequential(
            *(convolution(a, b, stride=2) for a, b in pairwise(widths)),
            nn.Flatten(),
            nn.Linear(widths[-1] * corner**2, 2 * c.codes),
        )
        up = widths[:0:-1]
        self.decoder = nn.Sequential(
            nn.Linear(c.codes, up[0] * corner**2),
            nn.Unflatten(1, (up[0], corner, corner)),
            *(upward(a, b) for a, b in pairwise([*up, up[-1]])),
            nn.Conv2d(up[-1], 1, 3, padding=1),
        )
        self.register_buffer("usual_score", torch.zeros(()))
        self.register_buffer("usual_map", torch.zeros(()))

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train on the normal images of the support; others are not used."""
        c, device = self.config, self.backbone.device
        images = normals(support, normal_index=self.normal_index).to(device)
        pictures = small(images, self.backbone.preprocess, c.side)

        def loss(index: torch.Tensor, epoch: int) -> torch.Tensor:
            stream = f"{epoch}/{index.tolist()}"
            x = pictures[index.to(device)]
            if c.mirror:
                x = mirrored(x, seed=seed, purpose=f"mirror/{stream}")
            return self.bound(x, normal((len(x), c.codes), seed=seed, purpose=f"noise/{stream}", like=x))

        history = train(
            loss,
            [{"params": [*self.parameters()], "lr": c.lr}],
            count=len(pictures),
            batch_size=c.batch_size,
            seed=seed,
            epochs=epochs_of(c.steps, count=len(pictures), batch_size=c.batch_size),
            optimiser="adam",
            **self.course,
        )
        with torch.no_grad():
            found = [self.errors(part) for part in torch.split(pictures, c.batch_size)]
            self.usual_score.copy_(torch.cat([score for score, _ in found]).mean())
            self.usual_map.copy_(torch.cat([errors for _, errors in found]).mean())
        return FitReport("last epoch", history)

    def encode(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and log variances (b d) of the codes of pictures (b 1 side side)."""
        means, logs = self.encoder(pictures).chunk(2, dim=1)
        return means, logs.clamp(-10, 10)

    def bound(self, pictures: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The loss: pictures (b 1 side side), noise e (b d) to a scalar."""
        means, logs = self.encode(pictures)
        drawn = self.decoder(means + (logs / 2).exp() * noise)
        misfit = (pictures - drawn).square().flatten(1).sum(1) / (2 * self.config.noise**2)
        total = misfit + self.config.beta * divergence(means, logs)
        loss: torch.Tensor = total.mean() / self.config.side**2
        return loss

    def errors(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Dissimilarities (b,) and smoothed pixel errors (b side side) of pictures (b 1 side side)."""
        means, logs = self.encode(pictures)
        redrawn = self.decoder(means)
        other_means, other_logs = self.encode(redrawn)
        if self.config.dissimilarity == "distance":
            score = (means - other_means).square().sum(1)
        else:
            score = symmetric_divergence(means, logs, other_means, other_logs)
        maps = smooth((pictures - redrawn).abs()[:, 0], self.config.sigma * self.config.side / 224)
        return score, maps

    def score(self, images: torch.Tensor) -> Scores:
        """Scores and maps (b side side) in [0, 1) of images f32 (b 3 s s)."""
        score, maps = self.errors(small(images, self.backbone.preprocess, self.config.side))
        return Scores(score=relative(score, self.usual_score), map=relative(maps, self.usual_map))


METHOD = LatentDissimilarity
