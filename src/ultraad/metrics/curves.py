"""Ranking metrics as functions of mass over falling scores.

All functions take masses ``(... m)``: entry j is the count or weight of one kind at the j-th highest distinct score.
Equal scores share an entry, so ties are exact. Leading axes are free: a bootstrap passes one row per resample, a
streaming sketch a single row. "Positive" always means ``score >= threshold``. A result is NaN where it is undefined.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultraad.errors import DataError

Array = NDArray[np.float64]


def ratio(a: ArrayLike, b: ArrayLike) -> Array:
    """``a / b`` in float64, NaN where ``b`` is 0, without a warning."""
    a, b = np.broadcast_arrays(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
    out: Array = np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0)
    return out


class Ranking:
    """Images sorted once by score, to be weighted many times.

    Args:
        scores: float (n,), finite, higher is more anomalous.
        positive: bool (n,).

    Raises:
        DataError: If the lengths differ or a score is not finite.

    Attributes:
        thresholds: float64 (m,), the distinct scores in falling order.
    """

    def __init__(self, scores: ArrayLike, positive: ArrayLike) -> None:
        s = np.asarray(scores, dtype=np.float64)
        self._positive = np.asarray(positive, dtype=bool)
        if s.ndim != 1 or s.shape != self._positive.shape:
            msg = f"scores {s.shape} and labels {self._positive.shape} must be two vectors of one length"
            raise DataError(msg)
        if not np.isfinite(s).all():
            msg = f"{int((~np.isfinite(s)).sum())} of {s.size} scores are NaN or infinite; metrics need finite scores"
            raise DataError(msg)
        self._order = np.argsort(-s, kind="stable")
        falling = s[self._order]
        self._starts = np.flatnonzero(np.r_[True, falling[1:] != falling[:-1]][: s.size])
        self.thresholds: Array = falling[self._starts]

    def masses(self, weights: Array | None = None) -> tuple[Array, Array]:
        """(negative, positive) masses, each (b m), for image weights (b n); weights of 1 if None."""
        w = np.ones((1, self._order.size)) if weights is None else weights
        if self._order.size == 0:
            return w.copy(), w.copy()
        w, positive = w[:, self._order], self._positive[self._order]
        pos = np.add.reduceat(w * positive, self._starts, axis=1)  # (b n) -> (b m)
        return np.add.reduceat(w, self._starts, axis=1) - pos, pos


def _segments(x_mass: Array, y_mass: Array, limit: float) -> tuple[Array, Array, Array]:
    """Width, y at the start, and share left of ``limit`` of each segment of the curve, each (... m), in raw masses."""
    x0, y0 = np.cumsum(x_mass, -1) - x_mass, np.cumsum(y_mass, -1) - y_mass
    end = limit * x_mass.sum(-1, keepdims=True)
    inside = np.clip(np.nan_to_num(ratio(end - x0, x_mass)), 0.0, 1.0)
    return inside * x_mass, y0, inside


def area(x_mass: Array, y_mass: Array, *, limit: float = 1.0) -> Array:
    """Area under the curve of cumulated y over cumulated x, for x in 0..limit, divided by ``limit``.

    With negatives as x and positives as y it is the AUROC; ties count half, as in the Mann-Whitney statistic. With
    lesion pixels weighted by one over the size of their region as y and limit 0.3 it is the AUPRO of Bergmann et al.,
    CVPR 2019 (MVTec AD): the mean overlap over regions, integrated over the pixel false positive rate, linear between
    thresholds.

    Args:
        x_mass: (... m) mass of the negatives.
        y_mass: (... m) mass of the positives.
        limit: End of integration in (0, 1].

    Returns:
        (...) in [0, 1].
    """
    width, y0, inside = _segments(x_mass, y_mass, limit)
    total = (width * (y0 + inside * y_mass / 2)).sum(-1)
    share = ratio(total, limit * x_mass.sum(-1) * y_mass.sum(-1))
    return np.minimum(share, 1.0)  # fractional masses can round to more than 1


def area_error(x_mass: Array, y_mass: Array, wide: NDArray[np.bool_], *, limit: float = 1.0) -> Array:
    """Bound on the error of :func:`area`: entries in ``wide`` (m,) hold different scores in unknown order."""
    width, _, inside = _segments(x_mass, y_mass, limit)
    total = (wide * width * y_mass * (1 - inside / 2)).sum(-1)
    return ratio(total, limit * x_mass.sum(-1) * y_mass.sum(-1))


def _precision_range(neg: Array, pos: Array) -> tuple[Array, Array]:
    """Lowest and highest precision among the positives of an entry: its negatives come first, or its positives do."""
    tp, fp = np.cumsum(pos, -1), np.cumsum(neg, -1)
    low, high = ratio(tp - pos, tp - pos + fp), ratio(tp, tp + fp - neg)
    return np.nan_to_num(low), np.nan_to_num(high)


def average_precision(neg: Array, pos: Array, *, wide: NDArray[np.bool_] | None = None) -> Array:
    """Average precision: precision averaged over the positives, in [0, 1].

    It is a step sum, not a trapezoid: equal scores get the precision at their score.

    Args:
        neg: (... m).
        pos: (... m).
        wide: (m,) entries that hold different scores in unknown order; they get the middle of the possible values.
    """
    tp, fp = np.cumsum(pos, -1), np.cumsum(neg, -1)
    precision = np.nan_to_num(ratio(tp, tp + fp))
    if wide is not None:
        low, high = _precision_range(neg, pos)
        precision = np.where(wide, (low + high) / 2, precision)
    return ratio((pos * precision).sum(-1), tp[..., -1])


def average_precision_error(neg: Array, pos: Array, wide: NDArray[np.bool_]) -> Array:
    """Bound on the error of :func:`average_precision` from the entries ``wide`` (m,)."""
    low, high = _precision_range(neg, pos)
    return ratio((wide * pos * (high - low) / 2).sum(-1), pos.sum(-1))


def stretches(neg: Array, pos: Array) -> tuple[Array, Array]:
    """Both masses (m,) after all scores between two positives are merged into one entry, (m').

    AUROC, average precision and the largest F1 do not change, as they do not depend on the order of negatives between
    two positives. It saves time: an image has far fewer lesion pixels than pixels.
    """
    hit = pos > 0
    starts = np.flatnonzero(np.r_[True, hit[1:] | hit[:-1]])
    return np.add.reduceat(neg, starts), pos[starts]


def f1(neg: Array, pos: Array) -> Array:
    """F1 (which is the pooled Dice) at every threshold, (... m)."""
    tp, fp = np.cumsum(pos, -1), np.cumsum(neg, -1)
    return ratio(2 * tp, tp[..., -1:] + tp + fp)


def f1_max(neg: Array, pos: Array) -> Array:
    """The largest F1 over all thresholds, (...); NaN without positives."""
    best: Array = f1(neg, pos).max(-1)
    return np.where(pos.sum(-1) > 0, best, np.nan)


def f1_max_error(neg: Array, pos: Array, wide: NDArray[np.bool_]) -> Array:
    """How much higher :func:`f1_max` could be at thresholds inside ``wide`` entries."""
    tp, fp = np.cumsum(pos, -1), np.cumsum(neg, -1)
    best = ratio(2 * tp, tp[..., -1:] + tp + fp - wide * neg).max(-1)
    gap: Array = best - f1_max(neg, pos)
    return gap.clip(min=0.0)


def sensitivity_at(neg: Array, pos: Array, *, specificity: float) -> Array:
    """The largest sensitivity among thresholds with at least this specificity; no interpolation.

    Args:
        neg: (... m).
        pos: (... m).
        specificity: In [0, 1].

    Returns:
        (...) in [0, 1]; 0 means that every threshold that finds a positive has too many false alarms.
    """
    tpr = ratio(np.cumsum(pos, -1), pos.sum(-1, keepdims=True))
    fpr = ratio(np.cumsum(neg, -1), neg.sum(-1, keepdims=True))
    allowed = fpr <= 1 - specificity + 1e-9  # 1 - 0.9 > 0.1 in floating point
    best: Array = np.where(allowed, tpr, 0.0).max(-1)
    return np.where((pos.sum(-1) > 0) & (neg.sum(-1) > 0), best, np.nan)


def points(
    neg: Array, pos: Array, thresholds: ArrayLike, *, limit: int = 512
) -> dict[str, dict[str, list[float | None]]]:
    """ROC and precision-recall points for plotting.

    Args:
        neg: (m,).
        pos: (m,).
        thresholds: (m,) falling; entry j is positive where ``score >= thresholds[j]``.
        limit: Largest number of points per curve; more are thinned evenly along the ROC curve.

    Returns:
        ``{"roc": {"fpr", "tpr", "threshold"}, "pr": {"recall", "precision", "threshold"}}``; empty without both kinds.
        The ROC curve starts at (0, 0), where the threshold is None.
    """
    tp, fp = np.cumsum(pos), np.cumsum(neg)
    if tp.size == 0 or tp[-1] == 0 or fp[-1] == 0:
        return {}
    tpr, fpr = tp / tp[-1], fp / fp[-1]
    keep = np.arange(tp.size)
    if tp.size > limit - 1:
        keep = np.unique(np.searchsorted(tpr + fpr, np.linspace(0, 2, limit - 1)).clip(max=tp.size - 1))
    tpr, fpr, precision = tpr[keep], fpr[keep], (tp / (tp + fp))[keep]
    falling = np.asarray(thresholds, dtype=np.float64)[keep].tolist()
    roc = {"fpr": [0.0, *fpr.tolist()], "tpr": [0.0, *tpr.tolist()], "threshold": [None, *falling]}
    return {"roc": roc, "pr": {"recall": tpr.tolist(), "precision": precision.tolist(), "threshold": falling}}
