"""The training sentences besides captions: classes, normal against abnormal, single attributes.

Each has many wordings, so that a user's own sentence is similar to one of them. The states and templates of the
abnormal pair are those of zero-shot anomaly detectors (WinCLIP, APRIL-GAN, AnomalyCLIP).
"""

from __future__ import annotations

from itertools import product

from ultraad.simulate import LEXICON
from ultraad.simulate.captions import FAMILY_WORDINGS, WORDINGS

_VIEWS = (
    "breast ultrasound image",
    "breast US image",
    "breast ultrasound",
    "breast sonogram",
    "breast ultrasound scan",
)
_SHOT = (
    "A photo of a {}",
    "a photo of the {}",
    "an image of a {}",
    "This is a {}.",
    "a {}",
    "{}",
    "a cropped photo of the {}",
    "a bad photo of a {}",
)

CLASS_PROMPTS: dict[str, tuple[str, ...]] = {
    "normal": (
        *(shot.format(f"{state} {view}") for shot, state, view in product(_SHOT, ("normal", "healthy"), _VIEWS)),
        "normal breast tissue",
        "healthy breast tissue",
        "normal breast",
        "normal",
        "a breast without lesion",
        "no lesion",
        "no mass",
        "breast ultrasound without abnormality",
        "A photo of a normal object.",
        "This is a normal image.",
        "normal tissue",
        "fibroglandular and fat tissue",
        "a breast ultrasound image with no mass",
        "BI-RADS 1",
    ),
    "benign": (
        *(shot.format(f"{state} {view}") for shot, state, view in product(_SHOT, ("benign",), _VIEWS)),
        *(
            shot.format(thing)
            for shot, thing in product(_SHOT, ("benign mass", "benign lesion", "benign tumor", "benign breast tumor"))
        ),
        "benign",
        "a cyst or fibroadenoma",
        "a breast ultrasound image of a benign mass",
        "A photo of a benign object.",
        "This is a benign image.",
        "a breast ultrasound image with a benign lesion",
        "non-cancerous lesion",
        "BI-RADS 2",
    ),
    "malignant": (
        *(shot.format(f"{state} {view}") for shot, state, view in product(_SHOT, ("malignant", "cancerous"), _VIEWS)),
        *(
            shot.format(thing)
            for shot, thing in product(
                _SHOT, ("malignant mass", "malignant lesion", "malignant tumor", "breast cancer")
            )
        ),
        "malignant",
        "carcinoma",
        "cancer",
        "a breast ultrasound image of a malignant mass",
        "A photo of a malignant object.",
        "This is a malignant image.",
        "a breast ultrasound image with a malignant lesion",
        "invasive carcinoma",
        "BI-RADS 5",
    ),
}

_OBJECTS = (*_VIEWS, "object", "image", "breast", "breast tissue", "ultrasound image", "tissue")
_PAIRED_STATES = (
    ("normal {}", "abnormal {}"),
    ("healthy {}", "diseased {}"),
    ("flawless {}", "damaged {}"),
    ("perfect {}", "broken {}"),
    ("unblemished {}", "{} with flaw"),
    ("{} without flaw", "{} with flaw"),
    ("{} without defect", "{} with defect"),
    ("{} without damage", "{} with damage"),
    ("{} without lesion", "{} with lesion"),
    ("{} without a mass", "{} with a mass"),
    ("{} without abnormality", "{} with abnormality"),
    ("{} without tumor", "{} with tumor"),
    ("normal {}", "{} with a lesion"),
    ("normal {}", "suspicious {}"),
    ("{} without anomaly", "anomalous {}"),
)
PAIRS: tuple[tuple[str, str], ...] = (
    *(
        (shot.format(a.format(o)), shot.format(b.format(o)))
        for shot, (a, b), o in product(_SHOT, _PAIRED_STATES, _OBJECTS)
    ),
    *(
        ("normal tissue", "abnormal lesion tissue"),
        ("normal tissue", "lesion"),
        ("background tissue", "a mass"),
        ("normal", "abnormal"),
        ("healthy tissue", "tumor"),
        ("no lesion", "a lesion"),
        ("normal breast tissue", "a breast lesion"),
        ("object", "damaged object"),
    )
    * 12,
)
"""(normal, abnormal) sentences of equal build."""

NO_FINDING = {
    "calcifications": ("no calcifications", "a mass without calcifications"),
    "halo": ("no halo", "an abrupt interface without halo"),
}

ATTRIBUTE_PROMPTS: dict[str, tuple[tuple[str, ...], ...]] = {
    **{name: tuple(WORDINGS[name, value] for value in LEXICON[name]) for name in LEXICON if name != "family"},
    "family": tuple(FAMILY_WORDINGS[value] for value in LEXICON["family"]),
    **{name: (no, WORDINGS[name, "True"]) for name, no in NO_FINDING.items()},
}
"""Per attribute, per value in lexicon order, its wordings."""

VALIDATION_PAIRS: tuple[tuple[str, str], ...] = (
    ("A photo of a normal breast US image", "A photo of an abnormal breast US image"),
    ("normal tissue", "abnormal lesion tissue"),
)
"""The pairs that validation asks with."""
