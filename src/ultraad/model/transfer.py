"""Image thresholds for another scanner, from the scores that a model gives to unlabelled images of it.

A threshold is fitted on the held-out scores of the support set and then moved, on the scale of log-odds, to the new
scanner's scores. Three ways, each a rising function of the score:

quantile   as many of the images reach the moved threshold as would of the support set's, at the stated prevalence
moments    shift and scale that give the new scores the mean and spread of the support set's, at the stated prevalence
mixture    shift and scale of two normal distributions, one of normal and one of lesion images, fitted to the held-out
           scores and moved to the new ones by expectation maximisation with the share of lesions left free (after
           Saerens et al., Neural Computation 14:21, 2002, who move the share alone); a prior worth
           :data:`PRIOR` images holds shift and scale at none

The first two take a prevalence for granted, so images of which more or fewer show lesions move the threshold, too. No
way can be checked without labels: ``ultraad evaluate`` says what is got.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultraad.rng import seeded

Array = NDArray[np.float64]
Way = Literal["quantile", "moments", "mixture"]
WAYS: tuple[Way, ...] = get_args(Way)
PRIOR = 20.0
RESAMPLES = 200
_LEAST = 1e-4  # a score this near to 0 or 1 is taken for it
_NARROWEST = 0.1  # spread of the log-odds of a kind
_ROUNDS = 500
_STILL = 1e-4
_FACTORS = np.exp(np.linspace(-0.1, 0.1, 201))  # of the scale, in one round


def log_odds(scores: ArrayLike) -> Array:
    """ln(p / (1 - p)) of scores in [0, 1]."""
    p = np.clip(np.asarray(scores, dtype=np.float64), _LEAST, 1 - _LEAST)
    return np.log(p / (1 - p))


def moved(
    value: float, normal: ArrayLike, lesion: ArrayLike, fresh: ArrayLike, *, way: Way, prevalence: float
) -> float:
    """A threshold for the scanner of ``fresh``.

    Args:
        value: The threshold for the support set's, in [0, 1].
        normal: Held-out scores (n,) of normal support images, at least one.
        lesion: The same of lesion images.
        fresh: Scores (m,) of unlabelled images of the new scanner, at least one.
        way: How it is moved.
        prevalence: Share of ``fresh`` that shows a lesion; the mixture begins with it.
    """
    z = _MOVES[way](float(log_odds(value)), log_odds(normal), log_odds(lesion), log_odds(fresh), prevalence)
    return float(1 / (1 + np.exp(-z)))


def interval(
    value: float,
    normal: ArrayLike,
    lesion: ArrayLike,
    fresh: ArrayLike,
    *,
    way: Way,
    prevalence: float,
    seed: int,
) -> tuple[float, float]:
    """The 95 % bootstrap interval of :func:`moved`; held-out and new images are drawn again, the threshold stays."""
    draw = seeded(seed, "transfer")
    parts = [np.asarray(x, dtype=np.float64) for x in (normal, lesion, fresh)]
    found = [
        moved(value, *(draw.choice(x, x.size) for x in parts), way=way, prevalence=prevalence) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _weighted(normal: Array, lesion: Array, prevalence: float) -> tuple[Array, Array]:
    """Held-out log-odds with weights that sum to 1, lesions to the prevalence."""
    weights = np.r_[
        np.full(normal.size, (1 - prevalence) / normal.size), np.full(lesion.size, prevalence / lesion.size)
    ]
    return np.r_[normal, lesion], weights


def _quantile(t: float, normal: Array, lesion: Array, fresh: Array, prevalence: float) -> float:
    z, weights = _weighted(normal, lesion, prevalence)
    return float(np.quantile(fresh, float(weights[z < t].sum())))


def _moments(t: float, normal: Array, lesion: Array, fresh: Array, prevalence: float) -> float:
    z, weights = _weighted(normal, lesion, prevalence)
    mean = float(weights @ z)
    spread = float(np.sqrt(weights @ (z - mean) ** 2))
    scale = float(fresh.std()) / spread if spread > 0 and fresh.size > 1 else 1.0
    return float(fresh.mean()) + scale * (t - mean)


def _mixture(t: float, normal: Array, lesion: Array, fresh: Array, prevalence: float) -> float:
    """Expectation maximisation of share, shift a and scale b, the last two one after the other."""
    centre = np.array([normal.mean(), lesion.mean()])
    spread = max(float(np.r_[normal - centre[0], lesion - centre[1]].std()), _NARROWEST)  # few images cannot fix two
    a, b, share = 0.0, 1.0, prevalence
    for _ in range(_ROUNDS):
        logs = np.log([1 - share, share]) - ((fresh[:, None] - a - b * centre) / (b * spread)) ** 2 / 2  # (m 2)
        r = np.exp(logs - logs.max(1, keepdims=True))
        r /= r.sum(1, keepdims=True)
        before, n = (a, b), r.sum(0)
        share = float((n[1] + 1) / (fresh.size + 2))  # never 0 or 1
        a = float((fresh.sum() - b * n @ centre) / (fresh.size + PRIOR * (b * spread) ** 2))
        off = fresh - a
        squares, products = float(off @ off), float(off @ r @ centre)
        tried = b * _FACTORS
        cost = (squares - 2 * tried * products) / (2 * (tried * spread) ** 2) + fresh.size * np.log(tried)
        b = float(tried[int((cost + PRIOR * np.log(tried) ** 2 / 2).argmin())])
        if abs(a - before[0]) < _STILL and abs(b - before[1]) < _STILL:
            break
    return a + b * t


_MOVES: Mapping[Way, Callable[[float, Array, Array, Array, float], float]] = {
    "quantile": _quantile,
    "moments": _moments,
    "mixture": _mixture,
}
