from __future__ import annotations

import numpy as np
import pytest

from ultraad.metrics.selective import POINTS, area_under_risk_coverage, risk_coverage


def probs(confidence):
    c = np.asarray(confidence, float)
    return np.stack([c, 1 - c], axis=1)


def by_definition(p, y):
    top, wrong = p.max(1), p.argmax(1) != y
    return np.mean([wrong[top >= t].mean() for t in top])


def test_aurc_by_hand():
    # the surest is right, the next wrong, the last right: risks 0, 1/2, 1/3
    p, y = probs([0.9, 0.8, 0.7]), np.array([0, 1, 0])
    assert area_under_risk_coverage(p, y)[0] == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)


def test_aurc_is_its_definition_with_ties_and_weights():
    rng = np.random.default_rng(0)
    p, y = probs(rng.integers(50, 70, 80) / 100), rng.integers(0, 2, 80)
    assert area_under_risk_coverage(p, y)[0] == pytest.approx(by_definition(p, y))
    w = rng.integers(0, 3, (4, 80))
    again = [by_definition(np.repeat(p, r, 0), np.repeat(y, r)) for r in w]
    np.testing.assert_allclose(area_under_risk_coverage(p, y, weights=w.astype(float)), again)


def test_the_best_order_has_the_smallest_area():
    rng = np.random.default_rng(0)
    c, y = rng.uniform(0.5, 1, 200), rng.integers(0, 2, 200)
    best = np.where(y == 0, c + 1, c)  # every right answer before every wrong one
    order = np.argsort(np.argsort(-best)) / 400
    assert area_under_risk_coverage(probs(1 - order), y)[0] < area_under_risk_coverage(probs(c), y)[0]


def test_the_curve_ends_at_the_error_rate_and_is_short():
    rng = np.random.default_rng(0)
    p, y = probs(rng.uniform(0.5, 1, 1000)), rng.integers(0, 2, 1000)
    curve = risk_coverage(p, y)
    assert len(curve["coverage"]) == len(curve["risk"]) == len(curve["confidence"]) <= POINTS
    assert curve["coverage"][-1] == 1
    assert curve["risk"][-1] == pytest.approx((p.argmax(1) != y).mean())
    for share, risk, sure in zip(*curve.values(), strict=True):
        answered = p.max(1) >= sure
        assert share == pytest.approx(answered.mean())
        assert risk == pytest.approx((p.argmax(1) != y)[answered].mean())


def test_no_images():
    assert np.isnan(area_under_risk_coverage(np.zeros((0, 3)), np.zeros(0, np.int64))[0])
