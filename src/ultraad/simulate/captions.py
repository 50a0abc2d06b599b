"""Captions of simulated images in a radiologist's words, each finding in several wordings.

A caption only mentions what is in the image. ``captions.csv`` and the text for pretraining come from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ultraad.errors import ConfigError

if TYPE_CHECKING:
    from ultraad.simulate.attributes import Attributes

WORDINGS: dict[tuple[str, str], tuple[str, ...]] = {
    ("shape", "oval"): ("an oval shape", "an oval mass", "oval shape", "an ovoid mass"),
    ("shape", "round"): ("a round shape", "a round mass", "round shape", "a spherical mass"),
    ("shape", "irregular"): ("an irregular shape", "an irregular mass", "irregular shape"),
    ("orientation", "parallel"): (
        "parallel orientation", "a wider than tall mass", "a mass parallel to the skin", "horizontal orientation",
    ),
    ("orientation", "not parallel"): (
        "non-parallel orientation", "a taller than wide mass", "not parallel orientation", "vertical orientation",
    ),
    ("margin", "circumscribed"): (
        "circumscribed margin", "sharply demarcated margins", "a smooth well-defined border",
        "well-circumscribed margins",
    ),
    ("margin", "indistinct"): ("indistinct margin", "ill-defined margins", "a blurred border", "indistinct margins"),
    ("margin", "angular"): ("angular margin", "angular margins", "sharp corners of the border"),
    ("margin", "microlobulated"): (
        "microlobulated margin", "a microlobulated border", "small lobulations of the border",
    ),
    ("margin", "spiculated"): (
        "spiculated margin", "spiculated margins", "architectural distortion and spicules",
        "sharp lines radiating from the mass",
    ),
    ("echo", "anechoic"): (
        "an anechoic lesion", "anechoic echo pattern", "a black lesion without internal echoes",
        "a fluid-filled lesion",
    ),
    ("echo", "hyperechoic"): (
        "a hyperechoic mass", "hyperechoic echo pattern", "a bright mass", "a hyperechoic nodule",
    ),
    ("echo", "complex cystic and solid"): (
        "a complex cystic and solid mass", "complex echo pattern", "cystic and solid components", "a complex mass",
    ),
    ("echo", "hypoechoic"): (
        "a hypoechoic mass", "hypoechoic echo pattern", "a dark mass with internal echoes", "a hypoechoic lesion",
    ),
    ("echo", "isoechoic"): (
        "an isoechoic mass", "isoechoic echo pattern", "a mass as bright as fat", "an isoechoic nodule",
    ),
    ("echo", "heterogeneous"): ("a heterogeneous mass", "heterogeneous echo pattern", "mixed internal echoes"),
    ("posterior", "no posterior features"): (
        "no posterior features", "no posterior feature", "unchanged tissue behind the mass",
    ),
    ("posterior", "enhancement"): (
        "posterior acoustic enhancement", "posterior enhancement", "a bright area behind the mass",
        "increased through transmission",
    ),
    ("posterior", "shadowing"): (
        "posterior acoustic shadowing", "posterior shadowing", "a dark shadow behind the mass", "acoustic shadowing",
    ),
    ("posterior", "combined pattern"): ("combined posterior features", "shadowing and enhancement behind the mass"),
    ("calcifications", "True"): (
        "calcifications", "echogenic foci suggesting calcifications", "bright spots inside the mass",
    ),
    ("halo", "True"): ("an echogenic halo", "a bright rim of surrounding tissue"),
}  # fmt: skip
"""Wordings of each value of each attribute."""

FAMILY_WORDINGS: dict[str, tuple[str, ...]] = {
    "simple cyst": ("a simple cyst", "a cyst", "a round anechoic lesion, thin wall"),
    "complicated cyst": (
        "a complicated cyst",
        "a complicated cyst of low-level internal echoes",
        "a cyst with internal echoes",
    ),
    "fibroadenoma": ("a fibroadenoma", "a homogeneous solid nodule"),
    "lipoma": ("a lipoma", "a fatty nodule"),
    "hamartoma": ("a hamartoma", "a nodule of fat and glandular tissue"),
    "papilloma": ("an intraductal papilloma", "a papilloma"),
    "adenosis": ("adenosis", "fibrocystic change"),
    "fat necrosis or scar": ("fat necrosis", "a scar"),
    "abscess": ("an abscess", "an inflammatory collection"),
    "invasive carcinoma": ("an invasive carcinoma", "invasive ductal carcinoma", "a breast cancer"),
    "lobular carcinoma": ("invasive lobular carcinoma", "a lobular carcinoma"),
    "circumscribed carcinoma": ("a circumscribed carcinoma", "a triple-negative carcinoma", "a mucinous carcinoma"),
    "papillary or cystic carcinoma": ("a papillary carcinoma", "a cystic carcinoma"),
    "ductal carcinoma in situ": ("ductal carcinoma in situ", "an intraductal carcinoma"),
}

NORMAL_FINDINGS = (
    "layered fat, fibroglandular tissue and no focal mass",
    "homogeneous background echotexture and intact Cooper ligaments",
    "uniform glandular echogenicity and no posterior acoustic shadowing",
    "continuous tissue planes and no distortion of the parenchyma",
    "smooth skin line, regular fat lobules and a clear pectoral muscle",
    "heterogeneous but symmetric fibroglandular tissue and no discrete lesion",
    "fat lobules and fibroglandular tissue",
    "no mass",
    "no lesion",
    "healthy tissue",
    "an undisturbed layered pattern",
)

TEMPLATES = (
    "This is a {kind} breast ultrasound image with {findings}.",
    "a {kind} breast ultrasound image with {findings}",
    "a breast ultrasound image of a {kind} {thing} with {findings}",
    "a {kind} {thing} with {findings}",
    "{kind} {thing}, {findings}",
    "breast ultrasound: {kind} {thing}, {findings}",
    "A photo of a {kind} breast US image with {findings}",
    "an ultrasound image showing a {kind} {thing} with {findings}",
)
BARE_TEMPLATES = (
    "{findings}",
    "a breast ultrasound image with {findings}",
    "an abnormal breast ultrasound image with {findings}",
    "a breast lesion with {findings}",
)
NORMAL_TEMPLATES = (
    "This is a normal breast ultrasound image with {findings}.",
    "a normal breast ultrasound image with {findings}",
    "normal breast tissue with {findings}",
    "normal breast, {findings}",
    "A photo of a normal breast US image",
    "a healthy breast ultrasound image with {findings}",
    "breast ultrasound without abnormality, {findings}",
)
THINGS = {
    "benign": ("mass", "lesion", "nodule", "tumor", "finding"),
    "malignant": ("mass", "lesion", "tumor", "cancer", "finding"),
}


def _one(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def caption(label: str, attributes: Attributes | None, rng: np.random.Generator) -> str:
    """One sentence about an image.

    Args:
        label: ``"normal"``, ``"benign"`` or ``"malignant"``.
        attributes: Attributes of the lesion; None for a normal image.
        rng: Chooses the wording and the attributes to mention.

    Raises:
        ConfigError: If label and attributes contradict each other.
    """
    if (attributes is None) != (label == "normal") or (attributes is not None and attributes.label != label):
        found = "no attributes" if attributes is None else f"attributes of a {attributes.family}"
        msg = f"got the label {label!r} with {found}; wanted no attributes for a normal image, else those of the label"
        raise ConfigError(msg)
    if attributes is None:
        return _one(rng, NORMAL_TEMPLATES).format(findings=_one(rng, NORMAL_FINDINGS))
    named = ["shape", "orientation", "margin", "echo", "posterior"]
    named += [name for name in ("calcifications", "halo") if getattr(attributes, name)]
    chosen = [named[int(i)] for i in rng.permutation(len(named))[: int(rng.integers(2, 6))]]
    findings = [_one(rng, WORDINGS[name, str(getattr(attributes, name))]) for name in chosen]
    if rng.random() < 0.2:
        findings[0] = _one(rng, FAMILY_WORDINGS[attributes.family])
    template = _one(rng, BARE_TEMPLATES if rng.random() < 0.15 else TEMPLATES)
    return template.format(kind=label, thing=_one(rng, THINGS[label]), findings=_join(findings))
