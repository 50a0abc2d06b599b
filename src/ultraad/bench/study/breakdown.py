"""The same results by scanner, by patient, and with and without marked images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from ultraad.bench.row import ImageLine
from ultraad.bench.study.statistics import Cell
from ultraad.bench.study.tables import kind, number
from ultraad.bench.study.view import Scope, shots_text
from ultraad.metrics.catalogue import short
from ultraad.metrics.curves import Ranking, area
from ultraad.report.kit import tables as kit
from ultraad.report.kit.tables import Table, TableCell, TableRow
from ultraad.report.kit.words import count, public_names, share

_IN_SUBSETS = ("image_auroc", "class_auroc_macro")
_NO_AP = "no map, or no lesion with a known outline"


def devices(scope: Scope) -> Table | str:
    """Image AUROC and the lesions' own average precision by scanner, or why there is no such table."""
    found = {label: scope.predictions(label) for label in scope.labels}
    first = next((fits[0] for fits in found.values() if fits), [])
    sizes = Counter(x.device for x in first if x.device is not None)
    if not sizes:
        return "The data set does not say which scanner an image comes from."
    names = [name for name, _ in sizes.most_common()]
    heads = tuple((f"{n} ({count(sizes[n], 'image')})", what) for n in names for what in ("image AUROC", "map AP"))
    rows = []
    for label, fits in found.items():
        cells: list[TableCell] = []
        for name in names:
            parts = [[x for x in fit if x.device == name] for fit in fits]
            cells.append(_mean([_auroc(p) for p in parts], "no normal image or no lesion from this scanner"))
            cells.append(_mean([_own_ap(p) for p in parts], _NO_AP))
        rows.append(TableRow(label, tuple(cells), kind(scope.view, label)))
    return Table(
        f"devices-{scope.file}",
        f"By scanner on {scope.title}",
        f"{shots_text(scope.shots, long=True)}. Percent, mean over seeds ± standard deviation; map AP is the mean over "
        "lesion images of the image's own average precision.",
        "Method",
        heads,
        tuple(rows),
    )


def patients(scope: Scope) -> Table | str:
    """The reference method by patient, worst maps first, or why there is no such table."""
    fits = scope.predictions(scope.reference)
    groups = list(dict.fromkeys(x.group for x in fits[0] if x.group is not None)) if fits else []
    if not groups:
        return (
            "The data set does not say which images are of the same patient. Intervals treat every image as a separate "
            "patient and may be too narrow."
        )
    names = public_names(groups)
    rows = []
    for group in groups:
        parts = [[x for x in fit if x.group == group] for fit in fits]
        lesions = sum(x.anomalous is True for x in parts[0])
        score = fmean(fmean(x.score for x in p) for p in parts)
        cells = (
            TableCell(str(len(parts[0])), len(parts[0])),
            TableCell(str(lesions), lesions),
            TableCell(f"{score:.3f}", score),
            _right(parts),
            _mean([_own_ap(p) for p in parts], _NO_AP),
        )
        rows.append(TableRow(names[group], cells))
    rows.sort(key=lambda x: (*(2.0 if c.value is None else c.value for c in (x.cells[4], x.cells[3])), x.name))
    return Table(
        f"patients-{scope.file}",
        f"By patient on {scope.title}",
        f"{scope.reference}, {shots_text(scope.shots)}, mean over seeds. Patients with the worst maps come first.",
        "Patient",
        (("images",), ("with lesion",), ("mean score",), ("correct class",), ("map AP",)),
        tuple(rows),
    )


def marks(scope: Scope) -> Table | str:
    """All images against those without a kind of mark, or why there is no such table."""
    found = {label: scope.rows(label) for label in scope.labels}
    names = list(dict.fromkeys(n for rows in found.values() for row in rows for n in row.subsets or ()))
    if not names:
        return "No image of the data set is known to have calipers, text or other marks."
    rows = []
    for label, measured in found.items():
        cells = [
            _mean([row.value(m, subset=subset) for row in measured], "not defined on these images")
            for subset in (None, *names)
            for m in _IN_SUBSETS
        ]
        rows.append(TableRow(label, tuple(cells), kind(scope.view, label)))
    titles = ["all images", *(name.replace("_", " ") for name in names)]
    return Table(
        f"marks-{scope.file}",
        f"With and without marked images on {scope.title}",
        f"{shots_text(scope.shots, long=True)}. Percent, mean over seeds ± standard deviation. A method that relies on "
        "marks instead of tissue gets worse without them.",
        "Method",
        tuple((name, short(m)[0].lower() + short(m)[1:]) for name in titles for m in _IN_SUBSETS),
        tuple(rows),
    )


def confusion(scope: Scope, label: str) -> kit.Confusion | None:
    """Mean counts over seeds; None without a graded image."""
    found = [row.confusion for row in scope.rows(label) if row.confusion]
    return kit.confusion(found[0].classes, np.mean([c.matrix for c in found], axis=0).tolist()) if found else None


def _auroc(lines: Sequence[ImageLine]) -> float | None:
    known = [x for x in lines if x.anomalous is not None]
    value = float(area(*Ranking([x.score for x in known], [x.anomalous is True for x in known]).masses())[0])
    return value if np.isfinite(value) else None


def _own_ap(lines: Sequence[ImageLine]) -> float | None:
    found = [x.own_ap for x in lines if x.own_ap is not None]
    return fmean(found) if found else None


def _right(fits: Sequence[Sequence[ImageLine]]) -> TableCell:
    graded = [x for fit in fits for x in fit if x.guess is not None and x.label is not None]
    if not graded:
        return TableCell(reason="the method does not grade")
    right = sum(x.guess == x.label for x in graded)
    text = share(right, len(graded)) if len(fits) == 1 else f"{100 * right / len(graded):.0f} %"
    return TableCell(text, right / len(graded))


def _mean(values: Sequence[float | None], reason: str) -> TableCell:
    """The mean over fits, in percent."""
    known = {i: v for i, v in enumerate(values) if v is not None}
    return number(Cell(known, reason=None if known else reason if values else "no result"), "image_auroc")
