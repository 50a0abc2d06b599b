"""What the rows of a results folder say together: means over seeds, intervals, paired tests, ranks, optimism.

The rules, which the report repeats:

- A number is the mean over seeds. Its standard deviation is over seeds.
- Its 95 % interval comes from a bootstrap of patients, or of images where patients are not known. Every seed sees the
  same resample, and the resampled means over seeds give the percentiles; so it says how the number would move with
  other patients, the standard deviation how it moves with other support sets.
- A method is compared with the reference row seed by seed on the same images, and the differences are averaged. The
  interval of the mean difference is DeLong's for the image AUROC where no patients are known, a bootstrap as above
  otherwise.
- The p-values of one column of a table (one metric, test set and number of shots) are corrected by Holm. A method is
  marked better or worse only if the corrected p-value is below 0.05 and the interval excludes 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ultraad.bench.row import MeasuredRow
from ultraad.bench.study import resamples
from ultraad.bench.study.resamples import CLASS, PIXEL, Scored
from ultraad.errors import DataError
from ultraad.metrics.bootstrap import interval
from ultraad.metrics.compare import Difference, delong_test, holm, resampled_difference
from ultraad.metrics.ranking import FEWEST, Ranks, rank

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ultraad.bench.results import BenchFolder
    from ultraad.bench.row import Row
    from ultraad.metrics.bootstrap import Array

RESAMPLES = 2000  # ours; the smallest p-value is 0.001, so that forty methods can still be corrected
LEVEL = 0.05
LOWER_IS_BETTER = frozenset({"brier", "ece"})


@dataclass(frozen=True, slots=True)
class Key:
    """Which fits a number is about: all seeds of one method."""

    backbone: str
    test: str
    protocol: str
    label: str
    shots: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of a table.

    Attributes:
        values: {seed: value} of the seeds that have one.
        low: Lower end of the 95 % interval of the mean; None if there is none.
        high: Upper end.
        n: Images it rests on.
        reason: Why it is missing, or which seeds are.
    """

    values: Mapping[int, float] = field(default_factory=dict)
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str | None = None

    @property
    def mean(self) -> float | None:
        """Over seeds; None if there is no value."""
        return float(np.mean(list(self.values.values()))) if self.values else None

    @property
    def sd(self) -> float | None:
        """Standard deviation over seeds, n - 1 in the denominator; None for fewer than two seeds."""
        return float(np.std(list(self.values.values()), ddof=1)) if len(self.values) > 1 else None


@dataclass(frozen=True, slots=True)
class Paired:
    """One set of fits against another, on the same images and seeds.

    Attributes:
        difference: First minus second.
        adjusted: p-value after Holm's correction within its column.
        how: What the interval comes from.
        seeds: That both have.
        n: Images (or patients, for pixels) that both have.
        higher_is_better: False for errors.
    """

    difference: Difference
    adjusted: float
    how: str
    seeds: tuple[int, ...]
    n: int
    higher_is_better: bool

    @property
    def verdict(self) -> str:
        """``"better"``, ``"worse"`` or ``"undecided"``."""
        d = self.difference
        if not (self.adjusted < LEVEL and (d.low > 0 or d.high < 0)):
            return "undecided"
        return "better" if (d.value > 0) == self.higher_is_better else "worse"


