from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from ultraad.errors import DataError
from ultraad.metrics.pixel import PixelMetrics

RANKED = ("pixel_auroc", "pixel_ap", "aupro", "pixel_f1_oracle", "dice_oracle")


def regions(mask):
    """8-connected regions by flood fill: a list of sets of (y, x)."""
    left, out = set(zip(*np.nonzero(mask), strict=True)), []
    while left:
        todo, region = [left.pop()], set()
        while todo:
            y, x = todo.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo += near
        out.append(region)
    return out


def dice(predicted, mask):
    return 2 * (predicted & mask).sum() / (predicted.sum() + mask.sum())


def brute(maps, masks):
    """Every definition spelled out, over every distinct threshold."""
    thresholds = sorted({float(v) for m in maps for v in m.ravel()}, reverse=True)
    lesions = [(m, k) for m, k in zip(maps, masks, strict=True) if k.any()]
    healthy = np.concatenate([m[~k] for m, k in zip(maps, masks, strict=True)])
    fpr, pro, best = [0.0], [0.0], 0.0
    for t in thresholds:
        fpr.append(float((healthy >= t).mean()))
        overlaps = [np.mean([m[p] >= t for p in r]) for m, k in lesions for r in regions(k)]
        pro.append(float(np.mean(overlaps)))
        best = max(best, float(np.mean([dice(m >= t, k) for m, k in lesions])))
    total = 0.0
    for x0, x1, y0, y1 in zip(fpr, fpr[1:], pro, pro[1:], strict=False):
        if x0 < 0.3 < x1:
            y1, x1 = y0 + (y1 - y0) * (0.3 - x0) / (x1 - x0), 0.3
        if x1 <= 0.3:
            total += (x1 - x0) * (y0 + y1) / 2
    s, y = np.concatenate([m.ravel() for m in maps]), np.concatenate([k.ravel() for k in masks])
    f1 = max(dice(s >= t, y) for t in thresholds)
    return dict(zip(RANKED, (roc_auc_score(y, s), average_precision_score(y, s), total / 0.3, f1, best), strict=True))


def random_case(seed, n=4, side=7, levels=12):
    rng = np.random.default_rng(seed)
    masks = rng.random((n, side, side)) < 0.25
    masks[0] = False
    masks[1, 2, 2] = True
    maps = (rng.integers(0, levels, (n, side, side)) + 3 * masks).astype(np.float32)
    return maps, masks


def run(maps, masks, **kwargs):
    p = PixelMetrics(**kwargs)
    for i, (m, k) in enumerate(zip(maps, masks, strict=True)):
        p.add(m, k, group=str(i))
    return p


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_equals_brute_force_over_all_thresholds(seed):
    maps, masks = random_case(seed)
    got = run(maps, masks).result(resamples=0)
    for name, value in brute(maps, masks).items():
        assert got[name].value == pytest.approx(value, abs=1e-12), name
        assert got[name].error == 0.0


def test_aupro_by_hand():
    """One region of two pixels and one of a single pixel that touches nothing; healthy pixels between them."""
    mask = np.array([[1, 1, 0, 0, 0, 1, 0, 0]], bool)
    scores = np.array([[8, 2, 7, 0, 0, 6, 0, 0]], np.float32)
    # falling: 8 hits half of region 1 (PRO .25), 7 is one of 5 healthy pixels (FPR .2), 6 hits region 2 (PRO .75),
    # 2 completes region 1 (PRO 1), then FPR 1. Up to FPR .3: .2 * .25 + .1 * 1
    got = run([scores], [mask]).result(resamples=0)["aupro"]
    assert got.value == pytest.approx((0.2 * 0.25 + 0.1) / 0.3)


def test_regions_that_touch_at_a_corner_are_one():
    p = run([np.zeros((2, 2), np.float32)], [np.eye(2, dtype=bool)])
    assert p.regions == 1


def test_dice_at_the_stored_threshold_by_hand():
    masks = np.zeros((3, 2, 2), bool)
    masks[1, 0] = True  # 2 lesion pixels
    masks[2, 0, 0] = True
    maps = np.array([[[0, 1], [0, 0]], [[1, 1], [1, 0]], [[0.5, 0], [0, 0]]], np.float32)
    got = run(maps, masks, threshold=0.5).result(resamples=0)
    assert got["dice"].value == pytest.approx((2 * 2 / (3 + 2) + 1) / 2)
    assert got["iou"].value == pytest.approx((2 / 3 + 1) / 2)
    assert got["dice_pooled"].value == pytest.approx(2 * 3 / (5 + 3))  # the normal image's false alarm counts here
    assert got["dice"].n == 2
    assert got["dice_pooled"].n == 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_monotone_transform_and_order_change_nothing(seed):
    maps, masks = random_case(seed)
    a = run(maps, masks).result(resamples=0)
    b = run((np.exp(maps / 4) - 5)[::-1], masks[::-1]).result(resamples=0)
    for name in RANKED:
        assert a[name].value == pytest.approx(b[name].value, abs=1e-12)


