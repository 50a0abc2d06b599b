"""Percentile bootstrap over patients (or images), with weights instead of a loop over resamples.

A resample is a vector of counts: how often each patient was drawn. Every metric is a function of image weights, so a
thousand resamples form one matrix of weights, and each metric is computed for all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ultraad.errors import ConfigError
from ultraad.metrics.catalogue import Need, Over, Sides, reasons, spec
from ultraad.metrics.metric import Metric
from ultraad.rng import seeded

Array = NDArray[np.float64]
Compute = Callable[[Array], dict[str, Array]]

RESAMPLES = 1000  # the ends of an interval move by about 3 % of its width between seeds
LEVEL = 0.95
_CHUNK = 4_000_000  # weights in memory at once, 32 MB


@dataclass(frozen=True)
class Statistics:
    """Metrics that are computed together.

    Attributes:
        compute: Takes weights (b n), returns {name: (b,)}, NaN where undefined.
        n: {name: images the metric is computed on}, in the order of reports.
        reasons: {name: why it is undefined, or what was left out}.
        sides: {name: bool (s n), the weights on each side that it compares}; one side if it compares none.
    """

    compute: Compute
    n: Mapping[str, int]
    reasons: Mapping[str, str]
    sides: Mapping[str, NDArray[np.bool_]]

    @classmethod
    def of(
        cls,
        compute: Compute,
        keys: Iterable[str],
        *,
        sizes: Mapping[Over, int],
        sides: Mapping[Sides, NDArray[np.bool_]],
        unmet: Mapping[Need, str],
    ) -> Statistics:
        """Statistics whose sizes, sides and reasons follow from the catalogue.

        Args:
            compute: As in the class.
            keys: Names of the metrics, in the order of reports.
            sizes: {images a metric can be computed on: their number}.
            sides: {kinds of images: bool (s n), the weights of each kind}; see :attr:`.catalogue.Spec.sides`.
            unmet: {need that the data do not meet: reason}; see :func:`.catalogue.reasons`.
        """
        names = tuple(keys)
        specs = [spec(name) for name in names]
        return cls(
            compute,
            n={s.key: sizes[s.over] for s in specs},
            reasons=reasons(names, unmet),
            sides={s.key: sides[s.sides] for s in specs},
        )


def clusters(groups: Sequence[str | None]) -> NDArray[np.intp]:
    """Cluster number of each image (n,), dense from 0; an image without a group is a cluster of its own."""
    number: dict[tuple[str, str | int], int] = {}
    keys = [("image", i) if g is None else ("group", g) for i, g in enumerate(groups)]
    return np.array([number.setdefault(k, len(number)) for k in keys], dtype=np.intp)


def counts(n: int, *, resamples: int, seed: int) -> Array:
    """How often each of ``n`` clusters is drawn in each resample: float64 (resamples n), every row sums to n.

    Raises:
        ConfigError: If ``resamples`` is negative.
    """
    if resamples < 0:
        msg = f"bootstrap resamples must be >= 0, got {resamples}; use 0 for no intervals"
        raise ConfigError(msg)
    drawn = seeded(seed, "bootstrap").integers(0, n, size=(resamples, n))
    flat = (drawn + n * np.arange(resamples)[:, None]).ravel()
    return np.bincount(flat, minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def replicates(compute: Compute, cluster: NDArray[np.intp], *, resamples: int, seed: int) -> dict[str, Array]:
    """Every metric on every resample: {name: (resamples,)}.

    The draws depend only on the seed and the number of clusters, so two methods get the same resamples.
    """
    drawn = counts(int(cluster.max()) + 1, resamples=resamples, seed=seed)
    step = max(1, _CHUNK // cluster.size)
    parts = [compute(drawn[i : i + step][:, cluster]) for i in range(0, resamples, step)]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def unvaried(sides: NDArray[np.bool_], cluster: NDArray[np.intp]) -> str | None:
    """Why resamples of clusters say nothing about a metric; None if they do.

    Args:
        sides: bool (s n), the weights on each side that it compares.
        cluster: int (n,), the resampled unit of each weight.
    """
    if any(np.unique(cluster[side]).size > 1 for side in sides):
        return None
    one = np.unique(cluster[sides.any(0)]).size < 2
    return f"one cluster only{'' if one else ' on each side'}, nothing to resample"


def interval(samples: Array, *, level: float = LEVEL) -> tuple[float, float] | None:
    """Percentile interval of bootstrap replicates; None if the metric was undefined in more than half of them."""
    defined = samples[np.isfinite(samples)]
    if defined.size == 0 or 2 * defined.size < samples.size:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


CENTRED = frozenset({"ece", "class_ece"})
"""Metrics whose resamples are moved to the value. A sum of absolute gaps over bins grows with noise, of which resamples
have more than the images, so its plain interval may lie above the value."""


def interval_of(metric: str, samples: Array, value: float) -> tuple[float, float] | None:
    """:func:`interval` of a metric; see :data:`CENTRED`."""
    if metric in CENTRED:  # their spread, but their median at the value; none below 0
        samples = np.maximum(samples - np.nanmedian(samples) + value, 0.0)
    return interval(samples)


def measure(
    statistics: Statistics, cluster: NDArray[np.intp], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Metric]:
    """Values with 95 % intervals.

    Args:
        statistics: What to compute.
        cluster: int (n,), the resampled unit each weight belongs to, dense from 0; see :func:`clusters`.
        resamples: 0 for no intervals.
        seed: Seed of the draw.

    Returns:
        One metric per name; an undefined one has a reason, as one without an interval has.
    """
    if cluster.size == 0:
        return {name: Metric(None, reason=statistics.reasons.get(name, "no images")) for name in statistics.n}
    value = {name: float(v[0]) for name, v in statistics.compute(np.ones((1, cluster.size))).items()}
    drawn: dict[str, Array] = {}
    if resamples and cluster.max() > 0:
        drawn = replicates(statistics.compute, cluster, resamples=resamples, seed=seed)
    out = {}
    for name, n in statistics.n.items():
        reason = statistics.reasons.get(name)
        if not np.isfinite(value[name]):
            out[name] = Metric(None, n=n, reason=reason or "undefined on these images")
            continue
        why, ends = unvaried(statistics.sides[name], cluster), None
        if drawn and why is None:
            ends = interval_of(name, drawn[name], value[name])
        if ends is None and resamples:
            why = why or "undefined in most resamples"
            reason = "; ".join(filter(None, [reason, f"no interval: {why}"]))
        low, high = ends or (None, None)
        out[name] = Metric(value[name], low, high, n, reason, 0.0)
    return out
