"""The report of a results folder: one HTML page, and its tables as Markdown, LaTeX and CSV.

statistics.py (the long table) -> tables.py, breakdown.py (tables), charts.py, gallery.py (pictures), words.py
(sentences) -> page.html.j2. Everything is read from the folder; no data set is opened.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ultraad.bench.results import BenchFolder
from ultraad.bench.study import breakdown, charts, gallery, tables, words
from ultraad.bench.study.charts import Bar, Series
from ultraad.bench.study.published import reading
from ultraad.bench.study.statistics import RESAMPLES, Study
from ultraad.bench.study.view import Scope, View, percent, shots_text
from ultraad.errors import DataError
from ultraad.io.files import ensure_writable, write_text
from ultraad.metrics.catalogue import MAIN, short
from ultraad.report.kit import tables as kit
from ultraad.report.kit.charts import PR, RISK, ROC
from ultraad.report.kit.page import environment
from ultraad.report.kit.tables import Table

REPORT, TABLES = "report.html", "tables"
HIGHLIGHTED = 5  # methods with a colour of their own in the chart over shots: more colours are hard to tell apart


def render(folder: Path | str, *, resamples: int = RESAMPLES) -> Path:
    """Write ``report.html`` and ``tables/`` into a results folder.

    Args:
        folder: A folder that ``ultraad bench run`` wrote; it may be unfinished.
        resamples: Of every bootstrap.

    Returns:
        Path of the page.

    Raises:
        DataError: If it is no results folder, has no row, or cannot be written.
    """
    study = Study(BenchFolder.open(folder), resamples=resamples)
    if not study.rows:
        msg = f"{folder} has no row yet, so there is nothing to report; run 'ultraad bench run' until a row is finished"
        raise DataError(msg)
    parts = [_part(View(study, name, study.protocols[0])) for name in study.backbones]
    page = environment("ultraad.bench.study").get_template("page.html.j2").render(_page(study, parts))
    _write_tables(study, [table for part in parts for table in part["files"]], ensure_writable(Path(folder) / TABLES))
    write_text(Path(folder) / REPORT, page)
    return Path(folder) / REPORT


def _page(study: Study, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything the template needs."""
    bench = study.folder.bench
    source, remarks = reading(bench.recipe.name)
    return {
        "title": words.title(study),
        "date": (bench.finished or bench.started or "")[:10],
        "cautions": words.cautions(study),
        "rules": words.rules(study),
        "parts": parts,
        "reference": study.reference,
        "methods": bench.methods,
        "supports": words.supports(study),
        "failures": words.failures(study),
        "ramp": gallery.ramp(),
        "outline": gallery.outline(),
        "low": gallery.LOW,
        "remarks": remarks,
        "paper": source,
        "files": [f"{TABLES}/tables.md", f"{TABLES}/tables.tex", f"{TABLES}/results.csv"],
    }


def _part(view: View) -> dict[str, Any]:
    """Everything about one backbone."""
    scopes = [Scope(view, test, view.shots(test)[-1]) for test in view.tests if view.shots(test)]
    details = [_detail(scope) for scope in scopes]
    paper_tables, printed = tables.paper_tables(view), tables.ablation(view.study)
    optimism = tables.optimism(view)
    costs = [tables.costs(scope) for scope in scopes[:1]]
    habits: dict[str, tuple[str, ...]] = {}
    for row in view.study.rows:
        if row.protocol == "published":
            habits.setdefault(row.label, row.habits)
    return {
        "view": view,
        "lead": words.lead(view),
        "details": details,
        "paper_tables": [*paper_tables, *([printed] if printed else [])],
        "paper_rows": any(row.kind == "paper" for t in paper_tables for row in t.rows),
        "over_shots": _over_shots(scopes),
        "optimism": optimism,
        "habits": list(habits.items()),
        "ranks": [_ranks(scope, metric) for scope in scopes[:1] for metric in MAIN],
        "costs": costs[0] if costs else None,
        "protocol": words.protocol(view),
        "files": [*paper_tables, *(t for d in details for t in d["files"]), *optimism, *costs],
    }


def _detail(scope: Scope) -> dict[str, Any]:
    """Everything about one test set, at its largest number of shots."""
    found = {
        "devices": breakdown.devices(scope),
        "patients": breakdown.patients(scope),
        "marks": breakdown.marks(scope),
        "metrics": tables.everything(scope),
        "tests": tables.differences(scope),
    }
    fit, kinds = gallery.mistakes(scope)
    return {
        "title": scope.title,
        "id": scope.file,
        "shots": shots_text(scope.shots),
        "shots_long": shots_text(scope.shots, long=True),
        "headlines": words.headlines(scope),
        "summary": words.summary(scope),
        "intervals": [(short(m), _intervals(scope, m)) for m in MAIN],
        "curves": _curves(scope),
        "reliability": _reliability(scope),
        "risk": _risk(scope),
        "confusion": [(x, c) for x in scope.labels if (c := breakdown.confusion(scope, x)) is not None],
        "several_seeds": any(len(scope.rows(x)) > 1 for x in scope.labels),
        "grid": gallery.grid(scope),
        "mistakes_of": fit,
        "mistakes": kinds,
        "files": [t for t in found.values() if isinstance(t, Table)],
        **found,
    }


