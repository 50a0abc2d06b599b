"""Which tables a benchmark report has: the paper's two, everything measured, tests, optimism, costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ultraad.bench.study import published
from ultraad.bench.study.statistics import LOWER_IS_BETTER, Key
from ultraad.metrics.catalogue import spec
from ultraad.report.kit.tables import BETTER, WORSE, Table, TableCell, TableRow, rank_best
from ultraad.report.kit.words import count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultraad.bench.row import Row
    from ultraad.bench.study.statistics import Cell, Paired, Study

MAIN = ("image_auroc", "class_auroc_macro", "pixel_auroc", "pixel_ap")
SHORT = {
    "image_auroc": "Image AUROC",
    "class_auroc_macro": "Class AUROC",
    "pixel_auroc": "Pixel AUROC",
    "pixel_ap": "Pixel AP",
}
_PAPER = (
    ("table1", "Table 1: detection and grading", {"image_auroc": "binary", "class_auroc_macro": "multi-class"},
     "Image-level AUROC in percent: lesion against normal (binary), and each class against the rest, mean over classes "
     "(multi-class)."),
    ("table2", "Table 2: localisation", {"pixel_auroc": "AUROC", "pixel_ap": "AP"},
     "Pixel AUROC and average precision (AP) over all pixels of all images, in percent."),
)  # fmt: skip
_ALL = (
    "image_auroc", "image_ap", "sensitivity_at_90", "class_auroc_macro", "benign_malignant_auroc",
    "balanced_accuracy", "macro_f1", "ece", "pixel_auroc", "pixel_ap", "aupro", "dice", "iou", "dice_oracle",
    "pixel_auroc_centre_prior",
)  # fmt: skip
_AT_THRESHOLD = ("dice", "iou")
_KEY = "▲ better, ▼ worse than {}: the corrected paired test decides (see How to read the numbers)."


@dataclass(frozen=True, slots=True)
class View:
    """Which rows a part of the report is about.

    Attributes:
        study: All rows.
        backbone: One of its backbones.
        protocol: The one that the main tables show.
    """

    study: Study
    backbone: str
    protocol: str

    @property
    def suffix(self) -> str:
        """For file names, if there are several backbones."""
        n = self.study.backbones.index(self.backbone)
        return f"-{n + 1}" if len(self.study.backbones) > 1 else ""

    @property
    def labels(self) -> list[str]:
        """Methods with rows here, the reference first."""
        found = {k.label for k in self.study.keys if (k.backbone, k.protocol) == (self.backbone, self.protocol)}
        return sorted((x for x in self.study.labels if x in found), key=lambda x: x != self.study.reference)

    @property
    def tests(self) -> list[str]:
        """Test sets, those that could be evaluated first."""
        return [t for t in self.study.tests if self.shots(t)] + [t for t in self.study.tests if not self.shots(t)]

    def shots(self, test: str) -> list[int]:
        """Numbers of shots that have a result on a test set; rising."""
        return sorted({k.shots for k in self.study.keys if self._here(k, test) and self.study.ok(k)})

    def asked(self, test: str) -> list[int]:
        """Numbers of shots that were asked for on a test set."""
        return sorted({k.shots for k in self.study.keys if self._here(k, test)})

    def key(self, label: str, test: str, shots: int) -> Key:
        """Which fits these are."""
        return Key(self.backbone, test, self.protocol, label, shots)

    def title(self, test: str) -> str:
        """What a test set is called."""
        return test_title(self.study, test)

    def file(self, test: str) -> str:
        """A part of a file name that every file system takes."""
        name = "".join(c if c.isalnum() else "-" for c in test.lower()).strip("-") or "test"
        return name + self.suffix

    def _here(self, k: Key, test: str) -> bool:
        return (k.backbone, k.protocol, k.test) == (self.backbone, self.protocol, test)


def paper_tables(view: View) -> list[Table]:
    """The paper's Tables 1 and 2, its numbers below ours."""
    found: list[Table] = []
    for name, title, metrics, about in _PAPER:
        columns = [(t, k, m) for t in view.tests for k in view.asked(t) for m in metrics]
        heads = tuple((view.title(t), shots_text(k), metrics[m]) for t, k, m in columns)
        lines = []
        for label in view.labels:
            entries = tuple(_entry(view, label, *column) for column in columns)
            lines.append(TableRow(label, entries, _kind(view, label)))
            printed = tuple(_printed(view, label, *column) for column in columns)
            if any(e.value is not None for e in printed):
                lines.append(TableRow(f"{label} (paper)", printed, "paper"))
        notes = [f"Mean over seeds ± standard deviation. {_KEY.format(view.study.reference)}"]
        if any(line.kind == "paper" for line in lines):
            notes += [published.why_different(view.backbone)]
        table = Table(f"{name}{view.suffix}", title, about, "Method", heads, _with_best(lines, columns), tuple(notes))
        found.append(table)
    return found


