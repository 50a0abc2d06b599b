"""Detection: does the image show a lesion? One score per image, higher is more anomalous."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ultraad.metrics import curves
from ultraad.metrics.bootstrap import RESAMPLES, Array, Statistics, clusters, measure
from ultraad.metrics.catalogue import Need
from ultraad.metrics.curves import Ranking, ratio
from ultraad.metrics.metric import Metric


@dataclass(frozen=True, slots=True)
class Counts:
    """The input of a formula: counts of weighted images, for b weightings at once.

    Attributes:
        neg: (b m) normal images at each distinct score, falling.
        pos: (b m) lesion images at each distinct score.
        normals: (b,) normal images.
        lesions: (b,) lesion images.
        true_negatives: (b,) normal images below the stored threshold; NaN without a threshold.
        true_positives: (b,) lesion images at or above it; NaN without a threshold.
    """

    neg: Array
    pos: Array
    normals: Array
    lesions: Array
    true_negatives: Array
    true_positives: Array


FORMULAS: Mapping[str, Callable[[Counts], Array]] = {
    "image_auroc": lambda c: curves.area(c.neg, c.pos),
    "image_ap": lambda c: _beside_normals(c, curves.average_precision(c.neg, c.pos)),
    "sensitivity_at_90": lambda c: curves.sensitivity_at(c.neg, c.pos, specificity=0.90),
    "sensitivity_at_95": lambda c: curves.sensitivity_at(c.neg, c.pos, specificity=0.95),
    "image_f1_oracle": lambda c: _beside_normals(c, curves.f1_max(c.neg, c.pos)),
    "image_accuracy": lambda c: ratio(c.true_positives + c.true_negatives, c.lesions + c.normals),
    "image_sensitivity": lambda c: ratio(c.true_positives, c.lesions),
    "image_specificity": lambda c: ratio(c.true_negatives, c.normals),
}
"""Each metric (b,) from the counts, NaN where undefined; in the order of metrics.json."""


def _beside_normals(c: Counts, value: Array) -> Array:
    """The value (b,), NaN without a normal image: precision is 1 there, whatever the scores are."""
    return np.where(c.normals > 0, value, np.nan)


def statistics(scores: ArrayLike, anomalous: ArrayLike, *, threshold: float | None = None) -> Statistics:
    """Detection metrics as functions of image weights.

    Args:
        scores: (n,) finite.
        anomalous: bool (n,).
        threshold: Stored threshold, positive is ``score >= threshold``; None leaves the metrics at it undefined.

    Raises:
        DataError: If lengths differ or a score is not finite.
    """
    ranking = Ranking(scores, anomalous)
    truth = np.asarray(anomalous, dtype=bool)
    flagged = np.asarray(scores, dtype=np.float64) >= (np.nan if threshold is None else threshold)
    known = np.nan if threshold is None else 1.0

    def compute(weights: Array) -> dict[str, Array]:
        counts = Counts(
            *ranking.masses(weights),
            normals=weights @ ~truth,
            lesions=weights @ truth,
            true_negatives=known * (weights @ (~flagged & ~truth)),
            true_positives=known * (weights @ (flagged & truth)),
        )
        return {name: formula(counts) for name, formula in FORMULAS.items()}

    n, lesions = truth.size, int(truth.sum())
    unmet: dict[Need, str] = {}
    if n == 0:
        unmet["images"] = "no image is known to be normal or anomalous"
    if lesions == 0:
        unmet["lesion"] = "no anomalous image"
    if lesions == n:
        unmet["normal"] = "no normal image"
    if threshold is None:
        unmet["threshold"] = "no stored image threshold"
    return Statistics.of(
        compute,
        FORMULAS,
        sizes={"all": n, "lesion": lesions, "normal": n - lesions},
        sides={
            "all": np.ones((1, n), dtype=bool),
            "lesion": truth[None],
            "normal": ~truth[None],
            "normal and lesion": np.stack([~truth, truth]),
        },
        unmet=unmet,
    )


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
