"""The report of a results folder: one HTML page, and its tables as Markdown, LaTeX and CSV.

statistics.py (what the rows say together) -> content.py, breakdown.py (tables), charts.py (charts), gallery.py
(pictures), words.py (sentences) -> page.html.j2, tables.py. Everything is read from the folder; no data set is opened.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ultraad.bench.results import BenchFolder
from ultraad.bench.study import breakdown, charts, content, gallery, words
from ultraad.bench.study.charts import Band, Bar, Series
from ultraad.bench.study.content import MAIN, SHORT, View, percent, shots_text
from ultraad.bench.study.published import paper
from ultraad.bench.study.statistics import RESAMPLES, Study
from ultraad.errors import DataError
from ultraad.io.files import ensure_writable, write_text
from ultraad.report.kit import tables
from ultraad.report.kit.page import environment
from ultraad.report.kit.tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ultraad.bench.row import Row

REPORT, TABLES = "report.html", "tables"
HIGHLIGHTED = 5  # ours: methods with a colour of their own in the chart over shots


def render(folder: Path | str, *, resamples: int = RESAMPLES) -> Path:
    """Write ``report.html`` and ``tables/`` into a results folder.

    Args:
        folder: What ``ultraad bench run`` wrote; it may be unfinished.
        resamples: Of every bootstrap.

    Returns:
        Path of the page.

    Raises:
        DataError: If it is no results folder, holds no row, or cannot be written.
    """
    study = Study(BenchFolder.open(folder), resamples=resamples)
    if not study.rows:
        msg = f"{folder} holds no row yet, so there is nothing to report; let 'ultraad bench run' finish at least one"
        raise DataError(msg)
    parts = [_part(View(study, name, study.protocols[0])) for name in study.backbones]
    page = environment("ultraad.bench.study").get_template("page.html.j2").render(_page(study, parts))
    place = ensure_writable(Path(folder) / TABLES)
    everything = [table for part in parts for table in part["all_tables"]]
    _write_tables(study, everything, place)
    write_text(Path(folder) / REPORT, page)
    return Path(folder) / REPORT


# --- content ---------------------------------------------------------------------------------------------------------


def _page(study: Study, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything the template needs."""
    bench = study.folder.bench
    return {
        "title": words.title(study),
        "date": str(bench.finished or bench.started or "")[:10],
        "cautions": words.cautions(study),
        "rules": words.rules(study),
        "parts": parts,
        "reference": study.reference,
        "methods": bench.methods,
        "draws": words.draws(study),
        "failures": words.failures(study),
        "ramp": gallery.ramp(),
        "outline": gallery.outline(),
        "low": gallery.LOW,
        "remarks": paper().remarks,
        "paper": paper().source,
        "files": [f"{TABLES}/tables.md", f"{TABLES}/tables.tex", f"{TABLES}/results.csv"],
    }


def _part(view: View) -> dict[str, Any]:
    """Everything about one backbone."""
    tests = [t for t in view.tests if view.shots(t)]
    details = [_detail(view, test, view.shots(test)[-1]) for test in tests]
    paper_tables, printed = content.paper_tables(view), content.ablation(view.study)
    optimism = content.optimism(view)
    costs = content.costs(view, tests[0], view.shots(tests[0])[-1]) if tests else None
    ranks = _ranks(view, view.shots(tests[0])[-1]) if tests else []
    others = [t for d in details for t in d["tables"]]
    return {
        "view": view,
        "lead": words.lead(view),
        "details": details,
        "paper_tables": [*paper_tables, *([printed] if printed else [])],
        "paper_rows": any(line.kind == "paper" for t in paper_tables for line in t.rows),
        "over_shots": _over_shots(view, tests),
        "optimism": optimism,
        "habits": _habits(view) if optimism else [],
        "ranks": ranks,
        "costs": costs,
        "protocol": words.protocol(view),
        "all_tables": [*paper_tables, *others, *optimism, *([costs] if costs else [])],
    }


def _detail(view: View, test: str, shots: int) -> dict[str, Any]:
    """Everything about one test set, at its largest number of shots."""
    found = {
        "devices": breakdown.devices(view, test, shots),
        "patients": breakdown.patients(view, test, shots),
        "marks": breakdown.marks(view, test, shots),
        "metrics": content.everything(view, test, shots),
        "tests": content.tests(view, test, shots),
    }
    fit, kinds = gallery.mistakes(view, test, shots)
    return {
        "title": view.title(test),
        "id": view.file(test),
        "shots": shots_text(shots),
        "shots_long": shots_text(shots, long=True),
        "cards": words.cards(view, test, shots),
        "headline": words.headline(view, test, shots),
        "intervals": [(SHORT[m], _intervals(view, test, shots, m)) for m in MAIN],
        "curves": _curves(view, test, shots),
        "reliability": _reliability(view, test, shots),
        "confusion": [(x, c) for x in view.labels if (c := breakdown.confusion(view, x, test, shots)) is not None],
        "grid": gallery.grid(view, test, shots),
        "mistakes_of": fit,
        "mistakes": kinds,
        "tables": [t for t in found.values() if isinstance(t, Table)],
        **found,
    }


def _intervals(view: View, test: str, shots: int, metric: str) -> Markup | None:
    bars = []
    found = view.study.tests_of(view.key(view.study.reference, test, shots), metric)
    for label in view.labels:
        cell = view.study.cell(view.key(label, test, shots), metric)
        if cell.mean is not None:
            verdict = found[label].verdict if label in found else ""
            kind = "reference" if label == view.study.reference else verdict.replace("undecided", "")
            bars.append(Bar(label, cell.mean, cell.low, cell.high, kind))
    return charts.intervals(f"{SHORT[metric]} on {view.title(test)}", bars)


