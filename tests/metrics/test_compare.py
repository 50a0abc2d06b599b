from __future__ import annotations

import numpy as np
import pytest

from ultraad.errors import DataError
from ultraad.metrics.bootstrap import clusters
from ultraad.metrics.compare import auroc_of, delong, delong_test, holm, paired_bootstrap


def case(n=60, gap=0.5, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.5
    shared = rng.normal(size=n)
    a = (y * (1.0 + gap) + shared + rng.normal(size=n)).round(1)
    b = (y * 1.0 + shared + rng.normal(size=n)).round(1)
    return a, b, y


def brute_delong(scores, y):
    """Sen's form with the kernel written out for every pair."""
    kernels = [(s[y][:, None] > s[~y]) + 0.5 * (s[y][:, None] == s[~y]) for s in scores]  # each (P N)
    p, n = y.sum(), (~y).sum()
    theta = np.array([k.mean() for k in kernels])
    covariance = np.zeros((len(scores), len(scores)))
    for i, ki in enumerate(kernels):
        for j, kj in enumerate(kernels):
            v10 = sum((ki[r].mean() - theta[i]) * (kj[r].mean() - theta[j]) for r in range(p)) / (p - 1)
            v01 = sum((ki[:, c].mean() - theta[i]) * (kj[:, c].mean() - theta[j]) for c in range(n)) / (n - 1)
            covariance[i, j] = v10 / p + v01 / n
    return theta, covariance


@pytest.mark.parametrize("seed", range(3))
def test_delong_equals_brute_force(seed):
    a, b, y = case(seed=seed)
    theta, covariance = delong([a, b], y)
    expected = brute_delong([a, b], y)
    np.testing.assert_allclose(theta, expected[0], atol=1e-12)
    np.testing.assert_allclose(covariance, expected[1], atol=1e-12)
    one, variance = delong(a, y)
    assert one[0] == pytest.approx(theta[0])
    assert variance[0, 0] == pytest.approx(covariance[0, 0])


def test_delong_test_agrees_with_the_bootstrap():
    a, b, y = case(300)
    d = delong_test(a, b, y)
    r = paired_bootstrap(auroc_of(a, y), auroc_of(b, y), clusters([None] * 300), resamples=4000)
    assert d.value == pytest.approx(r.value)
    assert d.high - d.low == pytest.approx(r.high - r.low, rel=0.12)
    assert d.p == pytest.approx(r.p, abs=0.03)


def test_delong_of_means_over_fits_equals_brute_force():
    first, second = [case(seed=s)[:2] for s in (0, 1)], case(seed=0)[2]
    a, b = np.stack([f[0] for f in first]), first[0][1]
    theta, covariance = brute_delong([*a, b], second)
    contrast = np.array([0.5, 0.5, -1.0])
    got = delong_test(a, b, second)
    assert got.value == pytest.approx(contrast @ theta)
    assert got.high - got.value == pytest.approx(1.96 * np.sqrt(contrast @ covariance @ contrast), rel=1e-4)
    assert delong_test(a[:1], b, second) == delong_test(a[0], b, second)
    assert delong_test(np.stack([a[0], a[0]]), b, second).low == pytest.approx(delong_test(a[0], b, second).low)


def fits_on_other_images(n=300):
    """Scores of two fits of each of two methods (4 n), NaN where a fit was not tested, and the truth."""
    cases = [case(n, seed=s) for s in (0, 1)]
    y = cases[0][2]
    rng = np.random.default_rng(2)
    scores = np.stack([y + rng.normal(size=n) + 0.5 * c[k] for k in (0, 1) for c in cases])
    scores[[0, 2], : n // 3] = np.nan  # each fit leaves out another third
    scores[[1, 3], -n // 3 :] = np.nan
    return scores, y


def test_delong_of_fits_on_different_images_equals_sums_over_shared_images():
    scores, y = fits_on_other_images(60)
    theta, covariance = delong(scores, y)
    there = np.isfinite(scores)
    for i, si in enumerate(scores):
        alone = delong(si[there[i]], y[there[i]])
        assert (theta[i], covariance[i, i]) == pytest.approx((alone[0][0], alone[1][0, 0]))
        for j, sj in enumerate(scores):
            expected = 0.0
            for kind in (True, False):
                shared = [m for m in np.flatnonzero(y == kind) if there[i, m] and there[j, m]]
                parts = np.ones(len(shared))
                for s, ok, mean in ((si, there[i], theta[i]), (sj, there[j], theta[j])):
                    mine, others = s[ok & (y == kind)], s[ok & (y != kind)]
                    above = [np.mean((s[m] > others) + 0.5 * (s[m] == others)) for m in shared]
                    parts *= ((above if kind else 1 - np.array(above)) - mean) / np.sqrt(mine.size * (mine.size - 1))
                expected += parts.sum()
            assert covariance[i, j] == pytest.approx(expected)


def test_delong_of_fits_on_different_images_agrees_with_the_bootstrap():
    scores, y = fits_on_other_images()
    there = np.isfinite(scores)
    fits = [auroc_of(s[ok], y[ok]) for s, ok in zip(scores, there, strict=True)]

    def mean(of):
        return lambda w: np.mean([fits[k](w[:, there[k]]) for k in of], axis=0)

    d = delong_test(scores[:2], scores[2:], y)
    r = paired_bootstrap(mean([0, 1]), mean([2, 3]), np.arange(y.size), resamples=4000)
    assert d.value == pytest.approx(r.value)
    assert (d.low, d.high) == pytest.approx((r.low, r.high), abs=0.1 * (r.high - r.low))


def test_the_same_scores_do_not_differ():
    a, _, y = case()
    same = delong_test(a, 2 * a + 1, y)
    assert (same.value, same.p) == (0.0, 1.0)
    boot = paired_bootstrap(auroc_of(a, y), auroc_of(a, y), np.arange(a.size), resamples=50)
    assert (boot.value, boot.low, boot.high, boot.p) == (0.0, 0.0, 0.0, 1.0)


def test_a_clear_difference_is_found_and_has_a_sign():
    a, b, y = case(400, gap=2.0)
    assert delong_test(a, b, y).p < 0.01
    assert delong_test(b, a, y).value == -delong_test(a, b, y).value
    boot = paired_bootstrap(auroc_of(a, y), auroc_of(b, y), np.arange(400), resamples=200)
    assert boot.low > 0
    assert boot.p == pytest.approx(2 / 201)


def test_p_values_are_uniform_when_methods_are_equal():
    p = [delong_test(*case(120, gap=0.0, seed=s)).p for s in range(300)]
    assert np.mean(np.array(p) < 0.1) == pytest.approx(0.1, abs=0.05)
    assert np.mean(p) == pytest.approx(0.5, abs=0.06)


def test_undefined_bootstrap_is_nan():
    y = np.ones(4, bool)
    got = paired_bootstrap(auroc_of(np.arange(4.0), y), auroc_of(np.arange(4.0), y), np.arange(4), resamples=10)
    assert np.isnan([got.value, got.low, got.high, got.p]).all()


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1.0, 1.0])
    assert holm([]).size == 0


def test_too_few_images_are_refused():
    with pytest.raises(DataError, match="got 1 and 2"):
        delong([0.1, 0.2, 0.3], [False, True, True])
    with pytest.raises(DataError, match="finite"):
        delong([0.1, 0.2], [False, True, True])
    with pytest.raises(DataError, match="finite"):
        delong([0.1, np.inf, 0.2, 0.3], [False, False, True, True])
    with pytest.raises(DataError, match="got 1 and 2"):  # a fit that was not tested on the second image
        delong([[0.1, 0.2, 0.3, 0.4], [0.1, np.nan, 0.3, 0.4]], [False, False, True, True])
