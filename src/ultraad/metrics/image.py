"""Detection: does the image hold a lesion? One score per image, higher is more anomalous."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ultraad.metrics import curves
from ultraad.metrics.bootstrap import RESAMPLES, Array, Statistics, clusters, measure
from ultraad.metrics.curves import Ranking, ratio
from ultraad.metrics.metric import Metric

NAMES = (
    "image_auroc",
    "image_ap",
    "sensitivity_at_90",
    "sensitivity_at_95",
    "image_f1_oracle",
    "image_accuracy",
    "image_sensitivity",
    "image_specificity",
)


def statistics(scores: ArrayLike, anomalous: ArrayLike, *, threshold: float | None = None) -> Statistics:
    """Detection metrics as functions of image weights.

    ``sensitivity_at_90`` and ``_95`` are the largest sensitivity at a specificity of at least 0.90 and 0.95.
    ``image_f1_oracle`` is the largest F1 over all thresholds of these very images, an upper bound. Accuracy,
    sensitivity and specificity hold at the stored threshold, positive being ``score >= threshold``.

    Args:
        scores: (n,) finite.
        anomalous: bool (n,).
        threshold: Stored threshold; None leaves the last three undefined.

    Raises:
        DataError: If lengths differ or a score is not finite.
    """
    ranking = Ranking(scores, anomalous)
    truth = np.asarray(anomalous, dtype=bool)
    flagged = np.asarray(scores, dtype=np.float64) >= (np.nan if threshold is None else threshold)

    def compute(weights: Array) -> dict[str, Array]:
        neg, pos = ranking.masses(weights)
        hit, quiet = weights @ (flagged & truth), weights @ (~flagged & ~truth)
        known = 1.0 if threshold is not None else np.nan
        return {
            "image_auroc": curves.area(neg, pos),
            "image_ap": curves.average_precision(neg, pos),
            "sensitivity_at_90": curves.sensitivity_at(neg, pos, specificity=0.90),
            "sensitivity_at_95": curves.sensitivity_at(neg, pos, specificity=0.95),
            "image_f1_oracle": curves.f1_max(neg, pos),
            "image_accuracy": known * ratio(hit + quiet, weights.sum(1)),
            "image_sensitivity": known * ratio(hit, weights @ truth),
            "image_specificity": known * ratio(quiet, weights @ ~truth),
        }

    n, lesions = truth.size, int(truth.sum())
    sizes = dict.fromkeys(NAMES, n) | {"image_sensitivity": lesions, "image_specificity": n - lesions}
    reasons: dict[str, str] = {}
    if threshold is None:
        reasons |= dict.fromkeys(NAMES[5:], "no stored image threshold")
    if lesions == n:
        reasons |= dict.fromkeys(("image_auroc", *NAMES[2:4], "image_specificity"), "no normal image")
    if lesions == 0:
        reasons |= dict.fromkeys((*NAMES[:5], "image_sensitivity"), "no anomalous image")
    if n == 0:
        reasons = dict.fromkeys(NAMES, "no image is known to be normal or anomalous")
    return Statistics(compute, sizes, reasons)


def image_metrics(
    scores: ArrayLike,
    anomalous: ArrayLike,
    *,
    threshold: float | None = None,
    groups: Sequence[str | None] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Metric]:
    """Detection metrics with 95 % intervals.

    Args:
        scores: (n,) finite, higher is more anomalous.
        anomalous: bool (n,).
        threshold: Stored threshold; see :func:`statistics`.
        groups: Patient of each image; None resamples images.
        resamples: Bootstrap resamples; 0 for no intervals.
        seed: Seed of the bootstrap.

    Raises:
        DataError: If lengths differ or a score is not finite.
    """
    n = np.size(scores)
    cluster = clusters(groups if groups is not None else [None] * n)
    return measure(statistics(scores, anomalous, threshold=threshold), cluster, resamples=resamples, seed=seed)


def image_curves(scores: ArrayLike, anomalous: ArrayLike) -> dict[str, dict[str, list[float | None]]]:
    """``{"roc": ..., "pr": ...}``, at most 512 points each; see :func:`.curves.points`."""
    ranking = Ranking(scores, anomalous)
    neg, pos = ranking.masses()
    return curves.points(neg[0], pos[0], ranking.thresholds)
