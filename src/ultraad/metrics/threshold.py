"""Thresholds, fitted only on the scores they are given: those of the support set or of a development part.

A threshold chosen on test labels is an oracle; only the metrics named ``*_oracle`` use one. Positive always means
``score >= threshold``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultraad.errors import ConfigError
from ultraad.metrics import curves
from ultraad.metrics.curves import Array, Ranking
from ultraad.metrics.pixel import PixelMetrics

FEW = 20  # with fewer images of a kind, each image moves a rate by more than 5 points


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold, and what it was fitted on.

    Attributes:
        value: Positive is ``score >= value``; None if it could not be fitted.
        rule: The criterion that was maximised or kept.
        n: Images it was fitted on.
        achieved: Value of the criterion on those images, not an estimate for new ones; None if not fitted.
        note: A warning for the user: a kind is missing or rare; None without one.
    """

    value: float | None
    rule: str
    n: int
    achieved: float | None = None
    note: str | None = None


def _between(thresholds: Array, j: int) -> float:
    """Half-way from the j-th highest score to the next lower one, which leaves a margin on both sides."""
    lower = thresholds[min(j + 1, thresholds.size - 1)]
    middle = float(thresholds[j] + lower) / 2
    return middle if middle > lower else float(thresholds[j])


def _note(normal: int, anomalous: int) -> str | None:
    few = [f"{n} {kind}" for n, kind in ((normal, "normal"), (anomalous, "anomalous")) if n < FEW]
    return f"fitted on only {' and '.join(few)} images: expect other rates on new ones" if few else None


def _maximise(rule: str, scores: ArrayLike, anomalous: ArrayLike) -> Threshold:
    ranking = Ranking(scores, anomalous)
    neg, pos = (m[0] for m in ranking.masses())
    n, p, q = int(neg.sum() + pos.sum()), int(pos.sum()), int(neg.sum())
    if not p or not q:
        return Threshold(None, rule, n, note=f"needs normal and anomalous images, got {q} and {p}")
    criterion = curves.f1(neg, pos) if rule == "f1" else np.cumsum(pos) / p - np.cumsum(neg) / q
    best = int(criterion.argmax())  # the highest threshold of several: fewest false alarms
    return Threshold(_between(ranking.thresholds, best), rule, n, float(criterion[best]), _note(q, p))


def youden(scores: ArrayLike, anomalous: ArrayLike) -> Threshold:
    """The threshold that maximises sensitivity + specificity - 1 (Youden 1950).

    Args:
        scores: (n,) finite, higher is more anomalous.
        anomalous: bool (n,).

    Raises:
        DataError: If lengths differ or a score is not finite.
    """
    return _maximise("youden", scores, anomalous)


def f1(scores: ArrayLike, anomalous: ArrayLike) -> Threshold:
    """The threshold that maximises F1 of the anomalous class; arguments as for :func:`youden`."""
    return _maximise("f1", scores, anomalous)


def at_specificity(scores: ArrayLike, anomalous: ArrayLike, *, specificity: float = 0.9) -> Threshold:
    """The lowest threshold that keeps this specificity; needs normal images only.

    Args:
        scores: (n,) finite, higher is more anomalous.
        anomalous: bool (n,).
        specificity: In (0, 1].

    Raises:
        ConfigError: If ``specificity`` is out of range.
        DataError: If lengths differ or a score is not finite.
    """
    if not 0 < specificity <= 1:
        msg = f"specificity must be in (0, 1], got {specificity}; 0.9 allows false alarms in one of ten normal images"
        raise ConfigError(msg)
    rule = f"specificity>={specificity:g}"
    ranking = Ranking(scores, anomalous)
    neg, pos = (m[0] for m in ranking.masses())
    n, q = int(neg.sum() + pos.sum()), int(neg.sum())
    if not q:
        return Threshold(None, rule, n, note="needs normal images, got none")
    specific = 1 - np.cumsum(neg) / q
    allowed = int((specific >= specificity - 1e-9).sum())  # specificity falls with the threshold
    note = _note(q, FEW)
    if allowed == 0:  # even the highest score flags too many normal images
        top = float(np.nextafter(ranking.thresholds[0], np.inf))
        return Threshold(top, rule, n, 1.0, note)
    return Threshold(_between(ranking.thresholds, allowed - 1), rule, n, float(specific[allowed - 1]), note)


