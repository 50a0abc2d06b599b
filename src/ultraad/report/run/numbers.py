"""Metrics and predictions as rows of tables. What is undefined stays a dash with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from ultraad.report.kit.words import DASH, decimals, public_names

if TYPE_CHECKING:
    from ultraad.report.run.read import Results, Row

SHOWN_ERROR = 5e-4  # ours: half of the last digit shown

# key: (title, what it says); the order is the order of the full table
_IMAGE = {
    "image_auroc": ("Image AUROC", "how often a lesion image scores higher than a normal one"),
    "image_ap": ("Image AP", "average precision: precision averaged over the lesion images"),
    "sensitivity_at_90": ("Sensitivity at 90 % specificity", "on these images, no stored threshold"),
    "sensitivity_at_95": ("Sensitivity at 95 % specificity", "on these images, no stored threshold"),
    "image_sensitivity": ("Sensitivity", "lesion images found, stored threshold"),
    "image_specificity": ("Specificity", "normal images left alone, stored threshold"),
    "image_accuracy": ("Accuracy", "stored threshold"),
    "image_f1_oracle": ("F1, best threshold", "threshold chosen on these images: an upper bound"),
}
_PIXEL = {
    "pixel_auroc": ("Pixel AUROC", "over all pixels of all images"),
    "pixel_auroc_centre_prior": ("Pixel AUROC of the centre prior", "a fixed blob in the middle that saw nothing"),
    "pixel_ap": (
        "Pixel AP",
        "average precision over the same pixels; sensitive to false alarms where lesions are small",
    ),
    "aupro": ("AUPRO", "overlap per lesion, up to 30 % false positive pixels"),
    "dice": ("Dice", "mean over lesion images, stored threshold"),
    "iou": ("Intersection over union", "mean over lesion images, stored threshold"),
    "dice_pooled": ("Dice, pooled", "all pixels together, normal images included, stored threshold"),
    "dice_oracle": ("Dice, best threshold", "threshold chosen on these masks: an upper bound"),
    "pixel_f1_oracle": ("Pixel F1, best threshold", "threshold chosen on these masks: an upper bound"),
}
_CLASS = {
    "class_auroc_macro": ("Class AUROC, macro", "one class against the rest, mean over classes"),
    "class_auroc_weighted": ("Class AUROC, weighted", "the same, weighted by class size"),
    "benign_malignant_auroc": ("Benign against malignant AUROC", "among lesion images"),
    "balanced_accuracy": ("Balanced accuracy", "recall of the most probable class, mean over classes"),
    "macro_f1": ("F1, macro", "of the most probable class, mean over classes"),
    "brier": ("Brier score", "0 is perfect, 2 the worst"),
    "ece": ("Expected calibration error", "0 is perfect, 1 the worst"),
}
_TITLES = _IMAGE | _PIXEL | _CLASS
_IN_SUBSETS = ("image_auroc", "image_ap", "image_sensitivity", "image_specificity", "class_auroc_macro")


@dataclass(frozen=True, slots=True)
class Number:
    """A metric as it is shown.

    Attributes:
        title: Its name.
        about: What it says, in a few words.
        value: None if undefined.
        low: Lower end of the 95 % interval; None if there is none.
        high: Upper end.
        n: Images it rests on.
        note: Why something is missing or left out; None if all is well.
    """

    title: str
    about: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    note: str | None

    @property
    def text(self) -> str:
        """Three decimals, or a dash."""
        return decimals(self.value)

    @property
    def interval(self) -> str:
        """``low to high``, or a dash."""
        return DASH if self.low is None or self.high is None else f"{self.low:.3f} to {self.high:.3f}"


@dataclass(frozen=True, slots=True)
class Card:
    """A headline number: what to hold it against, as a sentence and as a mark on the scale 0..1."""

    number: Number
    beside: str | None
    mark: float | None


@dataclass(frozen=True, slots=True)
class Tally:
    """Some of the images, counted.

    Attributes:
        name: Of the class or patient.
        n: Images.
        lesions: Of these, known to hold a lesion.
        score: Mean score.
        middle: Median score.
        flagged: Images that reach the stored threshold.
        found: Lesion images that reach it.
        normals: Images known to be normal.
        quiet: Normal images that stay below it.
        graded: Images with a true and a most probable class.
        named: Of these, where both are the same.
    """

    name: str
    n: int
    lesions: int
    score: float
    middle: float
    flagged: int
    found: int
    normals: int
    quiet: int
    graded: int
    named: int

    @property
    def mistakes(self) -> int:
        """Missed lesions and false alarms."""
        return self.lesions - self.found + self.normals - self.quiet


def described(key: str) -> tuple[str, str]:
    """A metric's name and what it says, in a few words."""
    return _TITLES.get(key, (key.replace("_", " "), ""))


