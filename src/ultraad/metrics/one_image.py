"""What one image adds to the localisation metrics: masses over its scores, and sums."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from ultraad.metrics import curves
from ultraad.metrics.curves import Array
from ultraad.metrics.froc import Matched
from ultraad.metrics.sketch import Values, runs

SMALL = 0.02  # share of the image below which its lesions are small (ours)
PRIOR_BINS = 1024  # equal-area rings of the centre prior

NEG, POS, PRO, UP, DOWN = range(5)
TP, PREDICTED, TRUE, DICE, IOU, LESIONS, PEAKS, SMALL_LESIONS, SMALL_PEAKS, IMAGES, REGIONS, HITS, FALSE = range(13)
MASSES, SUMS = 5, 13  # rows of mass, and sums


def regions_of(mask: NDArray[np.bool_]) -> tuple[int, NDArray[np.int32]]:
    """Number of 8-connected regions (as in MVTec AD's evaluation), and the region of each pixel (h w), 0 outside."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return count - 1, labels.astype(np.int32, copy=False)  # the background counts as one


def masses_of(scores: Values, mask: NDArray[np.bool_], region: NDArray[np.int32]) -> tuple[Values, Array]:
    """Distinct scores of one image, rising (m,), and their masses (5 m); ``region`` (p,) of each lesion pixel."""
    ordered = np.sort(scores, axis=None)
    starts = runs(ordered)
    values = ordered[starts]
    mass = np.zeros((MASSES, values.size))
    mass[NEG] = np.diff(starts, append=ordered.size)
    if region.size == 0:
        return values, mass
    lesion = scores[mask]  # (p,)
    order = np.argsort(lesion)  # searching in order is faster
    at = np.searchsorted(values, lesion[order])
    pos = np.bincount(at, minlength=values.size)
    mass[PRO] = np.bincount(at, weights=1 / np.bincount(region)[region[order]], minlength=values.size)
    mass[POS] = pos
    mass[NEG] -= pos
    found = region.size - np.cumsum(pos) + pos  # lesion pixels at or above each value
    dice = 2 * found / (region.size + ordered.size - starts)
    step = np.append(dice[:-1] - dice[1:], dice[-1])  # change of Dice when the threshold falls to this value
    np.maximum(step, 0, out=mass[UP])
    np.subtract(mass[UP], step, out=mass[DOWN])
    return values, mass


def sums_of(
    scores: Values, mask: NDArray[np.bool_], threshold: float | None, *, regions: int, matched: Matched
) -> Array:
    """What one image adds to the metrics that are means over images or use the stored threshold, (SUMS,).

    Args:
        scores: (h w).
        mask: (h w).
        threshold: Stored pixel threshold.
        regions: True lesions.
        matched: The lesions found at the threshold; none without one.
    """
    sums = np.zeros(SUMS)
    sums[[IMAGES, REGIONS, HITS, FALSE]] = 1, regions, len(matched.hits), len(matched.false)
    true = np.count_nonzero(mask)
    if true:
        inside = peak_inside(scores, mask)
        small = true < SMALL * mask.size
        sums[[LESIONS, PEAKS, SMALL_LESIONS, SMALL_PEAKS]] = 1, inside, small, small * inside
    sums[TRUE] = true
    if threshold is not None:
        predicted = scores >= np.float32(threshold)
        tp, p = np.count_nonzero(predicted & mask), np.count_nonzero(predicted)
        sums[[TP, PREDICTED]] = tp, p
        if true:
            sums[[DICE, IOU]] = 2 * tp / (p + true), tp / (p + true - tp)
    return sums


def peak_inside(scores: Values, mask: NDArray[np.bool_]) -> float:
    """Whether the highest score is inside the mask: 1 or 0; of several equal ones, the share that is inside.

    So a map of a single value gets the share of lesion pixels, as a guess would.
    """
    return float(mask[scores == scores.max()].mean())


def numbers_of(mass: Array, sums: Array, *, pixels: int, stored: bool) -> dict[str, float | None]:
    """The metrics of one image from its masses (5 m) over rising scores and its sums (SUMS,)."""
    found: dict[str, float | None] = dict.fromkeys(("auroc", "ap", "dice_best", "peak", "dice", "iou"))
    if sums[TRUE]:
        neg, pos = curves.stretches(mass[NEG, ::-1], mass[POS, ::-1])
        found["auroc"] = float(curves.area(neg, pos)) if sums[TRUE] < pixels else None
        found["ap"] = float(curves.average_precision(neg, pos))
        found["dice_best"] = float(curves.f1_max(neg, pos))
        found["peak"] = float(sums[PEAKS])
        if stored:
            found |= {"dice": float(sums[DICE]), "iou": float(sums[IOU])}
    return {"lesion": float(sums[TRUE] / pixels), **found}


def prior_masses(mask: NDArray[np.bool_]) -> Array:
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
