"""The training sentences besides captions: classes, normal against abnormal, single attributes.

Each has many wordings, so that a user's own sentence is similar to one of them. The states and templates of the
abnormal pair are those of zero-shot anomaly detectors (WinCLIP, APRIL-GAN, AnomalyCLIP).
"""

from __future__ import annotations

from itertools import product

import numpy as np

from pretraining.images import FACTS
from ultraad.simulate import LABELS, LEXICON
from ultraad.simulate.captions import (
    BARE_TEMPLATES,
    FAMILY_WORDINGS,
    NORMAL_FINDINGS,
    NORMAL_TEMPLATES,
    TEMPLATES,
    THINGS,
    WORDINGS,
)

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
    "birads": tuple(
        tuple(shot.format(category) for shot in ("BI-RADS {}", "BI-RADS category {}", "a BI-RADS {} lesion"))
        for category in ("2", "3", "4", "5")
    ),
}
"""Per attribute, per value in lexicon order, its wordings."""

VALIDATION_PAIRS: tuple[tuple[str, str], ...] = (
    ("A photo of a normal breast US image", "A photo of an abnormal breast US image"),
    ("normal tissue", "abnormal lesion tissue"),
)
"""The pairs that validation asks with."""


def sentences() -> set[str]:
    """Sentences with every word that captions and prompts can use."""
    lists = (*CLASS_PROMPTS.values(), *PAIRS, *VALIDATION_PAIRS, *WORDINGS.values(), *FAMILY_WORDINGS.values())
    found = {s for words in (*lists, *THINGS.values(), NORMAL_FINDINGS) for s in words}
    found |= {s for values in ATTRIBUTE_PROMPTS.values() for words in values for s in words}
    templates = (*TEMPLATES, *BARE_TEMPLATES, *NORMAL_TEMPLATES)
    return found | {s.format(kind="benign", thing="mass", findings=",. and") for s in templates}


def pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    """One of the wordings."""
    return words[int(rng.integers(len(words)))]


def real_caption(facts: np.ndarray, rng: np.random.Generator) -> str:
    """One sentence about a real image, from the little that is known of it.

    Args:
        facts: (f), see :data:`pretraining.images.FACTS`.
        rng: Chooses the wording.
    """
    value = dict(zip(FACTS, (int(v) for v in facts), strict=True))
    label = LABELS[value["label"]]
    if label == "normal":
        return pick(rng, NORMAL_TEMPLATES).format(findings=pick(rng, NORMAL_FINDINGS))
    thing = pick(rng, THINGS[label])
    findings = [pick(rng, FAMILY_WORDINGS[LEXICON["family"][value["family"]]])] if value["family"] >= 0 else []
    if value["birads"] >= 0 and (not findings or rng.random() < 0.5):
        findings.append(pick(rng, ATTRIBUTE_PROMPTS["birads"][value["birads"]]))
    template = pick(rng, BARE_TEMPLATES if rng.random() < 0.15 else TEMPLATES)
    return template.format(kind=label, thing=thing, findings=" and ".join(findings) or f"a {thing}")