class Study:
    """The rows of a results folder by what they are about.

    Args:
        folder: The folder.
        resamples: Of every bootstrap.

    Attributes:
        rows: Of the recipe.
        backbones: Names, in order of appearance; several sizes of one name are told apart.
        tests: Names of test sets, in the recipe's order.
        labels: Of methods, in the recipe's order.
        shots: Rising.
        protocols: Honest first.
        reference: Label that the others are compared with.
    """

    def __init__(self, folder: BenchFolder, *, resamples: int = RESAMPLES) -> None:
        self.folder = folder
        self.resamples = resamples
        self.rows = folder.rows()
        bench = folder.bench
        towers = bench.recipe.backbones
        self._sized = len({t.name for t in towers}) < len(towers)
        self.backbones = list(dict.fromkeys(map(self.backbone, self.rows)))
        self.tests = _ordered((t.name for t in bench.tests), (r.test.name for r in self.rows))
        self.labels = _ordered((m.label for m in bench.methods), (r.label for r in self.rows))
        self.shots = sorted({r.shots for r in self.rows})
        self.protocols = sorted({r.protocol for r in self.rows})
        named = bench.reference or bench.recipe.reference
        self.reference: str = named or next(iter(self.labels), "")
        self._by_key: dict[Key, dict[int, Row]] = {}
        for row in self.rows:
            self._by_key.setdefault(self.key(row), {})[row.seed] = row
        self._scored: dict[str, Scored] = {}
        self._draws: dict[tuple[str, str, tuple[str, ...]], dict[str, Array]] = {}
        self._tests: dict[tuple[str, str, str, int, str], dict[str, Paired]] = {}

    # --- rows --------------------------------------------------------------------------------------------------------

    def backbone(self, row: Row) -> str:
        """What the report calls the backbone of a row."""
        b = row.backbone
        return f"{b.name}, {b.size} px, {b.dtype}" if self._sized else b.name

    def key(self, row: Row) -> Key:
        """Which fits a row belongs to."""
        return Key(self.backbone(row), row.test.name, row.protocol, row.label, row.shots)

    @property
    def keys(self) -> list[Key]:
        """All that rows are about, in the order of first finishing."""
        return list(self._by_key)

    def fits(self, key: Key) -> dict[int, Row]:
        """{seed: row} of whatever status."""
        return self._by_key.get(key, {})

    def ok(self, key: Key) -> dict[int, MeasuredRow]:
        """{seed: row} of the fits that have results."""
        return {seed: row for seed, row in self.fits(key).items() if isinstance(row, MeasuredRow)}

    def scored(self, row: MeasuredRow) -> Scored:
        """The stored predictions of a row; read once."""
        if row.id not in self._scored:
            self._scored[row.id] = resamples.load(self.folder, row)
        return self._scored[row.id]

    # --- numbers -----------------------------------------------------------------------------------------------------

    def cell(self, key: Key, metric: str) -> Cell:
        """The mean of a metric over seeds, with its interval."""
        values: dict[int, float] = {}
        reasons: dict[str, list[int]] = {}
        n = 0
        for seed, row in sorted(self.fits(key).items()):
            if (found := (row.metrics or {}).get(metric)) is not None and found.value is not None:
                values[seed] = found.value
                n = max(n, found.n)
            else:
                reasons.setdefault(_reason(row, metric), []).append(seed)
        reason = _told(reasons, partly=bool(values)) if self.fits(key) else "was not asked for"
        ends = self._interval([self.ok(key)[s] for s in values], metric) if values else None
        low, high = ends or (None, None)
        return Cell(values, low, high, n, reason)

    def tests_of(self, key: Key, metric: str) -> dict[str, Paired]:
        """Every other method against the reference, in the column that a key is in: {label: test}."""
        column = (key.backbone, key.test, key.protocol, key.shots, metric)
        if column not in self._tests:
            reference = replace(key, label=self.reference)
            found = {
                label: test
                for label in self.labels
                if label != self.reference
                and (test := self.test(replace(key, label=label), reference, metric)) is not None
            }
            self._tests[column] = _corrected(found)
        return self._tests[column]

    def test(self, first: Key, second: Key, metric: str) -> Paired | None:
        """One set of fits against another; None if they share no seed, no image or no value.

        Fits without images (0 shots) have one seed, which is paired with the same seed of the other.
        """
        a, b = self._with(first, metric), self._with(second, metric)
        seeds = tuple(sorted(a.keys() & b.keys()))
        if not seeds:
            return None
        rows = [a[s] for s in seeds], [b[s] for s in seeds]
        part = resamples.kind(metric)
        ids = self._common([*rows[0], *rows[1]], part)
        if not ids:
            return None
        grouped = any(self.scored(r).grouped for r in rows[0])
        if metric == "image_auroc" and not grouped:
            difference, how = self._delong(rows, ids), "DeLong"
        else:
            x, y = (np.mean([self._drawn(r, metric, ids) for r in side], axis=0) for side in rows)
            difference = resampled_difference(float(x[0] - y[0]), x[1:] - y[1:])
            how = "bootstrap of patients" if grouped else "bootstrap of images"
        if not math.isfinite(difference.p):
            return None
        return Paired(difference, difference.p, how, seeds, len(ids), metric not in LOWER_IS_BETTER)

    def ranks(self, backbone: str, protocol: str, shots: int, metric: str) -> Ranks | str:
        """Methods ranked over data sets, or why not.

        One number per method and data set: of several test sets cut from one data set the first counts. Methods that
        lack a number on any data set are left out.
        """
        sets: dict[str, str] = {}
        for row in self.rows:
            if isinstance(row, MeasuredRow):
                sets.setdefault(row.test.set, row.test.name)
        if len(sets) < FEWEST:
            return f"needs {FEWEST} data sets or more, found {len(sets)}"
        means = {
            label: [self._mean(Key(backbone, test, protocol, label, shots), metric) for test in sets.values()]
            for label in self.labels
        }
        full = {label: values for label, values in means.items() if None not in values}
        if len(full) < FEWEST:
            return f"needs {FEWEST} methods or more that have a number on every data set, found {len(full)}"
        table = np.array(list(full.values()), dtype=np.float64).T
        try:
            return rank(table, list(full), higher_is_better=metric not in LOWER_IS_BETTER)
        except DataError as e:
            return str(e)

    # --- pieces ------------------------------------------------------------------------------------------------------

    def _mean(self, key: Key, metric: str) -> float | None:
        values = [row.value(metric) for row in self._with(key, metric).values()]
        return float(np.mean(np.array(values, dtype=np.float64))) if values else None

    def _with(self, key: Key, metric: str) -> dict[int, MeasuredRow]:
        """The fits that have this metric, and what is needed to resample it."""
        return {
            seed: row
            for seed, row in self.ok(key).items()
            if row.value(metric) is not None and resamples.kind(metric) in self.scored(row).blocks
        }

    def _common(self, rows: Sequence[MeasuredRow], part: str) -> tuple[str, ...]:
        """Entries that all rows have, in the order of the first."""
        others = [set(self.scored(r).blocks[part].ids) for r in rows[1:]]
        return tuple(i for i in self.scored(rows[0]).blocks[part].ids if all(i in o for o in others))

    def _drawn(self, row: MeasuredRow, metric: str, ids: tuple[str, ...]) -> Array:
        """(1 + resamples,) of a metric on these entries; coarse pixel metrics are shifted onto the exact value."""
        part = resamples.kind(metric)
        found = self._all_drawn(row, part, ids)
        if metric not in found:
            return np.full(1 + self.resamples, np.nan)
        if part != PIXEL:
            return found[metric]
        block = self.scored(row).blocks[PIXEL]
        coarse = found if ids == block.ids else self._all_drawn(row, part, block.ids)
        exact = row.value(metric)
        assert exact is not None  # only rows with a value are drawn
        shifted: Array = found[metric] + (exact - coarse[metric][0])
        return shifted

    def _all_drawn(self, row: MeasuredRow, part: str, ids: tuple[str, ...]) -> dict[str, Array]:
        key = (row.id, part, ids)
        if key not in self._draws:
            self._draws[key] = self.scored(row).blocks[part].draw(ids, resamples=self.resamples)
        return self._draws[key]

    def _interval(self, rows: Sequence[MeasuredRow], metric: str) -> tuple[float, float] | None:
        part = resamples.kind(metric)
        if any(part not in self.scored(r).blocks for r in rows):
            return None
        ids = self._common(rows, part)
        if len(ids) < 2:
            return None
        drawn = np.mean([self._drawn(r, metric, ids) for r in rows], axis=0)
        ends = interval(drawn[1:])
        return None if ends is None else (max(ends[0], 0.0), ends[1] if metric == "brier" else min(ends[1], 1.0))

    def _delong(self, sides: tuple[Sequence[MeasuredRow], Sequence[MeasuredRow]], ids: tuple[str, ...]) -> Difference:
        scores = [np.array([[self.scored(r).scores[i] for i in ids] for r in side]) for side in sides]
        truth = [self.scored(sides[0][0]).anomalous[i] for i in ids]
        try:
            return delong_test(scores[0], scores[1], truth)
        except DataError:  # fewer than two images of a kind
            return Difference(math.nan, math.nan, math.nan, math.nan)


