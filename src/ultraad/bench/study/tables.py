"""The tables of a benchmark report: the paper's two, everything measured, differences, optimism, costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ultraad.bench.study import published
from ultraad.bench.study.statistics import Cell, Key, Paired, Study
from ultraad.bench.study.view import Scope, View, percent, shots_text, signed
from ultraad.metrics.catalogue import MAIN, METRICS, Kind, of_kind, short, spec
from ultraad.report.kit.tables import Table, TableCell, TableRow, rank_best
from ultraad.report.kit.words import DASH

_PAPER = (
    ("table1", "Table 1: detection and grading", {"image_auroc": "binary", "class_auroc_macro": "multi-class"},
     "Image-level AUROC in percent: lesion against normal (binary), and each class against the rest, mean over classes "
     "(multi-class)."),
    ("table2", "Table 2: localisation", {"pixel_auroc": "AUROC", "pixel_ap": "AP"},
     "Pixel AUROC and average precision (AP) over all pixels of all images, in percent."),
)  # fmt: skip
_KINDS: tuple[Kind, ...] = ("image", "class", "pixel")
_LEFT_OUT = {
    "sensitivity_at_95", "image_f1_oracle", "image_accuracy", "image_sensitivity", "image_specificity",
    "class_auroc_weighted", "brier", "nll", "class_ece", "dice_pooled", "pixel_f1_oracle",
    "set_coverage", "set_size",
}  # fmt: skip
"""Metrics close to another column of the full table, which would not fit with them; results.csv has every metric."""
_MARKS = "▲ better, ▼ worse than {} by the corrected paired test (see How to read the numbers)."


def number(cell: Cell, metric: str, pair: Paired | None = None) -> TableCell:
    """A line of the long table as it is printed, marked by its comparison with the reference."""
    return TableCell(
        text=percent(cell.mean, metric) or DASH,
        value=cell.mean,
        spread=percent(cell.sd, metric),
        mark="" if pair is None else pair.verdict.replace("undecided", ""),
        detail=interval_text(cell, metric, "95 %: "),
        reason=cell.reason,
    )


def interval_text(cell: Cell, metric: str, before: str = "") -> str:
    """``"70.1 to 80.2"``; empty if there is no interval."""
    if cell.low is None or cell.high is None:
        return ""
    return f"{before}{percent(cell.low, metric)} to {percent(cell.high, metric)}"


def paper_tables(view: View) -> list[Table]:
    """The paper's Tables 1 and 2, its numbers below ours."""
    found: list[Table] = []
    scopes = [Scope(view, test, shots) for test in view.tests for shots in view.asked(test)]
    for name, title, metrics, about in _PAPER:
        columns = [(scope, metric) for scope in scopes for metric in metrics]
        rows: list[TableRow] = []
        for ours in _numbers(columns, view):
            cells = tuple(_printed(scope, ours.name, metric) for scope, metric in columns)
            printed = any(c.value is not None for c in cells)
            rows += [ours, TableRow(f"{ours.name} (paper)", cells, "paper")] if printed else [ours]
        notes = [f"Mean over seeds ± standard deviation. {_MARKS.format(view.study.reference)}"]
        why = published.why_different(view.backbone, view.study.folder.bench.recipe.name)
        notes += [why] if any(row.kind == "paper" for row in rows) else []
        heads = tuple((scope.title, shots_text(scope.shots), metrics[metric]) for scope, metric in columns)
        found.append(Table(f"{name}{view.suffix}", title, about, "Method", heads, tuple(rows), tuple(notes)))
    return found


def ablation(study: Study) -> Table | None:
    """The paper's own ablation, for a recipe that repeats it; None for others."""
    if "ablation" not in study.folder.bench.recipe.name:
        return None
    rows = [
        TableRow(x.name, tuple(_paper_cell(v and v / 100) for v in (x.class_auroc_macro, x.pixel_auroc)), "paper")
        for x in published.paper().ablation
    ]
    return Table(
        "ablation-paper",
        "The paper's ablation (section 3.3)",
        "Percent. 4 images of each class, tested on BUSZS, which is not public: compare the drops, not the values.",
        "Variant",
        (("multi-class AUROC (most likely)",), ("pixel AUROC",)),
        tuple(rows),
        (f"From {published.paper().source}.",),
    )


