from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import f1_score, recall_score

from ultraad.errors import ConfigError, DataError
from ultraad.metrics import threshold as t

cases = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=30).filter(
    lambda c: 0 < sum(y for _, y in c) < len(c)
)


def split(case):
    return np.array([s for s, _ in case], float), np.array([y for _, y in case])


def informedness(y, predicted):
    return recall_score(y, predicted) + recall_score(~y, ~predicted) - 1


@settings(max_examples=40, deadline=None)
@given(cases)
def test_no_other_cut_is_better(case):
    s, y = split(case)
    cuts = [*np.unique(s), s.max() + 1]
    for fit, criterion in ((t.youden, informedness), (t.f1, f1_score)):
        got = fit(s, y)
        assert criterion(y, s >= got.value) == pytest.approx(got.achieved, abs=1e-12)
        best = max(criterion(y, s >= c) for c in cuts[:-1])
        assert got.achieved == pytest.approx(best, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(cases, st.sampled_from([0.5, 0.9, 1.0]))
def test_specificity_holds_and_no_lower_cut_keeps_it(case, specificity):
    s, y = split(case)
    got = t.at_specificity(s, y, specificity=specificity)
    reached = (s[~y] < got.value).mean()
    assert reached == pytest.approx(got.achieved)
    assert reached >= specificity
    lower = s[s < got.value]
    if lower.size:
        assert (s[~y] < lower.max()).mean() < specificity


@settings(max_examples=40, deadline=None)
@given(cases, st.sampled_from([0.5, 0.95, 1.0]))
def test_sensitivity_holds_and_no_higher_cut_keeps_it(case, sensitivity):
    s, y = split(case)
    got = t.at_sensitivity(s, y, sensitivity=sensitivity)
    reached = (s[y] >= got.value).mean()
    assert reached == pytest.approx(got.achieved)
    assert reached >= sensitivity
    higher = s[s >= got.value]
    assert (s[y] > higher.min()).mean() < sensitivity


@pytest.mark.parametrize(("found", "n"), [(0, 1), (1, 1), (3, 7), (12, 12), (31, 32), (0, 40)])
def test_the_interval_of_a_rate_is_that_of_scipy(found, n):
    wanted = binomtest(found, n).proportion_ci(0.95, method="exact")
    assert t.rate_interval(found, n) == pytest.approx((wanted.low, wanted.high))


@pytest.mark.parametrize("n", [12, 48])
def test_the_interval_covers_the_true_rate_of_a_threshold_fitted_on_the_same_images(n):
    rng = np.random.default_rng(n)
    covered = {"sensitivity": 0, "specificity": 0}
    for _ in range(1000):  # uniform scores, so a threshold is its own rate
        cut = t.at_sensitivity(rng.random(n), np.ones(n, bool), sensitivity=0.8)
        low, high = t.rate_interval(round(cut.achieved * n), n)
        covered["sensitivity"] += low <= 1 - cut.value <= high
        cut = t.at_specificity(rng.random(n), np.zeros(n, bool), specificity=0.8)
        low, high = t.rate_interval(round(cut.achieved * n), n)
        covered["specificity"] += low <= cut.value <= high
    assert min(covered.values()) >= 950


def test_cut_lies_half_way():
    got = t.youden([0.1, 0.2, 0.8, 0.9], [False, False, True, True])
    assert got.value == pytest.approx(0.5)
    assert got.achieved == 1.0
    assert t.at_specificity([0.1, 0.2, 0.8], [False, False, True]).value == pytest.approx(0.5)
    assert t.at_sensitivity([0.1, 0.2, 0.8, 0.9], [False, True, True, False]).value == pytest.approx(0.15)


def test_normal_images_alone_are_enough_for_specificity():
    got = t.at_specificity([0.1, 0.2, 0.3], [False] * 3)
    assert got.value > 0.3
    assert got.achieved == 1.0


def test_lesion_images_alone_are_enough_for_sensitivity():
    got = t.at_sensitivity([0.1, 0.2, 0.3], [True] * 3)
    assert (got.value, got.achieved) == (pytest.approx(0.1), 1.0)
    assert t.at_sensitivity([0.1], [False]).value is None
    assert "needs lesion images" in t.at_sensitivity([0.1], [False]).note


def test_neighbouring_floats_still_separate():
    low = 1.0
    high = float(np.nextafter(low, 2))
    assert t.youden([low, high], [False, True]).value == high


def test_few_images_are_noted():
    few = t.youden([0.1, 0.9], [False, True])
    assert "1 normal and 1 anomalous" in few.note
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2 == 0
    assert t.youden(rng.normal(y), y).note is None


def test_a_missing_kind_gives_no_threshold():
    for got in (t.youden([0.1], [True]), t.f1([0.1], [False]), t.at_specificity([0.1], [True])):
        assert got.value is None
        assert "needs normal" in got.note


def test_pixel_dice_is_the_best_over_all_thresholds():
    rng = np.random.default_rng(0)
    masks = rng.random((5, 9, 9)) < 0.3
    masks[0] = False
    maps = (rng.integers(0, 20, masks.shape) + 8 * masks).astype(np.float32)

    def mean_dice(cut):
        pairs = [(m >= cut, k) for m, k in zip(maps, masks, strict=True) if k.any()]
        return np.mean([2 * (p & k).sum() / (p.sum() + k.sum()) for p, k in pairs])

    got = t.pixel_dice(zip(maps, masks, strict=True))
    assert got.achieved == pytest.approx(max(mean_dice(c) for c in np.unique(maps)))
    assert mean_dice(got.value) == pytest.approx(got.achieved)
    assert got.n == 4
    assert "4 lesion images" in got.note


def test_pixel_dice_without_lesions():
    got = t.pixel_dice([(np.zeros((2, 2), np.float32), np.zeros((2, 2), bool))])
    assert got.value is None
    assert "1 images" in got.note


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_pixel_quantile_flags_at_most_that_share_of_normal_pixels(quantile):
    maps = np.random.default_rng(0).integers(0, 50, (4, 15, 10)).astype(np.float32)
    got = t.pixel_quantile(maps, quantile=quantile)
    assert (maps >= got.value).mean() <= 1 - quantile
    lower = maps[maps < got.value].max()
    assert (maps >= lower).mean() > 1 - quantile, "no lower threshold does"
    assert got.achieved == pytest.approx((maps < got.value).mean())
    assert (got.n, got.note) == (4, "fitted on only 4 normal images")


def test_pixel_quantile_without_maps():
    assert t.pixel_quantile([]).value is None


def test_bad_input_is_refused():
    with pytest.raises(ConfigError, match="quantile"):
        t.pixel_quantile([], quantile=99)
    with pytest.raises(ConfigError, match="specificity"):
        t.at_specificity([0.1], [False], specificity=90)
    with pytest.raises(ConfigError, match="sensitivity"):
        t.at_sensitivity([0.1], [True], sensitivity=float("nan"))
    with pytest.raises(DataError):
        t.youden([0.1, np.nan], [True, False])
