"""Every metric by name: what it is called, what it says, and which way is better. The one place to ask.

To add a metric: compute it in its module (``image.py``, ``pixel.py``, ``classes.py``) and add a line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["image", "pixel", "class"]


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric.

    Attributes:
        key: Its name in every file.
        title: Its name in tables.
        about: What it says, in a few words.
        kind: ``"image"`` (detection), ``"pixel"`` (localisation) or ``"class"`` (grading).
        higher_is_better: False for errors of probabilities, which are printed with three decimals, not in percent.
        at_threshold: Whether it holds at the stored threshold.
        needs: What its images must hold: ``"normal"`` and ``"lesion"`` images.
        main: Whether it is one of the four that lead every report.
        short: Its name in narrow columns; the title if empty.
    """

    key: str
    title: str
    about: str
    kind: Kind
    higher_is_better: bool = True
    at_threshold: bool = False
    needs: frozenset[str] = frozenset()
    main: bool = False
    short: str = ""


_NORMAL, _LESION = frozenset({"normal"}), frozenset({"lesion"})
_BOTH = _NORMAL | _LESION

_SPECS = (
    Spec("image_auroc", "Image AUROC", "how often a lesion image scores higher than a normal one", "image",
         needs=_BOTH, main=True),
    Spec("image_ap", "Image AP", "average precision: precision averaged over the lesion images", "image",
         needs=_LESION),
    Spec("sensitivity_at_90", "Sensitivity at 90 % specificity", "on these images, no stored threshold", "image",
         needs=_BOTH),
    Spec("sensitivity_at_95", "Sensitivity at 95 % specificity", "on these images, no stored threshold", "image",
         needs=_BOTH),
    Spec("image_f1_oracle", "F1, best threshold", "threshold chosen on these images: an upper bound", "image",
         needs=_LESION),
    Spec("image_accuracy", "Accuracy", "stored threshold", "image", at_threshold=True),
    Spec("image_sensitivity", "Sensitivity", "lesion images found, stored threshold", "image", at_threshold=True,
         needs=_LESION),
    Spec("image_specificity", "Specificity", "normal images left alone, stored threshold", "image", at_threshold=True,
         needs=_NORMAL),
    Spec("pixel_auroc", "Pixel AUROC", "over all pixels of all images", "pixel", main=True),
    Spec("pixel_auroc_centre_prior", "Pixel AUROC of the centre prior", "a fixed blob in the middle that saw nothing",
         "pixel"),
    Spec("pixel_ap", "Pixel AP",
         "average precision over the same pixels; sensitive to false alarms where lesions are small", "pixel",
         main=True),
    Spec("aupro", "AUPRO", "overlap per lesion, up to 30 % false positive pixels", "pixel"),
    Spec("dice", "Dice", "mean over lesion images, stored threshold", "pixel", at_threshold=True),
    Spec("iou", "Intersection over union", "mean over lesion images, stored threshold", "pixel", at_threshold=True),
    Spec("dice_pooled", "Dice, pooled", "all pixels together, normal images included, stored threshold", "pixel",
         at_threshold=True),
    Spec("dice_oracle", "Dice, best threshold", "threshold chosen on these masks: an upper bound", "pixel"),
    Spec("pixel_f1_oracle", "Pixel F1, best threshold", "threshold chosen on these masks: an upper bound", "pixel"),
    Spec("class_auroc_macro", "Class AUROC, macro", "one class against the rest, mean over classes", "class",
         main=True, short="Class AUROC"),
    Spec("class_auroc_weighted", "Class AUROC, weighted", "the same, weighted by class size", "class"),
    Spec("benign_malignant_auroc", "Benign against malignant AUROC", "among lesion images", "class"),
    Spec("balanced_accuracy", "Balanced accuracy", "recall of the most probable class, mean over classes", "class"),
    Spec("macro_f1", "F1, macro", "of the most probable class, mean over classes", "class"),
    Spec("brier", "Brier score", "0 is perfect, 2 the worst", "class", higher_is_better=False),
    Spec("ece", "Expected calibration error", "0 is perfect, 1 the worst", "class", higher_is_better=False),
)  # fmt: skip

METRICS: Mapping[str, Spec] = {spec.key: spec for spec in _SPECS}
"""In the order of the full table."""
MAIN = ("image_auroc", "class_auroc_macro", "pixel_auroc", "pixel_ap")
"""The four that lead every report, in the order of the paper's tables."""


def spec(key: str) -> Spec:
    """What is known of a metric. A pair of classes such as ``"cyst_tumour_auroc"`` is described by its name."""
    if key in METRICS:
        return METRICS[key]
    return Spec(key, key.replace("_", " "), "", "pixel" if key.startswith("pixel") else "class")


def short(key: str) -> str:
    """A metric's name in narrow columns."""
    found = spec(key)
    return found.short or found.title


def of_kind(kind: Kind) -> tuple[str, ...]:
    """Keys of one kind, in order."""
    return tuple(s.key for s in _SPECS if s.kind == kind)