def ablation(study: Study) -> Table | None:
    """What the paper prints for its ablation, beside a recipe that repeats it."""
    if "ablation" not in study.folder.bench.recipe.name:
        return None
    lines = [
        TableRow(x.name, tuple(_paper_entry(getattr(x, m), m) for m in ("class_auroc_macro", "pixel_auroc")), "paper")
        for x in published.paper().ablation
    ]
    return Table(
        "ablation-paper",
        "The paper's ablation (section 3.3)",
        "4 images of each class, tested on BUSZS, which is not public: compare the drops, not the numbers. Percent.",
        "Variant",
        (("multi-class AUROC (most likely)",), ("pixel AUROC",)),
        tuple(lines),
        (f"From {published.paper().source}.",),
    )


def everything(view: View, test: str, shots: int) -> Table:
    """All metrics on one test set."""
    there = {
        m for label in view.labels for r in view.study.ok(view.key(label, test, shots)).values() for m in r.metrics
    }
    metrics = [m for m in (*_ALL, *sorted(there - set(_ALL))) if m in there and (m in _ALL or m.endswith("_auroc"))]
    columns = [(test, shots, m) for m in metrics]
    lines = [
        TableRow(label, tuple(_entry(view, label, *column) for column in columns), _kind(view, label))
        for label in view.labels
    ]
    notes = [
        f"Percent, except the calibration error (0 is perfect, lower is better). Mean over seeds ± standard deviation. "
        f"{_KEY.format(view.study.reference)}"
    ]
    rows = [r for label in view.labels for r in view.study.ok(view.key(label, test, shots)).values()]
    if not all(r.calibration.calibrated for r in rows) and set(metrics) & set(_AT_THRESHOLD):
        notes.append(
            "Dice and intersection over union hold at a threshold. None was fitted for these rows: it is 0.5 for every "
            "method, which says more about the scale of a map than about its quality. Compare the best-threshold Dice."
        )
    return Table(
        f"metrics-{view.file(test)}",
        f"Everything measured on {view.title(test)}",
        f"{shots_text(shots, long=True)}.",
        "Method",
        tuple((spec(m).title,) for m in metrics),
        _with_best(lines, columns),
        tuple(notes),
    )


def tests(view: View, test: str, shots: int) -> Table | None:
    """Every method against the reference; None if there is nothing to compare."""
    every = {m: view.study.tests_of(view.key(view.study.reference, test, shots), m) for m in MAIN}
    found = {m: tests for m, tests in every.items() if tests}
    labels = [x for x in view.labels if any(x in tests for tests in found.values())]
    if not labels:
        return None
    lines = [
        TableRow(
            label, tuple(e for m in found for e in _test_entries(view, label, test, shots, m, found[m].get(label)))
        )
        for label in labels
    ]
    ways = dict.fromkeys(f"{SHORT[m]}: {t.how}" for m, tests in found.items() for t in tests.values())
    return Table(
        f"tests-{view.file(test)}",
        f"Each method minus {view.study.reference} on {view.title(test)}",
        f"{shots_text(shots, long=True)}. Differences in points with 95 % intervals; p-values are corrected by Holm "
        "over the methods of a column.",
        "Method",
        tuple((SHORT[m], head) for m in found for head in ("difference", "95 %", "p")),
        tuple(lines),
        (f"Intervals and p-values come from: {'; '.join(ways)}.",),
    )


def optimism(view: View) -> list[Table]:
    """What the references' own habits with the test set are worth, for methods that were run both ways."""
    study = view.study
    if set(study.protocols) != {"honest", "published"}:
        return []
    found: list[Table] = []
    for test in view.tests:
        lines = []
        metrics = _looked_at(view, test)
        for label in view.labels:
            for shots in view.asked(test):
                honest = Key(view.backbone, test, "honest", label, shots)
                if study.fits(replace(honest, protocol="published")):
                    entries = tuple(e for m in metrics for e in _gap(study, honest, m))
                    lines.append(TableRow(f"{label}, {shots_text(shots)}", entries))
        if any(e.value is not None for line in lines for e in line.cells):
            table = Table(
                f"optimism-{view.file(test)}",
                f"On {view.title(test)}",
                "Percent, mean over seeds. The gap is published minus honest with its paired 95 % interval; bold where "
                "the interval excludes 0.",
                "Method",
                tuple((SHORT[m], head) for m in metrics for head in ("honest", "published", "gap")),
                tuple(lines),
            )
            found.append(table)
    return found


