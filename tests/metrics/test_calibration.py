from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ultraad.errors import DataError
from ultraad.metrics.calibration import (
    expected_calibration_error,
    fit_platt,
    fit_temperature,
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


def test_no_images():
    empty = np.zeros((0, 3)), np.zeros(0, np.int64)
    assert np.isnan(expected_calibration_error(*empty)[0])
    assert {b["n"] for b in reliability(*empty)} == {0}


def test_temperature_finds_the_one_used():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(4000, 3)) * 2
    p = np.exp(true) / np.exp(true).sum(1, keepdims=True)
    y = (p.cumsum(1) > rng.random((4000, 1))).argmax(1)
    fitted = fit_temperature(5 * true, y)
    assert fitted.temperature == pytest.approx(5, rel=0.05)
    assert fitted.note is None
    np.testing.assert_allclose(fitted(5 * true).sum(1), 1)
    np.testing.assert_allclose(fitted(5 * true), p, atol=0.02)
    assert expected_calibration_error(fitted(5 * true), y)[0] < 0.03


def test_temperature_is_a_minimum():
    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(50, 3)), rng.integers(0, 3, 50)
    z[np.arange(50), y] += 1.5

    def loss(t):
        p = np.exp(z / t) / np.exp(z / t).sum(1, keepdims=True)
        return -np.log(p[np.arange(50), y]).mean()

    t = fit_temperature(z, y).temperature
    assert all(loss(t) <= loss(t * f) for f in (0.9, 0.99, 1.01, 1.1))


def test_platt_equals_unpenalised_logistic_regression_on_many_images():
    rng = np.random.default_rng(0)
    y = rng.random(20_000) < 0.5
    s = rng.normal(y * 2.0, 1.0) * 50 + 1000
    fitted = fit_platt(s, y)
    x = (s - 1000)[:, None] / 50
    reference = LogisticRegression(C=1e9, tol=1e-8).fit(x, y)
    assert fitted.slope * 50 == pytest.approx(reference.coef_[0, 0], rel=5e-3)  # smoothed targets, hence not 1e-6
    np.testing.assert_allclose(fitted(s), reference.predict_proba(x)[:, 1], atol=2e-3)


def test_platt_stays_finite_on_separable_scores_and_warns_of_few():
    fitted = fit_platt([0.1, 0.2, 0.8, 0.9], [False, False, True, True])
    p = fitted([0.1, 0.9])
    assert 0 < p[0] < 0.5 < p[1] < 1
    assert p[1] == pytest.approx(3 / 4, abs=0.05)  # Platt's target for two positives
    assert "4 images" in fitted.note


def test_constant_scores_give_the_base_rate():
    p = fit_platt([0.3] * 4, [True, True, False, False])([0.3])
    assert p[0] == pytest.approx(0.5, abs=1e-6)


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="n > 0"):
        fit_temperature(np.zeros((0, 3)), [])
    with pytest.raises(DataError, match="finite logits"):
        fit_temperature([[0.0, -np.inf]], [0])
    with pytest.raises(DataError, match="got 0 and 2"):
        fit_platt([0.1, 0.2], [True, True])
    with pytest.raises(DataError, match="finite scores"):
        fit_platt([0.1, np.nan], [True, False])
