"""Whether a predicted spread of an error is calibrated: numbers for errors that follow Laplace's law.

A spread s is the mean absolute error that is predicted; p(|r| <= x) = 1 - exp(-x / s).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEVELS = np.arange(1, 20) / 20
BINS = 10


@dataclass(frozen=True, slots=True)
class SpreadCalibration:
    """How predicted spreads compare with observed errors.

    Attributes:
        levels: Shares that intervals should hold, (19,).
        held: Shares that they hold, (19,).
        error: Calibration error, mean distance of held from level (after Kuleshov et al., ICML 2018, who square it);
            0 is perfect, 0.5 the worst.
        predicted: Mean predicted spread in bins of equal size, from the smallest, (10,).
        observed: Mean absolute error in the same bins, (10,).
        relative: ENCE, mean over bins of the distance of observed from predicted, divided by predicted (Levi et al.,
            2019, with mean absolute errors in place of root mean squares); 0 is perfect.
    """

    levels: Array
    held: Array
    error: float
    predicted: Array
    observed: Array
    relative: float


def calibration(errors: Array, spreads: Array) -> SpreadCalibration:
    """Compare absolute errors with predicted spreads.

    Args:
        errors: Absolute errors, (n,), at least ten.
        spreads: Predicted mean absolute errors, (n,), > 0.

    Raises:
        ValueError: If there are fewer than ten, or a spread is not positive.
    """
    if len(errors) < BINS or not (spreads > 0).all():
        msg = f"got {len(errors)} errors and a smallest spread of {spreads.min(initial=0)}; wanted ten, all spreads > 0"
        raise ValueError(msg)
    ratio = np.sort(errors / spreads)
    held = np.searchsorted(ratio, -np.log1p(-LEVELS), side="right") / len(ratio)
    parts = np.array_split(np.argsort(spreads, kind="stable"), BINS)
    predicted = np.array([spreads[p].mean() for p in parts])
    observed = np.array([errors[p].mean() for p in parts])
    return SpreadCalibration(
        levels=LEVELS,
        held=held,
        error=float(np.abs(held - LEVELS).mean()),
        predicted=predicted,
        observed=observed,
        relative=float((np.abs(observed - predicted) / predicted).mean()),
    )


def recalibration(errors: Array, spreads: Array) -> tuple[float, float]:
    """Scale k and power p: the spreads k s^p make the errors most likely.

    The negative log-likelihood, the mean of r / (k s^p) + log(k s^p), is convex in log k and p. With p = 1 this is the
    scaling of Levi et al., 2019; p < 1 draws large and small spreads together.

    Args:
        errors: Absolute errors, (n,).
        spreads: Predicted mean absolute errors, (n,), > 0.
    """
    from scipy.optimize import minimize

    logs = np.log(spreads)
    middle = logs.mean()

    def unlikely(at: Array) -> tuple[float, Array]:
        log = at[0] + at[1] * (logs - middle)
        ratio = errors * np.exp(-log)
        slope = 1 - ratio
        return float((ratio + log).mean()), np.array([slope.mean(), (slope * (logs - middle)).mean()])

    start = np.array([np.log(max(float(errors.mean()), 1e-9)), 1.0])
    height, power = minimize(unlikely, start, jac=True, method="BFGS").x
    return float(np.exp(height - power * middle)), float(power)
