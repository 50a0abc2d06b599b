"""What differs between two results folders: rows, numbers beyond the spread over seeds, data, options, versions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, variance
from typing import Any, NamedTuple

from ultraad.bench.results import BenchFolder
from ultraad.bench.row import Bench, Row
from ultraad.bench.study.statistics import over_seeds
from ultraad.bench.study.view import percent, shots_text, signed
from ultraad.metrics.catalogue import MAIN, spec
from ultraad.report.kit.page import environment
from ultraad.report.kit.words import DASH, count

SHOWN = 200  # lines of a kind in the text; the object has all


@dataclass(frozen=True, slots=True)
class Change:
    """One number of both folders: the mean over the seeds that both have.

    Attributes:
        fits: Which fits, in words.
        metric: Key of the metric.
        first: Mean in A; None if it is missing there.
        second: Mean in B, likewise.
        sd: Standard deviation over seeds, pooled over both; None with one seed.
        identical: Whether all seeds have the same value to the last bit.
    """

    fits: str
    metric: str
    first: float | None
    second: float | None
    sd: float | None
    identical: bool

    @property
    def beyond(self) -> bool:
        """Whether it changed by more than the standard deviation over seeds; with one seed, whether it changed."""
        if self.first is None or self.second is None:
            return not self.identical
        return not self.identical and abs(self.second - self.first) > (self.sd or 0.0)


class Fact(NamedTuple):
    """Something other than a number that differs: what it is, in A, in B."""

    what: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between the folders A and B.

    Attributes:
        first: Name of A.
        second: Name of B.
        only_first: Rows that only A has.
        only_second: Rows that only B has.
        facts: Differences in data, weights, options, status and versions.
        changes: Every number that both have rows for.
    """

    first: str
    second: str
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    facts: tuple[Fact, ...]
    changes: tuple[Change, ...]

    @property
    def identical(self) -> bool:
        """Whether both have the same rows with the same numbers to the last bit; time and machine do not count."""
        return not (self.only_first or self.only_second) and all(c.identical for c in self.changes)

    @property
    def beyond(self) -> tuple[Change, ...]:
        """Numbers that changed by more than the standard deviation over seeds, the largest change first."""
        return tuple(sorted((c for c in self.changes if c.beyond), key=_distance, reverse=True))

    def summary(self) -> str:
        """The result in a sentence."""
        n, moved = len(self.changes), sum(not c.identical for c in self.changes)
        if self.identical:
            return f"Same rows, and all {count(n, 'number')} the same to the last bit."
        beyond = f"{len(self.beyond)} by more than the standard deviation over seeds"
        shared = f"Of {count(n, 'number')} in both, {moved} changed, {beyond}"
        return f"{shared}; {count(len(self.only_first), 'row')} only in A, {len(self.only_second)} only in B."

    def __str__(self) -> str:
        """All of it as text."""
        lines = [f"A: {self.first}", f"B: {self.second}", self.summary()]
        for title, rows in (("Only in A", self.only_first), ("Only in B", self.only_second)):
            lines += _some(title, rows)
        lines += _some("Other differences", [f"{f.what}: {f.first} -> {f.second}" for f in self.facts])
        lines += _some("Changed by more than the standard deviation over seeds", [_told(c) for c in self.beyond])
        return "\n".join(lines)

    def html(self) -> str:
        """All of it as a page of its own."""
        moved = [(c.fits, spec(c.metric).title, *_numbers(c)) for c in self.beyond]
        return environment("ultraad.bench.study").get_template("compare.html.j2").render(c=self, moved=moved)


def compare(first: Path | str, second: Path | str) -> Comparison:
    """Compare two results folders.

    Rows are paired if backbone, input side, number format, adapted data, test set, method label, shots, seed and
    protocol are the same. Options, weights and data behind those names may differ, and are then listed.

    Args:
        first: A.
        second: B.

    Raises:
        DataError: If one is no results folder.
    """
    a, b = BenchFolder.open(first), BenchFolder.open(second)
    rows_a, rows_b = ({(*_fits(r), r.seed): r for r in folder.rows()} for folder in (a, b))
    pairs = [(rows_a[k], rows_b[k]) for k in rows_a if k in rows_b]
    return Comparison(
        first=str(first),
        second=str(second),
        only_first=tuple(_row_name(r) for k, r in rows_a.items() if k not in rows_b),
        only_second=tuple(_row_name(r) for k, r in rows_b.items() if k not in rows_a),
        facts=tuple(dict.fromkeys([*_recipes(a.bench, b.bench), *(f for x, y in pairs for f in _facts(x, y))])),
        changes=tuple(_changes(pairs)),
    )


def _fits(row: Row) -> tuple[Any, ...]:
    b = row.backbone
    where = (b.name, b.size, b.dtype, row.adapt.name, row.test.name)
    return (*where, row.label, row.shots, row.protocol)


