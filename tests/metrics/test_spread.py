"""Calibration of predicted spreads: counted by hand, and on errors that follow the law."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import laplace

from ultraad.metrics.spread import BINS, LEVELS, calibration, recalibration

RNG = np.random.default_rng(0)


def test_shares_and_bins_are_those_that_a_loop_counts():
    errors, spreads = RNG.exponential(2.0, 57), RNG.uniform(0.5, 4, 57)
    found = calibration(errors, spreads)
    held = []
    for level in LEVELS:
        inside = 0
        for r, s in zip(errors, spreads, strict=True):
            inside += 1 - np.exp(-r / s) <= level + 1e-12
        held.append(inside / 57)
    assert np.allclose(found.held, held)
    assert found.error == pytest.approx(np.mean([abs(h - p) for h, p in zip(held, LEVELS, strict=True)]))
    order = sorted(range(57), key=lambda i: spreads[i])
    sizes = [6] * 7 + [5] * 3
    assert len(sizes) == BINS
    first, distances = 0, []
    for k, size in enumerate(sizes):
        part = order[first : first + size]
        first += size
        predicted, observed = (float(np.mean([v[i] for i in part])) for v in (spreads, errors))
        assert (found.predicted[k], found.observed[k]) == (pytest.approx(predicted), pytest.approx(observed))
        distances.append(abs(observed - predicted) / predicted)
    assert found.relative == pytest.approx(np.mean(distances))


def test_errors_that_follow_the_law_are_calibrated_and_others_after_the_scale():
    spreads = RNG.uniform(1, 9, 40_000)
    errors = np.abs(RNG.laplace(0, spreads))
    good = calibration(errors, spreads)
    assert good.error < 0.01
    assert good.relative < 0.05
    sure = calibration(errors, spreads / 3)
    assert sure.error > 0.2
    assert (sure.held < LEVELS).all(), "intervals of a network that is too sure hold too little"
    for distorted, power in ((spreads / 3, 1), (2 * spreads**2, 0.5)):
        scale, found = recalibration(errors, distorted)
        assert found == pytest.approx(power, abs=0.03)
        assert scale * distorted**found == pytest.approx(spreads, rel=0.05)
        again = calibration(errors, scale * distorted**found)
        assert again.error < 0.01
        assert again.relative < 0.05


def test_scale_and_power_are_the_most_likely_ones():
    errors, spreads = RNG.exponential(5, 200), RNG.uniform(1, 3, 200)

    def likelihood(scale, power):
        return laplace.logpdf(errors, scale=scale * spreads**power).sum()

    scale, power = recalibration(errors, spreads)
    for factor in (0.9, 0.99, 1, 1.01, 1.1):
        for step in (-0.1, -0.01, 0, 0.01, 0.1):
            if (factor, step) != (1, 0):
                assert likelihood(scale, power) > likelihood(scale * factor, power + step)


@pytest.mark.parametrize(("count", "least"), [(9, 1.0), (20, 0.0)])
def test_what_cannot_be_judged_is_refused(count, least):
    with pytest.raises(ValueError, match="wanted ten, all spreads > 0"):
        calibration(np.ones(count), np.linspace(least, 2, count))
