"""Grading: which class is it? Class probabilities against class labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultraad.errors import DataError
from ultraad.metrics import curves
from ultraad.metrics.bootstrap import RESAMPLES, Array, Statistics, clusters, measure
from ultraad.metrics.calibration import expected_calibration_error
from ultraad.metrics.curves import Ranking, ratio
from ultraad.metrics.metric import Metric

NAMES = ("class_auroc_macro", "class_auroc_weighted", "balanced_accuracy", "macro_f1", "brier", "ece")


def checked(probs: ArrayLike, labels: ArrayLike, *, classes: int) -> tuple[Array, NDArray[np.int64]]:
    """Probabilities as float64 (n c) and labels as int64 (n,).

    Raises:
        DataError: If shapes do not fit, a row is no probability vector (tolerance 1e-3), or a label is out of range.
    """
    p, y = np.asarray(probs, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if p.shape != (y.size, classes) or y.ndim != 1:
        msg = f"probabilities {p.shape} and labels {y.shape} do not fit; wanted ({y.size}, {classes}) and ({y.size},)"
        raise DataError(msg)
    if not np.isfinite(p).all() or (p < 0).any() or (np.abs(p.sum(1) - 1) > 1e-3).any():
        msg = "class probabilities must be finite, >= 0 and sum to 1 per image; pass softmax outputs, not logits"
        raise DataError(msg)
    if ((y < 0) | (y >= classes)).any():
        msg = f"labels must be 0..{classes - 1}, got {sorted(set(y.tolist()))}; leave unlabelled images out"
        raise DataError(msg)
    return p, y


def pair_auroc_name(classes: Sequence[str], normal_class: str) -> str:
    """Key of the AUROC between the two abnormal classes; ``"benign_malignant_auroc"`` if there are not exactly two."""
    abnormal = [c for c in classes if c != normal_class]
    if len(abnormal) != 2 or set(abnormal) == {"benign", "malignant"}:
        return "benign_malignant_auroc"
    return "_".join([*abnormal, "auroc"])


def statistics(probs: ArrayLike, labels: ArrayLike, *, classes: Sequence[str], normal_class: str) -> Statistics:
    """Grading metrics as functions of image weights.

    - ``class_auroc_macro``: one class against the rest on its probability, mean over classes.
    - ``class_auroc_weighted``: the same, weighted by the number of images of each class.
    - ``benign_malignant_auroc``: among images of the two abnormal classes, on p_m / (p_b + p_m), malignant being
      positive. Of other pairs (see :func:`pair_auroc_name`) the later class is positive.
    - ``balanced_accuracy``: recall of the most probable class, mean over classes that occur.
    - ``macro_f1``: F1 of the most probable class, mean over classes that occur or are predicted.
    - ``brier``: sum over classes of (p - y)^2, mean over images; 0..2, 0 is perfect (Brier 1950).
    - ``ece``: expected calibration error of the most probable class, 15 equal-width bins.

    A class without images, or to which all images belong, has no AUROC and is left out of the mean; ``reason`` says so.

    Args:
        probs: (n c), rows sum to 1.
        labels: int (n,), index into ``classes``.
        classes: Class names in label order.
        normal_class: The member of ``classes`` that means "no lesion".

    Raises:
        DataError: If the arrays do not fit each other.
    """
    p, y = checked(probs, labels, classes=len(classes))
    truth = np.eye(len(classes))[y]  # (n c)
    predicted = np.eye(len(classes))[p.argmax(1)] if y.size else truth
    squared = ((p - truth) ** 2).sum(1)
    rankings = [Ranking(p[:, k], y == k) for k in range(len(classes))]
    pair = pair_auroc_name(classes, normal_class)
    abnormal = [k for k, c in enumerate(classes) if c != normal_class]
    if pair == "benign_malignant_auroc":
        abnormal.sort(key=lambda k: classes[k])
    graded = np.isin(y, abnormal) if len(abnormal) == 2 else np.zeros(y.size, bool)
    both = p[graded][:, abnormal]  # (l 2)
    share = np.nan_to_num(ratio(both[:, -1], both.sum(1)), nan=0.5)
    grading = Ranking(share, y[graded] == abnormal[-1])

    def compute(weights: Array) -> dict[str, Array]:
        auroc = np.stack([curves.area(*r.masses(weights)) for r in rankings], axis=1)  # (b c)
        size, hits, flagged = weights @ truth, weights @ (truth * predicted), weights @ predicted
        return {
            "class_auroc_macro": _mean(auroc, np.ones_like(auroc)),
            "class_auroc_weighted": _mean(auroc, size),
            "balanced_accuracy": _mean(ratio(hits, size), np.ones_like(size)),
            "macro_f1": _mean(ratio(2 * hits, size + flagged), np.ones_like(size)),
            "brier": ratio(weights @ squared, weights.sum(1)),
            "ece": expected_calibration_error(p, y, weights=weights),
            pair: _pair(grading, weights[:, graded]),
        }

    sizes = dict.fromkeys((*NAMES[:2], pair, *NAMES[2:]), y.size) | {pair: int(graded.sum())}
    return Statistics(compute, sizes, _reasons(y, classes, pair, abnormal))


def _pair(grading: Ranking, weights: Array) -> Array:
    if weights.shape[1] == 0:
        return np.full(weights.shape[0], np.nan)
    return curves.area(*grading.masses(weights))


def _mean(values: Array, weights: Array) -> Array:
    """Mean over classes (b c) -> (b,), leaving undefined ones out."""
    defined = np.isfinite(values)
    return ratio((np.where(defined, values, 0) * weights).sum(1), (weights * defined).sum(1))


def _reasons(y: NDArray[np.int64], classes: Sequence[str], pair: str, abnormal: list[int]) -> dict[str, str]:
    if not y.size:
        return dict.fromkeys((*NAMES, pair), "no image with both a known class and class probabilities")
    reasons: dict[str, str] = {}
    absent = [c for k, c in enumerate(classes) if not (y == k).any()]
    if len(absent) == len(classes) - 1:
        reasons |= dict.fromkeys(NAMES[:2], "only one class occurs")
    elif absent:
        reasons |= dict.fromkeys(NAMES[:3], f"left out, no images: {', '.join(absent)}")
    if len(abnormal) != 2:
        reasons[pair] = f"needs exactly two abnormal classes, the model has {len(abnormal)}"
    elif missing := [classes[k] for k in abnormal if classes[k] in absent]:
        reasons[pair] = f"no image of class {' or '.join(missing)}"
    return reasons


def class_metrics(
    probs: ArrayLike,
    labels: ArrayLike,
    *,
    classes: Sequence[str],
    normal_class: str,
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
        groups: Patient of each image; None resamples images.
        resamples: Bootstrap resamples; 0 for no intervals.
        seed: Seed of the bootstrap.

    Raises:
        DataError: If the arrays do not fit each other.
    """
    cluster = clusters(groups if groups is not None else [None] * np.size(labels))
    block = statistics(probs, labels, classes=classes, normal_class=normal_class)
    return measure(block, cluster, resamples=resamples, seed=seed)


def confusion_matrix(probs: ArrayLike, labels: ArrayLike, *, classes: int) -> NDArray[np.int64]:
    """Images of class i whose most probable class is j: int64 (c c), true classes in rows.

    Raises:
        DataError: If the arrays do not fit each other.
    """
    p, y = checked(probs, labels, classes=classes)
    flat = np.bincount(y * classes + p.argmax(1), minlength=classes**2) if y.size else np.zeros(classes**2)
    return flat.reshape(classes, classes).astype(np.int64)
