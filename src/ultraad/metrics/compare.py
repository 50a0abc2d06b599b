"""Paired tests of two methods on the same images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultraad.errors import DataError
from ultraad.metrics.bootstrap import LEVEL, RESAMPLES, Array, interval, replicates
from ultraad.metrics.curves import Ranking, area


@dataclass(frozen=True, slots=True)
class Difference:
    """A minus B, with a 95 % interval and a two-sided p-value (NaN where undefined)."""

    value: float
    low: float
    high: float
    p: float


def _placements(scores: Array, positive: NDArray[np.bool_]) -> tuple[Array, Array]:
    """For each positive the share of negatives below it, for each negative that of positives above; ties count half."""
    pos, neg = np.sort(scores[positive]), np.sort(scores[~positive])

    def below(values: Array, others: Array) -> Array:
        both = np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")
        return both / (2 * others.size)

    return below(scores[positive], neg), 1 - below(scores[~positive], pos)


def delong(scores: ArrayLike, anomalous: ArrayLike) -> tuple[Array, Array]:
    """AUROCs and their covariance, DeLong, DeLong and Clarke-Pearson 1988.

    It assumes independent images. With several images per patient, use :func:`paired_bootstrap`.

    Args:
        scores: (k n), one row per method, or (n,); NaN for images that a method was not tested on.
        anomalous: bool (n,).

    Returns:
        AUROC (k,) of each method on its images, and covariance (k k), to which only images of both methods add.

    Raises:
        DataError: If shapes differ, or a method has fewer than two images of a kind.
    """
    s, y = np.atleast_2d(np.asarray(scores, dtype=np.float64)), np.asarray(anomalous, dtype=bool)
    if s.ndim != 2 or s.shape[1:] != y.shape or np.isinf(s).any():
        msg = f"DeLong needs finite scores (k n) and labels (n,), got {s.shape} and {y.shape}"
        raise DataError(msg)
    auroc, parts = np.empty(len(s)), np.zeros_like(s)  # parts: what each image adds to the deviation of an AUROC
    for k, row in enumerate(s):
        there = np.isfinite(row)
        sides = there & y, there & ~y
        positives, negatives = (int(side.sum()) for side in sides)
        if min(positives, negatives) < 2:
            msg = f"DeLong needs at least two normal and two anomalous images, got {negatives} and {positives}"
            raise DataError(msg)
        for side, placed in zip(sides, _placements(row[there], y[there]), strict=True):
            auroc[k] = placed.mean()
            parts[k, side] = (placed - auroc[k]) / math.sqrt(placed.size * (placed.size - 1))
    return auroc, parts @ parts.T


def delong_test(a: ArrayLike, b: ArrayLike, anomalous: ArrayLike) -> Difference:
    """Paired DeLong test of two methods' image AUROC; see :func:`delong`.

    Args:
        a: (n,) scores of method A, or (s n) scores of s fits, whose AUROCs are averaged; NaN as for :func:`delong`.
        b: Those of method B; the number of fits may differ.
        anomalous: bool (n,).

    Raises:
        DataError: As for :func:`delong`.
    """
    first, second = np.atleast_2d(np.asarray(a)), np.atleast_2d(np.asarray(b))
    auroc, covariance = delong(np.concatenate([first, second]), anomalous)
    contrast = np.r_[np.full(len(first), 1 / len(first)), np.full(len(second), -1 / len(second))]  # mean minus mean
    value = float(contrast @ auroc)
    sd = math.sqrt(max(float(contrast @ covariance @ contrast), 0.0))
    if sd < 1e-12:  # the same ranking up to rounding
        return Difference(value, value, value, 1.0 if abs(value) < 1e-12 else 0.0)
    half = 1.959963984540054 * sd  # the normal 97.5 % point
    return Difference(value, value - half, value + half, math.erfc(abs(value) / sd / math.sqrt(2)))


def auroc_of(scores: ArrayLike, anomalous: ArrayLike) -> Callable[[Array], Array]:
    """The AUROC as a function of image weights (b n), for :func:`paired_bootstrap`."""
    ranking = Ranking(scores, anomalous)
    return lambda weights: area(*ranking.masses(weights))


def paired_bootstrap(
    a: Callable[[Array], Array],
    b: Callable[[Array], Array],
    cluster: NDArray[np.intp],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Bootstrap difference of any metric; both methods see the same resampled patients.

    Args:
        a: Metric of method A as a function of image weights (b n) -> (b,), e.g. :func:`auroc_of`.
        b: That of method B.
        cluster: int (n,) resampled unit of each image; see :func:`.bootstrap.clusters`.
        resamples: At least 1.
        seed: Seed of the draw.

    Returns:
        The percentile interval. p is twice the smaller share of resamples on one side of 0, with one more counted on
        each side, so it is never 0.
    """
    one = np.ones((1, cluster.size))
    drawn = replicates(lambda w: {"difference": a(w) - b(w)}, cluster, resamples=resamples, seed=seed)["difference"]
    return resampled_difference(float((a(one) - b(one))[0]), drawn)


def resampled_difference(value: float, drawn: Array) -> Difference:
    """A difference from its value on all images and on each resample (m,); see :func:`paired_bootstrap`."""
    low, high = interval(drawn, level=LEVEL) or (math.nan, math.nan)
    known = drawn[np.isfinite(drawn)]
    tail = 1 + min(int((known <= 0).sum()), int((known >= 0).sum()))
    return Difference(value, low, high, min(1.0, 2 * tail / (known.size + 1)) if known.size else math.nan)


def holm(p: ArrayLike) -> Array:
    """P-values (m,) with Holm's step-down adjustment (Holm 1979), in the given order."""
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    adjusted = np.maximum.accumulate(raw[order] * np.arange(raw.size, 0, -1)).clip(max=1.0)
    out = np.empty_like(raw)
    out[order] = adjusted
    return out