def everything(scope: Scope) -> Table:
    """All metrics on one test set."""
    measured = [row for label in scope.labels for row in scope.rows(label)]
    there = {metric for row in measured for metric in row.metrics}
    ordered = [m for kind in _KINDS for m in of_kind(kind) if m not in _LEFT_OUT]
    metrics = [m for m in (*ordered, *sorted(there - METRICS.keys())) if m in there]
    notes = [
        f"Percent, except the calibration error (0 is perfect, lower is better). Mean over seeds ± standard deviation. "
        f"{_MARKS.format(scope.reference)}"
    ]
    if not all(row.calibration.calibrated for row in measured) and any(spec(m).at_threshold for m in metrics):
        notes.append(
            "Dice and intersection over union depend on a threshold. None was fitted for these rows: it is 0.5 for "
            "every method, so these numbers say more about the scale of a map than about its quality. Compare the "
            "best-threshold Dice instead."
        )
    return Table(
        f"metrics-{scope.file}",
        f"Everything measured on {scope.title}",
        f"{shots_text(scope.shots, long=True)}.",
        "Method",
        tuple((spec(m).title,) for m in metrics),
        tuple(_numbers([(scope, m) for m in metrics], scope.view)),
        tuple(notes),
    )


def differences(scope: Scope) -> Table | None:
    """Every method against the reference; None if there is nothing to compare."""
    found = {m: pairs for m in MAIN if (pairs := scope.against_reference(m))}
    labels = [x for x in scope.labels if any(x in pairs for pairs in found.values())]
    if not labels:
        return None
    rows = [
        TableRow(label, tuple(c for m in found for c in _difference(scope, label, m, found[m].get(label))))
        for label in labels
    ]
    ways = dict.fromkeys(f"{short(m)}: {pair.how}" for m, pairs in found.items() for pair in pairs.values())
    return Table(
        f"tests-{scope.file}",
        f"Each method minus {scope.reference} on {scope.title}",
        f"{shots_text(scope.shots, long=True)}. Differences in percentage points with 95 % intervals; p-values are "
        "corrected by Holm's method over the methods of a column.",
        "Method",
        tuple((short(m), head) for m in found for head in ("difference", "95 %", "p")),
        tuple(rows),
        (f"Intervals and p-values come from: {'; '.join(ways)}.",),
    )


def optimism(view: View) -> list[Table]:
    """How much the references gain from looking at the test set, for methods that were run under both protocols."""
    study = view.study
    if set(study.protocols) != {"honest", "published"}:
        return []
    found: list[Table] = []
    for test in view.tests:
        looked = [k for k in study.keys if (k.backbone, k.test, k.protocol) == (view.backbone, test, "published")]
        metrics = [m for m in MAIN if any(study.cell(k, m).values for k in looked)]
        rows = []
        for label in view.labels:
            for shots in view.asked(test):
                honest = Key(view.backbone, test, "honest", label, shots)
                if study.fits(replace(honest, protocol="published")):
                    cells = tuple(c for m in metrics for c in _gap(study, honest, m))
                    rows.append(TableRow(f"{label}, {shots_text(shots)}", cells))
        if any(c.value is not None for row in rows for c in row.cells):
            table = Table(
                f"optimism-{view.file(test)}",
                f"On {view.title(test)}",
                "Percent, mean over seeds. The gap is published minus honest with its paired 95 % interval; bold where "
                "the interval excludes 0.",
                "Method",
                tuple((short(m), head) for m in metrics for head in ("honest", "published", "gap")),
                tuple(rows),
            )
            found.append(table)
    return found


def costs(scope: Scope) -> Table:
    """Learned values, times and memory of each method."""
    heads = ["learned values", "adaptation, s", "per image, ms", "of which encoding, ms", "memory, MB"]
    on_device = any(row.peak_device_mb for row in scope.view.study.rows)
    heads += ["GPU memory, MB"] if on_device else []
    table_rows = []
    for label in scope.labels:
        rows = scope.rows(label)
        reason = None if rows else scope.cell(label, "image_auroc").reason
        numbers: list[tuple[Sequence[float | None], str]] = [
            ([row.fit.parameters for row in rows], ",.0f"),
            ([row.timings.adapt_seconds for row in rows], ".1f"),
            ([row.timings.predict_ms for row in rows], ".1f"),
            ([row.timings.encode_ms for row in rows], ".1f"),
            ([row.peak_memory_mb for row in rows], ",.0f"),
            *([([row.peak_device_mb for row in rows], ",.0f")] if on_device else []),
        ]
        cells = tuple(_amount(values, form, reason) for values, form in numbers)
        table_rows.append(TableRow(label, cells, kind(scope.view, label)))
    return Table(
        f"costs{scope.view.suffix}",
        "Learned values and time",
        f"{scope.title}, {shots_text(scope.shots, long=True).lower()}, mean over seeds.",
        "Method",
        tuple((h,) for h in heads),
        tuple(table_rows),
        (
            "Images are encoded once for all methods; times are given as if each method had encoded them itself. "
            "Concurrent jobs slow each other down, so compare times only within this table.",
        ),
    )


