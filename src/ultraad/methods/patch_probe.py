"""Patch probe: logistic regression on frozen patch tokens, a baseline for every adapter.

Paper      none; CLIP's linear probe (Radford et al., ICML 2021, sec. 3.2) moved from images to patches.
Equations  x_p    n(ln_post(P_l)) of each tapped layer l, concatenated        one row per patch p
           y_p    1 if at least half of the patch is lesion                   or both labels, weighted by lesion share
           w, b   argmin |w|^2 / 2 + C sum_p v_p log(1 + exp(-(2 y_p - 1) (w x_p + b)))
           map    sigma(w x_p + b), upsampled and smoothed; score: its largest values
Reference  scikit-learn's LogisticRegression is the solver
Learned    w, b; the problem is convex
Deviations none
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from ultraad.errors import DataError
from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.augment import support_views
from ultraad.nn.labelled import labelled
from ultraad.nn.maps import largest, resize, smooth
from ultraad.nn.prompts import unit
from ultraad.types import Batch, Features, FitReport, Scores

INFO = MethodInfo(
    name="patch_probe",
    title="Patch probe: logistic regression of lesion patches on frozen tokens",
    paper="ours; after the linear probe of Radford et al., ICML 2021",
    url="https://arxiv.org/abs/2103.00020",
    reference="scikit-learn LogisticRegression (BSD-3-Clause)",
    licence="Apache-2.0",
    outputs=frozenset({"score", "map"}),
    needs=Needs(abnormal_images=True, masks=True),
    idea="separates lesion patches from the others by logistic regression on frozen features",
    learned="one weight per token channel of each tapped layer, and a bias",
    baseline=True,
)

TOLERANCE = 1e-6  # of the solver; with its default, 1e-4, probabilities are off by several thousandths


class PatchProbeConfig(MethodConfig):
    """Every option of the patch probe."""

    layers: tuple[int, ...] | None = Field(
        None, description="tapped layers, 0: patch embedding; None: quarters of the tower"
    )
    C: float = Field(0.316, gt=0, description="inverse strength of the L2 penalty (CLIP's linear probe: 0.316)")
    balanced: bool = Field(default=False, description="equal total weight for lesion and background patches (ours)")
    labels: Literal["hard", "soft"] = Field(
        "hard", description="a patch is lesion if half of it is, or in proportion to its lesion pixels (ours)"
    )
    views: int = Field(1, ge=1, description="augmented views per image; the first is the image itself (ours)")
    max_iter: int = Field(1000, ge=1, description="limit for L-BFGS (CLIP's linear probe: 1000)")
    sigma: float = Field(4.0, ge=0, description="smoothing in pixels at 336, scaled with the input (as UltraAD's)")
    topk: float = Field(
        0.0, ge=0, le=1, description="score: mean of this share of the largest map values; 0: the maximum (ours)"
    )


class PatchProbe(Method):
    """Patch probe; see the module's header for the equations and :class:`PatchProbeConfig` for every option."""

    info = INFO
    Config = PatchProbeConfig
    learned_buffers = ("weight", "bias")
    config: PatchProbeConfig
    weight: torch.Tensor
    bias: torch.Tensor

    def prepare(self) -> None:
        """Tapped layers."""
        self.layers = self.backbone.check_layers(self.config.layers or self.backbone.default_layers, first=0)

    def build(self, *, seed: int) -> None:
        """Zero weights."""
        self.register_buffer("weight", torch.zeros(len(self.layers) * self.backbone.width))
        self.register_buffer("bias", torch.zeros(()))

    @torch.no_grad()
    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Solve for the weights. The seed only affects the views after the first.

        Raises:
            DataError: If no patch, or every patch, counts as lesion.
        """
        from sklearn.linear_model import LogisticRegression

        x, share = self._patches(support, seed=seed)
        if self.config.labels == "soft":  # a border patch counts twice; its two weights add up to 1
            back, lesion = share < 1, share > 0
            x, weight = torch.cat([x[back], x[lesion]]), torch.cat([1 - share[back], share[lesion]])
            y = torch.arange(2).repeat_interleave(torch.stack([back.sum(), lesion.sum()]))
        else:
            y, weight = (share >= 0.5).long(), torch.ones_like(share)
        if bool((y == y[0]).all()):
            what = "no patch is" if int(y[0]) == 0 else "all patches are"
            msg = (
                f"{what} lesion in the {len(support)} support images, and the patch probe needs both kinds; "
                "check the masks, and set labels=soft if lesions are smaller than a patch"
            )
            raise DataError(msg)
        if self.config.balanced:
            total = torch.zeros(2).index_add_(0, y, weight)
            weight = weight * (weight.sum() / (2 * total))[y]
        probe = LogisticRegression(C=self.config.C, tol=TOLERANCE, max_iter=self.config.max_iter)
        probe.fit(x.numpy(), y.numpy(), sample_weight=weight.numpy())
        self.weight.copy_(torch.from_numpy(probe.coef_[0]))
        self.bias.copy_(torch.tensor(probe.intercept_[0]))
        return FitReport("optimum of a convex loss")

    def _patches(self, support: Batch, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Every patch of every view with a known mask: tokens f32 (m w) and lesion share f32 (m,), on the CPU."""
        known = labelled(support, normal_index=self.normal_index).known
        support = support.select(known.nonzero().flatten().tolist())
        tokens, shares = [], []
        for images, masks in support_views(support, self.config.views, seed=seed, preprocess=self.backbone.preprocess):
            features = self.backbone.cache.encode(images, layers=self.layers)
            tokens.append(self.tokens(features).flatten(0, 1).cpu())  # (m w)
            shares.append(F.adaptive_avg_pool2d(masks.float()[:, None], self.backbone.grid).flatten().cpu())  # (m,)
        return torch.cat(tokens), torch.cat(shares)

    def tokens(self, features: Features) -> torch.Tensor:
        """Input of the probe: f32 (b n l*w)."""
        return torch.cat([unit(self.backbone.post_norm(features.patches[layer])) for layer in self.layers], -1)

    def score(self, images: torch.Tensor) -> Scores:
        """Score and map, both in [0, 1], of images f32 (b 3 s s); the map has the model input's resolution."""
        c, size = self.config, self.backbone.size
        features = self.backbone.encode_image(images, layers=self.layers)
        probs = (self.tokens(features) @ self.weight + self.bias).sigmoid()  # (b n)
        maps = resize(probs.view(-1, *features.grid), size, align_corners=False)  # (b s s)
        maps = smooth(maps, c.sigma * size / 336).clamp(0, 1)
        return Scores(score=largest(maps, share=c.topk), map=maps)


METHOD = PatchProbe
