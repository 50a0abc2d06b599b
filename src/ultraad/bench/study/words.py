"""What a benchmark report says in sentences, and its protocol: enough to repeat the benchmark and to trust it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ultraad.bench.recipe import Recipe
from ultraad.bench.row import Bench, MeasuredRow, Row, TestSetSummary
from ultraad.bench.study.statistics import Cell, Study
from ultraad.bench.study.tables import interval_text, number
from ultraad.bench.study.view import Scope, View, percent, shots_text, test_title
from ultraad.metrics.catalogue import MAIN, short
from ultraad.report.kit.tables import TableCell
from ultraad.report.kit.words import DASH, Protocol, are, count, known, listing


def title(study: Study) -> str:
    """The heading of the page."""
    return study.folder.bench.recipe.title or study.folder.bench.recipe.name


def lead(view: View) -> list[str]:
    """What was compared on what."""
    rows = [r for r in view.study.rows if view.study.backbone(r) == view.backbone]
    titles = {name: data.title or name for name, data in view.study.folder.bench.recipe.data.items()}
    adapted = ", ".join(_each(titles.get(r.adapt.name, r.adapt.name) for r in rows))
    few = [str(k) for k in view.study.shots if k]
    images = f"{listing(few)} images of each class from {adapted}" if few else "no image at all"
    tested = listing([view.title(t) for t in view.tests if view.shots(t)]) or "nothing yet"
    honest = (
        "No choice was made on the test images: every method is used as it is after its last training step, and "
        "thresholds come from the adaptation images or are fixed."
    )
    published = (
        "Published protocol: the use that each reference implementation makes of the test set was reproduced (such as "
        "keeping the best epoch on it), so these numbers are optimistic."
    )
    return [
        f"{count(len(view.labels), 'method')} on the frozen backbone {view.backbone}, adapted on {images}, drawn "
        f"{count(len({r.seed for r in rows}), 'time')}; tested on {tested}.",
        honest if view.protocol == "honest" else published,
    ]


def summary(scope: Scope) -> str:
    """Where the reference method has the highest mean, and which method has it elsewhere; empty without others."""
    leads, behind, reference = [], [], scope.reference
    for metric in MAIN:
        means = scope.means(metric)
        if reference not in means or len(means) < 2:
            continue
        best = max(means, key=lambda x: means[x])
        if means[best] == means[reference]:
            leads.append(short(metric))
            continue
        pair = scope.against_reference(metric).get(best)
        better = pair is not None and pair.verdict == "better"
        told = "better by the paired test" if better else "no significant difference"
        behind.append(f"{best} in {short(metric)} ({percent(means[best], metric)}, {told})")
    where = f"has the highest mean of all methods in {listing(leads)}" if leads else "has the highest mean in no metric"
    first = f"{reference} {where}." if leads or behind else ""
    second = f"Higher means: {'; '.join(behind)}." if behind else ""
    return " ".join(filter(None, (first, second)))


@dataclass(frozen=True, slots=True)
class Headline:
    """A main number of the reference method.

    Attributes:
        title: The metric.
        cell: The number.
        number: The number as printed.
        interval: Its 95 % interval as printed; empty if there is none.
        best: (label, number as printed) of the best other method; None without one.
        verdicts: {verdict of the paired test: other methods}.
    """

    title: str
    cell: Cell
    number: TableCell
    interval: str
    best: tuple[str, TableCell] | None
    verdicts: Counter[str]


def headlines(scope: Scope) -> list[Headline]:
    """The reference method's main numbers, each with the best other method and the outcome of the paired tests."""
    out = []
    for metric in MAIN:
        cell, means = scope.cell(scope.reference, metric), scope.means(metric)
        best = max((x for x in means if x != scope.reference), key=lambda x: means[x], default=None)
        beside = None if best is None else (best, number(scope.cell(best, metric), metric))
        verdicts = Counter(pair.verdict for pair in scope.against_reference(metric).values())
        shown = number(cell, metric)
        out.append(Headline(short(metric), cell, shown, interval_text(cell, metric), beside, verdicts))
    return out