def _intervals(scope: Scope, metric: str) -> Markup | None:
    pairs = scope.against_reference(metric)
    bars = []
    for label, mean in scope.means(metric).items():
        cell = scope.cell(label, metric)
        verdict = pairs[label].verdict.replace("undecided", "") if label in pairs else ""
        bars.append(Bar(label, mean, cell.low, cell.high, tables.kind(scope.view, label) or verdict))
    return charts.intervals(f"{short(metric)} on {scope.title}", bars)


def _over_shots(scopes: Sequence[Scope]) -> dict[str, Any]:
    """Charts over the number of shots, and the methods that have a colour in all of them."""
    colours = _colours(scopes[0]) if scopes else {}
    drawn: dict[str, list[tuple[str, Markup]]] = {}
    for scope in scopes:
        every = [replace(scope, shots=k) for k in scope.view.shots(scope.test)]
        for metric in MAIN:
            series = []
            for label in scope.labels:
                cells = [(s.shots, s.cell(label, metric)) for s in every]
                points = [(k, cell.mean, cell.sd) for k, cell in cells if cell.mean is not None]
                series.append(Series(label, colours.get(label, "rest"), points))
            chart = charts.over_shots(f"{short(metric)} on {scope.title} by images per class", series)
            if chart is not None:
                drawn.setdefault(scope.title, []).append((f"{short(metric)}, {scope.title}", chart))
    rest = any(label not in colours for scope in scopes for label in scope.labels)
    return {"charts": list(drawn.items()), "colours": colours, "rest": rest}


def _colours(scope: Scope) -> dict[str, str]:
    """The reference and the best others over the main metrics, by mean rank among those that have one."""
    places: dict[str, list[float]] = {}
    for metric in MAIN:
        means = scope.means(metric)
        for place, label in enumerate(sorted(means, key=lambda x: -means[x])):
            places.setdefault(label, []).append(place / len(means))
    ordered = sorted(places, key=lambda x: (x != scope.reference, sum(places[x]) / len(places[x]), x))
    return {label: f"s{i}" for i, label in enumerate(ordered[:HIGHLIGHTED])}


def _curves(scope: Scope) -> list[tuple[str, str, list[Markup]]]:
    """(what, how to read it, one small chart for each method)."""
    out = []
    for what, curve in product(("image", "pixel"), (ROC, PR)):
        title = f"{curve.title} curves of {what}s"
        stored = {x: _stored(scope, x, f"{what}_{curve.key}") for x in scope.labels}
        bands = {label: charts.average(curve, found) for label, found in stored.items() if found}
        small = [
            charts.small_curve(
                curve,
                f"{title}: {label}",
                own,
                bands.get(scope.reference) if label != scope.reference else None,
                head=label,
                below=_below(scope, label, f"{what}_{curve.metric}"),
            )
            for label, own in bands.items()
        ]
        if small:
            out.append((title, f"Across: {curve.label_x}; up: {curve.label_y}.", small))
    return out


def _reliability(scope: Scope) -> list[Markup]:
    return [
        charts.small_reliability(f"Reliability of {label}", found, head=label, below=_below(scope, label, "ece"))
        for label in scope.labels
        if (found := _stored(scope, label, "reliability"))
    ]


def _risk(scope: Scope) -> list[Markup]:
    stored = {label: _stored(scope, label, RISK.key) for label in scope.labels}
    bands = {label: charts.average(RISK, found) for label, found in stored.items() if found}
    behind = bands.get(scope.reference)
    return [
        charts.small_curve(
            RISK,
            f"{RISK.title}: {label}",
            own,
            behind if label != scope.reference else None,
            head=label,
            below=_below(scope, label, RISK.metric),
        )
        for label, own in bands.items()
    ]


def _stored(scope: Scope, label: str, curve: str) -> list[Any]:
    """A curve of every row of a method."""
    return [found for row in scope.rows(label) if (found := (row.curves or {}).get(curve))]


def _below(scope: Scope, label: str, metric: str) -> str:
    cell = scope.cell(label, metric)
    if cell.mean is None:
        return ""
    name = {"ece": "error"}.get(metric, metric.rsplit("_", 1)[-1].upper())
    return f"{name} {percent(cell.mean, metric)}" + ("" if cell.sd is None else f" ± {percent(cell.sd, metric)}")


def _ranks(scope: Scope, metric: str) -> tuple[str, Markup | None, str]:
    """(metric, diagram, what Friedman's test says or why there is none)."""
    found = scope.view.study.ranks(scope.view.backbone, scope.view.protocol, scope.shots, metric)
    if isinstance(found, str):
        return short(metric), None, found
    clear = "the methods differ" if found.p < 0.05 else "a difference between the methods is not shown"
    told = f"Friedman's test over {found.sets} data sets: p = {found.p:.3f}, {clear}."
    return short(metric), charts.critical_difference(f"Mean ranks, {short(metric)}", found), told


def _write_tables(study: Study, some: Sequence[Table], place: Path) -> None:
    packages = "% needs booktabs and amssymb\n"
    write_text(place / "tables.md", f"# {words.title(study)}\n\n" + "\n".join(map(kit.markdown, some)))
    write_text(place / "tables.tex", packages + "\n".join(map(kit.latex, some)))
    for table in some:
        write_text(place / f"{table.name}.csv", kit.csv_text(table))
    buffer = io.StringIO()
    rows = tables.long_rows(study)
    out = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    out.writeheader()
    out.writerows(rows)
    write_text(place / "results.csv", buffer.getvalue())
