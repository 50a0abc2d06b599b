"""Do probabilities mean what they say, and the two usual repairs, fitted on held-out scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultraad.errors import DataError
from ultraad.metrics.curves import Array, ratio

BINS = 15  # Guo et al., ICML 2017, table 1
FEW = 20  # ours; fewer held-out images than this are called few


def _confidence(probs: Array, labels: NDArray[np.int64]) -> tuple[Array, Array, NDArray[np.int64]]:
    """Largest probability, whether its class is right, and the bin (i/15, (i+1)/15] it falls into; each (n,)."""
    top = probs.max(1)
    right = (probs.argmax(1) == labels).astype(np.float64)
    return top, right, np.clip(np.ceil(top * BINS).astype(np.int64) - 1, 0, BINS - 1)


def expected_calibration_error(probs: Array, labels: NDArray[np.int64], *, weights: Array | None = None) -> Array:
    """Expected calibration error of the most probable class: 15 equal-width bins of confidence, open below.

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


def reliability(probs: Array, labels: NDArray[np.int64]) -> list[dict[str, float | int | None]]:
    """The bins behind the ECE: low, high, n, mean confidence and accuracy (None in an empty bin)."""
    top, right, at = _confidence(probs, labels) if labels.size else (np.zeros(0), np.zeros(0), labels)
    n = np.bincount(at, minlength=BINS)
    confidence, accuracy = (np.bincount(at, weights=x, minlength=BINS) for x in (top, right))
    return [
        {
            "low": i / BINS,
            "high": (i + 1) / BINS,
            "n": int(n[i]),
            "confidence": float(confidence[i] / n[i]) if n[i] else None,
            "accuracy": float(accuracy[i] / n[i]) if n[i] else None,
        }
        for i in range(BINS)
    ]


def _note(n: int, smallest: int) -> str | None:
    if n >= FEW and smallest > 1:
        return None
    return f"fitted on {n} images, {smallest} of the rarest class: read the calibrated probabilities as rough"


@dataclass(frozen=True, slots=True)
class Temperature:
    """softmax(logits / temperature), Guo et al., ICML 2017; ``note`` warns of few images."""

    temperature: float
    note: str | None = None

    def __call__(self, logits: ArrayLike) -> Array:
        """Calibrated probabilities (n c) of logits (n c); log-probabilities are logits too."""
        z = np.asarray(logits, dtype=np.float64) / self.temperature
        e = np.exp(z - z.max(-1, keepdims=True))
        return ratio(e, e.sum(-1, keepdims=True))


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> Temperature:
    """The temperature in 0.01..100 that minimises the negative log-likelihood of held-out images.

    Args:
        logits: (n c) finite.
        labels: int (n,), 0..c-1.

    Raises:
        DataError: If there are no images, or shapes or labels do not fit.
    """
    from scipy.optimize import minimize_scalar

    z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if z.ndim != 2 or y.shape != z.shape[:1] or not y.size or y.min() < 0 or y.max() >= z.shape[1]:
        msg = f"temperature scaling needs logits (n c) and labels (n,) in 0..c-1 with n > 0; got {z.shape}, {y.shape}"
        raise DataError(msg)
    if not np.isfinite(z).all():
        msg = "temperature scaling needs finite logits; clip log-probabilities first"
        raise DataError(msg)

    def loss(log_t: float) -> float:
        a = z / np.exp(log_t)
        top = a.max(1)
        log_sum = top + np.log(np.exp(a - top[:, None]).sum(1))
        return float((log_sum - a[np.arange(y.size), y]).mean())

    found = minimize_scalar(loss, bounds=(np.log(0.01), np.log(100.0)), method="bounded", options={"xatol": 1e-6})
    return Temperature(float(np.exp(found.x)), _note(y.size, int(np.bincount(y, minlength=z.shape[1]).min())))


@dataclass(frozen=True, slots=True)
class Platt:
    """p(anomalous) = 1 / (1 + exp(-(slope * score + offset))); ``note`` warns of few images."""

    slope: float
    offset: float
    note: str | None = None

    def __call__(self, scores: ArrayLike) -> Array:
        """Calibrated probabilities of scores, same shape."""
        z = self.slope * np.asarray(scores, dtype=np.float64) + self.offset
        return np.exp(-np.logaddexp(0, -z))


def fit_platt(scores: ArrayLike, anomalous: ArrayLike) -> Platt:
    """Platt scaling of held-out scores with Platt's smoothed targets (Platt 1999), so it never diverges.

    Targets are (P + 1) / (P + 2) for the P anomalous and 1 / (N + 2) for the N normal images.

    Args:
        scores: (n,) finite.
        anomalous: bool (n,), both kinds present.

    Raises:
        DataError: If a kind is missing, lengths differ, or a score is not finite.
    """
    from scipy.optimize import minimize

    s, y = np.asarray(scores, dtype=np.float64), np.asarray(anomalous, dtype=bool)
    if s.shape != y.shape or s.ndim != 1 or not np.isfinite(s).all():
        msg = f"Platt scaling needs finite scores (n,) and labels (n,); got {s.shape} and {y.shape}"
        raise DataError(msg)
    positives, negatives = int(y.sum()), int((~y).sum())
    if not positives or not negatives:
        msg = f"Platt scaling needs normal and anomalous images, got {negatives} and {positives}"
        raise DataError(msg)
    target = np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    centre, scale = s.mean(), s.std() or 1.0  # so that the optimiser sees numbers near 1
    x = (s - centre) / scale

    def loss(ab: Array) -> tuple[float, Array]:
        z = ab[0] * x + ab[1]
        residual = np.exp(-np.logaddexp(0, -z)) - target
        return float((np.logaddexp(0, z) - target * z).sum()), np.array([residual @ x, residual.sum()])

    a, b = minimize(loss, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-8}).x
    return Platt(float(a / scale), float(b - a * centre / scale), _note(y.size, min(positives, negatives)))
