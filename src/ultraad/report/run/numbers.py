"""Metrics and predictions as rows of tables. An undefined number stays a dash with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

from ultraad.metrics.catalogue import METRICS, Kind, Spec, of_kind, spec
from ultraad.metrics.classes import pair_auroc_name
from ultraad.metrics.metric import Metric
from ultraad.metrics.subgroups import meaning_of_p, people, shown
from ultraad.report.kit.words import DASH, decimals, public_names
from ultraad.report.run.read import Measurements
from ultraad.results.row import ImageRow

if TYPE_CHECKING:
    from ultraad.report.run.read import RunData

SHOWN_ERROR = 5e-4  # half of the last printed digit
NO_CLASS = "no class known"
_QUESTIONS: dict[Kind, str] = {"image": "Is there a lesion?", "pixel": "Where is it?", "class": "Which class is it?"}
_OF_SUBSETS = ("image_auroc", "image_ap", "image_sensitivity", "image_specificity", "class_auroc_macro")


@dataclass(frozen=True, slots=True)
class Number:
    """A metric as it is printed."""

    spec: Spec
    metric: Metric

    @property
    def text(self) -> str:
        """Three decimals, or a dash."""
        return decimals(self.metric.value)

    @property
    def interval(self) -> str:
        """``low to high``, or a dash."""
        low, high = self.metric.low, self.metric.high
        return DASH if low is None or high is None else f"{low:.3f} to {high:.3f}"

    @property
    def note(self) -> str:
        """Why something is missing or left out, and the error if it is large enough to show."""
        error = self.metric.error or 0
        return "; ".join(filter(None, (self.metric.reason, f"± {error:.4f}" if error >= SHOWN_ERROR else "")))


@dataclass(frozen=True, slots=True)
class Headline:
    """A main number, and what to compare it with: as a sentence and as a mark on the scale 0..1."""

    number: Number
    beside: str
    mark: float | None


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts over some of the images.

    Attributes:
        name: Of the class or patient.
        n: Images.
        lesions: Images known to show a lesion.
        score: Mean score.
        median: Median score.
        flagged: Images that reach the threshold of the run.
        detected: Lesion images that reach it.
        normals: Images known to be normal.
        true_negatives: Normal images below it.
        graded: Images with a true and a most probable class.
        correct_class: Graded images where both are the same.
    """

    name: str
    n: int
    lesions: int
    score: float
    median: float
    flagged: int
    detected: int
    normals: int
    true_negatives: int
    graded: int
    correct_class: int

    @property
    def mistakes(self) -> int:
        """Missed lesions and false alarms."""
        return self.lesions - self.detected + self.normals - self.true_negatives


def number(metrics: Mapping[str, Metric], key: str) -> Number:
    """One metric; a dash if it was not measured."""
    return Number(spec(key), metrics.get(key) or Metric(None, reason="not measured"))


def headlines(data: RunData) -> list[Headline]:
    """The main numbers and Dice; beside each, what chance, a fixed map or hindsight reaches.

    Without normal images, the AUROC of detection makes room for that between the two lesion classes, if it is known.
    """
    measured = data.measured or Measurements()
    first = "image_auroc"
    if data.model and measured.n.get("lesions") and not measured.n.get("normals"):
        pair = pair_auroc_name(data.model.classes, data.model.normal_class)
        first = first if data.metric(pair).value is None else pair
    prior, oracle = data.metric("pixel_auroc_centre_prior").value, data.metric("dice_oracle").value
    # at the lowest threshold every pixel is called lesion, so precision there is the share of lesion pixels
    lesion_pixels = (measured.curves.get("pixel_pr") or {"precision": [None]})["precision"][-1]
    beside: dict[str, tuple[str, float | None]] = {
        first: ("chance is {:.3f}", 0.5),
        "class_auroc_macro": ("chance is {:.3f}", 0.5),
        "pixel_auroc": ("the centre prior reaches {:.3f}", prior),
        "pixel_ap": ("a random map reaches {:.3f}", lesion_pixels),
        "dice": ("the best threshold in hindsight reaches {:.3f}", oracle),
    }
    return [
        Headline(number(measured.metrics, key), "" if mark is None else words.format(mark), mark)
        for key, (words, mark) in beside.items()
    ]


def table(metrics: Mapping[str, Metric]) -> list[tuple[str, list[Number]]]:
    """All metrics by question, including those that this version has no name for."""
    sections = [(title, [k for k in of_kind(kind) if k in metrics]) for kind, title in _QUESTIONS.items()]
    sections.append(("Others", [k for k in metrics if k not in METRICS]))
    return [(title, [number(metrics, k) for k in keys]) for title, keys in sections if keys]


def subsets(data: RunData) -> list[tuple[str, list[Number]]]:
    """(subset, numbers), all images first; empty if there are no subsets."""
    if data.measured is None or not data.measured.subsets:
        return []
    parts = {"all images": data.measured.metrics, **data.measured.subsets}
    return [(name.replace("_", " "), [number(m, key) for key in _OF_SUBSETS]) for name, m in parts.items()]


@dataclass(frozen=True, slots=True)
class Compared:
    """The subgroups of one fact: for each its value, images, patients and, for each metric, number and p-value.

    ``test`` says what the p-values are.
    """

    fact: str
    ordered_by: Spec | None
    specs: tuple[Spec, ...]
    test: str
    rows: tuple[tuple[str, int, str, tuple[tuple[Number, float | None], ...]], ...]


def subgroups(data: RunData) -> list[Compared]:
    """The subgroups that were compared, fact by fact; empty if none were."""
    found = []
    for fact, part in (data.measured or Measurements()).subgroups.items():
        keys = shown([{key: m.value for key, m in s.metrics.items()} for s in part.subgroups])
        rows = tuple(
            (
                s.value,
                s.images,
                people(s.patients, s.without_patient),
                tuple((number(s.metrics, k), s.differences[k].p if k in s.differences else None) for k in keys),
            )
            for s in part.subgroups
        )
        first = None if part.ordered_by is None else spec(part.ordered_by)
        test = meaning_of_p([(s.patients, s.without_patient) for s in part.subgroups])
        found.append(Compared(fact, first, tuple(map(spec, keys)), test, rows))
    return found


def by_class(data: RunData) -> list[Tally]:
    """One tally for each class, in label order; images without a class last."""
    return [tally(label or NO_CLASS, rows) for label, rows in data.by_label.items()]


def by_group(data: RunData) -> list[Tally]:
    """One tally for each patient, those with the most mistakes first."""
    parts: dict[str, list[ImageRow]] = {}
    for row in data.rows:
        if row.group is not None:
            parts.setdefault(row.group, []).append(row)
    names = public_names(parts)
    tallies = [tally(names[group], rows) for group, rows in parts.items()]
    return sorted(tallies, key=lambda t: (-t.mistakes, -t.n, t.name))


def tally(name: str, rows: Sequence[ImageRow]) -> Tally:
    """Count one or more rows."""
    lesions = [r for r in rows if r.anomalous is True]
    normals = [r for r in rows if r.anomalous is False]
    graded = [r for r in rows if r.probs and r.label in r.probs]
    return Tally(
        name=name,
        n=len(rows),
        lesions=len(lesions),
        score=fmean(r.score for r in rows),
        median=median(r.score for r in rows),
        flagged=sum(r.abnormal for r in rows),
        detected=sum(r.abnormal for r in lesions),
        normals=len(normals),
        true_negatives=sum(not r.abnormal for r in normals),
        graded=len(graded),
        correct_class=sum(r.label == r.guess for r in graded),
    )
