"""What a benchmark report says in sentences, and the protocol card: enough to do the same again, and to trust it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from ultraad.bench.row import MeasuredRow
from ultraad.bench.study.content import MAIN, SHORT, percent, shots_text, test_title
from ultraad.report.kit.words import DASH, are, count, listing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ultraad.bench.recipe import Recipe
    from ultraad.bench.row import Bench, Row, TestSetSummary
    from ultraad.bench.study.content import View
    from ultraad.bench.study.statistics import Study

Entries = list[tuple[str, str]]
_DIGITS = 12  # ours: of a fingerprint that are shown; the folder has all


def title(study: Study) -> str:
    """The heading of the page."""
    recipe = study.folder.bench.recipe
    return recipe.title or recipe.name


def lead(view: View) -> list[str]:
    """What was compared on what."""
    rows = [r for r in view.study.rows if view.study.backbone(r) == view.backbone]
    titles = {name: facts.title or name for name, facts in view.study.folder.bench.recipe.data.items()}
    names = dict.fromkeys(str(r.adapt.name) for r in rows)  # of several sets together, in a leave-one-out
    adapted = ", ".join(titles.get(name, name) for name in names)
    seeds = {r.seed for r in rows}
    few = [k for k in view.study.shots if k]
    images = f"{listing([str(k) for k in few])} images of each class from {adapted}" if few else "no image at all"
    tested = listing([view.title(t) for t in view.tests if view.shots(t)]) or "nothing yet"
    return [
        f"{count(len(view.labels), 'method')} on the frozen backbone {view.backbone}, adapted on {images}, drawn "
        f"{count(len(seeds), 'time')}; tested on {tested}.",
        _protocol_sentence(view.protocol),
    ]


def _protocol_sentence(protocol: str) -> str:
    if protocol == "honest":
        return (
            "Nothing was chosen on the test images: each method is taken as it is after its last step, and thresholds "
            "come from the adaptation images or are fixed."
        )
    return (
        "Published habits: each reference's own way with the test set was followed (such as keeping the best epoch on "
        "it), so these numbers are optimistic."
    )


def headline(view: View, test: str, shots: int) -> str:
    """Where the reference method has the highest mean, and who is ahead elsewhere; empty without others."""
    study, leads, behind = view.study, [], []
    for metric in MAIN:
        means = {x: m for x in view.labels if (m := study.cell(view.key(x, test, shots), metric).mean) is not None}
        if study.reference not in means or len(means) < 2:
            continue
        best = max(means, key=lambda x: means[x])
        if means[best] == means[study.reference]:
            leads.append(SHORT[metric])
            continue
        found = study.tests_of(view.key(best, test, shots), metric).get(best)
        told = "better by the paired test" if found is not None and found.verdict == "better" else "not told apart"
        behind.append(f"{best} in {SHORT[metric]} ({percent(means[best], metric)}, {told})")
    where = listing(leads) if leads else "no metric"
    first = f"{study.reference} has the highest mean of all methods in {where}." if leads or behind else ""
    second = f"Higher: {'; '.join(behind)}." if behind else ""
    return " ".join(filter(None, (first, second)))


def cards(view: View, test: str, shots: int) -> list[dict[str, Any]]:
    """The reference method's main numbers, each with the best other method and how the paired tests came out."""
    study, out = view.study, []
    for metric in MAIN:
        cell = study.cell(view.key(study.reference, test, shots), metric)
        found = study.tests_of(view.key(study.reference, test, shots), metric)
        others = [
            (c.mean, x) for x in view.labels if x != study.reference and (c := _cell(view, x, test, shots, metric)).mean
        ]
        best = max(others, default=None, key=lambda o: o[0] or 0)
        verdicts = Counter(t.verdict for t in found.values())
        out.append(
            {
                "title": SHORT[metric],
                "value": None if cell.mean is None else percent(cell.mean, metric),
                "sd": None if cell.sd is None else percent(cell.sd, metric),
                "low": cell.low,
                "high": cell.high,
                "mean": cell.mean,
                "interval": None
                if cell.low is None or cell.high is None
                else f"{percent(cell.low, metric)} to {percent(cell.high, metric)}",
                "reason": cell.reason,
                "best": None if best is None or best[0] is None else (best[1], percent(best[0], metric), best[0]),
                "won": verdicts["worse"],
                "lost": verdicts["better"],
                "open": verdicts["undecided"],
            }
        )
    return out