def _fits_name(row: Row) -> str:
    name = f"{row.label}, {row.test.name}, {shots_text(row.shots)}, {row.backbone.name}"
    return name if row.protocol == "honest" else f"{name}, {row.protocol}"


def _row_name(row: Row) -> str:
    return f"{_fits_name(row)}, seed {row.seed}"


def _changes(pairs: Sequence[tuple[Row, Row]]) -> Iterator[Change]:
    together: dict[tuple[Any, ...], list[tuple[Row, Row]]] = {}
    for pair in pairs:
        together.setdefault(_fits(pair[0]), []).append(pair)
    for fits in together.values():
        name = _fits_name(fits[0][0])
        for metric in dict.fromkeys(m for pair in fits for row in pair for m in row.metrics or ()):
            cells = [over_seeds({row.seed: row for row in side}, metric) for side in zip(*fits, strict=True)]
            a, b = (cell.values for cell in cells)
            known = [(value, b[seed]) for seed, value in a.items() if seed in b]
            if known:
                sides = list(zip(*known, strict=True))
                sd = math.sqrt(fmean(variance(s) for s in sides)) if len(known) > 1 else None
                yield Change(name, metric, fmean(sides[0]), fmean(sides[1]), sd, identical=a == b)
            elif a or b:  # defined in one folder only
                yield Change(name, metric, cells[0].mean, cells[1].mean, None, identical=False)


def _recipes(a: Bench, b: Bench) -> Iterator[Fact]:
    """Keys of the recipes that differ, but for the lists of what is compared: the rows show those."""
    left_out = {"data", "test", "methods", "backbones", "shots", "seeds", "protocols"}
    x, y = (bench.recipe.model_dump(mode="json", exclude=left_out) for bench in (a, b))
    for key in x:
        yield from _fact(f"recipe {key}", x[key], y[key])
    yield from _fact("reference method", a.reference, b.reference)


def _facts(a: Row, b: Row) -> Iterator[Fact]:
    """What differs between two paired rows; seed and shots are named only where the fact depends on them."""
    yield from _fact(f"result of {_row_name(a)}", _outcome(a), _outcome(b))
    x, y = (dict(_leaves(row.options)) for row in (a, b))
    for key in dict.fromkeys([*x, *y]):
        yield from _fact(f"option {key} of {a.label}", x.get(key), y.get(key))
    yield from _fact(f"images of {a.test.name}", _short(a.test.digest), _short(b.test.digest))
    draw = f"adaptation images, {shots_text(a.shots)}, seed {a.seed}"
    yield from _fact(draw, _short(a.adapt.support), _short(b.adapt.support))
    weights = (_short(row.backbone.fingerprint) for row in (a, b))
    yield from _fact(f"weights of {a.backbone.name}", *weights)
    for name in dict.fromkeys([*a.versions, *b.versions]):
        yield from _fact(f"version of {name}", a.versions.get(name), b.versions.get(name))
    for name in ("processor", "threads", "device"):  # they may change the last bits
        yield from _fact(name, getattr(a.machine, name), getattr(b.machine, name))


def _fact(what: str, a: object, b: object) -> Iterator[Fact]:
    if a != b:
        yield Fact(what, *(DASH if v is None else str(v) for v in (a, b)))


def _outcome(row: Row) -> str:
    return row.status if row.status == "ok" else f"{row.status} ({row.reason})"


def _leaves(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(code: str | None) -> str | None:
    return None if code is None else code[:12]


def _distance(c: Change) -> float:
    """For sorting: one point of a percentage weighs as much as 0.1 of an error; main metrics win ties."""
    if c.first is None or c.second is None:
        return math.inf
    return abs(c.second - c.first) / (0.1 if spec(c.metric).higher_is_better else 1) + (c.metric in MAIN) * 1e-9


def _numbers(c: Change) -> tuple[str, str, str, str]:
    """A, B, difference and standard deviation as printed; a small difference has as many digits as it needs."""
    first, second = (percent(v, c.metric) or DASH for v in (c.first, c.second))
    if c.first is None or c.second is None:
        return first, second, DASH, DASH
    change = signed(c.second - c.first, c.metric)
    if not any(d in change for d in "123456789"):
        change = f"{(100 if spec(c.metric).higher_is_better else 1) * (c.second - c.first):+.1g}"
    return first, second, change, percent(c.sd, c.metric) or "one seed"


def _told(c: Change) -> str:
    first, second, change, sd = _numbers(c)
    return f"{c.fits}: {spec(c.metric).title} {first} -> {second} ({change}; standard deviation over seeds {sd})"


def _some(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    more = [f"  ... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return ["", f"{title}:", *(f"  {line}" for line in lines[:SHOWN]), *more]