def smooth_case(n=12, side=64):
    rng = np.random.default_rng(0)
    masks = np.zeros((n, side, side), bool)
    for i in range(n):
        if i % 3:
            y, x = rng.integers(5, 40, 2)
            masks[i, y : y + 15, x : x + 12] = True
    logits = rng.normal(-2 + rng.normal(0, 0.5, (n, 1, 1)), 1.5, masks.shape) + 2.5 * masks
    return (1 / (1 + np.exp(-logits))).astype(np.float32), masks


@pytest.mark.parametrize("order", ["mixed", "normals first"])
def test_merged_sketch_keeps_its_promise(order):
    """With far fewer bins than scores the exact value lies within the reported error, which is small but not 0."""
    maps, masks = smooth_case()
    if order == "normals first":
        index = np.argsort(masks.any((1, 2)), kind="stable")
        maps, masks = maps[index], masks[index]
    exact = run(maps, masks, capacity=10**6).result(resamples=0)
    rough = run(maps, masks, capacity=2000).result(resamples=0)
    for name in RANKED:
        assert exact[name].error == 0.0
        assert rough[name].error < 0.03, name
        assert abs(rough[name].value - exact[name].value) <= rough[name].error + 1e-12, name
    assert rough["pixel_auroc"].error > 0


def test_best_dice_threshold_reaches_the_dice_it_promises():
    maps, masks = smooth_case()
    threshold, value = run(maps, masks).best_dice()
    at = run(maps, masks, threshold=threshold).result(resamples=0)
    assert at["dice"].value == pytest.approx(value, abs=1e-12)
    assert at["dice_oracle"].value == pytest.approx(value, abs=1e-12)


def test_centre_prior_is_the_auroc_of_a_gaussian_map():
    masks = np.zeros((2, 31, 44), bool)
    masks[0, 10:20, 15:30] = True
    masks[1, 0:9, 20:40] = True
    y, x = (((np.arange(n) + 0.5) / n - 0.5) / 0.25 for n in masks.shape[1:])
    gauss = np.broadcast_to(np.exp(-((y**2)[:, None] + x**2) / 2), masks.shape)
    got = run(np.zeros(masks.shape, np.float32), masks).result(resamples=0)["pixel_auroc_centre_prior"]
    assert got.error < 2e-3
    assert got.value == pytest.approx(roc_auc_score(masks.ravel(), gauss.ravel()), abs=got.error)


def slow_peaks(maps, masks):
    """(over lesion images, over those with lesions under 2 %), pixel by pixel."""
    shares, small = [], []
    for scores, mask in zip(maps.tolist(), masks.tolist(), strict=True):
        pixels = [(v, k) for row, truth in zip(scores, mask, strict=True) for v, k in zip(row, truth, strict=True)]
        if not any(k for _, k in pixels):
            continue
        top = max(v for v, _ in pixels)
        inside = [k for v, k in pixels if v == top]
        shares.append(sum(inside) / len(inside))
        if sum(k for _, k in pixels) < len(pixels) / 50:
            small.append(shares[-1])
    return np.mean(shares), np.mean(small)


