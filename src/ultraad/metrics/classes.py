"""Grading: which class is it? From class probabilities and class labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultraad.errors import DataError
from ultraad.metrics import curves
from ultraad.metrics.bootstrap import RESAMPLES, Array, Statistics, clusters, measure
from ultraad.metrics.calibration import (
    classwise_calibration_error,
    expected_calibration_error,
    negative_log_likelihood,
)
from ultraad.metrics.catalogue import PAIR, Need
from ultraad.metrics.curves import Ranking, ratio
from ultraad.metrics.metric import Metric
from ultraad.metrics.selective import area_under_risk_coverage


@dataclass(frozen=True, slots=True)
class Counts:
    """The input of a formula: n graded images, for b weightings at once.

    Attributes:
        probs: (n c) class probabilities.
        labels: int (n,) true classes.
        weights: (b n) of the images.
        auroc: (b c) of each class against the rest; NaN for a class without images, or with all of them.
        pair_auroc: (b,) of one abnormal class against the other.
        true: (b c) images of each class.
        predicted: (b c) images whose most probable class it is.
        correct: (b c) images that are both.
        sets: bool (n c) classes in the prediction set of each image; None without sets.
    """

    probs: Array
    labels: NDArray[np.int64]
    weights: Array
    auroc: Array
    pair_auroc: Array
    true: Array
    predicted: Array
    correct: Array
    sets: NDArray[np.bool_] | None


FORMULAS: Mapping[str, Callable[[Counts], Array]] = {
    "class_auroc_macro": lambda c: _mean(c.auroc, np.ones_like(c.auroc)),
    "class_auroc_weighted": lambda c: _mean(c.auroc, c.true),
    PAIR: lambda c: c.pair_auroc,
    # over the classes that occur
    "balanced_accuracy": lambda c: _mean(ratio(c.correct, c.true), np.ones_like(c.true)),
    # over the classes that occur or are predicted
    "macro_f1": lambda c: _mean(ratio(2 * c.correct, c.true + c.predicted), np.ones_like(c.true)),
    # summed over classes, as Brier 1950 does: 0..2
    "brier": lambda c: ratio(c.weights @ _squared_errors(c.probs, c.labels), c.weights.sum(1)),
    "nll": lambda c: negative_log_likelihood(c.probs, c.labels, weights=c.weights),
    "ece": lambda c: expected_calibration_error(c.probs, c.labels, weights=c.weights),
    "class_ece": lambda c: classwise_calibration_error(c.probs, c.labels, weights=c.weights),
    "aurc": lambda c: area_under_risk_coverage(c.probs, c.labels, weights=c.weights),
    "set_coverage": lambda c: _of_sets(c, lambda sets: sets[np.arange(c.labels.size), c.labels].astype(np.float64)),
    "set_size": lambda c: _of_sets(c, lambda sets: sets.sum(1)),
}
"""Each metric (b,) from the counts, NaN where undefined; in the order of metrics.json."""


def checked(probs: ArrayLike, labels: ArrayLike, *, classes: int) -> tuple[Array, NDArray[np.int64]]:
    """Probabilities as float64 (n c) and labels as int64 (n,).

    Raises:
        DataError: If shapes do not match, a row does not sum to 1 (within 1e-3), or a label is out of range.
    """
    p, y = np.asarray(probs, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if p.shape != (y.size, classes) or y.ndim != 1:
        msg = f"probabilities {p.shape} and labels {y.shape} do not match; wanted ({y.size}, {classes}) and ({y.size},)"
        raise DataError(msg)
    if not np.isfinite(p).all() or (p < 0).any() or (np.abs(p.sum(1) - 1) > 1e-3).any():
        msg = "class probabilities must be finite, >= 0 and sum to 1 per image; pass softmax outputs, not logits"
        raise DataError(msg)
    if ((y < 0) | (y >= classes)).any():
        msg = f"labels must be 0..{classes - 1}, got {sorted(set(y.tolist()))}; leave out unlabelled images"
        raise DataError(msg)
    return p, y


def pair_auroc_name(classes: Sequence[str], normal_class: str) -> str:
    """Key of the AUROC between the two abnormal classes; ``"benign_malignant_auroc"`` if there are not exactly two."""
    abnormal = [c for c in classes if c != normal_class]
    if len(abnormal) != 2 or set(abnormal) == {"benign", "malignant"}:
        return PAIR
    return "_".join([*abnormal, "auroc"])


def statistics(
    probs: ArrayLike,
    labels: ArrayLike,
    *,
    classes: Sequence[str],
    normal_class: str,
    sets: NDArray[np.bool_] | None = None,
) -> Statistics:
    """Grading metrics as functions of image weights.

    The AUROC between the two abnormal classes a and b ranks their images by p_b / (p_a + p_b). Malignant is positive;
    of any other pair (see :func:`pair_auroc_name`) the later class is. A class without images, or to which all images
    belong, has no AUROC and is left out of the mean; ``reason`` says so.

    Args:
        probs: (n c), rows sum to 1.
        labels: int (n,), index into ``classes``.
        classes: Class names in label order.
        normal_class: The member of ``classes`` that means "no lesion".
        sets: bool (n c) classes in the prediction set of each image; None leaves its metrics undefined.

    Raises:
        DataError: As for :func:`checked`.
    """
    p, y = checked(probs, labels, classes=len(classes))
    truth = np.eye(len(classes))[y]  # (n c)
    predicted = np.eye(len(classes))[p.argmax(1)] if y.size else truth
    rankings = [Ranking(p[:, k], y == k) for k in range(len(classes))]
    pair = pair_auroc_name(classes, normal_class)
    names = [pair if name == PAIR else name for name in FORMULAS]
    abnormal = [k for k, c in enumerate(classes) if c != normal_class]
    if pair == PAIR:
        abnormal.sort(key=lambda k: classes[k])
    in_pair = np.isin(y, abnormal) if len(abnormal) == 2 else np.zeros(y.size, bool)
    both = p[in_pair][:, abnormal]  # (l 2)
    share = np.nan_to_num(ratio(both[:, -1], both.sum(1)), nan=0.5)
    grading = Ranking(share, y[in_pair] == abnormal[-1])

    def compute(weights: Array) -> dict[str, Array]:
        counts = Counts(
            p,
            y,
            weights,
            auroc=np.stack([curves.area(*r.masses(weights)) for r in rankings], axis=1),  # (b c)
            pair_auroc=curves.area(*grading.masses(weights[:, in_pair])),
            true=weights @ truth,
            predicted=weights @ predicted,
            correct=weights @ (truth * predicted),
            sets=sets,
        )
        return {name: formula(counts) for name, formula in zip(names, FORMULAS.values(), strict=True)}

    unmet: dict[Need, str] = {}
    if sets is None:
        unmet["sets"] = "no prediction sets were asked for"
    absent = [c for k, c in enumerate(classes) if not (y == k).any()]
    if not y.size:
        unmet["images"] = "no image with both a known class and class probabilities"
    if len(absent) == len(classes) - 1:
        unmet["two classes"] = "only one class occurs"
    elif absent:
        unmet["all classes"] = f"left out, no images: {', '.join(absent)}"
    if len(abnormal) != 2:
        unmet["pair"] = f"needs exactly two abnormal classes, the model has {len(abnormal)}"
    elif missing := [classes[k] for k in abnormal if classes[k] in absent]:
        unmet["pair"] = f"no image of class {' or '.join(missing)}"
    of_class = truth.T.astype(bool)  # (c n)
    return Statistics.of(
        compute,
        names,
        sizes={"all": y.size, "pair": int(in_pair.sum())},
        sides={"all": np.ones((1, y.size), dtype=bool), "classes": of_class, "pair": of_class[abnormal]},
        unmet=unmet,
    )


def _of_sets(counts: Counts, value: Callable[[NDArray[np.bool_]], Array]) -> Array:
    """Mean (b,) of a value (n,) of the prediction sets; NaN without them."""
    if counts.sets is None:
        return np.full(len(counts.weights), np.nan)
    return ratio(counts.weights @ value(counts.sets), counts.weights.sum(1))


def _squared_errors(probs: Array, labels: NDArray[np.int64]) -> Array:
    """Sum over classes of (p - y)^2, (n,)."""
    total: Array = ((probs - np.eye(probs.shape[1])[labels]) ** 2).sum(1)
    return total


def _mean(values: Array, weights: Array) -> Array:
    """Mean over classes (b c) -> (b,) without the undefined ones."""
    defined = np.isfinite(values)
    return ratio((np.where(defined, values, 0) * weights).sum(1), (weights * defined).sum(1))


def class_metrics(
    probs: ArrayLike,
    labels: ArrayLike,
    *,
    classes: Sequence[str],
    normal_class: str,
    sets: NDArray[np.bool_] | None = None,
    groups: Sequence[str | None] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Metric]:
    """Grading metrics with 95 % intervals; see :func:`statistics`.

    Args:
        probs: (n c), rows sum to 1.
        labels: int (n,), index into ``classes``.
        classes: Class names in label order.
        normal_class: The member of ``classes`` that means "no lesion".
        sets: As in :func:`statistics`.
        groups: Patient of each image; None resamples images.
        resamples: Bootstrap resamples; 0 for no intervals.
        seed: Seed of the bootstrap.

    Raises:
        DataError: As for :func:`checked`.
    """
    cluster = clusters(groups if groups is not None else [None] * np.size(labels))
    block = statistics(probs, labels, classes=classes, normal_class=normal_class, sets=sets)
    return measure(block, cluster, resamples=resamples, seed=seed)


def confusion_matrix(probs: ArrayLike, labels: ArrayLike, *, classes: int) -> NDArray[np.int64]:
    """Number of images of class i whose most probable class is j: int64 (c c), true classes in rows.

    Raises:
        DataError: As for :func:`checked`.
    """
    p, y = checked(probs, labels, classes=classes)
    flat = np.bincount(y * classes + p.argmax(1), minlength=classes**2) if y.size else np.zeros(classes**2)
    return flat.reshape(classes, classes).astype(np.int64)
