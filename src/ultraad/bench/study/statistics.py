"""What the rows of a results folder say together: means over seeds, intervals, paired tests, ranks.

- A number is the mean over seeds; its standard deviation is over seeds, too.
- Its 95 % interval comes from a bootstrap of patients, or of images where patients are not known. The patients of all
  seeds together are drawn, all seeds see the same resample, and a seed ignores patients that it was not tested on. The
  means over seeds of the resampled values give the percentiles.
- A method is compared with the reference seed by seed on the images that both have in that seed, and the differences
  are averaged. Their interval is DeLong's for the image AUROC where patients are not known, and comes from the same
  bootstrap otherwise.
- The p-values of one column (one metric, test set and number of shots) are corrected by Holm's method.

``words.rules`` explains this to the reader of a report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ultraad.bench.results import BenchFolder
from ultraad.bench.row import MeasuredRow, Row
from ultraad.bench.study import resamples
from ultraad.bench.study.resamples import Scored
from ultraad.errors import DataError
from ultraad.metrics.bootstrap import Array, interval_of
from ultraad.metrics.catalogue import MAIN, Kind, spec
from ultraad.metrics.compare import Difference, delong_test, holm, resampled_difference
from ultraad.metrics.ranking import FEWEST, Ranks, rank

RESAMPLES = 2000  # the smallest p-value is then 0.001, so that forty methods can still be corrected
LEVEL = 0.05
_Names = tuple[str, ...]
_Fit = tuple[MeasuredRow, _Names]  # a row, and those of its entries that count


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
    """A line of the long table: one metric of the fits of one key.

    Attributes:
        values: {seed: value} of the seeds that have one.
        low: Lower end of the 95 % interval of the mean; None if there is none.
        high: Upper end, likewise.
        n: Images behind it.
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
    """The fits of one key compared with those of another, seed by seed on the same images.

    Attributes:
        difference: First minus second.
        adjusted: p-value after Holm's correction within its column.
        how: What the interval comes from.
        seeds: Those that both have.
        n: Images (patients, for pixel metrics) that both have in one seed or more.
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


def over_seeds(fits: Mapping[int, Row], metric: str) -> Cell:
    """One metric of some fits, {seed: row}, without an interval."""
    values: dict[int, float] = {}
    reasons: dict[str, list[int]] = {}
    n = 0
    for seed, row in sorted(fits.items()):
        found = (row.metrics or {}).get(metric)
        if found is not None and found.value is not None:
            values[seed], n = found.value, max(n, found.n)
        else:
            reasons.setdefault(_reason(row, metric), []).append(seed)
    return Cell(values, n=n, reason=_together(reasons, partly=bool(values)) if fits else "not in the recipe")


class Study:
    """The rows of a results folder as one long table, with one line for each key and metric.

    Args:
        folder: The folder.
        resamples: Of every bootstrap.

    Attributes:
        rows: Those that the recipe asks for.
        backbones: Names, in order of appearance; several input sizes of one backbone get names of their own.
        tests: Names of test sets, in the recipe's order.
        labels: Labels of methods, in the recipe's order.
        shots: Rising.
        protocols: Honest first.
        reference: Label that the others are compared with.
    """

    def __init__(self, folder: BenchFolder, *, resamples: int = RESAMPLES) -> None:
        self.folder = folder
        self.resamples = resamples
        self.rows = folder.rows()
        bench = folder.bench
        self._sized = len({b.name for b in bench.recipe.backbones}) < len(bench.recipe.backbones)
        self.backbones = list(dict.fromkeys(map(self.backbone, self.rows)))
        self.tests = _ordered((t.name for t in bench.tests), (r.test.name for r in self.rows))
        self.labels = _ordered((m.label for m in bench.methods), (r.label for r in self.rows))
        self.shots = sorted({r.shots for r in self.rows})
        self.protocols = sorted({r.protocol for r in self.rows})
        self.reference = bench.reference or bench.recipe.reference or next(iter(self.labels), "")
        self._by_key: dict[Key, dict[int, Row]] = {}
        for row in self.rows:
            self._by_key.setdefault(self.key(row), {})[row.seed] = row
        self._cells: dict[tuple[Key, str], Cell] = {}
        self._scored: dict[str, Scored] = {}
        self._resampled: dict[tuple[str, str, _Names, _Names], dict[str, Array]] = {}
        self._columns: dict[tuple[Key, str], dict[str, Paired]] = {}

    def backbone(self, row: Row) -> str:
        """What the report calls the backbone of a row."""
        b = row.backbone
        return f"{b.name}, {b.size} px, {b.dtype}" if self._sized else b.name

    def key(self, row: Row) -> Key:
        """Which fits a row belongs to."""
        return Key(self.backbone(row), row.test.name, row.protocol, row.label, row.shots)

    @property
    def keys(self) -> list[Key]:
        """Every key that has rows, in the order of first finishing."""
        return list(self._by_key)

    def fits(self, key: Key) -> dict[int, Row]:
        """{seed: row}, of every status."""
        return self._by_key.get(key, {})

    def ok(self, key: Key) -> dict[int, MeasuredRow]:
        """{seed: row} of the fits that have a result, by seed."""
        return {seed: row for seed, row in sorted(self.fits(key).items()) if isinstance(row, MeasuredRow)}

    def scored(self, row: MeasuredRow) -> Scored:
        """The stored predictions of a row; read once."""
        if row.id not in self._scored:
            self._scored[row.id] = resamples.load(self.folder, row)
        return self._scored[row.id]

    def cell(self, key: Key, metric: str) -> Cell:
        """A line of the long table: the mean of a metric over seeds, with its interval."""
        if (key, metric) not in self._cells:
            cell, ok = over_seeds(self.fits(key), metric), self.ok(key)
            ends = self._interval([ok[seed] for seed in cell.values], metric) if cell.values else None
            self._cells[key, metric] = cell if ends is None else replace(cell, low=ends[0], high=ends[1])
        return self._cells[key, metric]

    def table(self) -> Iterator[tuple[Key, str, Cell]]:
        """The long table: every key with every metric that it has, or with the main ones if it has none."""
        for key in self.keys:
            for metric in dict.fromkeys(m for row in self.ok(key).values() for m in row.metrics) or MAIN:
                yield key, metric, self.cell(key, metric)

    def against_reference(self, key: Key, metric: str) -> dict[str, Paired]:
        """{label: comparison} of every other method with the reference, in the column that a key is in."""
        reference = replace(key, label=self.reference)
        if (reference, metric) not in self._columns:
            found = {
                label: pair
                for label in self.labels
                if label != self.reference
                and (pair := self.compare(replace(key, label=label), reference, metric)) is not None
            }
            adjusted = holm([pair.difference.p for pair in found.values()])
            self._columns[reference, metric] = {
                label: replace(found[label], adjusted=float(p)) for label, p in zip(found, adjusted, strict=True)
            }
        return self._columns[reference, metric]

    def compare(self, first: Key, second: Key, metric: str) -> Paired | None:
        """The fits of two keys compared; None if they share no seed, no image or no value.

        Zero-shot fits have one seed, which is paired with the same seed of the other key.
        """
        a, b = self._resampable(first, metric), self._resampable(second, metric)
        kind = spec(metric).kind
        pairs = {s: ids for s in sorted(a.keys() & b.keys()) if (ids := self._shared(a[s], b[s], kind))}
        if not pairs:
            return None
        x, y = ([(side[s], ids) for s, ids in pairs.items()] for side in (a, b))
        grouped = any(self.scored(row).grouped for row, _ in x)
        if metric == "image_auroc" and not grouped:
            difference, how = self._delong(x, y), "DeLong"
        else:
            units = self._units([row for row, _ in (*x, *y)], kind)
            drawn = self._mean(x, metric, units) - self._mean(y, metric, units)
            difference = resampled_difference(float(drawn[0]), drawn[1:])
            how = "bootstrap of patients" if grouped else "bootstrap of images"
        if not math.isfinite(difference.p):
            return None
        n = len({i for ids in pairs.values() for i in ids})
        return Paired(difference, difference.p, how, tuple(pairs), n, spec(metric).higher_is_better)

    def ranks(self, backbone: str, protocol: str, shots: int, metric: str) -> Ranks | str:
        """Methods ranked over data sets, or why not.

        There is one number per method and data set: of several test sets cut from one data set the first counts.
        Methods that lack a number on any data set are left out.
        """
        sets: dict[str, str] = {}
        for row in self.rows:
            if isinstance(row, MeasuredRow):
                sets.setdefault(row.test.set, row.test.name)
        if len(sets) < FEWEST:
            return f"needs {FEWEST} data sets or more, found {len(sets)}"
        means = {
            label: [over_seeds(self.fits(Key(backbone, t, protocol, label, shots)), metric).mean for t in sets.values()]
            for label in self.labels
        }
        full = {label: values for label, values in means.items() if None not in values}
        if len(full) < FEWEST:
            return f"needs {FEWEST} methods or more that have a number on every data set, found {len(full)}"
        table = np.array(list(full.values()), dtype=np.float64).T
        try:
            return rank(table, list(full), higher_is_better=spec(metric).higher_is_better)
        except DataError as e:
            return str(e)

    def _resampable(self, key: Key, metric: str) -> dict[int, MeasuredRow]:
        """The fits that have this metric, and the stored predictions to resample it."""
        kind = spec(metric).kind
        return {
            seed: row
            for seed, row in self.ok(key).items()
            if row.value(metric) is not None and kind in self.scored(row).blocks
        }

    def _entries(self, row: MeasuredRow, kind: Kind) -> _Names:
        return tuple(self.scored(row).blocks[kind].units)

    def _shared(self, first: MeasuredRow, second: MeasuredRow, kind: Kind) -> _Names:
        """Entries that both rows have, in the order of the first."""
        there = set(self._entries(second, kind))
        return tuple(i for i in self._entries(first, kind) if i in there)

    def _units(self, rows: Iterable[MeasuredRow], kind: Kind) -> _Names:
        """What is drawn for some rows: the units that any of them has."""
        return tuple(dict.fromkeys(u for row in rows for u in self.scored(row).blocks[kind].units.values()))

    def _mean(self, fits: Iterable[_Fit], metric: str, units: _Names) -> Array:
        """(1 + resamples,) of a metric, mean over fits, each on its own entries; all see the same units drawn."""
        found: Array = np.mean([self._replicates(row, metric, ids, units) for row, ids in fits], axis=0)
        return found

    def _replicates(self, row: MeasuredRow, metric: str, ids: _Names, units: _Names) -> Array:
        """(1 + resamples,) of a metric on these entries; coarse pixel metrics are shifted onto the exact value."""
        kind = spec(metric).kind
        found = self._all_replicates(row, kind, ids, units)
        if metric not in found:
            return np.full(1 + self.resamples, np.nan)
        if kind != "pixel":
            return found[metric]
        coarse, exact = self._all_replicates(row, kind, self._entries(row, kind), units), row.value(metric)
        assert exact is not None  # rows without a value are not resampled
        shifted: Array = found[metric] + (exact - coarse[metric][0])
        return shifted

    def _all_replicates(self, row: MeasuredRow, kind: Kind, ids: _Names, units: _Names) -> dict[str, Array]:
        key = (row.id, kind, ids, units)
        if key not in self._resampled:
            self._resampled[key] = self.scored(row).blocks[kind].resample(ids, units, resamples=self.resamples)
        return self._resampled[key]

    def _interval(self, rows: Sequence[MeasuredRow], metric: str) -> tuple[float, float] | None:
        kind = spec(metric).kind
        if any(kind not in self.scored(row).blocks for row in rows):
            return None
        units = self._units(rows, kind)
        if len(units) < 2:
            return None
        drawn = self._mean([(row, self._entries(row, kind)) for row in rows], metric, units)
        ends = interval_of(metric, drawn[1:], float(drawn[0]))
        if ends is None:
            return None
        return max(ends[0], 0.0), min(ends[1], 1.0) if spec(metric).higher_is_better else ends[1]

    def _delong(self, first: Sequence[_Fit], second: Sequence[_Fit]) -> Difference:
        truth = {i: self.scored(row).anomalous[i] for row, ids in first for i in ids}

        def scores(row: MeasuredRow, ids: _Names) -> list[float]:
            found = dict.fromkeys(truth, math.nan) | {i: self.scored(row).scores[i] for i in ids}
            return list(found.values())

        try:
            return delong_test([scores(*x) for x in first], [scores(*x) for x in second], list(truth.values()))
        except DataError:  # fewer than two images of a kind
            return Difference(math.nan, math.nan, math.nan, math.nan)


def _ordered(wanted: Iterable[str], found: Iterable[str]) -> list[str]:
    """Names that occur, in the wanted order; the others last."""
    there = list(found)
    return [n for n in dict.fromkeys([*wanted, *there]) if n in there]


def _reason(row: Row, metric: str) -> str:
    kind = spec(metric).kind
    if row.status == "not_public":
        return str(row.reason)
    if kind == "class" and "classes" not in row.outputs:
        return "the method does not grade"
    if kind == "pixel" and "map" not in row.outputs:
        return "the method has no map"
    if row.status != "ok":
        return row.reason or row.status
    found = (row.metrics or {}).get(metric)
    return (found and found.reason) or "not measured"


def _together(reasons: Mapping[str, Sequence[int]], *, partly: bool) -> str | None:
    """One sentence; it names the seeds only if others have a value."""
    if not reasons:
        return None
    if not partly and len(reasons) == 1:
        return next(iter(reasons))
    return "; ".join(f"seed {', '.join(map(str, seeds))}: {why}" for why, seeds in reasons.items())
