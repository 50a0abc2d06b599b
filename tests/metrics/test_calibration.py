from __future__ import annotations

import numpy as np
import pytest

from ultraad.metrics.calibration import expected_calibration_error, reliability


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