def at_sensitivity(scores: ArrayLike, anomalous: ArrayLike, *, sensitivity: float = 0.95) -> Threshold:
    """The highest threshold that keeps this sensitivity; needs lesion images only.

    Args:
        scores: (n,) finite, higher is more anomalous.
        anomalous: bool (n,).
        sensitivity: In (0, 1].

    Raises:
        ConfigError: If ``sensitivity`` is out of range.
        DataError: If lengths differ or a score is not finite.
    """
    if not 0 < sensitivity <= 1:
        msg = f"sensitivity must be in (0, 1], got {sensitivity}; 0.95 allows one of twenty lesion images to be missed"
        raise ConfigError(msg)
    rule = f"sensitivity>={sensitivity:g}"
    ranking = Ranking(scores, anomalous)
    neg, pos = (m[0] for m in ranking.masses())
    n, p = int(neg.sum() + pos.sum()), int(pos.sum())
    if not p:
        return Threshold(None, rule, n, note="needs lesion images, got none")
    sensitive = np.cumsum(pos) / p  # rises as the threshold falls
    first = int((sensitive >= sensitivity - 1e-9).argmax())
    return Threshold(_between(ranking.thresholds, first), rule, n, float(sensitive[first]), _note(FEW, p))


def rate_interval(found: int, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a rate (Clopper and Pearson 1934).

    It also holds for a rate that :func:`at_sensitivity` or :func:`at_specificity` has kept on the same images, because
    the share of new images beyond an order statistic is beta distributed (Wilks 1941).

    Args:
        found: Images with the property.
        n: Images, at least 1.

    Returns:
        (low, high).
    """
    from scipy.special import betaincinv  # slow to import

    low = float(betaincinv(found, n - found + 1, 0.025)) if found else 0.0
    high = float(betaincinv(found + 1, n - found, 0.975)) if found < n else 1.0
    return low, high


def pixel_dice(pairs: Iterable[tuple[NDArray[np.float32], NDArray[np.bool_]]]) -> Threshold:
    """The pixel threshold that maximises the mean Dice over lesion images; holds one pair in memory at a time.

    Args:
        pairs: float32 (h w) maps with bool (h w) masks; normal images are ignored.

    Raises:
        DataError: If a pair's shapes differ or a score is not finite.
    """
    pixels = PixelMetrics(max_clusters=1)
    for scores, mask in pairs:
        pixels.add(scores, mask, group="all")
    best = pixels.best_dice()
    if best is None:
        return Threshold(None, "dice", 0, note=f"needs lesion masks, got none in {pixels.images} images")
    note = f"fitted on only {pixels.lesions} lesion images" if pixels.lesions < FEW else None
    return Threshold(best[0], "dice", pixels.lesions, best[1], note)


def pixel_quantile(maps: Iterable[NDArray[np.float32]], *, quantile: float = 0.99) -> Threshold:
    """The lowest pixel threshold that flags at most a share of ``1 - quantile`` of the pixels of normal images.

    All pixels count alike. With anomaly-free images alone, a quantile of their pixels is the usual threshold (Bergmann
    et al., IJCV 2021).

    Args:
        maps: float32 (h w) of normal images that the model has not seen; one is in memory at a time.
        quantile: In (0, 1).

    Raises:
        ConfigError: If ``quantile`` is out of range.
        DataError: If a score is not finite.
    """
    if not 0 < quantile < 1:
        msg = f"quantile must be in (0, 1), got {quantile}; 0.99 flags one of a hundred normal pixels"
        raise ConfigError(msg)
    rule = f"quantile {quantile:g}"
    pixels = PixelMetrics(max_clusters=1)
    for scores in maps:
        pixels.add(scores, np.zeros(scores.shape, dtype=bool), group="all")
    found = pixels.at_quantile(quantile)
    if found is None:
        return Threshold(None, rule, 0, note="needs maps of normal images, got none")
    note = f"fitted on only {pixels.images} normal images" if pixels.images < FEW else None
    return Threshold(found[0], rule, pixels.images, found[1], note)
