"""Sets of classes that hold the true one with a stated probability.

    split        n calibration images by a model that has not seen them. A class is in the set if its nonconformity is
                 at most the ceil((n + 1) level)-th smallest of theirs. If the new image is exchangeable with them, the
                 set holds the true class with at least ``level`` (Vovk et al., 2005; Sadinle et al., JASA 114:223,
                 2019), on average over draws of the calibration images.
    Mondrian     the same in each class, with the images of that class alone: the promise holds in each class.
    weighted     n calibration images of another distribution of images, with the same labels given an image
                 (covariate shift). Each counts by the likelihood ratio of its image, and the new image by its own,
                 with an infinite nonconformity: the quantile of this weighted sample is the limit. With the true
                 ratios the sets hold the true class with at least ``level`` (Tibshirani et al., NeurIPS 2019).
    CV+          every image is used to fit and to calibrate: each fold's model measures the images held out of it, and
                 the new image (Barber et al., Annals of Statistics 49:486, 2021; for classes Romano et al., NeurIPS
                 2020). The promise is 1 - 2 (1 - level), less a term that vanishes with n; in practice it is near
                 ``level``.

    risk         n calibration images, each with a loss in [0, 1] that grows with a threshold. The highest threshold
                 with (sum of losses + 1) / (n + 1) <= level has an expected loss of at most ``level`` on a new image
                 that is exchangeable with them (Angelopoulos et al., ICLR 2024, theorem 1).

    counts       the same for a loss that falls with a threshold, such as the number of false lesions of an image. It is
                 capped at k, since a promise needs a bound, and replaced by its running maximum from the highest
                 threshold down, since regions that join and part make it rise and fall. The lowest threshold with
                 (sum of losses + k) / (n + 1) <= level has an expected loss of at most ``level``.

Nonconformity is measured in two ways: ``"rest"``, 1 - p(class), which gives the smallest sets on average if p is true;
and ``"sum"``, the probability of all classes that are at least as probable (Romano et al., NeurIPS 2020, without
randomisation), which gives large sets where the classes are unclear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultraad.errors import ConfigError, DataError

Array = NDArray[np.float64]
Score = Literal["rest", "sum"]
_ROUNDING = 1e-9  # of (n + 1) * level, such as 10 * 0.9


def nonconformity(probs: ArrayLike, *, score: Score) -> Array:
    """How unlike each class an image is: float64 (n c), from class probabilities (n c).

    Args:
        probs: Rows sum to 1.
        score: ``"rest"`` or ``"sum"``.
    """
    p = np.asarray(probs, dtype=np.float64)
    if score == "rest":
        return 1 - p
    at_least = p[:, None, :] >= p[:, :, None]  # (n c c): whether the last class is at least as probable
    return np.asarray((at_least * p[:, None, :]).sum(2))


def quantile(own: ArrayLike, level: float) -> float:
    """The ceil((n + 1) level)-th smallest nonconformity of calibration images (n,); infinite if n is too small.

    Raises:
        ConfigError: If ``level`` is not in (0, 1).
    """
    check_level(level)
    values = np.sort(np.asarray(own, dtype=np.float64))
    k = math.ceil((values.size + 1) * level - _ROUNDING)
    return float(values[k - 1]) if k <= values.size else math.inf


def weighted_quantile(own: ArrayLike, weights: ArrayLike, weight: float, level: float) -> float:
    """The ``level`` quantile of nonconformities (n,) that count by their weights, beside a new image at infinity.

    Args:
        own: Nonconformity (n,) of calibration images to their true classes.
        weights: Likelihood ratios (n,) of their images, up to a common factor.
        weight: That of the new image, with the same factor.
        level: Wanted coverage in (0, 1).

    Raises:
        ConfigError: If ``level`` is not in (0, 1).
    """
    check_level(level)
    values, w = np.asarray(own, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(w[order]) >= level * (w.sum() + weight) * (1 - _ROUNDING)
    return float(values[order][int(reached.argmax())]) if reached.any() else math.inf


def effective_number(weights: ArrayLike) -> float:
    """How many equally weighted images are worth as much: (sum w)^2 / sum w^2 (Kish, 1965)."""
    w = np.asarray(weights, dtype=np.float64)
    return float(w.sum() ** 2 / (w**2).sum())


def split_sets(own: ArrayLike, fresh: Array, *, level: float) -> NDArray[np.bool_]:
    """Which classes are in the sets of new images: bool (m c).

    Args:
        own: Nonconformity (n,) of calibration images to their true classes.
        fresh: Nonconformity (m c) of the new images to each class.
        level: Wanted coverage in (0, 1).
    """
    return np.asarray(fresh <= quantile(own, level))


def mondrian_sets(own: ArrayLike, labels: ArrayLike, fresh: Array, *, level: float) -> NDArray[np.bool_]:
    """The same by class; a class without enough calibration images is in every set.

    Args:
        own: As in :func:`split_sets`.
        labels: True classes int (n,).
        fresh: As in :func:`split_sets`.
        level: As in :func:`split_sets`.
    """
    values, y = np.asarray(own, dtype=np.float64), np.asarray(labels)
    return np.stack([fresh[:, k] <= quantile(values[y == k], level) for k in range(fresh.shape[1])], axis=1)


def cv_plus_sets(
    own: ArrayLike, folds: Sequence[Sequence[int]], fresh: Sequence[Array], *, level: float
) -> NDArray[np.bool_]:
    """The sets of CV+: a class stays if fewer than (n + 1) level of the images are less unlike their own class.

    Args:
        own: Nonconformity (n,) of each image to its true class, by the model of the fold that held it out.
        folds: The images of each fold, by position; together 0..n-1.
        fresh: Nonconformity (m c) of the new images, by each fold's model.
        level: As in :func:`split_sets`.

    Raises:
        DataError: If the folds are not a partition.
    """
    check_level(level)
    values = np.asarray(own, dtype=np.float64)
    if sorted(i for part in folds for i in part) != list(range(values.size)) or len(folds) != len(fresh):
        msg = f"CV+ needs folds that hold each of {values.size} images once and a measurement by each of their models"
        raise DataError(msg)
    less = sum((values[list(part)] < measured[..., None]).sum(-1) for part, measured in zip(folds, fresh, strict=True))
    return np.asarray(less < (values.size + 1) * level - _ROUNDING)


def risk_threshold(values: ArrayLike, *, level: float) -> tuple[float, float] | None:
    """The highest threshold at which on average at most a share ``level`` of the values of a new image is below it.

    Args:
        values: (n k) of calibration images, rising along k: of image i at most a share j / (k - 1) is below
            ``values[i, j]``. The loss is rounded up to these shares.
        level: Wanted expected share in (0, 1).

    Returns:
        (threshold, mean share of the calibration images that is below it); None if n is too small.
    """
    check_level(level)
    v = np.asarray(values, dtype=np.float64)
    n, k = v.shape
    tried = np.unique(v)
    below = sum(np.minimum(np.searchsorted(row, tried, side="left") / (k - 1), 1.0) for row in v)
    kept = (below + 1) / (n + 1) <= level + _ROUNDING
    if not kept.any():
        return None
    last = int(np.flatnonzero(kept)[-1])  # the loss grows with the threshold
    return float(tried[last]), float(below[last]) / n


def count_threshold(values: ArrayLike, steps: ArrayLike, *, level: float) -> tuple[float, float] | None:
    """The lowest step at which a new image has on average at most ``level`` false lesions, of which k count.

    Args:
        values: (n k) of calibration images: ``values[i, j]`` is the highest step at which image i has more than j
            false lesions, negative if there is none. Falling along k, so the loss is the running maximum.
        steps: Thresholds that were tried, rising.
        level: Wanted expected number, above 0.

    Returns:
        (threshold, mean number of the calibration images there); None if n is too small, or no step is high enough.
    """
    v, tried = np.asarray(values, dtype=np.float64), np.asarray(steps, dtype=np.float64)
    n, k = v.shape
    left = (v[..., None] >= tried).sum((0, 1))  # falls along the steps
    kept = (left + k) / (n + 1) <= level + _ROUNDING
    if not kept.any():
        return None
    first = int(np.flatnonzero(kept)[0])
    return float(tried[first]), float(left[first]) / n


def best_level(n: float) -> float:
    """The highest level that n calibration images can promise without naming every class: n / (n + 1)."""
    return n / (n + 1)


def check_level(level: float) -> None:
    """Refuse a level that is none.

    Raises:
        ConfigError: If it is not in (0, 1).
    """
    if not 0 < level < 1:  # also when NaN
        msg = f"level {level}: wanted the share of sets that hold the true class, above 0 and below 1, such as 0.9"
        raise ConfigError(msg)


def covered(sets: NDArray[np.bool_], labels: ArrayLike) -> tuple[float, float]:
    """(share of the sets (m c) that hold the true class (m,), mean number of classes in a set)."""
    y = np.asarray(labels)
    return float(sets[np.arange(y.size), y].mean()), float(sets.sum(1).mean())