def _over_shots(view: View, tests: list[str]) -> dict[str, Any]:
    """Charts over the number of shots, and the methods that have a colour in all of them."""
    colours = _colours(view, tests[0]) if tests else {}
    drawn: dict[str, list[tuple[str, Markup]]] = {}
    for test in tests:
        for metric in MAIN:
            series = []
            for label in view.labels:
                cells = [(k, view.study.cell(view.key(label, test, k), metric)) for k in view.shots(test)]
                points = [(k, c.mean, c.sd) for k, c in cells if c.mean is not None]
                series.append(Series(label, colours.get(label, "rest"), points))
            chart = charts.over_shots(f"{SHORT[metric]} on {view.title(test)} by images per class", series)
            if chart is not None:
                drawn.setdefault(view.title(test), []).append((f"{SHORT[metric]}, {view.title(test)}", chart))
    return {"charts": list(drawn.items()), "colours": colours, "rest": len(view.labels) > len(colours)}


def _colours(view: View, test: str) -> dict[str, str]:
    """The reference and the best others over the main metrics, by mean rank among those that have one."""
    shots = view.shots(test)[-1]
    places: dict[str, list[float]] = {}
    for metric in MAIN:
        means = {x: m for x in view.labels if (m := view.study.cell(view.key(x, test, shots), metric).mean) is not None}
        for place, label in enumerate(sorted(means, key=lambda x: -means[x])):
            places.setdefault(label, []).append(place / len(means))
    ordered = sorted(places, key=lambda x: (x != view.study.reference, sum(places[x]) / len(places[x]), x))
    return {label: f"s{i}" for i, label in enumerate(ordered[:HIGHLIGHTED])}


def _curves(view: View, test: str, shots: int) -> list[tuple[str, str, list[Markup]]]:
    """(what, how to read it, one small chart for each method)."""
    out = []
    kinds: tuple[tuple[str, str, str, Callable[..., charts.Band]], ...] = (
        ("image_roc", "ROC of images", "image_auroc", charts.roc_band),
        ("image_pr", "Precision and recall of images", "image_ap", charts.pr_band),
        ("pixel_roc", "ROC of pixels", "pixel_auroc", charts.roc_band),
        ("pixel_pr", "Precision and recall of pixels", "pixel_ap", charts.pr_band),
    )
    for curve, title, metric, band in kinds:
        roc = curve.endswith("roc")
        bands: dict[str, Band] = {}
        for label in view.labels:
            found = [c for r in _fits(view, label, test, shots).values() if (c := (r.curves or {}).get(curve))]
            if found:
                bands[label] = band(found)
        behind = bands.get(view.study.reference)
        small = [
            charts.small_curve(
                f"{title}: {label}",
                own,
                behind if label != view.study.reference else None,
                diagonal=roc,
                head=label,
                below=_below(view, label, test, shots, metric),
            )
            for label, own in bands.items()
        ]
        axes = ("false positive rate", "true positive rate") if roc else ("recall", "precision")
        if small:
            out.append((title, f"Across: {axes[0]}; up: {axes[1]}.", small))
    return out


def _reliability(view: View, test: str, shots: int) -> list[Markup]:
    drawn: list[Markup] = []
    for label in view.labels:
        found = [c for r in _fits(view, label, test, shots).values() if (c := (r.curves or {}).get("reliability"))]
        if found:
            below = _below(view, label, test, shots, "ece")
            drawn.append(charts.small_reliability(f"Reliability of {label}", found, head=label, below=below))
    return drawn


def _below(view: View, label: str, test: str, shots: int, metric: str) -> str:
    cell = view.study.cell(view.key(label, test, shots), metric)
    name = {"ece": "error"}.get(metric, metric.rsplit("_", 1)[-1].upper())
    if cell.mean is None:
        return ""
    return f"{name} {percent(cell.mean, metric)}" + ("" if cell.sd is None else f" ± {percent(cell.sd, metric)}")


def _ranks(view: View, shots: int) -> list[tuple[str, Markup | None, str]]:
    """(metric, diagram, what Friedman's test says or why there is none)."""
    out: list[tuple[str, Markup | None, str]] = []
    for metric in MAIN:
        found = view.study.ranks(view.backbone, view.protocol, shots, metric)
        if isinstance(found, str):
            out.append((SHORT[metric], None, found))
            continue
        clear = "the methods differ" if found.p < 0.05 else "a difference between the methods is not shown"
        told = f"Friedman's test over {found.sets} data sets: p = {found.p:.3f}, {clear}."
        out.append((SHORT[metric], charts.critical_difference(f"Mean ranks, {SHORT[metric]}", found), told))
    return out


def _habits(view: View) -> list[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for row in view.study.rows:
        if row.protocol == "published":
            found.setdefault(row.label, list(row.habits))
    return list(found.items())


def _fits(view: View, label: str, test: str, shots: int) -> Mapping[int, Row]:
    return view.study.ok(view.key(label, test, shots))


# --- files -----------------------------------------------------------------------------------------------------------


def _write_tables(study: Study, all_tables: list[Table], place: Path) -> None:
    packages = "% needs booktabs and amssymb\n"
    write_text(place / "tables.md", f"# {words.title(study)}\n\n" + "\n".join(map(tables.markdown, all_tables)))
    write_text(place / "tables.tex", packages + "\n".join(map(tables.latex, all_tables)))
    for table in all_tables:
        write_text(place / f"{table.name}.csv", tables.csv_text(table))
    buffer = io.StringIO()
    rows = content.long_rows(study)
    out = csv.DictWriter(buffer, list(rows[0]) if rows else [], lineterminator="\n")
    out.writeheader()
    out.writerows(rows)
    write_text(place / "results.csv", buffer.getvalue())
