from __future__ import annotations

from time import process_time

import numpy as np
import pytest
from scipy import stats

from ultraad.errors import ConfigError
from ultraad.metrics import curves, image
from ultraad.metrics.bootstrap import Statistics, clusters, counts, interval, measure, replicates
from ultraad.metrics.catalogue import PAIR, spec
from ultraad.metrics.classes import class_metrics
from ultraad.metrics.curves import Ranking
from ultraad.metrics.image import image_metrics
from ultraad.metrics.pixel import PixelMetrics


def case(n=120, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.5
    return rng.normal(y * 1.0), y


def test_clusters_number_groups_and_leave_the_rest_alone():
    assert clusters(["a", None, "a", "b", None]).tolist() == [0, 1, 0, 2, 3]
    assert clusters([None, None]).tolist() == [0, 1]


def test_counts_are_multinomial_and_seeded():
    drawn = counts(50, resamples=4000, seed=1)
    assert (drawn.sum(1) == 50).all()
    assert drawn.mean(0) == pytest.approx(np.ones(50), abs=0.1)
    assert drawn.var() == pytest.approx(1 - 1 / 50, abs=0.02)
    np.testing.assert_array_equal(drawn, counts(50, resamples=4000, seed=1))
    assert (drawn != counts(50, resamples=4000, seed=2)).any()


def test_replicates_equal_recomputing_from_repeated_images():
    s, y = case()
    cluster = clusters([str(i // 3) for i in range(s.size)])
    ranking = Ranking(s, y)
    got = replicates(lambda w: {"auroc": curves.area(*ranking.masses(w))}, cluster, resamples=20, seed=5)["auroc"]
    for row, value in zip(counts(40, resamples=20, seed=5).astype(int), got, strict=True):
        index = np.repeat(np.arange(s.size), row[cluster])
        again = Ranking(s[index], y[index])
        assert value == pytest.approx(curves.area(*again.masses())[0], abs=1e-12)


def test_chunks_do_not_show(monkeypatch):
    s, y = case()
    whole = image_metrics(s, y, resamples=100)
    monkeypatch.setattr("ultraad.metrics.bootstrap._CHUNK", 1000)
    assert image_metrics(s, y, resamples=100) == whole


def test_interval_agrees_with_scipy():
    s, y = case(200)
    got = image_metrics(s, y, resamples=4000)["image_auroc"]

    def auroc(index):
        i = index.astype(int)
        return curves.area(*Ranking(s[i], y[i]).masses())[0]

    reference = stats.bootstrap(
        (np.arange(200),), auroc, n_resamples=2000, method="percentile", vectorized=False, rng=np.random.default_rng(0)
    ).confidence_interval
    width = reference.high - reference.low
    assert got.low == pytest.approx(reference.low, abs=0.12 * width)
    assert got.high == pytest.approx(reference.high, abs=0.12 * width)


def test_patients_widen_the_interval():
    """Five equal images per patient carry the information of one: the interval of images is too narrow."""
    s, y = case(40)
    s, y = np.repeat(s, 5), np.repeat(y, 5)
    by_image = image_metrics(s, y)["image_auroc"]
    by_patient = image_metrics(s, y, groups=[str(i // 5) for i in range(200)])["image_auroc"]
    assert by_patient.value == by_image.value
    ratio = (by_patient.high - by_patient.low) / (by_image.high - by_image.low)
    assert ratio == pytest.approx(np.sqrt(5), rel=0.2)


def test_interval_needs_half_of_the_resamples():
    assert interval(np.array([np.nan, np.nan, 1.0])) is None
    assert interval(np.full(4, np.nan)) is None
    assert interval(np.array([np.nan, 1.0, 2.0]), level=1.0) == (1.0, 2.0)


def test_no_interval_says_why():
    s, y = case()
    alone = image_metrics(s, y, groups=["p"] * s.size)["image_auroc"]
    assert alone.low is None
    assert "one cluster" in alone.reason
    off = image_metrics(s, y, resamples=0)["image_auroc"]
    assert (off.low, off.high, off.reason) == (None, None, None)
    shaky = Statistics(
        lambda w: {"m": np.where(w[:, 0] == 1, 0.5, np.nan)}, {"m": 20}, {}, {"m": np.ones((1, 20), bool)}
    )  # image 0 is drawn exactly once in 38 % of resamples
    got = measure(shaky, np.arange(20))["m"]
    assert got.value == 0.5
    assert got.low is None
    assert "undefined in most resamples" in got.reason


def test_a_metric_that_one_patient_carries_has_no_interval():
    s = np.linspace(0, 1, 12)
    y = np.arange(12) >= 6
    for normals, lesions, without in (
        ("aaaaaa", "bbbbcc", {"image_specificity"}),
        ("aaabbb", "cccccc", {"image_sensitivity"}),
        ("aaaaaa", "abcabc", {"image_specificity"}),
        ("aaaaaa", "bbbbbb", set(image.FORMULAS) - {"image_accuracy"}),
        ("abcabc", "abcabc", set()),
    ):
        found = image_metrics(s, y, threshold=0.5, groups=[*normals, *lesions])
        assert {name for name, m in found.items() if m.low is None} == without
        assert all("one cluster only" in found[name].reason for name in without)
    two = image_metrics(s, y, threshold=0.5, groups=list("aaaaaabbbbbb"))
    assert two["image_auroc"].reason == "no interval: one cluster only on each side, nothing to resample"
    assert two["image_specificity"].reason == "no interval: one cluster only, nothing to resample"


def test_grades_that_one_patient_carries_have_no_interval():
    probs = np.random.default_rng(0).dirichlet(np.ones(3), 12)
    labels, classes = np.repeat([0, 1, 2], 4), ("normal", "benign", "malignant")
    for groups, without in (
        ("aaaabbbbcccc", {"class_auroc_macro", "class_auroc_weighted", PAIR}),
        ("aabbccccdddd", {PAIR}),
        ("aaaabbccdddd", set()),
    ):
        found = class_metrics(probs, labels, classes=classes, normal_class="normal", groups=list(groups))
        assert {k for k, m in found.items() if m.value is not None and m.low is None} == without


def test_maps_that_one_patient_carries_have_no_interval():
    pixels, rng = PixelMetrics(threshold=0.5), np.random.default_rng(0)
    for i in range(9):
        mask = np.zeros((16, 16), dtype=bool)
        side = 2 if i == 0 else 6
        mask[4 : 4 + side, 4 : 4 + side] = i < 3
        scores = (rng.random((16, 16)) * 0.6 + mask * 0.3).astype(np.float32)
        pixels.add(scores, mask, group=f"p{max(i, 2)}")
    found = pixels.result(resamples=100)
    of_lesions = {name for name in found if spec(name).over != "all"}
    assert of_lesions >= {"dice", "aupro", "peak_in_small_lesion"}
    assert {name for name, m in found.items() if m.low is None} == of_lesions
    assert {m.low is None for m in pixels.result(resamples=0).values()} == {True}


def test_negative_resamples_are_refused():
    with pytest.raises(ConfigError, match="-1"):
        counts(3, resamples=-1, seed=0)


def test_a_thousand_resamples_of_800_images_take_well_under_a_second():
    s, y = case(800)
    ranking = Ranking(s, y)
    start = process_time()
    replicates(lambda w: {"auroc": curves.area(*ranking.masses(w))}, np.arange(800), resamples=1000, seed=0)
    assert process_time() - start < 1.0