def cautions(study: Study) -> list[str]:
    """What a reader must know before the numbers."""
    bench, rows = study.folder.bench, study.rows
    ok = _measured(rows)
    found = []
    if bench.status != "complete":
        missing = len(bench.jobs.rows) - len(rows)
        found.append(f"The benchmark is {bench.status}: {count(missing, 'row')} of the recipe {are(missing)} missing.")
    failed = [r for r in rows if r.status == "error"]
    if failed:
        found.append(
            f"{count(len(failed), 'result')} {are(len(failed))} missing because of errors "
            f"({', '.join(_each(r.label for r in failed))}), which the end of the page lists. Numbers from fewer seeds "
            "have a footnote."
        )
    private = _titles(study, (r.test.name for r in rows if r.status == "not_public"))
    if private:
        found.append(f"{listing(private)} {are(len(private))} not public and could not be tested.")
    twins = sorted({(name, *pair) for s in bench.supports for name, pairs in s.duplicates.items() for pair in pairs})
    if twins:
        found.append(
            f"{count(len(twins), 'file')} of {listing(_titles(study, (name for name, *_ in twins)))} {are(len(twins))} "
            "also among the adaptation images. No method was tested on a file that it was adapted on."
        )
    if ok and not any(r.calibration.calibrated for r in ok):
        found.append("No thresholds were fitted: metrics at a threshold use 0.5 for every method.")
    unknown = _titles(study, (r.test.name for r in ok if r.bootstrap.unit == "image"))
    if unknown:
        names = listing(unknown)
        found.append(f"Patients are not known in {names}: intervals treat images as independent and may be too narrow.")
    seeds = {r.seed for r in ok}
    if len(seeds) < 3:
        found.append(
            f"Only {count(len(seeds), 'seed')}: the effect of the choice of adaptation images is hardly known."
        )
    broken = sum(len(r.test.failed) for r in {r.test.name: r for r in ok}.values())
    if broken:
        found.append(f"{count(broken, 'test image')} could not be read and {are(broken)} left out.")
    return found


def rules(study: Study) -> list[str]:
    """How the numbers are to be read."""
    return [
        "A number is the mean over seeds; a seed is one draw of the adaptation images. The number after ± is the "
        "standard deviation over seeds: how much the draw matters.",
        f"95 % intervals come from {study.resamples} bootstrap resamples of the patients, or of the images where "
        "patients are not known. The patients of all seeds are drawn together; all seeds see the same resample, ignore "
        "patients that they were not tested on, and the means over seeds give the percentiles. Those of a calibration "
        "error are moved to its mean, because resamples have larger errors. An interval says how the number would "
        "change with other patients.",
        f"Every method is compared with {study.reference} seed by seed on the images that both have in that seed, and "
        "the differences are averaged. This is the difference of the two means, unless one of the two lacks seeds or "
        "images. The test is DeLong's for the image AUROC where patients are not known, and a paired bootstrap of the "
        "same resamples otherwise.",
        "The p-values of one column (one metric, test set and number of images) are corrected by Holm's method for the "
        "number of methods. A method is marked ▲ better or ▼ worse only if the corrected p-value is below 0.05 and the "
        "95 % interval of the difference excludes 0. Otherwise the difference is not significant, which does not mean "
        "that the methods are equal.",
        "Class AUROC is one class against the rest, mean over classes; AP is average precision. A dash is a number "
        "that does not exist, with its reason below the table; it is never 0.",
    ]


def protocol(view: View) -> Protocol:
    """What is needed to repeat the benchmark."""
    study, bench = view.study, view.study.folder.bench
    rows = [r for r in study.rows if study.backbone(r) == view.backbone]
    ok = _measured(rows)
    some = (ok or rows)[0]
    backbone, machine = some.backbone, some.machine
    tested = {f"Tested on {view.title(t.name)}": _tested(t, ok) for t in bench.tests if t.name in study.tests}
    return known(
        {
            "Recipe": [
                ("Name", bench.recipe.name),
                ("Rows", f"{len(study.rows)} of {len(bench.jobs.rows)}: {_counts(study.rows)}"),
                ("Protocols", ", ".join(study.protocols)),
                ("Images per class", ", ".join(shots_text(k) for k in study.shots)),
                ("Seeds", _numbers(r.seed for r in rows)),
                ("Compared with", study.reference),
                ("Model state", listing(_each(r.fit.selection for r in ok))),
                ("Thresholds", _thresholds(ok)),
            ],
            "Backbone": [
                ("Name", backbone.name),
                ("Weights", _digest(backbone.fingerprint)),
                ("Input", f"{backbone.size} px"),
                ("Number format", backbone.dtype),
                ("Frozen values", f"{backbone.parameters:,}" if backbone.parameters else None),
            ],
            "Adapted on": _adapted(some, bench.recipe),
            **tested,
            "Leakage": _leakage(bench, ok),
            "Machine": [
                ("System", machine.system),
                ("Processor", machine.processor),
                ("Cores", machine.cores),
                ("Device", machine.device),
                ("Started", bench.started),
                ("Finished", bench.finished),
                *some.versions.items(),
            ],
        }
    )


