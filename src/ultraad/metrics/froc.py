"""Detection of single lesions: which of the found lesions are true ones, and how many false ones each hit costs.

A found lesion (:mod:`.lesions`, at the stored pixel threshold) hits the true lesion that its peak lies in. Of several
that hit the same one, the highest score counts; the others are neither hits nor false. A found lesion whose peak is
outside all true lesions is false. True lesions are the 8-connected regions of the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ultraad.metrics.curves import Array, Ranking, ratio
from ultraad.metrics.lesions import find_peaks

RATES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)  # false lesions per image; LUNA16: Setio et al., Medical Image Analysis 2017
STEPS = tuple(k / 100 for k in range(1, 101))
"""Thresholds of maps at which false lesions are counted for a promise about their number."""
COUNTED = 3
"""False lesions of an image that count there: a promise needs a bound."""
_CHUNK = 1_000_000  # weights in memory at once, 8 MB


@dataclass(frozen=True, slots=True)
class Matched:
    """The found lesions of one image against its true ones.

    Attributes:
        hits: Score of each true lesion that was hit.
        false: Score of each false lesion.
    """

    hits: tuple[float, ...]
    false: tuple[float, ...]


def match(peaks: Sequence[tuple[float, tuple[int, int]]], regions: NDArray[np.integer]) -> Matched:
    """Match found lesions with true ones.

    Args:
        peaks: (score, (x, y)) of each found lesion; see :func:`.lesions.find_peaks`.
        regions: int (h w), the number of the true lesion at each pixel, 0 outside.
    """
    best: dict[int, float] = {}
    false: list[float] = []
    for score, (x, y) in peaks:
        region = int(regions[y, x])
        if region:
            best[region] = max(score, best.get(region, score))
        else:
            false.append(score)
    return Matched(tuple(best.values()), tuple(false))


def mean_sensitivity(
    false: Array, hits: Array, *, lesions: Array, images: Array, rates: Sequence[float] = RATES
) -> Array:
    """Sensitivity for lesions, averaged over rates of false lesions per image (the score of LUNA16).

    At each rate it is the largest sensitivity among the thresholds that do not exceed it; nothing is interpolated.

    Args:
        false: (... m) false lesions at each distinct score, falling.
        hits: (... m) true lesions whose highest hit has this score.
        lesions: (...) true lesions.
        images: (...) images.
        rates: False lesions per image.

    Returns:
        (...) in [0, 1]; NaN without true lesions.
    """
    found = ratio(np.cumsum(hits, -1), lesions[..., None])
    cost = ratio(np.cumsum(false, -1), images[..., None])
    at = [np.where(cost <= rate + 1e-9, found, 0.0).max(-1, initial=0.0) for rate in rates]
    mean: Array = np.mean(at, axis=0)
    return np.where(lesions > 0, mean, np.nan)


def false_levels(
    map: NDArray[np.float32],  # noqa: A002  the noun of Scores
    mask: NDArray[np.bool_],
    *,
    steps: Sequence[float] = STEPS,
    most: int = COUNTED,
) -> tuple[float, ...]:
    """The highest of some thresholds at which a map has more than 0, 1, ..., ``most`` - 1 false lesions; -1 if none.

    Args:
        map: f32 (h w), finite.
        mask: bool (h w), True on true lesions.
        steps: The thresholds.
        most: How many values.
    """
    found = [-1.0] * most
    regions = mask.astype(np.int32)
    for step in sorted(steps, reverse=True):
        count = len(match(find_peaks(map, step), regions).false)
        found = [step if value < 0 and j < count else value for j, value in enumerate(found)]
        if found[-1] >= 0:
            break
    return tuple(found)


class FoundLesions:
    """The matched lesions of many images: a score, whether it is a hit, and the cluster of the image, for each."""

    def __init__(self) -> None:
        self._scores: list[float] = []
        self._hit: list[bool] = []
        self._cluster: list[int] = []

    def add(self, matched: Matched, *, cluster: int) -> None:
        """Add the lesions of one image."""
        self._scores += [*matched.hits, *matched.false]
        self._hit += [True] * len(matched.hits) + [False] * len(matched.false)
        self._cluster += [cluster] * (len(matched.hits) + len(matched.false))

    def mean_sensitivity(self, weights: Array, *, lesions: Array, images: Array) -> Array:
        """:func:`mean_sensitivity` for weights (b c) of the clusters, with true lesions (b,) and images (b,)."""
        ranking, step = Ranking(self._scores, self._hit), max(1, _CHUNK // max(len(self._scores), 1))
        parts = []
        for i in range(0, len(weights), step):
            some = slice(i, i + step)
            false, hits = ranking.masses(weights[some][:, self._cluster])  # (b m)
            parts.append(mean_sensitivity(false, hits, lesions=lesions[some], images=images[some]))
        return np.concatenate(parts)

    def curve(self, *, lesions: int, images: int) -> dict[str, list[float]]:
        """The FROC curve: ``sensitivity`` over ``false_per_image`` at every falling ``threshold``."""
        ranking = Ranking(self._scores, self._hit)
        false, hits = (np.cumsum(mass[0]) for mass in ranking.masses())
        return {
            "false_per_image": (false / images).tolist(),
            "sensitivity": (hits / lesions).tolist(),
            "threshold": ranking.thresholds.tolist(),
        }
