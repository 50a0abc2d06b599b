"""Moments of the patches: what a picture is made of, whatever its place; and a regression on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ultraad.types import Features

C = 0.316
"""Inverse strength of the penalty: that of CLIP's own example code of a linear probe."""


def moments(f: Features, layers: Sequence[int]) -> torch.Tensor:
    """Mean and standard deviation of the patches over each image, f32 (b 2*l*w), as AdaIN describes a style.

    Source: Huang and Belongie, ICCV 2017, arXiv 1703.06868, eqs. 5 to 7, there over a convolutional map.
    """
    parts = [torch.std_mean(f.patches[layer].float(), 1, correction=0) for layer in layers]
    return torch.cat([mean for _, mean in parts] + [spread for spread, _ in parts], -1)


def regression(
    x: torch.Tensor, labels: torch.Tensor, *, classes: int, c: float = C, max_iter: int = 1000, standard: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Multinomial logistic regression with an L2 penalty: weights (k d) and biases (k,), f64 on the CPU.

    Args:
        x: (m d).
        labels: int64 (m,), each of the k classes at least once.
        classes: k.
        c: Inverse strength of the penalty.
        max_iter: Limit for L-BFGS.
        standard: Fit on features of unit variance over these examples; the weights are for features as they are.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import

    x = x.double().cpu()
    mean, scale = (x.mean(0), x.std(0, correction=0).clamp_min(1e-6)) if standard else (0 * x[0], 1 + 0 * x[0])
    solver = LogisticRegression(C=c, max_iter=max_iter).fit(((x - mean) / scale).numpy(), labels.cpu().numpy())
    weight = torch.from_numpy(solver.coef_) / scale
    bias = torch.from_numpy(solver.intercept_) - weight @ mean
    if classes == 2:  # scikit-learn returns the difference of the two logits
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return weight, bias


class MomentVote(nn.Module):
    """A regression on the moments before the first block.

    Args:
        classes: k.
        width: Channels w of the tower.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(classes, 2 * width))
        self.register_buffer("bias", torch.zeros(classes))

    def learn(self, f: Features, labels: torch.Tensor) -> tuple[str, ...]:
        """Solve the regression for (b,) labels; without images of every class, all classes stay equally probable.

        Returns:
            What a user should know.
        """
        if len(set(labels.tolist())) < len(self.bias):
            return ("the moments of the patches have no say about the class: they need images of every class",)
        weight, bias = regression(moments(f, (0,)), labels, classes=len(self.bias), standard=True)
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        return ("the moments of the patches count as a second opinion on the class (cls.moments)",)

    def forward(self, f: Features) -> torch.Tensor:
        """Log-probabilities (b k)."""
        return (moments(f, (0,)) @ self.weight.T + self.bias).log_softmax(-1)
