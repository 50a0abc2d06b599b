"""Localisation metrics, one image at a time, in memory that does not grow with the number of images.

Every metric is a function of five masses above a threshold: healthy pixels, lesion pixels, lesion pixels weighted by
one over the size of their region (which sum to the overlap over regions), and the rises and falls of each image's own
Dice curve (whose difference is the sum of Dice over lesion images). All five are in one sketch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from ultraad.errors import DataError
from ultraad.metrics import curves, one_image
from ultraad.metrics.bootstrap import RESAMPLES, Array, Statistics, measure
from ultraad.metrics.catalogue import Need, Over, Sides
from ultraad.metrics.curves import ratio
from ultraad.metrics.froc import FoundLesions, match
from ultraad.metrics.lesions import find_peaks
from ultraad.metrics.metric import Metric
from ultraad.metrics.one_image import (
    MASSES,
    PRIOR_BINS,
    SMALL,
    SUMS,
    masses_of,
    numbers_of,
    prior_masses,
    regions_of,
    sums_of,
)
from ultraad.metrics.sketch import Sketch, Values, compress

FPR_LIMIT = 0.3  # Bergmann et al., CVPR 2019 (MVTec AD)
CAPACITY = 2**18  # error of the AUROC below 5e-6 on distinct scores; 30 MB
MAX_CLUSTERS = 1024  # with CLUSTER_BINS about 30 MB
CLUSTER_BINS = 512  # only for intervals, which move by a few percent of their width


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
        peaks: (...) lesion images whose highest score is inside a lesion; of several equal ones, the share inside.
        small_lesions: (...) lesion images with small lesions (:data:`.one_image.SMALL`).
        small_peaks: (...) the same as ``peaks`` of these.
        images: (...) images; NaN without a stored threshold, as are the next two.
        hits: (...) true lesions that were hit (:mod:`.froc`).
        false: (...) found lesions that hit none.
        regions: (...) true lesions.
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
    peaks: Array
    small_lesions: Array
    small_peaks: Array
    images: Array
    hits: Array
    false: Array
    regions: Array

    @classmethod
    def of(cls, mass: Array, sums: Array, *, wide: NDArray[np.bool_], stored: bool) -> Masses:
        """From masses (5 ... g) and sums (SUMS ...); ``stored`` says whether there is a stored threshold."""
        at_threshold = 1.0 if stored else np.nan
        known = np.where((sums[one_image.TRUE] > 0) & stored, 1.0, np.nan)
        return cls(
            neg=mass[one_image.NEG],
            pos=mass[one_image.POS],
            per_region=mass[one_image.PRO],
            rises=mass[one_image.UP],
            falls=mass[one_image.DOWN],
            wide=wide,
            lesions=sums[one_image.LESIONS],
            true_positives=known * sums[one_image.TP],
            dice=known * sums[one_image.DICE],
            iou=known * sums[one_image.IOU],
            predicted=sums[one_image.PREDICTED],
            true=sums[one_image.TRUE],
            peaks=sums[one_image.PEAKS],
            small_lesions=sums[one_image.SMALL_LESIONS],
            small_peaks=sums[one_image.SMALL_PEAKS],
            images=at_threshold * sums[one_image.IMAGES],
            hits=at_threshold * sums[one_image.HITS],
            false=at_threshold * sums[one_image.FALSE],
            regions=sums[one_image.REGIONS],
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
"""Metrics over all thresholds (...), NaN where undefined, each with a bound on what merged bins can change."""
FORMULAS: Mapping[str, Formula] = {
    **{name: value for name, (value, _) in RANKED.items()},
    "dice": lambda m: ratio(m.dice, m.lesions),
    "dice_pooled": lambda m: ratio(2 * m.true_positives, m.predicted + m.true),
    "iou": lambda m: ratio(m.iou, m.lesions),
    "lesion_sensitivity": lambda m: ratio(m.hits, m.regions),
    "false_lesions": lambda m: ratio(m.false, m.images),
    "peak_in_lesion": lambda m: ratio(m.peaks, m.lesions),
    "peak_in_small_lesion": lambda m: ratio(m.small_peaks, m.small_lesions),
}
"""Each metric but the next two; in the order of metrics.json."""
PRIOR, FROC = "pixel_auroc_centre_prior", "froc"


@dataclass(frozen=True, slots=True)
class PixelTable:
    """What the metrics need of each cluster, without the maps; for intervals and paired tests.

    Attributes:
        groups: Cluster names (c,), in the order of first appearance.
        mass: float (c 5 g): healthy, lesion, region-weighted lesion, rises and falls of Dice, over falling scores.
        wide: bool (g,), bins that hold more than one score.
        sums: float (c SUMS), in the order of :mod:`.one_image`; NaN for those that an older version did not have.
        stored: Whether there is a stored threshold.
    """

    groups: tuple[str, ...]
    mass: NDArray[np.floating]
    wide: NDArray[np.bool_]
    sums: Array
    stored: bool

    def compute(self, weights: Array) -> dict[str, Array]:
        """Every metric of :data:`FORMULAS`, on a coarse score axis.

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
        self._sketch = Sketch(MASSES, capacity=capacity, graded=True)
        self._max_clusters = max_clusters
        self._cluster: dict[str, int] = {}
        self._sketches: list[Sketch] = []
        self._sums: list[Array] = []
        self._prior: list[Array] = []
        self._found = FoundLesions()

    def add(self, scores: Values, mask: NDArray[np.bool_], *, group: str) -> dict[str, float | None]:
        """Add one image.

        Args:
            scores: float32 (h w), any finite range, higher is more anomalous.
            mask: bool (h w), True on lesion; all False for a normal image.
            group: The patient, or the image itself: the unit of resampling.

        Returns:
            Metrics of the image alone: ``lesion`` (share of lesion pixels), ``auroc``, ``ap``, ``dice_best`` (the
            largest over its thresholds), ``peak`` (:func:`.one_image.peak_inside`), ``dice`` and ``iou`` at the stored
            threshold; None where undefined.

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
        regions, region = regions_of(mask)
        values, mass = masses_of(scores, mask, region[mask])
        c = self._cluster_of(group)
        matched = match([] if self.threshold is None else find_peaks(scores, self.threshold), region)
        self._found.add(matched, cluster=c)
        sums = sums_of(scores, mask, self.threshold, regions=regions, matched=matched)
        own = numbers_of(mass, sums, pixels=scores.size, stored=self.threshold is not None)
        self._sketch.add(values, mass)
        if values.size > 4 * CLUSTER_BINS:
            values, _, mass = compress(values, values, mass, bins=2 * CLUSTER_BINS)
        self._sketches[c].add(values, mass)
        self._sums[c] += sums
        self._prior[c] += prior_masses(mask)
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
        self._sketches.append(Sketch(MASSES, capacity=CLUSTER_BINS))
        self._sums.append(np.zeros(SUMS))
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
        return curves.points(mass[one_image.NEG, ::-1], mass[one_image.POS, ::-1], low[::-1], limit=limit)

    def froc(self) -> dict[str, list[float]] | None:
        """The FROC curve (:meth:`.FoundLesions.curve`); None without true lesions or a stored threshold."""
        if not self.regions or self.threshold is None:
            return None
        return self._found.curve(lesions=self.regions, images=self.images)

    def best_dice(self) -> tuple[float, float] | None:
        """The threshold of ``dice_oracle`` and the mean Dice over lesion images there; None without lesions."""
        low, _, mass = self._sketch.bins()
        if not self.lesions:
            return None
        dice = np.cumsum((mass[one_image.UP] - mass[one_image.DOWN])[::-1]) / self.lesions
        best = int(dice.argmax())
        return float(low[::-1][best]), min(float(dice[best]), 1.0)

    def at_quantile(self, quantile: float) -> tuple[float, float] | None:
        """The lowest threshold with at least this share of all pixels below it, and that share; None without images."""
        low, high, mass = self._sketch.bins()
        if not low.size:
            return None
        below = np.cumsum(mass[one_image.NEG] + mass[one_image.POS])
        last = int(np.searchsorted(below, quantile * below[-1] * (1 - 1e-12)))  # the last bin below the threshold
        above = np.nextafter(high[last], np.float32(np.inf))  # compared with maps in float32
        return float(above), float(below[last] / below[-1])

    def table(self, *, bins: int = 2 * CLUSTER_BINS) -> PixelTable:
        """What the metrics need of each cluster, on one common score axis.

        Args:
            bins: Number of bins wanted; see :func:`.sketch.compress`.
        """
        low, high, mass = self._sketch.bins()
        if low.size:
            low, high, _ = compress(low, high, mass, bins=bins)
        table = np.zeros((len(self._sketches), MASSES, low.size))  # (c 5 g), falling scores
        for rows, sketch in zip(table, self._sketches, strict=True):
            c_low, c_high, c_mass = sketch.bins()
            at = np.searchsorted(low, c_low + (c_high - c_low) / 2, side="right") - 1
            for row, m in zip(rows, c_mass, strict=True):
                row += np.bincount(at, weights=m, minlength=low.size)[::-1]
        sums = np.array(self._sums).reshape(-1, SUMS)
        return PixelTable(tuple(self._cluster), table, (low != high)[::-1], sums, stored=self.threshold is not None)

    def _statistics(self) -> Statistics:
        """The metrics as functions of cluster weights, from the coarse copies on one common grid."""
        table, prior = self.table(), np.array(self._prior)
        known = np.nan if self.threshold is None else 1.0

        def compute(weights: Array) -> dict[str, Array]:
            neg, pos = np.moveaxis(np.tensordot(weights, prior, 1), 1, 0)
            lesions, images = (weights @ table.sums[:, [one_image.REGIONS, one_image.IMAGES]]).T
            froc = self._found.mean_sensitivity(weights, lesions=lesions, images=images)
            return {**table.compute(weights), PRIOR: curves.area(neg, pos), FROC: known * froc}

        unmet: dict[Need, str] = {}
        if not self.images:
            unmet["images"] = "no image with both a map and a mask"
        if not self.lesions:
            unmet["lesion"] = "no lesion in any mask"
        lesions, smalls = table.sums[:, [one_image.LESIONS, one_image.SMALL_LESIONS]].T
        small = int(smalls.sum())
        if not small:
            unmet["small lesion"] = f"no image with lesions under {SMALL:.0%} of it"
        if self.threshold is None:
            unmet["threshold"] = "no stored pixel threshold"
        sizes: dict[Over, int] = {"all": self.images, "lesion": self.lesions, "small lesion": small}
        sides: dict[Sides, NDArray[np.bool_]] = {
            "all": np.ones((1, lesions.size), dtype=bool),
            "lesion": lesions[None] > 0,
            "small lesion": smalls[None] > 0,
        }
        return Statistics.of(compute, (*FORMULAS, PRIOR, FROC), sizes=sizes, sides=sides, unmet=unmet)


def _dice_oracle_error(m: Masses) -> Array:
    """How much the largest mean Dice could be higher between the thresholds inside wide bins."""
    best = m.dice_curve.max(-1)
    inner = (m.dice_curve + np.where(m.wide, m.falls, 0)).max(-1)  # all rises of a bin before its falls
    return ratio(inner - best, m.lesions)