def cautions(study: Study) -> list[str]:
    """What a reader must know before the numbers."""
    bench, rows = study.folder.bench, study.rows
    found = []
    if bench.status != "complete":
        missing = len(bench.jobs.rows) - len(rows)
        found.append(
            f"The benchmark is {bench.status}: {count(missing, 'row')} of the recipe {are(missing)} not there."
        )
    failed = [r for r in rows if r.status == "error"]
    if failed:
        labels = ", ".join(dict.fromkeys(r.label for r in failed))
        found.append(
            f"{count(len(failed), 'result')} {are(len(failed))} missing because something failed ({labels}); numbers "
            "that rest on fewer seeds have a footnote. See the end of the page."
        )
    private = list(dict.fromkeys(test_title(study, r.test.name) for r in rows if r.status == "not_public"))
    if private:
        found.append(f"{listing(private)} {are(len(private))} not public and could not be tested.")
    twins = {(name, *pair) for s in bench.supports for name, pairs in s.duplicates.items() for pair in pairs}
    if twins:
        names = listing(list(dict.fromkeys(test_title(study, n) for n, *_ in sorted(twins))))
        found.append(
            f"{count(len(twins), 'file')} of {names} {are(len(twins))} also among the adaptation images; where a "
            "method had seen one, it was not tested on it."
        )
    ok = [r for r in rows if isinstance(r, MeasuredRow)]
    if ok and not any(r.calibration.calibrated for r in ok):
        found.append("No thresholds were fitted: everything that depends on one uses 0.5 for every method.")
    if any(r.bootstrap.unit == "image" for r in ok):
        unknown = (r.test.name for r in ok if r.bootstrap.unit == "image")
        names = listing(list(dict.fromkeys(test_title(study, n) for n in unknown)))
        found.append(f"Patients are not known in {names}: intervals treat images as independent and may be too narrow.")
    seeds = {r.seed for r in ok}
    if len(seeds) < 3:
        found.append(
            f"Only {count(len(seeds), 'seed')}: how much the choice of adaptation images matters is hardly known."
        )
    broken = sum(len(r.test.failed) for r in _one_per_test(ok))
    if broken:
        found.append(f"{count(broken, 'test image')} could not be read and {are(broken)} left out.")
    return found


def rules(study: Study) -> list[str]:
    """How the numbers are to be read."""
    unit = "patients, where the data set names them, and of images elsewhere"
    return [
        "A number is the mean over seeds; a seed is one draw of the adaptation images. What stands behind ± is the "
        "standard deviation over seeds: how much the draw matters.",
        f"95 % intervals come from {study.resamples} bootstrap resamples of the {unit}; all seeds see the same "
        "resample and the means over seeds give the percentiles. They say how the number would move with other "
        "patients.",
        f"Every method is compared with {study.reference} seed by seed on the same images, and the differences are "
        "averaged. For the image AUROC of data without patients the test is DeLong's, otherwise a paired bootstrap.",
        "The p-values of one column (one metric, test set and number of images) are corrected by Holm for the number "
        "of methods. A method is marked ▲ better or ▼ worse only if the corrected p-value is below 0.05 and the "
        "95 % interval of the difference excludes 0. Everything else is not told apart, which does not mean equal.",
        "Class AUROC is one class against the rest, mean over classes; AP is average precision. A dash is a number "
        "that does not exist, with its reason below the table; it is never 0.",
    ]


def protocol(view: View) -> list[tuple[str, Entries]]:
    """The protocol card: heading and entries."""
    study, bench = view.study, view.study.folder.bench
    rows = [r for r in study.rows if study.backbone(r) == view.backbone]
    ok = [r for r in rows if isinstance(r, MeasuredRow)]
    some = (ok or rows)[0]
    recipe, tower = bench.recipe, some.backbone
    cards: list[tuple[str, Entries]] = [
        (
            "Recipe",
            [
                ("Name", recipe.name),
                ("Rows", f"{len(study.rows)} of {len(bench.jobs.rows)}: {_counts(study.rows)}"),
                ("Protocols", ", ".join(study.protocols)),
                ("Images per class", ", ".join(shots_text(k) for k in study.shots)),
                ("Seeds", ", ".join(map(str, sorted({r.seed for r in rows})))),
                ("Compared with", study.reference),
                ("State chosen", listing(list(dict.fromkeys(r.fit.selection for r in ok)))),
                ("Thresholds", _thresholds(ok)),
            ],
        ),
        (
            "Backbone",
            [
                ("Name", tower.name),
                ("Weights", _digest(tower.fingerprint)),
                ("Input", f"{tower.size} px"),
                ("Number format", tower.dtype),
                ("Frozen values", f"{tower.parameters:,}" if tower.parameters else ""),
            ],
        ),
        ("Adapted on", list(_adapted(some, recipe))),
        *((f"Tested on {view.title(t.name)}", _tested(t, ok)) for t in bench.tests if t.name in study.tests),
        ("Kept apart", _leakage(bench, ok)),
        (
            "Machine",
            [
                ("System", some.machine.system),
                ("Processor", some.machine.processor or ""),
                ("Cores", str(some.machine.cores)),
                ("Device", some.machine.device or ""),
                ("Started", str(bench.started or "")),
                ("Finished", str(bench.finished or "")),
                *((name, version) for name, version in some.versions.items()),
            ],
        ),
    ]
    return [(heading, [(k, str(v)) for k, v in entries if v not in (None, "")]) for heading, entries in cards]


