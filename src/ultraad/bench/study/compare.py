"""What differs between two results folders: rows, numbers beyond the spread over seeds, data, options, versions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, variance
from typing import TYPE_CHECKING, Any

from ultraad.bench.results import BenchFolder
from ultraad.bench.study.content import MAIN, percent, shots_text, signed
from ultraad.bench.study.statistics import LOWER_IS_BETTER
from ultraad.metrics.catalogue import spec
from ultraad.report.kit.page import environment
from ultraad.report.kit.words import DASH, count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ultraad.bench.row import Bench, Row

SHOWN = 200  # ours: lines of a kind in the text; the object has all


@dataclass(frozen=True, slots=True)
class Change:
    """One number of both folders: the mean over the seeds that both have.

    Attributes:
        fits: Which fits, in words.
        metric: Key of the metric.
        first: Mean in A; None if it is missing there.
        second: Mean in B.
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
        """Whether it moved by more than the seeds move it; with one seed any change counts."""
        if self.first is None or self.second is None:
            return not self.identical
        return not self.identical and abs(self.second - self.first) > (self.sd or 0.0)


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that is set or known differently: what, in A, in B."""

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
        facts: Differences in data, weights, options, outcome and versions.
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
        """Numbers that moved by more than the seeds move them, the farthest first."""
        return tuple(sorted((c for c in self.changes if c.beyond), key=_distance, reverse=True))

    def summary(self) -> str:
        """The result in a sentence."""
        n, moved = len(self.changes), sum(not c.identical for c in self.changes)
        if self.identical:
            return f"Same rows, and all {count(n, 'number')} the same to the last bit."
        shared = f"Of {count(n, 'number')} in both, {moved} moved, {len(self.beyond)} by more than the seeds move them"
        return f"{shared}; {count(len(self.only_first), 'row')} only in A, {len(self.only_second)} only in B."

    def __str__(self) -> str:
        """All of it as text."""
        lines = [f"A: {self.first}", f"B: {self.second}", self.summary()]
        for title, rows in (("Only in A", self.only_first), ("Only in B", self.only_second)):
            lines += _some(title, rows)
        lines += _some("Set or known differently", [f"{f.what}: {f.first} -> {f.second}" for f in self.facts])
        lines += _some("Moved by more than the seeds move them", [_told(c) for c in self.beyond])
        return "\n".join(lines)

    def html(self) -> str:
        """All of it as a page of its own."""
        moved = [(c.fits, spec(c.metric).title, *_numbers(c)) for c in self.beyond]
        facts = [(f.what, f.first, f.second) for f in self.facts]
        return (
            environment("ultraad.bench.study").get_template("compare.html.j2").render(c=self, moved=moved, facts=facts)
        )


def compare(first: Path | str, second: Path | str) -> Comparison:
    """Compare two results folders.

    Rows belong together if backbone, input side, number format, adapted data, test set, method label, shots, seed and
    protocol are the same; options, weights and data behind those names may differ, and are then named.

    Args:
        first: A.
        second: B.

    Raises:
        DataError: If one is no results folder.
    """
    a, b = BenchFolder.open(first), BenchFolder.open(second)
    rows_a, rows_b = ({_identity(r): r for r in x.rows()} for x in (a, b))
    both = [k for k in rows_a if k in rows_b]
    pairs = [(rows_a[k], rows_b[k]) for k in both]
    return Comparison(
        first=str(first),
        second=str(second),
        only_first=tuple(_row_name(r) for k, r in rows_a.items() if k not in rows_b),
        only_second=tuple(_row_name(r) for k, r in rows_b.items() if k not in rows_a),
        facts=tuple(dict.fromkeys([*_recipes(a.bench, b.bench), *(f for x, y in pairs for f in _facts(x, y))])),
        changes=tuple(_changes(pairs)),
    )


# --- pieces ----------------------------------------------------------------------------------------------------------


def _identity(row: Row) -> tuple[Any, ...]:
    return (*_fits(row), row.seed)


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
        for metric in dict.fromkeys(m for pair in fits for side in pair for m in side.metrics or ()):
            values = [(x.value(metric), y.value(metric)) for x, y in fits]
            known = [(x, y) for x, y in values if x is not None and y is not None]
            identical = all(x == y for x, y in values)
            if not known:
                if identical:
                    continue  # undefined in both
                means = [_mean(side) for side in zip(*values, strict=True)]
                yield Change(_fits_name(fits[0][0]), metric, means[0], means[1], None, identical=False)
                continue
            sides = list(zip(*known, strict=True))
            sd = math.sqrt(fmean(variance(s) for s in sides)) if len(known) > 1 else None
            yield Change(_fits_name(fits[0][0]), metric, fmean(sides[0]), fmean(sides[1]), sd, identical=identical)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if known else None


def _recipes(a: Bench, b: Bench) -> Iterator[Fact]:
    """Keys of the recipes that say something else; the lists of what is compared show in the rows."""
    left_out = {"data", "test", "methods", "backbones", "shots", "seeds", "protocols"}
    x, y = (bench.recipe.model_dump(mode="json", exclude=left_out) for bench in (a, b))
    for key in x:
        yield from _fact(f"recipe {key}", x[key], y[key])
    yield from _fact("compared with", a.reference, b.reference)


def _facts(a: Row, b: Row) -> Iterator[Fact]:
    """What stands behind a row that both have; seeds and shots are named only where it depends on them."""
    label, test = a.label, a.test.name
    yield from _fact(f"result of {_row_name(a)}", _outcome(a), _outcome(b))
    x, y = (dict(_leaves(r.options or {})) for r in (a, b))
    for key in dict.fromkeys([*x, *y]):
        yield from _fact(f"option {key} of {label}", x.get(key), y.get(key))
    yield from _fact(f"images of {test}", _short(a.test.digest), _short(b.test.digest))
    draw = f"adaptation images, {shots_text(a.shots)}, seed {a.seed}"
    yield from _fact(draw, _short(a.adapt.support), _short(b.adapt.support))
    tower = f"weights of {a.backbone.name}"
    yield from _fact(tower, _short(a.backbone.fingerprint), _short(b.backbone.fingerprint))
    for name in dict.fromkeys([*a.versions, *b.versions]):
        yield from _fact(f"version of {name}", a.versions.get(name), b.versions.get(name))
    yield from _fact("processor", a.machine.processor, b.machine.processor)  # these three may change the last bits
    yield from _fact("threads", a.machine.threads, b.machine.threads)
    yield from _fact("device", a.machine.device, b.machine.device)


def _fact(what: str, a: Any, b: Any) -> Iterator[Fact]:  # noqa: ANN401  # whatever JSON holds
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
    if c.first is None or c.second is None:
        return math.inf
    return abs(c.second - c.first) / (1 if c.metric in LOWER_IS_BETTER else 0.1) + (c.metric in MAIN) * 1e-9


def _numbers(c: Change) -> tuple[str, str, str, str]:
    """A, B, difference and standard deviation as they are printed; small differences with as many digits as needed."""
    if c.first is None or c.second is None:
        first, second = (DASH if v is None else percent(v, c.metric) for v in (c.first, c.second))
        return first, second, DASH, DASH
    change = signed(c.second - c.first, c.metric)
    tiny = not any(d in change for d in "123456789")
    scale = 1 if c.metric in LOWER_IS_BETTER else 100
    told = f"{scale * (c.second - c.first):+.1g}" if tiny else change
    sd = "one seed" if c.sd is None else percent(c.sd, c.metric)
    return percent(c.first, c.metric), percent(c.second, c.metric), told, sd


def _told(c: Change) -> str:
    first, second, change, sd = _numbers(c)
    return f"{c.fits}: {spec(c.metric).title} {first} -> {second} ({change}; standard deviation over seeds {sd})"


def _some(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    more = [f"  ... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return ["", f"{title}:", *(f"  {line}" for line in lines[:SHOWN]), *more]