def _looked_at(view: View, test: str) -> list[str]:
    """Main metrics that any published row on a test set has."""
    keys = [k for k in view.study.keys if (k.backbone, k.test, k.protocol) == (view.backbone, test, "published")]
    return [m for m in MAIN if any(view.study.cell(k, m).values for k in keys)]


def costs(view: View, test: str, shots: int) -> Table:
    """What each method learns, takes and needs."""
    heads = ["learned values", "adapting, s", "per image, ms", "of it encoding, ms", "memory, MB"]
    on_device = any(r.peak_device_mb for r in view.study.rows)
    heads += ["GPU memory, MB"] if on_device else []
    lines = []
    for label in view.labels:
        rows = list(view.study.ok(view.key(label, test, shots)).values())
        reason = None if rows else view.study.cell(view.key(label, test, shots), "image_auroc").reason
        numbers: tuple[tuple[list[int] | list[float] | list[float | None], str], ...] = (
            ([r.fit.parameters for r in rows], ",.0f"),
            ([r.timings.adapt_seconds for r in rows], ".1f"),
            ([r.timings.predict_ms for r in rows], ".1f"),
            ([r.timings.encode_ms for r in rows], ".1f"),
            ([r.peak_memory_mb for r in rows], ",.0f"),
            *([([r.peak_device_mb for r in rows], ",.0f")] if on_device else []),
        )
        entries = tuple(_amount(values, form, reason) for values, form in numbers)
        lines.append(TableRow(label, entries, _kind(view, label)))
    return Table(
        f"costs{view.suffix}",
        "Learned values and time",
        f"{view.title(test)}, {shots_text(shots, long=True).lower()}, mean over seeds.",
        "Method",
        tuple((h,) for h in heads),
        tuple(lines),
        (
            "Images are encoded once for all methods; the times are given as if each method had done it alone. Several "
            "jobs at a time slow each other down: compare times within this table only.",
        ),
    )


def long_rows(study: Study) -> list[dict[str, Any]]:
    """Every number of the folder, one a line, for whoever wants to compute with them."""
    out = []
    for key in study.keys:
        names = dict.fromkeys(m for row in study.ok(key).values() for m in row.metrics)
        for metric in names or MAIN:
            cell = study.cell(key, metric)
            test = study.tests_of(key, metric).get(key.label) if metric in MAIN else None
            facts = {
                "backbone": key.backbone, "test": key.test, "protocol": key.protocol, "method": key.label,
                "shots": key.shots, "metric": metric, "mean": cell.mean, "sd": cell.sd, "low": cell.low,
                "high": cell.high, "images": cell.n or None, "seeds": " ".join(map(str, cell.values)),
                "values": " ".join(f"{v:.6g}" for v in cell.values.values()),
                "difference": test and test.difference.value, "difference_low": test and test.difference.low,
                "difference_high": test and test.difference.high, "p": test and test.difference.p,
                "p_holm": test and test.adjusted, "how": test and test.how, "remark": cell.reason,
            }  # fmt: skip
            out.append(facts)
    return out


def test_title(study: Study, test: str) -> str:
    """What a test set is called: by its data set's title, unless it is a part of it."""
    found = next((t for t in study.folder.bench.tests if t.name == test and t.set == test), None)
    return (found and found.title) or test


def shots_text(shots: int, *, long: bool = False) -> str:
    """``"4 shots"``, or what that means."""
    if shots == 0:
        return "No image to adapt on (zero-shot)" if long else "zero-shot"
    return f"Adapted on {count(shots, 'image')} of each class" if long else count(shots, "shot")


def percent(value: float, metric: str) -> str:
    """A metric as it is printed: percent with one decimal; errors of probabilities with three."""
    return f"{value:.3f}" if metric in LOWER_IS_BETTER else f"{100 * value:.1f}"


