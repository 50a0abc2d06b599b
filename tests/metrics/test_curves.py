from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score, roc_curve

from ultraad.errors import DataError
from ultraad.metrics import curves
from ultraad.metrics.curves import Ranking

cases = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40).filter(
    lambda c: 0 < sum(y for _, y in c) < len(c)
)


def split(case):
    return np.array([s for s, _ in case], float), np.array([y for _, y in case])


def weighted(n, seed=0):
    return np.random.default_rng(seed).integers(0, 4, size=(5, n)).astype(float)


@settings(max_examples=25, deadline=None)
@given(cases)
def test_auroc_ap_f1_equal_scikit_learn(case):
    s, y = split(case)
    neg, pos = Ranking(s, y).masses()
    assert curves.area(neg, pos)[0] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
    assert curves.average_precision(neg, pos)[0] == pytest.approx(average_precision_score(y, s), abs=1e-12)
    best = max(f1_score(y, s >= t) for t in np.unique(s))
    assert curves.f1_max(neg, pos)[0] == pytest.approx(best, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(cases, st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_sensitivity_at_is_the_best_allowed_point_of_the_roc_curve(case, specificity):
    s, y = split(case)
    fpr, tpr, _ = roc_curve(y, s, drop_intermediate=False)
    got = curves.sensitivity_at(*Ranking(s, y).masses(), specificity=specificity)[0]
    assert got == pytest.approx(tpr[fpr <= 1 - specificity + 1e-9].max(), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(cases)
def test_weights_equal_repeated_images(case):
    s, y = split(case)
    for w in weighted(s.size):
        neg, pos = Ranking(s, y).masses(w[None])
        rs, ry = np.repeat(s, w.astype(int)), np.repeat(y, w.astype(int))
        if 0 < ry.sum() < ry.size:
            assert curves.area(neg, pos)[0] == pytest.approx(roc_auc_score(ry, rs), abs=1e-12)
            assert curves.average_precision(neg, pos)[0] == pytest.approx(average_precision_score(ry, rs), abs=1e-12)
        else:
            assert np.isnan(curves.area(neg, pos)[0])


@settings(max_examples=50, deadline=None)
@given(cases)
def test_monotone_transform_changes_nothing(case):
    s, y = split(case)
    a, b = Ranking(s, y).masses(), Ranking(np.exp(s) - 3, y).masses()
    np.testing.assert_array_equal(a, b)


@settings(max_examples=50, deadline=None)
@given(cases)
def test_stretches_without_a_positive_may_be_one_entry(case):
    neg, pos = (m[0] for m in Ranking(*split(case)).masses())
    short = curves.stretches(neg, pos)
    assert [m.sum() for m in short] == [neg.sum(), pos.sum()]
    assert short[0].size <= 2 * np.count_nonzero(pos) + 1
    for metric in (curves.area, curves.average_precision, curves.f1_max):
        assert metric(*short) == pytest.approx(metric(neg, pos), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(cases)
def test_turning_the_score_around_turns_the_auroc_around(case):
    s, y = split(case)
    up, down = (curves.area(*Ranking(x, y).masses())[0] for x in (s, -s))
    assert up + down == pytest.approx(1, abs=1e-12)


def test_area_up_to_a_limit_by_hand():
    # Points (0, 0) (0.2, 0.5) (0.6, 0.5) (1, 1), cut at 0.4: 0.05 + 0.1
    neg, pos = np.array([0.2, 0.4, 0.4]), np.array([0.5, 0.0, 0.5])
    assert curves.area(neg, pos, limit=0.4) == pytest.approx(0.15 / 0.4)
    # cut inside the last segment, at 0.8: y there is 0.75
    assert curves.area(neg, pos, limit=0.8) == pytest.approx((0.05 + 0.2 + 0.2 * (0.5 + 0.75) / 2) / 0.8)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 0.3]))
def test_bounds_hold_for_every_order_inside_wide_entries(seed, limit):
    """Split each wide entry into unit steps in random order: the truth stays within the reported error."""
    rng = np.random.default_rng(seed)
    neg, pos = rng.integers(0, 4, size=(2, 8)).astype(float)
    neg[0] += 1
    pos[-1] += 1
    wide = rng.random(8) < 0.5
    fine = []
    for n, p, w in zip(neg, pos, wide, strict=True):
        steps = [(1.0, 0.0)] * int(n) + [(0.0, 1.0)] * int(p)
        fine += [steps[i] for i in rng.permutation(len(steps))] if w else [(n, p)]
    fn, fp = np.array(fine).T
    eps = 1e-12
    error = curves.area_error(neg, pos, wide, limit=limit)
    assert abs(curves.area(fn, fp, limit=limit) - curves.area(neg, pos, limit=limit)) <= error + eps
    ap = curves.average_precision(neg, pos, wide=wide)
    assert abs(curves.average_precision(fn, fp) - ap) <= curves.average_precision_error(neg, pos, wide) + eps
    gap = curves.f1_max(fn, fp) - curves.f1_max(neg, pos)
    assert -eps <= gap <= curves.f1_max_error(neg, pos, wide) + eps


def test_undefined_is_nan_and_does_not_warn():
    none, some = np.zeros(3), np.ones(3)
    assert np.isnan(curves.area(none, some))
    assert np.isnan(curves.area(some, none))
    assert np.isnan(curves.average_precision(some, none))
    assert np.isnan(curves.f1_max(some, none))
    assert np.isnan(curves.sensitivity_at(none, some, specificity=0.9))
    assert curves.points(some, none, [3, 2, 1]) == {}


def test_points_are_scikit_learns_roc():
    rng = np.random.default_rng(0)
    s, y = rng.integers(0, 30, 200).astype(float), rng.random(200) < 0.4
    r = Ranking(s, y)
    neg, pos = r.masses()
    got = curves.points(neg[0], pos[0], r.thresholds)
    fpr, tpr, threshold = roc_curve(y, s, drop_intermediate=False)
    np.testing.assert_allclose(got["roc"]["fpr"], fpr)
    np.testing.assert_allclose(got["roc"]["tpr"], tpr)
    assert got["roc"]["threshold"][0] is None
    np.testing.assert_array_equal(got["roc"]["threshold"][1:], threshold[1:])
    j = 4
    predicted = s >= got["pr"]["threshold"][j]
    assert got["pr"]["precision"][j] == pytest.approx(y[predicted].mean())
    assert got["pr"]["recall"][j] == pytest.approx(predicted[y].mean())


def test_thinned_points_stay_on_the_curve_and_keep_its_end():
    rng = np.random.default_rng(0)
    s, y = rng.random(5000), rng.random(5000) < 0.4
    r = Ranking(s, y)
    neg, pos = r.masses()
    full, thin = (curves.points(neg[0], pos[0], r.thresholds, limit=n)["roc"] for n in (10_000, 64))
    assert 50 < len(thin["fpr"]) <= 64
    assert set(zip(thin["fpr"], thin["tpr"], strict=True)) <= set(zip(full["fpr"], full["tpr"], strict=True))
    assert (thin["fpr"][-1], thin["tpr"][-1]) == (1.0, 1.0)
    assert np.trapezoid(thin["tpr"], thin["fpr"]) == pytest.approx(np.trapezoid(full["tpr"], full["fpr"]), abs=1e-3)


@pytest.mark.parametrize("bad", [[0.1, np.nan], [0.1, np.inf], [0.1], [[0.1, 0.2]]])
def test_bad_scores_are_refused(bad):
    with pytest.raises(DataError):
        Ranking(bad, [True, False])