def long_rows(study: Study) -> list[dict[str, Any]]:
    """The long table as it is written to ``results.csv``."""
    out = []
    for key, metric, cell in study.table():
        pair = study.against_reference(key, metric).get(key.label) if metric in MAIN else None
        d = pair and pair.difference
        facts = {
            "backbone": key.backbone, "test": key.test, "protocol": key.protocol, "method": key.label,
            "shots": key.shots, "metric": metric, "mean": cell.mean, "sd": cell.sd, "low": cell.low,
            "high": cell.high, "images": cell.n or None, "seeds": " ".join(map(str, cell.values)),
            "values": " ".join(f"{v:.6g}" for v in cell.values.values()),
            "difference": d and d.value, "difference_low": d and d.low, "difference_high": d and d.high,
            "difference_images": pair and pair.n, "p": d and d.p,
            "p_holm": pair and pair.adjusted, "how": pair and pair.how, "remark": cell.reason,
        }  # fmt: skip
        out.append(facts)
    return out


def kind(view: View, label: str) -> str:
    """The kind of a method's table row."""
    return "reference" if label == view.study.reference else ""


def _numbers(columns: Sequence[tuple[Scope, str]], view: View) -> list[TableRow]:
    """One row for each method, the best of every column marked."""
    cells = {
        label: [
            number(cell, metric, None if cell.mean is None else scope.against_reference(metric).get(label))
            for scope, metric in columns
            for cell in (scope.cell(label, metric),)
        ]
        for label in view.labels
    }
    for i, (_, metric) in enumerate(columns):
        best = rank_best([row[i].value for row in cells.values()], higher_is_better=spec(metric).higher_is_better)
        for row, marked in zip(cells.values(), best, strict=True):
            row[i] = replace(row[i], best=marked)
    return [TableRow(label, tuple(row), kind(view, label)) for label, row in cells.items()]


def _printed(scope: Scope, label: str, metric: str) -> TableCell:
    """The paper's number."""
    row = next(iter(scope.view.study.fits(scope.key(label)).values()), None)
    return _paper_cell(None if row is None else published.value(row, metric))


def _paper_cell(value: float | None) -> TableCell:
    if value is None:
        return TableCell(reason="not in the paper")
    return TableCell(text=f"{100 * value:.1f}", value=value)


def _difference(scope: Scope, label: str, metric: str, pair: Paired | None) -> tuple[TableCell, TableCell, TableCell]:
    if pair is None:
        reasons = (scope.cell(x, metric).reason for x in (label, scope.reference))
        missing = TableCell(reason=next(filter(None, reasons), "no seed or image in common"))
        return missing, missing, missing
    d = pair.difference
    part = None if len(pair.seeds) == len(scope.rows(label)) else "only seeds that both methods have"
    return (
        TableCell(signed(d.value, metric), d.value, mark=pair.verdict.replace("undecided", ""), reason=part),
        TableCell(f"{signed(d.low, metric)} to {signed(d.high, metric)}", d.low),
        TableCell("< 0.001" if pair.adjusted < 0.001 else f"{pair.adjusted:.3f}", pair.adjusted),
    )


def _gap(study: Study, honest: Key, metric: str) -> tuple[TableCell, TableCell, TableCell]:
    looked = replace(honest, protocol="published")
    cells = [study.cell(key, metric) for key in (honest, looked)]
    first, second = (replace(number(cell, metric), spread="", detail="") for cell in cells)
    pair = study.compare(looked, honest, metric)
    if pair is None:
        reason = next(filter(None, (cell.reason for cell in cells)), "no seed in common")
        return first, second, TableCell(reason=reason)
    d = pair.difference
    text = f"{signed(d.value, metric)} ({signed(d.low, metric)} to {signed(d.high, metric)})"
    return first, second, TableCell(text, d.value, best=d.low > 0 or d.high < 0)


def _amount(values: Sequence[float | None], form: str, reason: str | None) -> TableCell:
    known = [v for v in values if v is not None]
    if not known:
        return TableCell(reason=reason or "not recorded")
    mean = float(np.mean(known))
    return TableCell(format(mean, form), mean)