def signed(value: float, metric: str) -> str:
    """A difference in the units of :func:`percent`, with a true minus sign."""
    scaled = round(value, 3) if metric in LOWER_IS_BETTER else round(100 * value, 1)
    digits = 3 if metric in LOWER_IS_BETTER else 1
    return f"{scaled + 0.0:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


# --- entries ---------------------------------------------------------------------------------------------------------


def _entry(view: View, label: str, test: str, shots: int, metric: str) -> TableCell:
    """Our number, marked against the reference row."""
    key = view.key(label, test, shots)
    cell = view.study.cell(key, metric)
    if cell.mean is None:
        return TableCell(reason=cell.reason)
    result = view.study.tests_of(key, metric).get(label)
    return TableCell(
        text=percent(cell.mean, metric),
        value=cell.mean,
        spread="" if cell.sd is None else percent(cell.sd, metric),
        mark=_mark(result),
        detail=_interval(cell, metric),
        reason=cell.reason,
    )


def _printed(view: View, label: str, test: str, shots: int, metric: str) -> TableCell:
    """The paper's number."""
    row: Row | None = next(iter(view.study.fits(view.key(label, test, shots)).values()), None)
    printed = None if row is None else published.value(row, metric)
    return _paper_entry(None if printed is None else 100 * printed, metric)


def _paper_entry(printed: float | None, metric: str) -> TableCell:
    if printed is None:
        return TableCell(reason="the paper prints no such number")
    return TableCell(text=percent(printed / 100, metric), value=printed / 100)


def _test_entries(
    view: View, label: str, test: str, shots: int, metric: str, found: Paired | None
) -> tuple[TableCell, ...]:
    if found is None:
        reference = view.study.reference
        why = (view.study.cell(view.key(x, test, shots), metric).reason for x in (label, reference))
        reason = next((w for w in why if w), "no seed or image in common")
        return (TableCell(reason=reason),) * 3
    d = found.difference
    part = "" if found.seeds == tuple(view.study.ok(view.key(label, test, shots))) else "only seeds that both have"
    return (
        TableCell(signed(d.value, metric), d.value, mark=_mark(found), reason=part or None),
        TableCell(f"{signed(d.low, metric)} to {signed(d.high, metric)}", d.low),
        TableCell("< 0.001" if found.adjusted < 0.001 else f"{found.adjusted:.3f}", found.adjusted),
    )


def _gap(study: Study, honest: Key, metric: str) -> tuple[TableCell, ...]:
    looked = replace(honest, protocol="published")
    cells = [study.cell(key, metric) for key in (honest, looked)]
    both = tuple(
        TableCell(reason=c.reason) if c.mean is None else TableCell(percent(c.mean, metric), c.mean, reason=c.reason)
        for c in cells
    )
    found = study.test(looked, honest, metric)
    if found is None:
        return (*both, TableCell(reason=next((c.reason for c in cells if c.reason), "no seed in common")))
    d = found.difference
    text = f"{signed(d.value, metric)} ({signed(d.low, metric)} to {signed(d.high, metric)})"
    return (*both, TableCell(text, d.value, best=d.low > 0 or d.high < 0))


def _amount(values: Sequence[float | None], form: str, reason: str | None) -> TableCell:
    known = [v for v in values if v is not None]
    if not known:
        return TableCell(reason=reason or "was not recorded")
    mean = float(np.mean(known))
    return TableCell(format(mean, form), mean)


def _interval(cell: Cell, metric: str) -> str:
    if cell.low is None or cell.high is None:
        return ""
    return f"95 %: {percent(cell.low, metric)} to {percent(cell.high, metric)}"


def _mark(found: Paired | None) -> str:
    return {"better": BETTER, "worse": WORSE}.get(found.verdict, "") if found is not None else ""


def _kind(view: View, label: str) -> str:
    return "reference" if label == view.study.reference else ""


def _with_best(lines: Sequence[TableRow], columns: Sequence[tuple[str, int, str]]) -> tuple[TableRow, ...]:
    """The best of our numbers in every column, marked."""
    ours = [line for line in lines if line.kind != "paper"]
    best: Mapping[int, list[bool]] = {
        i: rank_best([line.cells[i].value for line in ours], higher_is_better=metric not in LOWER_IS_BETTER)
        for i, (_, _, metric) in enumerate(columns)
    }
    marked = {
        line.name: replace(line, cells=tuple(replace(e, best=best[i][place]) for i, e in enumerate(line.cells)))
        for place, line in enumerate(ours)
    }
    return tuple(line if line.kind == "paper" else marked[line.name] for line in lines)
