"""Selective prediction: how many errors are left if the least sure images are not answered.

An image's confidence is the probability of its most probable class. The risk at a coverage is the error rate among the
share of images that are answered, the surest first (El-Yaniv and Wiener, JMLR 2010; Geifman and El-Yaniv, NeurIPS
2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultraad.metrics.curves import Array, ratio

POINTS = 100  # of a stored curve at most


def _sorted(probs: Array, labels: NDArray[np.int64]) -> tuple[NDArray[np.intp], Array, Array]:
    """(order from the surest image on, errors 0 or 1 in it, confidences in it), each (n,)."""
    top = probs.max(1)
    order = np.argsort(-top, kind="stable")
    return order, (probs.argmax(1) != labels).astype(np.float64)[order], top[order]


def _ends(top: Array) -> NDArray[np.intp]:
    """Of falling confidences (n,), the last position of each group of equals: images that are answered together."""
    return np.flatnonzero(np.r_[top[1:] != top[:-1], True])


def area_under_risk_coverage(probs: Array, labels: NDArray[np.int64], *, weights: Array | None = None) -> Array:
    """Mean, over all images, of the risk among images that are at least as sure (Geifman et al., ICLR 2019, eq. 1).

    Without equal confidences it is the mean risk over the coverages 1/n, 2/n, ..., 1. 0 is perfect.

    Args:
        probs: float64 (n c), rows sum to 1.
        labels: int64 (n,).
        weights: (b n) image weights; ones if None. An image of weight 2 counts like two of equal confidence.

    Returns:
        (b,) in [0, 1]; NaN without images.
    """
    w = np.ones((1, labels.size)) if weights is None else weights
    if labels.size == 0:
        return np.full(w.shape[0], np.nan)
    order, wrong, top = _sorted(probs, labels)
    w, ends = w[:, order], _ends(top)
    kept, errors = np.cumsum(w, 1)[:, ends], np.cumsum(w * wrong, 1)[:, ends]  # (b m)
    risk = np.nan_to_num(ratio(errors, kept))
    return ratio((np.diff(kept, prepend=0.0) * risk).sum(1), w.sum(1))


def risk_coverage(probs: Array, labels: NDArray[np.int64]) -> dict[str, list[Any]]:
    """The curve: ``coverage`` from small to 1, ``risk``, and ``confidence`` of the last image that is answered.

    It has a point for each distinct confidence; of many, :data:`POINTS` evenly spaced ones with both ends.

    Args:
        probs: float64 (n c), rows sum to 1.
        labels: int64 (n,), at least one.
    """
    _, wrong, top = _sorted(probs, labels)
    last = _ends(top)
    if last.size > POINTS:
        last = last[np.unique(np.linspace(0, last.size - 1, POINTS).round().astype(int))]
    risk = np.cumsum(wrong) / np.arange(1, wrong.size + 1)
    return {
        "coverage": ((last + 1) / wrong.size).tolist(),
        "risk": risk[last].tolist(),
        "confidence": top[last].tolist(),
    }
