"""Every metric by name: what it is called, what it says, what it needs, and which direction is better.

To add a metric, add its formula in ``image.py``, ``pixel.py`` or ``classes.py`` and a line in this file. Everything
else follows: metrics.json, reports, tables, and the reasons for missing values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["image", "pixel", "class"]
Over = Literal["all", "normal", "lesion", "small lesion", "pair"]
Sides = Literal["all", "normal", "lesion", "small lesion", "pair", "normal and lesion", "classes"]
Need = Literal["images", "normal", "lesion", "small lesion", "threshold", "two classes", "all classes", "pair", "sets"]


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric.

    Attributes:
        key: Its name in files.
        title: Its name in tables.
        about: What it measures, in a few words.
        kind: ``"image"`` (detection), ``"pixel"`` (localisation) or ``"class"`` (grading).
        needs: What the data must provide: ``"normal"`` or ``"lesion"`` images, a ``"small lesion"``, a stored
            ``"threshold"``, ``"two classes"``, an abnormal ``"pair"`` of classes, ``"all classes"`` (absent ones are
            left out of the mean), or prediction ``"sets"``.
        over: The images it is computed on: ``"all"``, or only those that are ``"normal"``, show a ``"lesion"`` or a
            ``"small lesion"``, or are of the ``"pair"``.
        higher_is_better: False for errors of probabilities and for counts of false alarms.
        main: Whether it is one of the few metrics that lead every report.
        short: Its name in narrow columns; the title if empty.
    """

    key: str
    title: str
    about: str
    kind: Kind
    needs: frozenset[Need] = frozenset()
    over: Over = "all"
    higher_is_better: bool = True
    main: bool = False
    short: str = ""

    @property
    def at_threshold(self) -> bool:
        """Whether it is measured at a threshold: the stored one, or one that was chosen."""
        return "threshold" in self.needs

    @property
    def sides(self) -> Sides:
        """The kinds of images of one of which there must be several patients for an interval.

        A metric over some images needs several patients among them. One that ranks images of two kinds, or classes,
        needs several on one side; with one on each, all resamples are the same.
        """
        if self.kind == "image" and self.needs >= {"normal", "lesion"}:
            return "normal and lesion"
        return "classes" if self.kind == "class" and "two classes" in self.needs else self.over

    def text(self, value: float) -> str:
        """A value in percent with one decimal, or with three decimals if higher is not better."""
        return f"{100 * value:.1f}" if self.higher_is_better else f"{value:.3f}"


def _needs(*names: Need) -> frozenset[Need]:
    return frozenset(names)


