"""LP++: a linear probe plus the logits of the class texts, with one learned weight per class.

Paper      Huang et al., LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP, CVPR 2024, arXiv 2404.02285.
Equations  S_c(x)   classes      w_c . n(f) + b_c + alpha_c n(f) . t_c;   loss = CE over the whole support
           start                 w_c = sum of the class's n(f),  alpha_c = 250 mean over classes of the mean n(f) . t_c
           rates                 of w, b: 4 m / lambda_max(F^T F), SGD;  of alpha: m / (4 max_c sum_i (n(f_i) . t_c)^2)
Reference  FereshteShakeri/FewShot-CLIP-Strong-Baseline f81054f (no licence; written from the paper).
Learned    w, b, alpha; both towers and the class texts t stay frozen. No learning rate is searched.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.class_texts import TextSource, class_texts
from ultraad.nn.class_tokens import ClassTokens, grade
from ultraad.nn.loop import EnoughEpochs
from ultraad.nn.prompts import unit
from ultraad.texts.bank import TextBank
from ultraad.types import Batch, FitReport, Scores

INFO = MethodInfo(
    name="lp_plus_plus",
    title="LP++: a surprisingly strong linear probe for few-shot CLIP",
    paper="Huang et al., CVPR 2024",
    url="https://arxiv.org/abs/2404.02285",
    reference="FereshteShakeri/FewShot-CLIP-Strong-Baseline f81054f",
    licence="none stated; written from the paper",
    idea="adds the class texts to a linear probe, with learning rates computed from the data",
    learned="linear weights, and the weight of the texts per class",
    outputs=frozenset({"score", "classes"}),
    needs=Needs(abnormal_images=True, class_labels=True),
    zero_shot=True,
    deviations=(
        "the gradient of alpha accumulates from the first step, because the reference never resets it "
        "(alpha_grad=last: the current gradient alone)",
        "weights start as class sums, as in the reference, so they grow with the shots (start=mean: class means)",
        "the last step is kept; the reference chooses one on a validation set of the same size as the support",
        "trains on the image itself (views); the reference trains on one random crop of each image",
        "several sentences per class (text=template: the reference's single template)",
        "classes may differ in size or have no image; the reference computes their number as images / shots",
    ),
)

START_SCALE = 250.0
"""Factor of the initial alpha (reference; the paper derives the mean similarity that it multiplies)."""


class LPPlusPlusConfig(MethodConfig):
    """Every option of LP++."""

    texts: TextBank | None = Field(None, description="text bank; None: breast ultrasound (ours)")
    text: TextSource = Field("bank", description="the bank's sentences (ours), or 'a photo of a ...' (reference)")
    start: Literal["sum", "mean"] = Field("sum", description="initial weights: class sums (reference) or means (ours)")
    alpha_grad: Literal["accumulate", "last"] = Field(
        "accumulate", description="gradient of alpha: the sum of all steps so far (reference), or the current one"
    )
    alpha_every: int = Field(10, ge=1, description="steps of the weights per step of alpha (reference)")
    steps: int = Field(300, ge=0, description="full-batch steps (reference)")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD (reference)")
    views: int = Field(1, ge=1, description="augmented views per image, all in the batch (ours; reference: one crop)")


def first_alpha(f: torch.Tensor, labels: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Initial alpha, one number for all classes: f32 ().

    Args:
        f: Unit class tokens f32 (m d).
        labels: int64 (m,).
        text: Unit class texts f32 (c d).
    """
    own = (f * text[labels]).sum(1)  # (m,), each image with its own class
    return START_SCALE * torch.stack([own[labels == c].mean() for c in sorted(set(labels.tolist()))]).mean()


def weight_rate(f: torch.Tensor) -> float:
    """Step size of the linear weights: 4 m / lambda_max(F^T F), F the unit class tokens (m d)."""
    return 4 * len(f) / float(torch.linalg.matrix_norm(f.cpu(), 2)) ** 2


def alpha_rate(f: torch.Tensor, text: torch.Tensor) -> float:
    """Step size of alpha: m / (4 max_c sum_i (f_i . t_c)^2)."""
    return len(f) / (4 * float((f @ text.T).square().sum(0).max()))


class LPPlusPlus(Method):
    """LP++; see the module's header for the equations."""

    info = INFO
    Config = LPPlusPlusConfig
    config: LPPlusPlusConfig

    def prepare(self) -> None:
        """Class texts."""
        c = self.config
        self.text, self.notes = class_texts(self.backbone, self.classes, c.texts, source=c.text)  # (c d)

    def build(self, *, seed: int) -> None:
        """Zero-shot CLIP except for a random bias."""
        classes = len(self.classes)
        self.linear = nn.Linear(self.backbone.dim, classes)
        nn.init.zeros_(self.linear.weight)
        self.alpha = nn.Parameter(torch.full((classes,), self.backbone.logit_scale))

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train weights and alpha. Without images: zero-shot CLIP."""
        if len(support) == 0:
            nn.init.zeros_(self.linear.bias)
            return FitReport("zero-shot")
        views = self.config.views
        tokens = ClassTokens(self.backbone, support, count=views, seed=seed)
        f, labels = unit(tokens.views).flatten(0, 1), tokens.labels.repeat(views)  # (m d), (m,)
        self.start(f, labels)
        return FitReport("last epoch", self.descend(f, labels))

    @torch.no_grad()
    def start(self, f: torch.Tensor, labels: torch.Tensor) -> None:
        """Set weights and alpha from unit class tokens (m d) and labels int64 (m,); the bias stays random."""
        member = F.one_hot(labels, len(self.classes)).float()  # (m c)
        sums = member.T @ f
        counts = member.sum(0).clamp(min=1)[:, None]
        self.linear.weight.copy_(sums / counts if self.config.start == "mean" else sums)
        self.alpha.fill_(float(first_alpha(f, labels, self.text)))

    def descend(self, f: torch.Tensor, labels: torch.Tensor) -> tuple[float, ...]:
        """Full-batch gradient descent from the current state.

        Args:
            f: Unit class tokens f32 (m d).
            labels: int64 (m,).

        Returns:
            Loss before each step.
        """
        c = self.config
        weights = torch.optim.SGD(self.linear.parameters(), lr=weight_rate(f), momentum=c.momentum)
        blend = torch.optim.SGD([self.alpha], lr=alpha_rate(f, self.text))
        history: list[float] = []
        for step in range(1, c.steps + 1):
            weights.zero_grad()
            if c.alpha_grad == "last":
                blend.zero_grad()
            with torch.enable_grad():
                loss = F.cross_entropy(self.for_loss(self.blended(f)), labels)
                loss.backward()  # type: ignore[no-untyped-call]
            history.append(float(loss.detach()))
            weights.step()
            if step % c.alpha_every == 0:
                blend.step()
            if self.progress is not None:
                try:
                    self.progress(step, c.steps)
                except EnoughEpochs:
                    break
        return tuple(history)

    def blended(self, f: torch.Tensor) -> torch.Tensor:
        """S (b c) of unit class tokens (b d)."""
        logits: torch.Tensor = self.linear(f)
        return logits + self.alpha * (f @ self.text.T)

    def score(self, images: torch.Tensor) -> Scores:
        """``1 - p(normal)`` and class logits of images f32 (b 3 s s)."""
        f = unit(self.backbone.encode_image(images).image)
        texts = None if self.normal_seen else self.backbone.logit_scale * f @ self.text.T
        return grade(self.blended(f), normal_index=self.normal_index, texts=texts)


METHOD = LPPlusPlus
