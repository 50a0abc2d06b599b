"""Linear probe: logistic regression on the frozen class token, or on moments of the patches, without texts.

Paper      Radford et al., Learning Transferable Visual Models From Natural Language Supervision (CLIP), ICML 2021,
           arXiv 2103.00020, sec. 3.2 and appendix A.3.
Equations  p(c|x)   classes      softmax_c(w_c . f + b_c);   loss = sum of CE + |w|^2 / (2 C), solved by L-BFGS
Reference  KaiyangZhou/CoOp ff61507, lpclip (MIT); both use scikit-learn.
Learned    w, b; the image tower stays frozen.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field

from ultraad.methods import Holding, Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.augment import support_views
from ultraad.nn.class_tokens import grade
from ultraad.nn.moments import C, moments, regression
from ultraad.nn.prompts import unit
from ultraad.types import Batch, Features, FitReport, Scores

INFO = MethodInfo(
    name="linear_probe",
    title="Linear probe: logistic regression on the class token",
    paper="Radford et al., ICML 2021",
    url="https://arxiv.org/abs/2103.00020",
    reference="KaiyangZhou/CoOp ff61507, lpclip",
    licence="MIT",
    idea="fits a logistic regression to the image feature, without texts",
    learned="linear weights",
    outputs=frozenset({"score", "classes"}),
    needs=Needs(normal_images=True, abnormal_images=True, class_labels=True),
    baseline=True,
    deviations=(
        "C is fixed; the reference searches for it on a validation set (C)",
        "features are not normalised; the code of LP++ normalises them (features=unit)",
        "features=moments is ours, for organs that the tower was not trained on",
    ),
)


class LinearProbeConfig(MethodConfig):
    """Every option of the linear probe."""

    C: float = Field(C, gt=0, description="inverse strength of the penalty (CLIP's own example code)")
    features: Literal["raw", "unit", "moments"] = Field(
        "raw",
        description="class tokens as they are (CLIP, lpclip), or normalised; moments: mean and standard deviation of "
        "the patches over the image, as AdaIN describes a style (Huang and Belongie, ICCV 2017), each of unit variance "
        "on the support (ours)",
    )
    layers: tuple[int, ...] = Field(
        (0,), min_length=1, description="for moments: tapped layers, 0: patch embedding (the trunk of embedded)"
    )
    max_iterations: int = Field(1000, ge=1, description="limit for L-BFGS (CLIP appendix A.3)")
    views: int = Field(
        1, ge=1, description="augmented views per image, each a training example (ours; reference: the image)"
    )


class LinearProbe(Method):
    """Linear probe; see the module's header."""

    info = INFO
    Config = LinearProbeConfig
    learned_buffers = ("weight", "bias")
    config: LinearProbeConfig
    weight: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def also_missing(cls, held: Holding, config: LinearProbeConfig) -> str:  # noqa: ARG003
        """Images of every class: without texts nothing is known about a class that has none."""
        absent = [c for c, n in held.counts.items() if not n]
        return f"needs images of every class and found none of: {', '.join(absent)}" if absent else ""

    def prepare(self) -> None:
        """Tapped layers; none for class tokens."""
        wanted = self.config.features == "moments"
        self.layers = self.backbone.check_layers(self.config.layers, first=0) if wanted else ()

    def build(self, *, seed: int) -> None:
        """Zero weights."""
        width = 2 * len(self.layers) * self.backbone.width if self.layers else self.backbone.dim
        self.register_buffer("weight", torch.zeros(len(self.classes), width))
        self.register_buffer("bias", torch.zeros(len(self.classes)))

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Solve the regression."""
        c, b = self.config, self.backbone
        assert support.labels is not None  # checked by Method.fit
        views = support_views(support, c.views, seed=seed, preprocess=b.preprocess)
        x = torch.cat([self._features(b.cache.encode(images, layers=self.layers)) for images, _ in views])
        weight, bias = regression(
            x,
            support.labels.repeat(c.views),
            classes=len(self.classes),
            c=c.C,
            max_iter=c.max_iterations,
            standard=bool(self.layers),
        )
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        return FitReport("optimum of a convex loss")

    def _features(self, f: Features) -> torch.Tensor:
        if self.layers:
            return moments(f, self.layers)
        return unit(f.image) if self.config.features == "unit" else f.image

    def score(self, images: torch.Tensor) -> Scores:
        """``1 - p(normal)`` and class logits of images f32 (b 3 s s)."""
        f = self._features(self.backbone.encode_image(images, layers=self.layers))
        return grade(f @ self.weight.T + self.bias, normal_index=self.normal_index)


METHOD = LinearProbe