def draws(study: Study) -> list[tuple[object, ...]]:
    """Rows of the table of support sets: shots, seed, images, patients, files that are also in a test set, digest."""
    return [
        (
            s.shots,
            s.seed,
            s.images,
            s.patients or DASH,
            sum(len(pairs) for pairs in s.duplicates.values()) or "none",
            f"{s.digest[:_DIGITS]}…",
        )
        for s in sorted(study.folder.bench.supports, key=lambda s: (s.shots, s.seed, s.digest))
    ]


def failures(study: Study) -> list[tuple[str, str]]:
    """(which fit, why) of everything that has no result."""
    found: dict[tuple[str, str], list[Row]] = {}
    for r in study.rows:
        if r.status != "ok":
            title = test_title(study, r.test.name)
            name = title if r.status == "not_public" else f"{r.label} on {title}"
            found.setdefault((name, str(r.reason)), []).append(r)
    return [(f"{name} ({count(len(rows), 'row')}: {_where(rows)})", why) for (name, why), rows in found.items()]


# --- pieces ----------------------------------------------------------------------------------------------------------


def _cell(view: View, label: str, test: str, shots: int, metric: str) -> Any:  # noqa: ANN401  # a Cell
    return view.study.cell(view.key(label, test, shots), metric)


def _adapted(row: Row, recipe: Recipe) -> Iterator[tuple[str, Any]]:
    a = row.adapt
    yield "Data", a.name
    yield "Layout", ", ".join(a.layouts)
    yield "Part", recipe.adapt.split or "all"
    yield "Left out", f"images marked {listing(a.exclude_tags)}" if a.exclude_tags else ""
    yield "Drawn by", "patient" if a.per_patient else "image"
    yield "Classes", ", ".join(a.classes)
    yield "No lesion", a.normal_class
    if row.auxiliary:
        yield "Also trained on", f"{row.auxiliary.set}, {count(row.auxiliary.images, 'image')}"
    yield "Nested", "a larger set holds the smaller one of the same seed"


def _tested(test: TestSetSummary, ok: Sequence[MeasuredRow]) -> Entries:
    if not test.public:
        return [("Images", f"{DASH} ({test.reason})")]
    classes = ", ".join(f"{n} {name}" for name, n in test.classes.items())
    filters = [
        *([f"part {test.split}"] if test.split else []),
        *([f"only with {listing(test.include_tags)}"] if test.include_tags else []),
        *([f"without {listing(test.exclude_tags)}"] if test.exclude_tags else []),
        *(["coloured marks painted out"] if test.transform == "paint_overlays" else []),
    ]
    used = next((r.n["images"] for r in ok if r.test.name == test.name), None)
    return [
        ("Data", test.set),
        ("Layout", test.layout or ""),
        ("Images", f"{test.images}: {classes}" if classes else str(test.images)),
        ("Evaluated", "" if used is None or used == test.images else str(used)),
        ("Patients", str(test.patients or "not known")),
        ("Scanners", listing(list(test.devices)) or "not known"),
        ("Filters", "; ".join(filters) or "none, the whole data set"),
        ("Fingerprint", _digest(test.digest)),
    ]


def _leakage(bench: Bench, ok: Sequence[MeasuredRow]) -> Entries:
    left_out = max((r.test.left_out or 0 for r in ok), default=0)
    pairs = sum(len(p) for s in bench.supports for p in s.duplicates.values())
    return [
        ("Method", "sees no test label: it cannot read data, and predicts from images alone"),
        (
            "Seen images or patients",
            f"up to {count(left_out, 'test image')} left out" if left_out else "none",
        ),
        ("Identical files", f"{pairs} over all draws; left out where they had been seen" if pairs else "none found"),
        ("Look-alikes", "not searched for here: ultraad data check does"),
    ]


def _thresholds(ok: Sequence[MeasuredRow]) -> str:
    if not ok:
        return ""
    fitted = [r.calibration for r in ok if r.calibration.calibrated]
    if not fitted:
        return "0.5 for all, not fitted"
    rules_ = listing(list(dict.fromkeys(str(c.rule) for c in fitted)))
    return f"{rules_}, by cross-validation on the adaptation images"


def _one_per_test(rows: Sequence[Row]) -> list[Row]:
    return list({r.test.name: r for r in rows}.values())


def _where(rows: Sequence[Row]) -> str:
    shots = ", ".join(map(str, sorted({r.shots for r in rows})))
    return f"shots {shots}; seed {', '.join(map(str, sorted({r.seed for r in rows})))}"


def _counts(rows: Sequence[Row]) -> str:
    names = {"ok": "with results", "error": "failed", "not_public": "not public"}
    return ", ".join(f"{n} {names.get(s, s)}" for s, n in Counter(r.status for r in rows).most_common())


def _digest(code: str | None) -> str:
    return f"sha256 {code[:_DIGITS]}…" if code else ""