def number(metrics: Mapping[str, Any], key: str, *, missing: str = "not measured") -> Number:
    """One metric of ``metrics.json``; a dash with the reason ``missing`` if it is not in there."""
    title, about = described(key)
    found = metrics.get(key)
    if found is None:
        return Number(title, about, None, None, None, 0, missing)
    notes = [found.get("reason"), f"± {found['error']:.4f}" if (found.get("error") or 0) >= SHOWN_ERROR else None]
    note = "; ".join(n for n in notes if n) or None
    return Number(title, about, found["value"], found.get("low"), found.get("high"), found.get("n", 0), note)


def cards(results: Results) -> list[Card]:
    """The five main numbers; what a map without knowledge would reach stands beside them."""
    metrics = results.metrics.get("metrics", {})
    prior, oracle = (metrics.get(k, {}).get("value") for k in ("pixel_auroc_centre_prior", "dice_oracle"))
    # at the lowest threshold every pixel is called lesion, so precision there is the share of lesion pixels
    precision = ((results.metrics.get("curves") or {}).get("pixel_pr") or {}).get("precision")
    lesion_pixels = precision[-1] if precision else None
    return [
        Card(number(metrics, "image_auroc"), "chance is 0.500", 0.5),
        Card(number(metrics, "pixel_auroc"), None if prior is None else f"the centre prior reaches {prior:.3f}", prior),
        Card(
            number(metrics, "pixel_ap"),
            None if lesion_pixels is None else f"a random map reaches {lesion_pixels:.3f}",
            lesion_pixels,
        ),
        Card(number(metrics, "class_auroc_macro"), "chance is 0.500", 0.5),
        Card(
            number(metrics, "dice"),
            None if oracle is None else f"the best threshold in hindsight reaches {oracle:.3f}",
            oracle,
        ),
    ]


def table(metrics: Mapping[str, Any]) -> list[tuple[str, list[Number]]]:
    """All metrics by theme, those this version has no name for included."""
    themes = (("Is there a lesion?", _IMAGE), ("Where is it?", _PIXEL), ("Which class is it?", _CLASS))
    sections = [(title, [number(metrics, k) for k in keys if k in metrics]) for title, keys in themes]
    sections.append(("Others", [number(metrics, k) for k in metrics if k not in _TITLES]))
    return [(title, numbers) for title, numbers in sections if numbers]


def subsets(results: Results) -> tuple[list[str], list[tuple[str, list[Number]]]]:
    """(titles, [(subset, numbers)]), all images first; no rows if there are no subsets."""
    found = results.metrics.get("subsets") or {}
    if not found:
        return [], []
    everything = {"all images": results.metrics.get("metrics", {})}
    named = {name.replace("_", " "): metrics for name, metrics in found.items()}
    rows = [(name, [number(m, key) for key in _IN_SUBSETS]) for name, m in (everything | named).items()]
    return [n.title for n in rows[0][1]], rows


def by_class(results: Results) -> list[Tally]:
    """One tally for each class, in label order; images without a class last."""
    return [tally(label or "no class known", rows) for label, rows in of_class(results).items()]


def of_class(results: Results) -> dict[str | None, list[Row]]:
    """The predictions of each true class that occurs, in label order; None, last, holds those without one."""
    parts = {c: [r for r in results.rows if r.label == c] for c in (*results.classes, None)}
    return {label: rows for label, rows in parts.items() if rows}


def by_group(results: Results) -> list[Tally]:
    """One tally for each patient, those with the most mistakes first."""
    parts: dict[str, list[Row]] = {}
    for row in results.rows:
        if row.group is not None:
            parts.setdefault(row.group, []).append(row)
    names = public_names(parts)
    tallies = [tally(names[group], rows) for group, rows in parts.items()]
    return sorted(tallies, key=lambda t: (-t.mistakes, -t.n, t.name))


def tally(name: str, rows: Sequence[Row]) -> Tally:
    """Count one or more rows."""
    lesions = [r for r in rows if r.anomalous is True]
    normals = [r for r in rows if r.anomalous is False]
    graded = [r for r in rows if r.label is not None and r.guess is not None]
    return Tally(
        name=name,
        n=len(rows),
        lesions=len(lesions),
        score=fmean(r.score for r in rows),
        middle=median(r.score for r in rows),
        flagged=sum(r.abnormal for r in rows),
        found=sum(r.abnormal for r in lesions),
        normals=len(normals),
        quiet=sum(not r.abnormal for r in normals),
        graded=len(graded),
        named=sum(r.label == r.guess for r in graded),
    )