def _ordered(wanted: Iterable[str], found: Iterable[str]) -> list[str]:
    """Names that occur, in the wanted order, unforeseen ones last."""
    there = set(found := list(found))
    return [n for n in dict.fromkeys([*wanted, *found]) if n in there]


def _corrected(found: dict[str, Paired]) -> dict[str, Paired]:
    adjusted = holm([t.difference.p for t in found.values()])
    return {label: replace(t, adjusted=float(p)) for (label, t), p in zip(found.items(), adjusted, strict=True)}


def _reason(row: Row, metric: str) -> str:
    part, outputs = resamples.kind(metric), row.outputs
    if row.status == "not_public":
        return str(row.reason)
    if part == CLASS and "classes" not in outputs:
        return "the method does not grade"
    if part == PIXEL and "map" not in outputs:
        return "the method draws no map"
    if row.status != "ok":
        return str(row.reason or row.status)
    found = (row.metrics or {}).get(metric)
    return (found and found.reason) or "was not measured"


def _told(reasons: Mapping[str, Sequence[int]], *, partly: bool) -> str | None:
    """One sentence; which seeds it is about only if others have a value."""
    if not reasons:
        return None
    if not partly and len(reasons) == 1:
        return next(iter(reasons))
    return "; ".join(f"seed {', '.join(map(str, seeds))}: {why}" for why, seeds in reasons.items())
