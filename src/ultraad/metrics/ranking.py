"""Comparison of methods over several data sets: Friedman's test on ranks and Nemenyi's critical difference.

Recommended by Demsar, JMLR 2006. Of one number per method and data set, only the rank among the methods counts, so data
sets of different difficulty have equal weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ultraad.errors import DataError

LEVEL = 0.05
FEWEST = 3  # with two data sets, one draw of the data decides


@dataclass(frozen=True, slots=True)
class Ranks:
    """Methods ranked over data sets.

    Attributes:
        mean: {method: mean rank}, 1 is best; the best first.
        statistic: Friedman's chi-squared, corrected for ties; 0 if all methods tie everywhere.
        p: P-value of "all methods are equal", by the chi-squared approximation, which is rough for few data sets.
        critical: Nemenyi's critical difference; mean ranks that are closer do not differ significantly.
        sets: Number of data sets.
    """

    mean: Mapping[str, float]
    statistic: float
    p: float
    critical: float
    sets: int

    def ties(self) -> list[tuple[str, ...]]:
        """The longest runs of two or more neighbouring methods that differ by less than the critical difference."""
        names, ranks = list(self.mean), list(self.mean.values())
        found: list[tuple[str, ...]] = []
        reached = 0
        for start, rank in enumerate(ranks):
            end = start + sum(r - rank < self.critical for r in ranks[start:])
            if end > max(reached, start + 1):
                found.append(tuple(names[start:end]))
                reached = end
        return found


def rank(values: ArrayLike, names: Sequence[str], *, higher_is_better: bool = True) -> Ranks:
    """Rank methods within each data set and test the ranks.

    Args:
        values: float (n k), one row for each data set, one column for each method.
        names: The methods, (k,).
        higher_is_better: False for errors.

    Raises:
        DataError: If there are fewer than three data sets or methods, or a value is not finite.
    """
    from scipy.stats import chi2, rankdata

    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != len(names) or min(x.shape) < FEWEST or not np.isfinite(x).all():
        msg = (
            f"ranks need finite values of at least {FEWEST} data sets and {FEWEST} methods, "
            f"got {x.shape} for {len(names)} methods"
        )
        raise DataError(msg)
    n, k = x.shape
    ranks = rankdata(-x if higher_is_better else x, axis=1)  # (n k), ties share the mean of their ranks
    mean = ranks.mean(0)
    spread = ((ranks - (k + 1) / 2) ** 2).sum() / (n * (k - 1))  # k (k + 1) / 12 without ties
    statistic = float(n * ((mean - (k + 1) / 2) ** 2).sum() / spread) if spread else 0.0
    order = np.argsort(mean, kind="stable")
    return Ranks(
        mean={names[i]: float(mean[i]) for i in order},
        statistic=statistic,
        p=float(chi2.sf(statistic, k - 1)),
        critical=critical_difference(k, n),
        sets=n,
    )


def critical_difference(methods: int, sets: int, *, level: float = LEVEL) -> float:
    """Nemenyi's critical difference of mean ranks, Demsar 2006 eq. 7: ``q sqrt(k (k + 1) / (6 n))``.

    q is the quantile of the studentised range for infinitely many degrees of freedom, divided by the root of 2.

    Args:
        methods: k.
        sets: n.
        level: Probability of at least one false difference.
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - level, methods, math.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * sets))
