"""The same results by scanner, patient and mark: where does a number come from?"""

from __future__ import annotations

from collections import Counter
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from ultraad.bench.study.content import percent, shots_text
from ultraad.metrics.curves import Ranking, area
from ultraad.report.kit.tables import Table, TableCell, TableRow
from ultraad.report.kit.words import count, public_names, share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultraad.bench.row import ImageLine
    from ultraad.bench.study.content import View

_SUBSET = {"image_auroc": "image AUROC", "class_auroc_macro": "class AUROC"}


def devices(view: View, test: str, shots: int) -> Table | str:
    """Image AUROC and the lesions' own average precision by scanner, or why there is no such table."""
    found = {label: _lines(view, label, test, shots) for label in view.labels}
    first = next((fits[0] for fits in found.values() if fits), [])
    sizes = Counter(x.device for x in first if x.device is not None)
    if not sizes:
        return "The data set does not say which scanner an image comes from."
    names = [name for name, _ in sizes.most_common()]
    heads = tuple((f"{n} ({count(sizes[n], 'image')})", what) for n in names for what in ("image AUROC", "map AP"))
    lines = []
    for label, fits in found.items():
        entries: list[TableCell] = []
        for name in names:
            parts = [[x for x in fit if x.device == name] for fit in fits]
            entries.append(_mean([_auroc(p) for p in parts], "this scanner has not both normal images and lesions"))
            entries.append(_mean([_own_ap(p) for p in parts], "no map, or no lesion with a known outline"))
        lines.append(TableRow(label, tuple(entries), "reference" if label == view.study.reference else ""))
    return Table(
        f"devices-{view.file(test)}",
        f"By scanner on {view.title(test)}",
        f"{shots_text(shots, long=True)}. Percent, mean over seeds ± standard deviation; map AP is the mean over "
        "lesion images of the image's own average precision.",
        "Method",
        heads,
        tuple(lines),
    )


def patients(view: View, test: str, shots: int) -> Table | str:
    """The reference method by patient, the hardest first, or why there is no such table."""
    fits = _lines(view, view.study.reference, test, shots)
    groups = list(dict.fromkeys(x.group for x in fits[0] if x.group is not None)) if fits else []
    if not groups:
        return (
            "The data set does not say which images are of one patient. Intervals then treat every image as a patient "
            "of its own and may be too narrow."
        )
    names = public_names(groups)
    lines = []
    for group in groups:
        parts = [[x for x in fit if x.group == group] for fit in fits]
        one = parts[0]
        lesions = sum(x.anomalous is True for x in one)
        scores = [fmean(x.score for x in p) for p in parts]
        ap = _mean([_own_ap(p) for p in parts], "no map, or no lesion with a known outline")
        lines.append(
            TableRow(
                names[group],
                (
                    TableCell(str(len(one)), len(one)),
                    TableCell(str(lesions), lesions),
                    TableCell(f"{fmean(scores):.3f}", fmean(scores)),
                    _right(parts),
                    ap,
                ),
            )
        )
    lines.sort(key=lambda x: (*(2.0 if e.value is None else e.value for e in (x.cells[4], x.cells[3])), x.name))
    return Table(
        f"patients-{view.file(test)}",
        f"By patient on {view.title(test)}",
        f"{view.study.reference}, {shots_text(shots)}, mean over seeds; the patients whose lesions the map finds worst "
        "come first.",
        "Patient",
        (("images",), ("with lesion",), ("mean score",), ("class right",), ("map AP",)),
        tuple(lines),
    )


def marks(view: View, test: str, shots: int) -> Table | str:
    """All images against those without a kind of mark, or why there is no such table."""
    rows = [r for label in view.labels for r in view.study.ok(view.key(label, test, shots)).values()]
    names = list(dict.fromkeys(n for r in rows for n in r.subsets or ()))
    if not names:
        return "No image of the data set is known to carry calipers, text or other marks."
    lines = []
    for label in view.labels:
        fits = list(view.study.ok(view.key(label, test, shots)).values())
        entries = [
            _mean([r.value(m, subset=subset) for r in fits], "not defined on these images")
            for subset in (None, *names)
            for m in _SUBSET
        ]
        lines.append(TableRow(label, tuple(entries), "reference" if label == view.study.reference else ""))
    heads = tuple((name.replace("_", " "), what) for name in ("all_images", *names) for what in _SUBSET.values())
    return Table(
        f"marks-{view.file(test)}",
        f"With and without marked images on {view.title(test)}",
        f"{shots_text(shots, long=True)}. Percent, mean over seeds ± standard deviation. A method that reads the marks "
        "instead of the tissue loses when they are gone.",
        "Method",
        heads,
        tuple(lines),
    )


def confusion(view: View, label: str, test: str, shots: int) -> dict[str, Any] | None:
    """Mean counts over seeds with the share of their row; None without a graded image."""
    found = [r.confusion for r in view.study.ok(view.key(label, test, shots)).values() if r.confusion]
    total = np.sum([c.matrix for c in found], axis=0) / max(1, len(found)) if found else np.zeros((0, 0))
    if not total.any():
        return None
    classes = found[0].classes
    lines = [
        (name, [(n, n / max(1.0, sum(counts)), i == j) for j, n in enumerate(counts)], sum(counts))
        for i, (name, counts) in enumerate(zip(classes, total.tolist(), strict=True))
    ]
    return {"classes": classes, "rows": lines, "whole": len(found) == 1}


# --- pieces ----------------------------------------------------------------------------------------------------------


def _lines(view: View, label: str, test: str, shots: int) -> list[list[ImageLine]]:
    """The stored images of every seed."""
    rows = dict(sorted(view.study.ok(view.key(label, test, shots)).items())).values()
    return [view.study.folder.predictions(r) for r in rows]


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
    known = [v for v in values if v is not None]
    if not known:
        return TableCell(reason=reason if values else "no result")
    sd = percent(float(np.std(known, ddof=1)), "image_auroc") if len(known) > 1 else ""
    return TableCell(percent(fmean(known), "image_auroc"), fmean(known), spread=sd)
