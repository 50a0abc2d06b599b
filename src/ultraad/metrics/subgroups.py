"""Subgroups of the images, such as those of one scanner: their metrics, and whether they differ from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultraad.metrics.bootstrap import Array, Statistics, clusters, interval, replicates, unvaried
from ultraad.metrics.catalogue import spec
from ultraad.metrics.compare import Difference, holm
from ultraad.metrics.metric import Metric
from ultraad.rng import seeded

UNKNOWN = "not known"
_IN_TABLES = frozenset(
    {"image_auroc", "image_sensitivity", "image_specificity", "class_auroc_macro", "balanced_accuracy", "dice"}
)


@dataclass(frozen=True, slots=True)
class Subgroup:
    """The images with one value of a fact.

    Attributes:
        value: The value; ``"not known"`` for images without one.
        images: Number of images.
        patients: Number of different patients, as far as known.
        metrics: {key: metric} of these images alone.
        differences: {key: these images minus all others}; p-values are adjusted over the subgroups of the fact (Holm).
            Only where both are defined.
        without_patient: Number of images of unknown patient; in resamples and permutations each is a patient of its
            own.
    """

    value: str
    images: int
    patients: int
    metrics: dict[str, Metric]
    differences: dict[str, Difference]
    without_patient: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def differences(
    statistics: Statistics,
    groups: Sequence[str | None],
    member: NDArray[np.bool_],
    *,
    resamples: int,
    seed: int,
) -> dict[str, Difference]:
    """Every metric of some images minus that of all others, with a 95 % interval and a two-sided p-value.

    The interval is that of resampled patients. The p-value is that of a permutation test: patients, and images of
    unknown patient, are exchanged at random between the subgroup and the others. Three patients without an error say
    little, and resampling these three could not tell. A patient on both sides counts as one on each.

    Args:
        statistics: Metrics as functions of image weights.
        groups: Patient of each image (n,).
        member: bool (n,), the subgroup.
        resamples: Of patients, at least 1; as many permutations.
        seed: Of the draws.

    Returns:
        {key: difference} of the metrics that are defined in both parts and in at least half of the resamples, and
        that resamples vary in both: not those of a single patient.
    """
    if member.all() or not member.any():
        return {}

    def compute(weights: Array, member: NDArray[np.bool_]) -> dict[str, Array]:
        inside, outside = statistics.compute(weights * member), statistics.compute(weights * ~member)
        return {key: inside[key] - outside[key] for key in statistics.n}

    cluster = clusters(groups)
    observed = compute(np.ones((1, member.size)), member)
    drawn = replicates(lambda w: compute(w, member), cluster, resamples=resamples, seed=seed)
    unit = np.unique(2 * cluster + member, return_inverse=True)[1]
    of_unit = np.zeros(int(unit.max()) + 1, dtype=bool)
    of_unit[unit] = member
    rng = seeded(seed, "permutations")
    permuted = np.stack([rng.permutation(of_unit)[unit] for _ in range(resamples)])  # (resamples n)
    chance = compute(np.ones_like(permuted, dtype=np.float64), permuted)
    found = {}
    for key, sides in statistics.sides.items():
        if unvaried(sides & member, cluster) or unvaried(sides & ~member, cluster):
            continue
        value, ends = float(observed[key][0]), interval(drawn[key])
        if np.isfinite(value) and ends is not None:
            found[key] = Difference(value, *ends, _two_sided(value, chance[key]))
    return found


def _two_sided(value: float, chance: Array) -> float:
    """Twice the smaller share of values under chance (m,) that are as extreme, the value itself among them."""
    known = chance[np.isfinite(chance)]
    tail = 1 + min(int((known <= value + 1e-12).sum()), int((known >= value - 1e-12).sum()))
    return min(1.0, 2 * tail / (known.size + 1))


def adjusted(found: Sequence[dict[str, Difference]]) -> list[dict[str, Difference]]:
    """The differences of all subgroups of a fact, with p-values adjusted for their number, metric by metric (Holm)."""
    p = {
        key: dict(zip(at, holm([found[i][key].p for i in at]), strict=True))
        for key in {k for one in found for k in one}
        if (at := [i for i, one in enumerate(found) if key in one])
    }
    return [
        {key: Difference(d.value, d.low, d.high, float(p[key][i])) for key, d in one.items()}
        for i, one in enumerate(found)
    ]


def worst_first(found: Sequence[Subgroup], keys: Sequence[str]) -> tuple[str | None, list[Subgroup]]:
    """The subgroups from the worst to the best by the first of ``keys`` that is defined in two of them.

    Every key is a metric of which higher is better. Subgroups in which it is not defined come last.

    Returns:
        (key, subgroups); the key is None, and the largest subgroup first, if no metric can be compared.
    """

    def value(s: Subgroup, key: str) -> float | None:
        return s.metrics[key].value if key in s.metrics else None

    key = next((k for k in keys if sum(value(s, k) is not None for s in found) >= 2), None)
    if key is None:
        return None, sorted(found, key=lambda s: (-s.images, s.value))

    def rank(s: Subgroup) -> tuple[bool, float, str]:
        at = value(s, key)
        return at is None, at or 0.0, s.value

    return key, sorted(found, key=rank)


def shown(values: Sequence[Mapping[str, float | None]]) -> list[str]:
    """The metrics that tables of subgroups have, in order: the main ones that any subgroup ({key: value}) defines."""
    keys = [key for key in values[0] if key in _IN_TABLES or spec(key).over == "pair"] if values else []
    return [key for key in keys if any(one.get(key) is not None for one in values)]


def people(patients: int, without: int) -> str:
    """How many patients images are of: ``"12"``, ``"unknown"``, or ``"2 + 9 unknown"``: 9 images of unknown patient."""
    if not without:
        return str(patients)
    return f"{patients} + {without} unknown" if patients else "unknown"


def meaning_of_p(found: Sequence[tuple[int, int]]) -> str:
    """What the p-values of a fact are, given the patients, and the images of unknown patient, of each subgroup."""
    known, unknown = any(patients for patients, _ in found), any(without for _, without in found)
    units = "patients" if known or not unknown else "images, as no patient is known,"
    if known and unknown:
        units += " and of images of unknown patient"
    return f"permutation test of {units} against all other images, adjusted for the number of subgroups (Holm)"
