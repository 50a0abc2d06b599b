"""What is known of another scanner from unlabelled images of it: how its images differ, and how a threshold was moved.

For prediction sets under shift, images are told apart by one number, the logarithm of their distance to the support
images (:mod:`.scope`); that of a support image is its leave-one-out distance. The likelihood ratio is that of a
logistic regression between the held-out support images and unlabelled images of the new scanner, each side with the
same total weight: exp(a + b distance). One number, because some tens of images cannot show a ratio of more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from ultraad.config import Strict
from ultraad.metrics.conformal import effective_number

_RIDGE = 1e-3  # of the squared slope, so that sides without overlap have a finite one
_STEPS = 100


class Shift(Strict):
    """The shift to another scanner, as likelihood ratios.

    Attributes:
        intercept: a of the logarithm of the ratio.
        slope: b of it.
        distances: Of the held-out support images, in their order.
        images: Unlabelled images of the new scanner.
        effective: Number of equally weighted images that the held-out ones are worth there: the smaller of Kish's
            number and of the sum of their ratios over the mean ratio of the new images, which is far smaller where the
            two hardly overlap.
    """

    intercept: float
    slope: float
    distances: tuple[float, ...] = Field(description="logarithms")
    images: int
    effective: float

    def ratio(self, distances: ArrayLike) -> NDArray[np.float64]:
        """Likelihood ratios of images at these log distances (n,)."""
        return np.exp(np.clip(self.intercept + self.slope * np.asarray(distances, dtype=np.float64), -50, 50))


class Transfer(Strict):
    """How the image threshold was moved to another scanner (:mod:`ultraad.model.retune`).

    Attributes:
        way: As in :mod:`ultraad.model.transfer`.
        rule: Which threshold was moved: the stored one, or that of an operating point.
        before: That threshold.
        low: Lower end of the 95 % bootstrap interval of the moved threshold.
        high: Its upper end.
        images: Unlabelled images of the new scanner.
        prevalence: Share of them that was said to show a lesion; None: that of the support set.
        shift: How their images differ from the support images; None if that is not known, and in earlier versions.
    """

    way: str
    rule: str
    before: float
    low: float
    high: float
    images: int
    prevalence: float | None = None
    shift: Shift | None = None


def shift_of(own: Sequence[float], fresh: Sequence[float]) -> Shift:
    """The shift from support images to those of a new scanner.

    Args:
        own: Log distances (n,) of held-out support images, at least one.
        fresh: Log distances (m,) of images of the new scanner, at least one.
    """
    x = np.r_[np.asarray(own, dtype=np.float64), np.asarray(fresh, dtype=np.float64)]
    new = np.r_[np.zeros(len(own)), np.ones(len(fresh))]
    part = np.where(new > 0, 0.5 / len(fresh), 0.5 / len(own))
    middle, spread = float(x.mean()), max(float(x.std()), 1e-6)
    z = np.stack([np.ones_like(x), (x - middle) / spread], 1)  # (n+m 2)
    line = np.zeros(2)
    ridge = np.diag([0.0, 2 * _RIDGE])
    for _ in range(_STEPS):  # Newton's method; the loss is convex
        p = 1 / (1 + np.exp(-z @ line))
        slope = z.T @ (part * (p - new)) + ridge @ line
        curve = (z * (part * p * (1 - p))[:, None]).T @ z + ridge + 1e-12 * np.eye(2)
        step = np.linalg.solve(curve, slope)
        line -= step * min(1.0, 5 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-9:
            break
    a, b = float(line[0] - line[1] * middle / spread), float(line[1] / spread)
    found = Shift(intercept=a, slope=b, distances=tuple(map(float, own)), images=len(fresh), effective=1.0)
    known = found.ratio(own)
    worth = min(effective_number(known), float(known.sum() / found.ratio(fresh).mean()))
    return found.model_copy(update={"effective": worth})