_SPECS = (
    Spec("image_auroc", "Image AUROC", "how often a lesion image scores higher than a normal one", "image",
         _needs("normal", "lesion"), main=True),
    Spec("image_ap", "Image AP", "average precision: precision averaged over the lesion images", "image",
         _needs("normal", "lesion")),
    Spec("sensitivity_at_90", "Sensitivity at 90 % specificity", "threshold chosen on these images", "image",
         _needs("normal", "lesion")),
    Spec("sensitivity_at_95", "Sensitivity at 95 % specificity", "threshold chosen on these images", "image",
         _needs("normal", "lesion")),
    Spec("image_sensitivity", "Sensitivity", "lesion images found, at the threshold", "image",
         _needs("lesion", "threshold"), over="lesion"),
    Spec("image_specificity", "Specificity", "normal images not flagged, at the threshold", "image",
         _needs("normal", "threshold"), over="normal"),
    Spec("image_accuracy", "Accuracy", "at the threshold", "image", _needs("threshold")),
    Spec("image_f1_oracle", "F1, best threshold", "threshold chosen on these images: an upper bound", "image",
         _needs("normal", "lesion")),
    Spec("pixel_auroc", "Pixel AUROC", "over all pixels of all images", "pixel", _needs("lesion"), main=True),
    Spec("pixel_auroc_centre_prior", "Pixel AUROC of the centre prior",
         "a fixed Gaussian in the centre that ignores the image: the baseline", "pixel", _needs("lesion")),
    Spec("pixel_ap", "Pixel AP",
         "average precision over the same pixels; sensitive to false alarms where lesions are small", "pixel",
         _needs("lesion"), main=True),
    Spec("aupro", "AUPRO", "overlap per lesion, up to 30 % false positive pixels", "pixel", _needs("lesion"),
         over="lesion"),
    Spec("dice", "Dice", "mean over lesion images, at the threshold", "pixel", _needs("lesion", "threshold"),
         over="lesion"),
    Spec("iou", "Intersection over union", "mean over lesion images, at the threshold", "pixel",
         _needs("lesion", "threshold"), over="lesion"),
    Spec("dice_pooled", "Dice, pooled", "all pixels together, normal images included, at the threshold", "pixel",
         _needs("lesion", "threshold")),
    Spec("dice_oracle", "Dice, best threshold", "threshold chosen on these masks: an upper bound", "pixel",
         _needs("lesion"), over="lesion"),
    Spec("pixel_f1_oracle", "Pixel F1, best threshold", "threshold chosen on these masks: an upper bound", "pixel",
         _needs("lesion")),
    Spec("lesion_sensitivity", "Lesion sensitivity",
         "lesions with the peak of a found one inside, at the threshold", "pixel", _needs("lesion", "threshold"),
         over="lesion"),
    Spec("false_lesions", "False lesions per image", "found lesions whose peak is in no true one, at the threshold",
         "pixel", _needs("threshold"), higher_is_better=False),
    Spec("froc", "FROC", "lesion sensitivity, mean over 1/8 to 8 false lesions per image, at the threshold",
         "pixel", _needs("lesion", "threshold")),
    Spec("peak_in_lesion", "Peak in lesion",
         "lesion images whose highest map value is inside a lesion; of several equal values, the share inside", "pixel",
         _needs("lesion"), over="lesion"),
    Spec("peak_in_small_lesion", "Peak in small lesion", "the same where lesions cover less than 2 % of the image",
         "pixel", _needs("lesion", "small lesion"), over="small lesion"),
    Spec("class_auroc_macro", "Class AUROC, macro", "one class against the rest, mean over classes", "class",
         _needs("two classes", "all classes"), main=True, short="Class AUROC"),
    Spec("class_auroc_weighted", "Class AUROC, weighted", "the same, weighted by class size", "class",
         _needs("two classes", "all classes")),
    Spec("benign_malignant_auroc", "Benign against malignant AUROC", "among lesion images", "class", _needs("pair"),
         over="pair"),
    Spec("balanced_accuracy", "Balanced accuracy", "recall of the most probable class, mean over classes", "class",
         _needs("all classes")),
    Spec("macro_f1", "F1, macro", "of the most probable class, mean over classes", "class"),
    Spec("brier", "Brier score", "0 is perfect, 2 the worst", "class", higher_is_better=False),
    Spec("nll", "Negative log-likelihood", "of the true class, in nats; 0 is perfect", "class", higher_is_better=False),
    Spec("ece", "Expected calibration error", "0 is perfect, 1 the worst", "class", higher_is_better=False),
    Spec("class_ece", "Calibration error by class", "the same of each class against the rest, mean over classes",
         "class", higher_is_better=False),
    Spec("aurc", "Area under risk-coverage",
         "errors among the surest images, mean over all shares that are kept; 0 is perfect", "class",
         higher_is_better=False),
    Spec("set_coverage", "Coverage of prediction sets", "sets that hold the true class", "class", _needs("sets")),
    Spec("set_size", "Size of prediction sets", "classes in a set, on average", "class", _needs("sets"),
         higher_is_better=False),
)  # fmt: skip

METRICS: Mapping[str, Spec] = {spec.key: spec for spec in _SPECS}
"""In the order of full tables."""
MAIN = tuple(s.key for kind in ("image", "class", "pixel") for s in _SPECS if s.main and s.kind == kind)
"""The metrics that lead every report, in the order of the paper's tables: detection, grading, localisation."""
PAIR = "benign_malignant_auroc"


def spec(key: str) -> Spec:
    """The entry of a metric; the AUROC of another pair of classes, such as ``"cyst_tumour_auroc"``, has one too."""
    if key in METRICS:
        return METRICS[key]
    words = key.removesuffix("_auroc").replace("_", " ").capitalize()
    if key.endswith("_auroc"):
        return replace(METRICS[PAIR], key=key, title=f"{words} AUROC")
    return Spec(key, words, "", "pixel" if key.startswith("pixel") else "class")


def short(key: str) -> str:
    """A metric's name in narrow columns."""
    found = spec(key)
    return found.short or found.title


def of_kind(kind: Kind) -> tuple[str, ...]:
    """Keys of one kind, in order."""
    return tuple(s.key for s in _SPECS if s.kind == kind)


def reasons(keys: Iterable[str], unmet: Mapping[Need, str]) -> dict[str, str]:
    """Why metrics are undefined or incomplete on some data.

    Args:
        keys: The metrics.
        unmet: {need that the data do not meet: reason}, the most basic need first. Every metric needs ``"images"``.

    Returns:
        {metric: reason of its first unmet need}; metrics without one are left out.
    """
    found = {}
    for key in keys:
        needs = {"images", *spec(key).needs}
        if reason := next((why for need, why in unmet.items() if need in needs), None):
            found[key] = reason
    return found
