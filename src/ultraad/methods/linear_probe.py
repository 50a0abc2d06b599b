"""Linear probe: logistic regression on the frozen class token, without texts.

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
from ultraad.nn.class_tokens import ClassTokens, grade
from ultraad.nn.prompts import unit
from ultraad.types import Batch, FitReport, Scores

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
    ),
)


class LinearProbeConfig(MethodConfig):
    """Every option of the linear probe."""

    C: float = Field(0.316, gt=0, description="inverse strength of the penalty (CLIP's own example code)")
    features: Literal["raw", "unit"] = Field(
        "raw", description="class tokens as they are (CLIP, lpclip), or normalised"
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

    def build(self, *, seed: int) -> None:
        """Zero weights."""
        self.register_buffer("weight", torch.zeros(len(self.classes), self.backbone.dim))
        self.register_buffer("bias", torch.zeros(len(self.classes)))

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Solve the regression."""
        from sklearn.linear_model import LogisticRegression  # slow to import

        c = self.config
        tokens = ClassTokens(self.backbone, support, count=c.views, seed=seed)
        solver = LogisticRegression(C=c.C, max_iter=c.max_iterations)
        solver.fit(
            self._features(tokens.views).flatten(0, 1).double().cpu().numpy(),
            tokens.labels.repeat(c.views).cpu().numpy(),
        )
        weight, bias = torch.from_numpy(solver.coef_), torch.from_numpy(solver.intercept_)
        if len(self.classes) == 2:  # scikit-learn returns the difference of the two logits
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        return FitReport("optimum of a convex loss")

    def _features(self, f: torch.Tensor) -> torch.Tensor:
        return unit(f) if self.config.features == "unit" else f

    def score(self, images: torch.Tensor) -> Scores:
        """``1 - p(normal)`` and class logits of images f32 (b 3 s s)."""
        f = self._features(self.backbone.encode_image(images).image)
        return grade(f @ self.weight.T + self.bias, normal_index=self.normal_index)


METHOD = LinearProbe
