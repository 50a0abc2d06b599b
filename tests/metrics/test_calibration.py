from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import log_loss

from ultraad.metrics.calibration import (
    classwise_calibration_error,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
)


def probs(confidence):
    c = np.asarray(confidence, float)
    return np.stack([c, 1 - c], axis=1)


def test_ece_by_hand():
    # two bins: (0.6, 0.667] holds 0.62 right and 0.66 wrong; (0.933, 1] holds 1.0 right and 0.95 right
    p, y = probs([0.62, 0.66, 1.0, 0.95]), np.array([0, 1, 0, 0])
    expected = 0.5 * abs(0.5 - 0.64) + 0.5 * abs(1 - 0.975)
    assert expected_calibration_error(p, y)[0] == pytest.approx(expected)


def test_weights_equal_repeated_images():
    rng = np.random.default_rng(0)
    p, y = probs(rng.uniform(0.5, 1, 60)), rng.integers(0, 2, 60)
    w = rng.integers(0, 3, (4, 60))
    got = expected_calibration_error(p, y, weights=w.astype(float))
    again = [expected_calibration_error(np.repeat(p, r, 0), np.repeat(y, r))[0] for r in w]
    np.testing.assert_allclose(got, again)


def test_reliability_bins_carry_the_ece():
    rng = np.random.default_rng(0)
    p, y = probs(rng.uniform(0.5, 1, 300)), rng.integers(0, 2, 300)
    bins = reliability(p, y)
    assert len(bins) == 15
    assert sum(b["n"] for b in bins) == 300
    assert bins[0]["accuracy"] is None  # no largest of two probabilities is below a half
    ece = sum(b["n"] * abs(b["accuracy"] - b["confidence"]) for b in bins if b["n"]) / 300
    assert ece == pytest.approx(expected_calibration_error(p, y)[0])
    for b in bins:
        assert b["n"] == 0 or b["low"] < b["confidence"] <= b["high"] + 1e-12


def random_probs(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet([1, 2, 3], n), rng.integers(0, 3, n)


def test_error_by_class_is_the_mean_of_one_against_the_rest():
    p, y = random_probs(200)
    wanted = []
    for k in range(3):
        bins = [np.flatnonzero((p[:, k] > i / 15) & (p[:, k] <= (i + 1) / 15)) for i in range(15)]
        wanted.append(sum(len(b) / 200 * abs((y[b] == k).mean() - p[b, k].mean()) for b in bins if len(b)))
    assert classwise_calibration_error(p, y)[0] == pytest.approx(np.mean(wanted))
    assert classwise_calibration_error(np.eye(3)[y], y)[0] == 0


def test_likelihood_is_scikit_learns():
    p, y = random_probs(200)
    assert negative_log_likelihood(p, y)[0] == pytest.approx(log_loss(y, p, labels=[0, 1, 2]))
    assert np.isfinite(negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1]))[0])


def test_weights_of_error_by_class_and_likelihood_equal_repeated_images():
    p, y = random_probs(60)
    w = np.random.default_rng(1).integers(0, 3, (4, 60))
    for metric in (classwise_calibration_error, negative_log_likelihood):
        again = [metric(np.repeat(p, r, 0), np.repeat(y, r))[0] for r in w]
        np.testing.assert_allclose(metric(p, y, weights=w.astype(float)), again)


def test_reliability_has_exact_intervals():
    p, y = random_probs(300)
    for b in reliability(p, y):
        if b["n"]:
            wanted = binomtest(round(b["accuracy"] * b["n"]), b["n"]).proportion_ci(method="exact")
            assert (b["accuracy_low"], b["accuracy_high"]) == pytest.approx((wanted.low, wanted.high))
        else:
            assert b["accuracy_low"] is None


def test_no_images():
    assert np.isnan(classwise_calibration_error(np.zeros((0, 3)), np.zeros(0, np.int64))[0])
    empty = np.zeros((0, 3)), np.zeros(0, np.int64)
    assert np.isnan(expected_calibration_error(*empty)[0])
    assert {b["n"] for b in reliability(*empty)} == {0}
