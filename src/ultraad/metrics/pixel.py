"""Localisation metrics, one image at a time, in memory that does not grow with the number of images.

Every metric is a function of five masses above a threshold: healthy pixels, lesion pixels, lesion pixels weighted by
one over the size of their region (which sum to the overlap over regions), and the rises and falls of each image's own
Dice curve (whose difference is the sum of Dice over lesion images). All five are in one sketch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b

import cv2
import numpy as np
from numpy.typing import NDArray

from ultraad.errors import DataError
from ultraad.metrics import curves
from ultraad.metrics.bootstrap import RESAMPLES, Array, Statistics, measure
from ultraad.metrics.catalogue import Need, Over
from ultraad.metrics.curves import ratio
from ultraad.metrics.metric import Metric
from ultraad.metrics.sketch import Sketch, Values, compress, runs

FPR_LIMIT = 0.3  # Bergmann et al., CVPR 2019 (MVTec AD)
CAPACITY = 2**18  # error of the AUROC below 5e-6 on distinct scores; 30 MB
MAX_CLUSTERS = 1024  # with CLUSTER_BINS about 30 MB
CLUSTER_BINS = 512  # only for intervals, which move by a few percent of their width
PRIOR_BINS = 1024  # equal-area rings of the centre prior

_NEG, _POS, _PRO, _UP, _DOWN = range(5)  # rows of mass
_TP, _PREDICTED, _TRUE, _DICE, _IOU, _LESIONS = range(6)  # sums per cluster


@dataclass(frozen=True, slots=True)
class Masses:
    """The input of a formula: masses over falling scores and sums over images; leading axes are free.

    Attributes:
        neg: (... g) healthy pixels.
        pos: (... g) lesion pixels.
        per_region: (... g) lesion pixels, each weighted by one over the size of its region.
        rises: (... g) rises of the Dice curves of the images, summed.
        falls: (... g) falls of these curves.
        wide: bool (g,) bins that hold more than one score.
        lesions: (...) lesion images.
        true_positives: (...) lesion pixels found at the stored threshold; NaN without threshold or lesion pixels, as
            are the next two.
        dice: (...) sum of Dice over lesion images.
        iou: (...) sum of intersection over union over lesion images.
        predicted: (...) pixels at or above the stored threshold.
        true: (...) lesion pixels.
    """

    neg: Array
    pos: Array
    per_region: Array
    rises: Array
    falls: Array
    wide: NDArray[np.bool_]
    lesions: Array
    true_positives: Array
    dice: Array
    iou: Array
    predicted: Array
    true: Array

    @classmethod
    def of(cls, mass: Array, sums: Array, *, wide: NDArray[np.bool_], stored: bool) -> Masses:
        """From masses (5 ... g) and sums (6 ...); ``stored`` says whether there is a stored threshold."""
        known = np.where((sums[_TRUE] > 0) & stored, 1.0, np.nan)
        return cls(
            neg=mass[_NEG],
            pos=mass[_POS],
            per_region=mass[_PRO],
            rises=mass[_UP],
            falls=mass[_DOWN],
            wide=wide,
            lesions=sums[_LESIONS],
            true_positives=known * sums[_TP],
            dice=known * sums[_DICE],
            iou=known * sums[_IOU],
            predicted=sums[_PREDICTED],
            true=sums[_TRUE],
        )

    @property
    def dice_curve(self) -> Array:
        """(... g) sum of Dice over lesion images at every threshold."""
        return np.cumsum(self.rises - self.falls, -1)


Formula = Callable[[Masses], Array]

RANKED: Mapping[str, tuple[Formula, Formula]] = {
    "pixel_auroc": (lambda m: curves.area(m.neg, m.pos), lambda m: curves.area_error(m.neg, m.pos, m.wide)),
    "pixel_ap": (
        lambda m: curves.average_precision(m.neg, m.pos, wide=m.wide),
        lambda m: curves.average_precision_error(m.neg, m.pos, m.wide),
    ),
    "aupro": (  # overlap averaged over regions
        lambda m: curves.area(m.neg, m.per_region, limit=FPR_LIMIT),
        lambda m: curves.area_error(m.neg, m.per_region, m.wide, limit=FPR_LIMIT),
    ),
    "pixel_f1_oracle": (lambda m: curves.f1_max(m.neg, m.pos), lambda m: curves.f1_max_error(m.neg, m.pos, m.wide)),
    "dice_oracle": (  # one threshold for all images
        lambda m: np.minimum(ratio(m.dice_curve.max(-1), m.lesions), 1.0),  # rounding can exceed 1
        lambda m: _dice_oracle_error(m),
    ),
}
"""Metrics without a stored threshold (...), NaN where undefined, each with a bound on what merged bins can change."""
FORMULAS: Mapping[str, Formula] = {
    **{name: value for name, (value, _) in RANKED.items()},
    "dice": lambda m: ratio(m.dice, m.lesions),
    "dice_pooled": lambda m: ratio(2 * m.true_positives, m.predicted + m.true),
    "iou": lambda m: ratio(m.iou, m.lesions),
}
"""Each metric but the centre prior; in the order of metrics.json."""
PRIOR = "pixel_auroc_centre_prior"


@dataclass(frozen=True, slots=True)
class PixelTable:
    """What the metrics need of each cluster, without the maps; for intervals and paired tests.

    Attributes:
        groups: Cluster names (c,), in the order of first appearance.
        mass: float (c 5 g): healthy, lesion, region-weighted lesion, rises and falls of Dice, over falling scores.
        wide: bool (g,), bins that hold more than one score.
        sums: float (c 6): true positives, predicted, true, Dice, IoU, lesion images, at the stored threshold.
        stored: Whether there is a stored threshold.
    """

    groups: tuple[str, ...]
    mass: NDArray[np.floating]
    wide: NDArray[np.bool_]
    sums: Array
    stored: bool

    def compute(self, weights: Array) -> dict[str, Array]:
        """Every metric except the centre prior, on a coarse score axis.

        Args:
            weights: float (b c) of the clusters.

        Returns:
            {metric: (b,)}, NaN where undefined.
        """
        mass = np.moveaxis(np.tensordot(weights, self.mass, 1), 1, 0)  # (5 b g)
        masses = Masses.of(mass, (weights @ self.sums).T, wide=self.wide, stored=self.stored)
        return {name: formula(masses) for name, formula in FORMULAS.items()}

    def select(self, groups: Sequence[str]) -> PixelTable:
        """The table of these clusters, in this order."""
        at = [self.groups.index(g) for g in groups]
        return replace(self, groups=tuple(groups), mass=self.mass[at], sums=self.sums[at])


class PixelMetrics:
    """Metrics of maps and masks that are added one by one; positive means ``map >= threshold``.

    All pixels of all images count alike, those of normal images included, except where a metric is a mean over lesion
    images or regions. Metrics without a stored threshold are exact up to ``capacity`` different scores; beyond that
    each metric's ``error`` is a computed bound. Intervals come from a coarse copy per cluster, shifted onto the value.

    Args:
        threshold: Stored pixel threshold; None leaves the metrics at it undefined.
        capacity: Different scores kept before merging.
        max_clusters: Number of separate patients for the bootstrap; later patients share with these by a hash.
    """

    def __init__(
        self,
        *,
        threshold: float | None = None,
        capacity: int = CAPACITY,
        max_clusters: int = MAX_CLUSTERS,
    ) -> None:
        self.threshold = threshold
        self.images = self.lesions = self.regions = 0
        self._sketch = Sketch(5, capacity=capacity, graded=True)
        self._max_clusters = max_clusters
        self._cluster: dict[str, int] = {}
        self._sketches: list[Sketch] = []
        self._sums: list[Array] = []
        self._prior: list[Array] = []

    def add(self, scores: Values, mask: NDArray[np.bool_], *, group: str) -> dict[str, float | None]:
        """Add one image.

        Args:
            scores: float32 (h w), any finite range, higher is more anomalous.
            mask: bool (h w), True on lesion; all False for a normal image.
            group: The patient, or the image itself: the unit of resampling.

        Returns:
            Metrics of the image alone: ``lesion`` (share of lesion pixels), ``auroc``, ``ap``, ``dice_best`` (the
            largest over its thresholds), ``dice`` and ``iou`` at the stored threshold; None where undefined.

        Raises:
            DataError: If shapes differ or a score is not finite.
        """
        scores, mask = np.asarray(scores, dtype=np.float32), np.asarray(mask)
        if scores.ndim != 2 or scores.shape != mask.shape or mask.dtype != np.bool_ or scores.size == 0:
            msg = (
                f"group {group!r}: map {scores.shape} and mask {mask.shape} of {mask.dtype} must be two non-empty "
                "(h w) arrays of one shape, the mask bool; bring the map to the mask's pixel grid first"
            )
            raise DataError(msg)
        if not np.isfinite(scores).all():
            msg = f"group {group!r}: the map has NaN or infinite scores; pixel metrics need finite ones"
            raise DataError(msg)
        regions, region = _regions(mask)
        values, mass = _image_masses(scores, mask, region)
        c = self._cluster_of(group)
        sums = _image_sums(scores, mask, self.threshold)
        own = _image_numbers(mass, sums, pixels=scores.size, stored=self.threshold is not None)
        self._sketch.add(values, mass)
        if values.size > 4 * CLUSTER_BINS:
            values, _, mass = compress(values, values, mass, bins=2 * CLUSTER_BINS)
        self._sketches[c].add(values, mass)
        self._sums[c] += sums
        self._prior[c] += _prior_masses(mask)
        self.images += 1
        self.lesions += regions > 0
        self.regions += regions
        return own

    def _cluster_of(self, group: str) -> int:
        if group in self._cluster:
            return self._cluster[group]
        n = len(self._cluster)
        if n == self._max_clusters:  # not stored, so that memory stays bounded
            return int.from_bytes(blake2b(group.encode(), digest_size=8).digest(), "little") % n
        self._cluster[group] = n
        self._sketches.append(Sketch(5, capacity=CLUSTER_BINS))
        self._sums.append(np.zeros(6))
        self._prior.append(np.zeros((2, PRIOR_BINS)))
        return n

    def result(self, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Metric]:
        """All metrics of the images so far; more can be added afterwards.

        Args:
            resamples: Bootstrap resamples for the 95 % intervals; 0 for none.
            seed: Seed of the bootstrap.
        """
        coarse = measure(self._statistics(), np.arange(len(self._sums)), resamples=resamples, seed=seed)
        low, high, mass = self._sketch.bins()
        if not low.size:
            return coarse
        falling, wide = mass[:, ::-1], (low != high)[::-1]
        masses = Masses.of(falling, np.sum(self._sums, axis=0), wide=wide, stored=self.threshold is not None)
        neg, pos = np.sum(self._prior, axis=0)
        out = dict(coarse)
        if coarse[PRIOR].value is not None:
            out[PRIOR] = replace(coarse[PRIOR], error=float(curves.area_error(neg, pos, np.ones(PRIOR_BINS, bool))))
        for name, (formula, bound) in RANKED.items():
            metric, exact = coarse[name], float(formula(masses))
            if metric.value is None or math.isnan(exact):
                continue
            shift = exact - metric.value
            ends = [None if e is None else min(max(e + shift, 0.0), 1.0) for e in (metric.low, metric.high)]
            out[name] = replace(metric, value=exact, low=ends[0], high=ends[1], error=float(bound(masses)))
        return out

    def curves(self, *, limit: int = 512) -> dict[str, dict[str, list[float | None]]]:
        """``{"roc": ..., "pr": ...}`` over all pixels, at most ``limit`` points each; see :func:`.curves.points`."""
        low, _, mass = self._sketch.bins()
        return curves.points(mass[_NEG, ::-1], mass[_POS, ::-1], low[::-1], limit=limit)

    def best_dice(self) -> tuple[float, float] | None:
        """The threshold of ``dice_oracle`` and the mean Dice over lesion images there; None without lesions."""
        low, _, mass = self._sketch.bins()
        if not self.lesions:
            return None
        dice = np.cumsum((mass[_UP] - mass[_DOWN])[::-1]) / self.lesions
        best = int(dice.argmax())
        return float(low[::-1][best]), min(float(dice[best]), 1.0)

    def table(self, *, bins: int = 2 * CLUSTER_BINS) -> PixelTable:
        """What the metrics need of each cluster, on one common score axis.

        Args:
            bins: Number of bins wanted; see :func:`.sketch.compress`.
        """
        low, high, mass = self._sketch.bins()
        if low.size:
            low, high, _ = compress(low, high, mass, bins=bins)
        table = np.zeros((len(self._sketches), 5, low.size))  # (c 5 g), falling scores
        for rows, sketch in zip(table, self._sketches, strict=True):
            c_low, c_high, c_mass = sketch.bins()
            at = np.searchsorted(low, c_low + (c_high - c_low) / 2, side="right") - 1
            for row, m in zip(rows, c_mass, strict=True):
                row += np.bincount(at, weights=m, minlength=low.size)[::-1]
        sums = np.array(self._sums).reshape(-1, 6)
        return PixelTable(tuple(self._cluster), table, (low != high)[::-1], sums, stored=self.threshold is not None)

    def _statistics(self) -> Statistics:
        """The metrics as functions of cluster weights, from the coarse copies on one common grid."""
        table, prior = self.table(), np.array(self._prior)

        def compute(weights: Array) -> dict[str, Array]:
            neg, pos = np.moveaxis(np.tensordot(weights, prior, 1), 1, 0)
            return {**table.compute(weights), PRIOR: curves.area(neg, pos)}

        unmet: dict[Need, str] = {}
        if not self.images:
            unmet["images"] = "no image with both a map and a mask"
        if not self.lesions:
            unmet["lesion"] = "no lesion in any mask"
        if self.threshold is None:
            unmet["threshold"] = "no stored pixel threshold"
        sizes: dict[Over, int] = {"all": self.images, "lesion": self.lesions}
        return Statistics.of(compute, (*FORMULAS, PRIOR), sizes=sizes, unmet=unmet)


def _regions(mask: NDArray[np.bool_]) -> tuple[int, NDArray[np.int32]]:
    """Number of 8-connected regions (as in MVTec AD's evaluation), and the region of each lesion pixel (p,), from 1."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return count - 1, labels[mask].astype(np.int32)  # the background counts as one


def _image_masses(scores: Values, mask: NDArray[np.bool_], region: NDArray[np.int32]) -> tuple[Values, Array]:
    """Distinct scores of one image, rising (m,), and their masses (5 m); ``region`` (p,) of each lesion pixel."""
    ordered = np.sort(scores, axis=None)
    starts = runs(ordered)
    values = ordered[starts]
    mass = np.zeros((5, values.size))
    mass[_NEG] = np.diff(starts, append=ordered.size)
    if region.size == 0:
        return values, mass
    lesion = scores[mask]  # (p,)
    order = np.argsort(lesion)  # searching in order is faster
    at = np.searchsorted(values, lesion[order])
    pos = np.bincount(at, minlength=values.size)
    mass[_PRO] = np.bincount(at, weights=1 / np.bincount(region)[region[order]], minlength=values.size)
    mass[_POS] = pos
    mass[_NEG] -= pos
    found = region.size - np.cumsum(pos) + pos  # lesion pixels at or above each value
    dice = 2 * found / (region.size + ordered.size - starts)
    step = np.append(dice[:-1] - dice[1:], dice[-1])  # change of Dice when the threshold falls to this value
    np.maximum(step, 0, out=mass[_UP])
    np.subtract(mass[_UP], step, out=mass[_DOWN])
    return values, mass


def _image_sums(scores: Values, mask: NDArray[np.bool_], threshold: float | None) -> Array:
    """What one image adds to the metrics at the stored threshold, (6,)."""
    true = np.count_nonzero(mask)
    if threshold is None:
        return np.array([0, 0, true, 0, 0, true > 0], dtype=np.float64)
    predicted = scores >= np.float32(threshold)
    tp, p = np.count_nonzero(predicted & mask), np.count_nonzero(predicted)
    dice, iou = (2 * tp / (p + true), tp / (p + true - tp)) if true else (0.0, 0.0)
    return np.array([tp, p, true, dice, iou, true > 0])


def _image_numbers(mass: Array, sums: Array, *, pixels: int, stored: bool) -> dict[str, float | None]:
    """The metrics of one image from its masses (5 m) over rising scores and its sums (6,)."""
    found: dict[str, float | None] = dict.fromkeys(("auroc", "ap", "dice_best", "dice", "iou"))
    if sums[_TRUE]:
        neg, pos = curves.stretches(mass[_NEG, ::-1], mass[_POS, ::-1])
        found["auroc"] = float(curves.area(neg, pos)) if sums[_TRUE] < pixels else None
        found["ap"] = float(curves.average_precision(neg, pos))
        found["dice_best"] = float(curves.f1_max(neg, pos))
        if stored:
            found |= {"dice": float(sums[_DICE]), "iou": float(sums[_IOU])}
    return {"lesion": float(sums[_TRUE] / pixels), **found}


def _prior_masses(mask: NDArray[np.bool_]) -> Array:
    """(healthy, lesion) pixels per ring around the centre, innermost first: (2 PRIOR_BINS)."""
    ring, pixels = _rings(*mask.shape)
    lesion = np.bincount(ring[mask], minlength=PRIOR_BINS)
    return np.array([pixels - lesion, lesion], dtype=np.float64)


@lru_cache(maxsize=4)  # many data sets have images of few sizes
def _rings(h: int, w: int) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Ring of each pixel (h w) and pixels per ring (PRIOR_BINS,).

    A Gaussian ranks pixels by ``(dy / sigma_y)^2 + (dx / sigma_x)^2``, at most 8 in the corners for sigma = side / 4.
    """
    y, x = (((np.arange(n) + 0.5) / n - 0.5) * 4 for n in (h, w))
    ring = (((y**2)[:, None] + x**2) * (PRIOR_BINS / 8)).astype(np.int16)
    return ring, np.bincount(ring.ravel(), minlength=PRIOR_BINS)


def _dice_oracle_error(m: Masses) -> Array:
    """How much the largest mean Dice could be higher between the thresholds inside wide bins."""
    best = m.dice_curve.max(-1)
    inner = (m.dice_curve + np.where(m.wide, m.falls, 0)).max(-1)  # all rises of a bin before its falls
    return ratio(inner - best, m.lesions)
