from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from ultraad.errors import DataError
from ultraad.metrics.ranking import Ranks, critical_difference, rank


@pytest.mark.parametrize("seed", range(5))
def test_friedman_equals_scipy_with_and_without_ties(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(6, 4))
    if seed % 2:
        values = values.round(0)  # many ties
    ours, oracle = rank(values, "abcd"), friedmanchisquare(*values.T)
    assert ours.statistic == pytest.approx(oracle.statistic)
    assert ours.p == pytest.approx(oracle.pvalue)


def test_mean_ranks_by_hand():
    found = rank([[0.9, 0.8, 0.7], [0.9, 0.7, 0.8], [0.5, 0.5, 0.1]], ["a", "b", "c"])
    assert found.mean == {"a": pytest.approx((1 + 1 + 1.5) / 3), "b": pytest.approx(6.5 / 3), "c": pytest.approx(8 / 3)}
    assert list(found.mean) == ["a", "b", "c"]
    assert found.sets == 3
    lower = rank([[0.1, 0.2, 0.3]] * 3, ["a", "b", "c"], higher_is_better=False)
    assert list(lower.mean) == ["a", "b", "c"]


@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_difference_equals_the_table_of_demsar(methods, q):
    """Table 5a of Demsar, JMLR 2006, at 0.05."""
    assert critical_difference(methods, 14) == pytest.approx(q * np.sqrt(methods * (methods + 1) / 84), abs=1e-3)


def test_ties_are_the_largest_runs():
    ranks = Ranks({"a": 1.0, "b": 1.4, "c": 1.9, "d": 3.5, "e": 3.9}, 0.0, 1.0, critical=0.8, sets=9)
    assert ranks.ties() == [("a", "b"), ("b", "c"), ("d", "e")]
    assert Ranks({"a": 1.0, "b": 2.0}, 0.0, 1.0, critical=0.5, sets=9).ties() == []
    assert Ranks({"a": 1.0, "b": 2.0, "c": 3.0}, 0.0, 1.0, critical=9.0, sets=9).ties() == [("a", "b", "c")]


def test_methods_that_tie_everywhere():
    found = rank(np.ones((4, 3)), ["a", "b", "c"])
    assert (found.statistic, found.p) == (0.0, 1.0)
    assert set(found.mean.values()) == {2.0}


@pytest.mark.parametrize("values", [np.zeros((2, 3)), np.zeros((3, 2)), np.full((3, 3), np.nan), np.zeros(3)])
def test_too_little_is_refused(values):
    with pytest.raises(DataError, match="3 data sets and 3 methods"):
        rank(values, ["a", "b", "c"][: values.shape[-1]])