def supports(study: Study) -> list[tuple[object, ...]]:
    """Rows of the table of support sets: shots, seed, images, patients, files that are also in a test set, digest."""
    ordered = sorted(study.folder.bench.supports, key=lambda s: (s.shots, s.seed, s.digest))
    return [
        (
            s.shots,
            s.seed,
            s.images,
            s.patients or DASH,
            sum(map(len, s.duplicates.values())) or "none",
            _short(s.digest),
        )
        for s in ordered
    ]


def failures(study: Study) -> list[tuple[str, str]]:
    """(which fits, why) of everything that has no result."""
    found: dict[tuple[str, str], list[Row]] = {}
    for r in study.rows:
        if r.status != "ok":
            test = test_title(study, r.test.name)
            name = test if r.status == "not_public" else f"{r.label} on {test}"
            found.setdefault((name, str(r.reason)), []).append(r)
    out = []
    for (name, why), rows in found.items():
        where = f"shots {_numbers(r.shots for r in rows)}; seed {_numbers(r.seed for r in rows)}"
        out.append((f"{name} ({count(len(rows), 'row')}: {where})", why))
    return out


_Entries = list[tuple[str, object]]


def _adapted(row: Row, recipe: Recipe) -> _Entries:
    a, other = row.adapt, row.auxiliary
    return [
        ("Data", a.name),
        ("Layout", ", ".join(a.layouts)),
        ("Split", recipe.adapt.split or "all"),
        ("Left out", f"images marked {listing(a.exclude_tags)}" if a.exclude_tags else None),
        ("Drawn by", "patient" if a.per_patient else "image"),
        ("Classes", ", ".join(a.classes)),
        ("No lesion", a.normal_class),
        ("Also trained on", f"{other.set}, {count(other.images, 'image')}" if other else None),
        ("Nested", "a larger set contains the smaller one of the same seed"),
    ]


def _tested(test: TestSetSummary, ok: Sequence[MeasuredRow]) -> _Entries:
    if not test.public:
        return [("Images", f"{DASH} ({test.reason})")]
    classes = ", ".join(f"{n} {name}" for name, n in test.classes.items())
    filters = [
        f"split {test.split}" if test.split else "",
        f"only with {listing(test.include_tags)}" if test.include_tags else "",
        f"without {listing(test.exclude_tags)}" if test.exclude_tags else "",
        "coloured overlays painted out" if test.transform == "paint_overlays" else "",
    ]
    used = next((r.n["images"] for r in ok if r.test.name == test.name), test.images)
    return [
        ("Data", test.set),
        ("Layout", test.layout),
        ("Images", f"{test.images}: {classes}" if classes else str(test.images)),
        ("Evaluated", None if used == test.images else str(used)),
        ("Patients", str(test.patients or "not known")),
        ("Scanners", listing(list(test.devices)) or "not known"),
        ("Filters", "; ".join(filter(None, filters)) or "none: the whole data set"),
        ("Fingerprint", _digest(test.digest)),
    ]


def _leakage(bench: Bench, ok: Sequence[MeasuredRow]) -> _Entries:
    left_out = max((r.test.left_out or 0 for r in ok), default=0)
    pairs = sum(len(p) for s in bench.supports for p in s.duplicates.values())
    return [
        ("Test labels", "never reach a method: it predicts from images alone and cannot read data"),
        ("Images or patients in both", f"up to {count(left_out, 'test image')} left out" if left_out else "none"),
        ("Identical files", f"{pairs} over all draws, left out of the test" if pairs else "none found"),
        ("Near duplicates", "not checked here; use 'ultraad data check'"),
    ]


def _thresholds(ok: Sequence[MeasuredRow]) -> str | None:
    if not ok:
        return None
    fitted = _each(r.calibration.rule for r in ok if r.calibration.calibrated)
    return (
        f"{listing(fitted)}, by cross-validation on the adaptation images"
        if fitted
        else "0.5 for all methods, not fitted"
    )


def _measured(rows: Sequence[Row]) -> list[MeasuredRow]:
    return [r for r in rows if isinstance(r, MeasuredRow)]


def _titles(study: Study, tests: Iterable[str]) -> list[str]:
    return _each(test_title(study, test) for test in tests)


def _each(words: Iterable[str]) -> list[str]:
    """Every word once, in order."""
    return list(dict.fromkeys(words))


def _numbers(values: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(values))))


def _counts(rows: Sequence[Row]) -> str:
    names = {"ok": "with results", "error": "failed", "not_public": "not public"}
    return ", ".join(f"{n} {names[s]}" for s, n in Counter(r.status for r in rows).most_common())


def _digest(code: str | None) -> str | None:
    return f"sha256 {_short(code)}" if code else None


def _short(code: str) -> str:
    """Enough of a digest to recognise it; the folder has all."""
    return f"{code[:12]}…"
