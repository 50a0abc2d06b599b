"""Calibration: whether class probabilities match the observed frequencies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ultraad.metrics.curves import Array, ratio
from ultraad.metrics.threshold import rate_interval

BINS = 15  # Guo et al., ICML 2017, table 1
LEAST = 1e-12  # probability of a true class in the negative log-likelihood, so that one image cannot make it infinite


def _confidence(probs: Array, labels: NDArray[np.int64]) -> tuple[Array, Array, NDArray[np.int64]]:
    """Largest probability, whether its class is right, and the bin (i/15, (i+1)/15] it falls into; each (n,)."""
    top = probs.max(1)
    right = (probs.argmax(1) == labels).astype(np.float64)
    return top, right, _bin(top)


def _bin(p: Array) -> NDArray[np.int64]:
    """The bin (i/15, (i+1)/15] that each probability falls into."""
    return np.clip(np.ceil(p * BINS).astype(np.int64) - 1, 0, BINS - 1)


def expected_calibration_error(probs: Array, labels: NDArray[np.int64], *, weights: Array | None = None) -> Array:
    """Expected calibration error of the most probable class, over 15 bins of confidence of equal width, open below.

    ECE = sum over bins of (share of images) * |accuracy - mean confidence|, Guo et al., ICML 2017, eq. 3.

    Args:
        probs: float64 (n c), rows sum to 1.
        labels: int64 (n,).
        weights: (b n) image weights; ones if None.

    Returns:
        (b,) in [0, 1]; NaN without images.
    """
    w = np.ones((1, labels.size)) if weights is None else weights
    if labels.size == 0:
        return np.full(w.shape[0], np.nan)
    top, right, at = _confidence(probs, labels)
    gap: Array = np.abs(w @ ((right - top)[:, None] * np.eye(BINS)[at])).sum(1)  # (b n) @ (n 15) -> (b,)
    return ratio(gap, w.sum(1))


def classwise_calibration_error(probs: Array, labels: NDArray[np.int64], *, weights: Array | None = None) -> Array:
    """Expected calibration error of each class against the rest, mean over classes; 15 bins as in the ECE.

    Kull et al., NeurIPS 2019, eq. 2. Unlike the ECE it sees probabilities that are not the largest ones. With few
    images it is too large even for true probabilities, because the rate of a small bin scatters.

    Args:
        probs: float64 (n c), rows sum to 1.
        labels: int64 (n,).
        weights: (b n) image weights; ones if None.

    Returns:
        (b,) in [0, 1]; NaN without images.
    """
    w = np.ones((1, labels.size)) if weights is None else weights
    if labels.size == 0:
        return np.full(w.shape[0], np.nan)
    at = _bin(probs)  # (n c)
    off = np.eye(probs.shape[1])[labels] - probs
    gaps = [np.abs(w @ (off[:, [k]] * np.eye(BINS)[at[:, k]])).sum(1) for k in range(probs.shape[1])]  # c of (b,)
    return ratio(np.mean(gaps, axis=0), w.sum(1))


def negative_log_likelihood(probs: Array, labels: NDArray[np.int64], *, weights: Array | None = None) -> Array:
    """Mean of -ln p(true class), with p at least 1e-12: (b,), 0 is perfect; NaN without images.

    Args:
        probs: float64 (n c), rows sum to 1.
        labels: int64 (n,).
        weights: (b n) image weights; ones if None.
    """
    w = np.ones((1, labels.size)) if weights is None else weights
    return ratio(-w @ np.log(np.maximum(probs[np.arange(labels.size), labels], LEAST)), w.sum(1))


def reliability(probs: Array, labels: NDArray[np.int64]) -> list[dict[str, float | int | None]]:
    """The bins behind the ECE: low, high, n, mean confidence and accuracy (None in an empty bin).

    ``accuracy_low`` and ``accuracy_high`` are the exact 95 % interval of the accuracy, which takes images for
    independent.
    """
    top, right, at = _confidence(probs, labels) if labels.size else (np.zeros(0), np.zeros(0), labels)
    n = np.bincount(at, minlength=BINS)
    confidence, accuracy = (np.bincount(at, weights=x, minlength=BINS) for x in (top, right))
    ends = [
        rate_interval(round(a), k) if k else (None, None) for a, k in zip(accuracy.tolist(), n.tolist(), strict=True)
    ]
    return [
        {
            "low": i / BINS,
            "high": (i + 1) / BINS,
            "n": int(n[i]),
            "confidence": float(confidence[i] / n[i]) if n[i] else None,
            "accuracy": float(accuracy[i] / n[i]) if n[i] else None,
            "accuracy_low": ends[i][0],
            "accuracy_high": ends[i][1],
        }
        for i in range(BINS)
    ]