@pytest.mark.parametrize("levels", [3, 10**6])
def test_the_peak_is_counted_as_pixel_by_pixel_with_ties_shared(levels):
    rng = np.random.default_rng(levels)
    masks = np.zeros((40, 20, 25), bool)
    for i, mask in enumerate(masks[4:]):
        mask[3 : 4 + i % 4, 5 : 8 + i // 4] = True
    maps = (rng.integers(0, levels, masks.shape) + levels // 8 * masks).astype(np.float32)
    got = run(maps, masks).result(resamples=20)
    every, small = slow_peaks(maps, masks)
    assert got["peak_in_lesion"].value == pytest.approx(every)
    assert got["peak_in_small_lesion"].value == pytest.approx(small)
    assert 0 < small < every < 1
    assert (got["peak_in_lesion"].n, got["peak_in_small_lesion"].n) == (36, sum(0 < k.sum() < 10 for k in masks))
    assert got["peak_in_small_lesion"].low <= small <= got["peak_in_small_lesion"].high


def test_the_peak_of_a_flat_map_is_a_guess_and_two_percent_are_not_small():
    masks = np.zeros((2, 10, 10), bool)
    masks[0, 0, 0] = masks[1, 0, :2] = True
    got = run(np.zeros(masks.shape, np.float32), masks).result(resamples=0)
    assert got["peak_in_lesion"].value == pytest.approx((0.01 + 0.02) / 2)
    assert (got["peak_in_small_lesion"].value, got["peak_in_small_lesion"].n) == (pytest.approx(0.01), 1)
    large = run(np.zeros((1, 10, 10), np.float32), masks[1:]).result(resamples=0)["peak_in_small_lesion"]
    assert (large.value, large.reason) == (None, "no image with lesions under 2% of it")


def test_a_constant_map_is_chance():
    _, masks = smooth_case(4)
    got = run(np.full(masks.shape, 0.3, np.float32), masks).result(resamples=0)
    assert got["pixel_auroc"].value == 0.5
    assert got["aupro"].value == pytest.approx(0.15)  # the diagonal up to 0.3


def test_intervals_equal_exact_resampling_of_images():
    """The coarse copies against recomputing each resample from all pixels."""
    from ultraad.metrics.bootstrap import counts

    maps, masks = smooth_case()
    p = run(maps, masks, threshold=0.5)
    got = p.result(resamples=40, seed=3)
    exact = {name: [] for name in (*RANKED, "dice", "dice_pooled", "iou")}
    for row in counts(len(maps), resamples=40, seed=3).astype(int):
        again = run(np.repeat(maps, row, 0), np.repeat(masks, row, 0), threshold=0.5).result(resamples=0)
        for name, values in exact.items():
            values.append(again[name].value)
    for name, values in exact.items():
        low, high = np.quantile(values, [0.025, 0.975])
        close = 0.05 * (high - low)
        assert got[name].low == pytest.approx(low, abs=close), name
        assert got[name].high == pytest.approx(high, abs=close), name


def test_groups_are_resampled_together():
    maps, masks = smooth_case()
    p = PixelMetrics()
    for m, k in zip(maps, masks, strict=True):
        p.add(m, k, group="one patient")
    got = p.result(resamples=50)["pixel_auroc"]
    assert got.value is not None
    assert (got.low, got.high) == (None, None)
    assert "one cluster" in got.reason


def test_clusters_stay_bounded_and_values_stay_exact():
    maps, masks = smooth_case()
    few, all_ = run(maps, masks, max_clusters=3), run(maps, masks)
    a, b = few.result(resamples=20), all_.result(resamples=20)
    for name in RANKED:
        assert a[name].value == b[name].value
    assert a["pixel_auroc"].low < a["pixel_auroc"].value < a["pixel_auroc"].high


def test_result_may_be_asked_for_at_any_time():
    maps, masks = smooth_case()
    p = PixelMetrics(capacity=1000)
    q = PixelMetrics(capacity=1000)
    for m, k in zip(maps, masks, strict=True):
        p.add(m, k, group="g")
        q.add(m, k, group="g")
        q.result(resamples=0)
    assert p.result(resamples=0)["pixel_auroc"].value == pytest.approx(
        q.result(resamples=0)["pixel_auroc"].value, abs=1e-3
    )


def test_undefined_is_none_with_a_reason():
    empty = PixelMetrics(threshold=0.5).result()
    assert all(m.value is None and "no image" in m.reason and m.n == 0 for m in empty.values())
    normal = run(np.zeros((2, 3, 3), np.float32), np.zeros((2, 3, 3), bool), threshold=0.5)
    got = normal.result()
    assert got.pop("false_lesions").value == 0  # normal images can have them
    assert all(m.value is None and m.reason == "no lesion in any mask" for m in got.values())
    assert normal.curves() == {}
    assert normal.best_dice() is None
    maps, masks = random_case(0)
    got = run(maps, masks).result(resamples=0)
    assert got["dice"].value is None
    assert got["dice"].reason == "no stored pixel threshold"
    assert got["dice_oracle"].value is not None
    full = run(np.zeros((1, 2, 2), np.float32), np.ones((1, 2, 2), bool)).result(resamples=0)
    assert full["pixel_auroc"].value is None
    assert full["pixel_auroc"].reason


def test_curves_pass_through_the_metrics():
    maps, masks = smooth_case()
    p = run(maps, masks)
    got = p.curves()
    assert max(len(got["roc"]["fpr"]), len(got["pr"]["recall"])) <= 512
    area = np.trapezoid(got["roc"]["tpr"], got["roc"]["fpr"])
    assert area == pytest.approx(p.result(resamples=0)["pixel_auroc"].value, abs=1e-3)


@pytest.mark.parametrize(
    ("scores", "mask"),
    [
        (np.zeros((2, 3), np.float32), np.zeros((3, 2), bool)),
        (np.zeros((2, 3), np.float32), np.zeros((2, 3), np.uint8)),
        (np.zeros(6, np.float32), np.zeros(6, bool)),
        (np.full((2, 3), np.nan, np.float32), np.zeros((2, 3), bool)),
        (np.full((2, 3), np.inf, np.float32), np.zeros((2, 3), bool)),
        (np.zeros((0, 3), np.float32), np.zeros((0, 3), bool)),
    ],
)
def test_bad_maps_are_refused_and_leave_no_trace(scores, mask):
    p = PixelMetrics()
    with pytest.raises(DataError, match="patient-7"):
        p.add(scores, mask, group="patient-7")
    assert p.images == 0


def test_a_centre_prior_already_scores_high_on_real_breast_ultrasound():
    """BUSI, where it is present: lesions sit in the middle, so pixel AUROC must be read against this baseline."""
    from PIL import Image

    root = Path(__file__).parents[3] / "shared" / "data" / "Dataset_BUSI_with_GT"
    paths = sorted(root.glob("*/*_mask.png"))[::4]
    if paths:
        masks = [np.asarray(Image.open(path).convert("L")) > 127 for path in paths]
    else:  # the same code on drawn masks
        masks = [m.any(0) for m in np.split(smooth_case(12)[1], 6)]
    got = run([np.zeros(m.shape, np.float32) for m in masks], masks).result(resamples=0)
    assert 0.7 < got["pixel_auroc_centre_prior"].value < 0.95


def test_the_table_gives_the_metrics_of_any_weights():
    rng = np.random.default_rng(5)
    p = PixelMetrics(threshold=0.5)
    images = []
    for i in range(8):
        mask = np.zeros((30, 40), bool)
        mask[10:20, 10 : 12 + i] = i > 1
        images.append(((0.4 * rng.random(mask.shape) + 0.3 * mask).astype(np.float32), mask, f"g{i // 2}"))
        p.add(*images[-1][:2], group=images[-1][2])
    table = p.table()
    assert table.groups == ("g0", "g1", "g2", "g3")
    weights = np.array([[1, 1, 1, 1], [0, 2, 0, 1]], dtype=np.float64)
    found = table.compute(weights)
    for row, counts in enumerate(weights.astype(int)):
        q = PixelMetrics(threshold=0.5)
        for scores, mask, group in images:
            for _ in range(counts[int(group[1])]):
                q.add(scores, mask, group=group)
        for key in ("pixel_auroc", "pixel_ap", "aupro", "dice", "iou", "dice_pooled", "dice_oracle", "peak_in_lesion"):
            assert found[key][row] == pytest.approx(q.result(resamples=0)[key].value, abs=2e-3), key
    swapped = table.select(["g3", "g1"])
    assert swapped.compute(np.array([[1.0, 2.0]]))["pixel_auroc"][0] == pytest.approx(found["pixel_auroc"][1])


def test_numbers_of_one_image_are_those_of_a_set_of_one():
    rng = np.random.default_rng(1)
    mask = np.zeros((20, 30), bool)
    mask[5:12, 8:20] = True
    scores = (0.3 * rng.random(mask.shape) + 0.4 * mask).astype(np.float32)
    p = PixelMetrics(threshold=0.4)
    own = p.add(scores, mask, group="a")
    whole = p.result(resamples=0)
    pairs = {"auroc": "pixel_auroc", "ap": "pixel_ap", "dice": "dice", "iou": "iou", "dice_best": "dice_oracle"}
    pairs["peak"] = "peak_in_lesion"
    for key, metric in pairs.items():
        assert own[key] == pytest.approx(whole[metric].value), key
    assert own["lesion"] == mask.mean()
    empty = p.add(scores, np.zeros_like(mask), group="b")
    assert empty == {"lesion": 0.0, **dict.fromkeys(pairs)}
    assert PixelMetrics().add(scores, mask, group="a")["dice"] is None
