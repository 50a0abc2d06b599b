"""Detection of single lesions against a slow version that shares no code, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from ultraad.metrics.bootstrap import counts
from ultraad.metrics.froc import RATES, match, mean_sensitivity
from ultraad.metrics.lesions import find_peaks
from ultraad.metrics.pixel import PixelMetrics

EIGHT = np.ones((3, 3))
THRESHOLD = 0.55


def case(n=14, shape=(40, 50)):
    """Maps with several blobs of many heights, and masks with none to three lesions."""
    rng = np.random.default_rng(11)
    maps, masks = np.zeros((n, *shape), np.float32), np.zeros((n, *shape), bool)
    for i in range(n):
        field = ndimage.gaussian_filter(rng.normal(size=shape), 2.5)
        for _ in range(i % 4):
            y, x = rng.integers(4, 30), rng.integers(4, 40)
            masks[i, y : y + 6, x : x + 6] = True
        field = field / field.std() + 1.5 * masks[i]
        maps[i] = 1 / (1 + np.exp(-field))
    return maps, masks


def slow(maps, masks):
    """Lesion sensitivity, false lesions per image, mean sensitivity over RATES."""
    found, total = [], 0  # (score, image, number of the true lesion or 0)
    for i, (scores, mask) in enumerate(zip(maps, masks, strict=True)):
        truth, count = ndimage.label(mask, EIGHT)
        total += count
        parts, count = ndimage.label(scores >= THRESHOLD, EIGHT)
        for part in range(1, count + 1):
            if (parts == part).sum() >= math.ceil(0.0005 * mask.size):
                y, x = ndimage.maximum_position(scores, parts, part)
                found.append((float(scores[y, x]), i, int(truth[y, x])))

    def at(threshold):
        taken = [f for f in found if f[0] >= threshold]
        hits = {(i, region) for _, i, region in taken if region}
        return len(hits) / total, sum(region == 0 for *_, region in taken) / len(maps)

    points = [at(score) for score, *_ in found]
    mean = np.mean([max((s for s, cost in points if cost <= rate), default=0.0) for rate in RATES])
    return (*at(-1.0), mean)


KEYS = ("lesion_sensitivity", "false_lesions", "froc")


def run(maps, masks, threshold=THRESHOLD):
    p = PixelMetrics(threshold=threshold)
    for i, (scores, mask) in enumerate(zip(maps, masks, strict=True)):
        p.add(scores, mask, group=str(i))
    return p


def test_the_metrics_equal_the_slow_version():
    maps, masks = case()
    got = run(maps, masks).result(resamples=0)
    values = slow(maps, masks)
    assert 0 < values[2] < values[0] < 1 < values[1]
    for key, value in zip(KEYS, values, strict=True):
        assert got[key].value == pytest.approx(value), key


def test_intervals_equal_the_slow_version_on_resampled_images():
    maps, masks = case()
    got = run(maps, masks).result(resamples=30, seed=5)
    drawn = counts(len(maps), resamples=30, seed=5).astype(int)
    again = [slow(np.repeat(maps, row, 0), np.repeat(masks, row, 0)) for row in drawn]
    for key, values in zip(KEYS, zip(*again, strict=True), strict=True):
        low, high = np.quantile(values, [0.025, 0.975])
        assert (got[key].low, got[key].high) == (pytest.approx(low), pytest.approx(high)), key


def test_the_curve_passes_through_the_metrics():
    maps, masks = case()
    p = run(maps, masks)
    curve, got = p.froc(), p.result(resamples=0)
    assert curve["sensitivity"][-1] == pytest.approx(got["lesion_sensitivity"].value)
    assert curve["false_per_image"][-1] == pytest.approx(got["false_lesions"].value)
    assert curve["threshold"] == sorted(curve["threshold"], reverse=True)
    below = [s for s, cost in zip(curve["sensitivity"], curve["false_per_image"], strict=True) if cost <= 0.5]
    assert 0 < max(below) < curve["sensitivity"][-1]


def test_a_second_hit_counts_once_and_is_not_false():
    regions = np.zeros((10, 10), int)
    regions[2:5, 2:5], regions[7:9, 7:9] = 1, 2
    got = match([(0.6, (2, 2)), (0.9, (4, 4)), (0.7, (0, 0)), (0.8, (7, 8))], regions)
    assert got.hits == (0.9, 0.8)
    assert got.false == (0.7,)


def test_the_mean_over_rates_by_hand():
    """Falling scores: hit, false, false, hit; 2 lesions in 4 images: half at 1/8 and 1/4, all from 1/2 on."""
    hits, false = np.array([[1.0, 0, 0, 1]]), np.array([[0.0, 1, 1, 0]])
    got = mean_sensitivity(false, hits, lesions=np.array([2.0]), images=np.array([4.0]))
    assert got == pytest.approx([(0.5 * 2 + 1.0 * 5) / 7])
    none = mean_sensitivity(np.zeros((1, 0)), np.zeros((1, 0)), lesions=np.array([2.0]), images=np.array([4.0]))
    assert none == [0.0]


def test_specks_are_no_false_lesions():
    scores = np.zeros((100, 100), np.float32)
    scores[3, 3:7] = 0.9  # four pixels; five are a lesion
    scores[50:60, 50:60] = 0.8
    assert find_peaks(scores, 0.5) == [(pytest.approx(0.8), (54, 54))]
    got = run(scores[None], np.zeros((1, 100, 100), bool), 0.5).result(resamples=0)
    assert got["false_lesions"].value == 1


def test_what_is_undefined_without_lesions_or_threshold():
    normal = run(np.zeros((2, 8, 8), np.float32), np.zeros((2, 8, 8), bool)).result(resamples=0)
    assert normal["false_lesions"].value == 0
    assert {normal[k].reason for k in ("lesion_sensitivity", "froc")} == {"no lesion in any mask"}
    maps, masks = case(5)
    bare = run(maps, masks, None)
    assert bare.froc() is None
    assert {bare.result(resamples=0)[k].reason for k in KEYS} == {"no stored pixel threshold"}
