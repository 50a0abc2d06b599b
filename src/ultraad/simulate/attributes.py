"""BI-RADS attributes and the lesion families they are drawn from.

The words are those of the BI-RADS ultrasound lexicon (ACR, 5th edition, 2013); the echogenic halo is from the 4th.

The frequencies follow Stavros et al., Radiology 196:123 (1995) for cancers (shadowing 49 %, spiculation 36 %, taller
than wide 42 %, calcifications 27 %, angular margins 83 %, microlobulation 75 %; one cancer can have several) and Hong
et al., AJR 184:1260 (2005): circumscribed, oval and parallel masses are benign in 90, 84 and 78 %, spiculated,
irregular and not parallel ones malignant in 86, 62 and 69 %. Rahbar et al., Radiology 213:889 (1999) agree. The shares
of the families and all other numbers are our own estimates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ultraad.errors import ConfigError

Label = Literal["normal", "benign", "malignant"]
LABELS: tuple[Label, ...] = ("normal", "benign", "malignant")

SHAPES = ("oval", "round", "irregular")
ORIENTATIONS = ("parallel", "not parallel")
MARGINS = ("circumscribed", "indistinct", "angular", "microlobulated", "spiculated")
ECHO_PATTERNS = ("anechoic", "hyperechoic", "complex cystic and solid", "hypoechoic", "isoechoic", "heterogeneous")
POSTERIOR_FEATURES = ("no posterior features", "enhancement", "shadowing", "combined pattern")


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a radiologist would report about one lesion.

    Attributes:
        family: The simulated pathology, a key of :data:`FAMILIES`.
        shape: One of :data:`SHAPES`.
        orientation: One of :data:`ORIENTATIONS`; a round mass is reported as parallel.
        margin: One of :data:`MARGINS`.
        echo: One of :data:`ECHO_PATTERNS`, relative to subcutaneous fat.
        posterior: One of :data:`POSTERIOR_FEATURES`.
        calcifications: Echogenic foci in the lesion.
        halo: An echogenic halo around the lesion.
    """

    family: str
    shape: str
    orientation: str
    margin: str
    echo: str
    posterior: str
    calcifications: bool = False
    halo: bool = False

    def __post_init__(self) -> None:
        """Check the words against the lexicon.

        Raises:
            ConfigError: If a value is not in the lexicon.
        """
        for name, allowed in LEXICON.items():
            if getattr(self, name) not in allowed:
                msg = f"{name} {getattr(self, name)!r} is not in the lexicon; choose one of: {', '.join(allowed)}"
                raise ConfigError(msg)

    @property
    def label(self) -> Label:
        """Class of the family."""
        return FAMILIES[self.family].label


@dataclass(frozen=True, slots=True)
class Family:
    """A pathology: how often each attribute occurs, and how large the lesions are.

    Attributes:
        label: ``"benign"`` or ``"malignant"``.
        share: Share of the family within its class.
        width_mm: Median of the longest diameter, log-normal.
        spread: Standard deviation of the logarithm of the diameter.
        shape, orientation, margin, echo, posterior: Weights in the order of the lexicon.
        calcifications, halo: Probabilities.
    """

    label: Label
    share: float
    width_mm: float
    spread: float
    shape: tuple[float, ...]
    orientation: tuple[float, ...]
    margin: tuple[float, ...]
    echo: tuple[float, ...]
    posterior: tuple[float, ...]
    calcifications: float = 0.0
    halo: float = 0.0


# Cysts and fibroadenomas are the commonest benign masses; palpable cancers are about 2 cm wide.
# Per family: label, share, diameter and its spread; weights of shape, orientation, margin; of echo pattern, posterior.
FAMILIES: Mapping[str, Family] = {
    "simple cyst": Family(
        "benign", 0.24, 13, 0.55, (0.62, 0.38, 0), (0.93, 0.07), (1, 0, 0, 0, 0),
        (1, 0, 0, 0, 0, 0), (0.18, 0.82, 0, 0),
    ),
    "complicated cyst": Family(
        "benign", 0.10, 13, 0.50, (0.68, 0.30, 0.02), (0.90, 0.10), (0.88, 0.06, 0, 0.06, 0),
        (0.10, 0, 0, 0.75, 0.05, 0.10), (0.45, 0.55, 0, 0),
    ),
    "fibroadenoma": Family(
        "benign", 0.36, 15, 0.45, (0.84, 0.10, 0.06), (0.93, 0.07), (0.80, 0.07, 0.02, 0.11, 0),
        (0, 0.02, 0, 0.76, 0.16, 0.06), (0.64, 0.28, 0.06, 0.02), 0.08,
    ),
    "lipoma": Family(
        "benign", 0.06, 17, 0.45, (0.95, 0.05, 0), (0.98, 0.02), (0.90, 0.10, 0, 0, 0),
        (0, 0.50, 0, 0.05, 0.45, 0), (0.88, 0.10, 0.02, 0),
    ),
    "hamartoma": Family(
        "benign", 0.04, 22, 0.40, (0.95, 0.05, 0), (0.98, 0.02), (0.85, 0.15, 0, 0, 0),
        (0, 0.10, 0, 0.05, 0.15, 0.70), (0.75, 0.10, 0.10, 0.05),
    ),
    "papilloma": Family(
        "benign", 0.06, 11, 0.45, (0.62, 0.20, 0.18), (0.80, 0.20), (0.62, 0.14, 0.04, 0.20, 0),
        (0, 0, 0.45, 0.45, 0.10, 0), (0.60, 0.36, 0.04, 0), 0.05,
    ),
    "adenosis": Family(
        "benign", 0.07, 11, 0.45, (0.55, 0.08, 0.37), (0.78, 0.22), (0.35, 0.40, 0.08, 0.17, 0),
        (0, 0.03, 0, 0.77, 0.10, 0.10), (0.72, 0.08, 0.18, 0.02), 0.15,
    ),
    "fat necrosis or scar": Family(
        "benign", 0.04, 14, 0.45, (0.35, 0.10, 0.55), (0.65, 0.35), (0.22, 0.43, 0.20, 0.05, 0.10),
        (0.05, 0.20, 0.25, 0.30, 0.05, 0.15), (0.30, 0.15, 0.45, 0.10), 0.20, 0.10,
    ),
    "abscess": Family(
        "benign", 0.03, 21, 0.45, (0.40, 0.10, 0.50), (0.85, 0.15), (0.20, 0.60, 0.10, 0.10, 0),
        (0.05, 0, 0.45, 0.25, 0, 0.25), (0.20, 0.75, 0.03, 0.02), 0.0, 0.25,
    ),
    "invasive carcinoma": Family(
        "malignant", 0.52, 19, 0.45, (0.07, 0.05, 0.88), (0.50, 0.50), (0.02, 0.24, 0.20, 0.14, 0.40),
        (0, 0.01, 0.04, 0.80, 0.03, 0.12), (0.36, 0.05, 0.52, 0.07), 0.27, 0.35,
    ),
    "lobular carcinoma": Family(
        "malignant", 0.11, 22, 0.45, (0.04, 0.02, 0.94), (0.60, 0.40), (0.02, 0.48, 0.16, 0.04, 0.30),
        (0, 0.03, 0, 0.67, 0.10, 0.20), (0.28, 0.02, 0.65, 0.05), 0.08, 0.25,
    ),
    "circumscribed carcinoma": Family(  # triple-negative, medullary-like, mucinous
        "malignant", 0.17, 20, 0.45, (0.38, 0.22, 0.40), (0.68, 0.32), (0.34, 0.18, 0.10, 0.38, 0),
        (0, 0, 0.10, 0.70, 0.08, 0.12), (0.46, 0.44, 0.06, 0.04), 0.10, 0.08,
    ),
    "papillary or cystic carcinoma": Family(
        "malignant", 0.07, 21, 0.45, (0.45, 0.20, 0.35), (0.72, 0.28), (0.38, 0.20, 0.10, 0.32, 0),
        (0, 0, 0.88, 0.08, 0, 0.04), (0.30, 0.60, 0.05, 0.05), 0.15, 0.05,
    ),
    "ductal carcinoma in situ": Family(
        "malignant", 0.13, 15, 0.45, (0.20, 0.05, 0.75), (0.78, 0.22), (0.06, 0.42, 0.12, 0.38, 0.02),
        (0, 0.01, 0.05, 0.74, 0.12, 0.08), (0.78, 0.05, 0.15, 0.02), 0.60, 0.08,
    ),
}  # fmt: skip

LEXICON: Mapping[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "orientation": ORIENTATIONS,
    "margin": MARGINS,
    "echo": ECHO_PATTERNS,
    "posterior": POSTERIOR_FEATURES,
    "family": tuple(FAMILIES),
}


def _pick(rng: np.random.Generator, words: tuple[str, ...], weights: tuple[float, ...]) -> str:
    total = sum(weights)
    return words[int(rng.choice(len(words), p=[w / total for w in weights]))]


def draw_attributes(rng: np.random.Generator, label: str, *, family: str | None = None) -> Attributes:
    """Draw a lesion of a class.

    Args:
        rng: Random generator.
        label: ``"benign"`` or ``"malignant"``.
        family: Key of :data:`FAMILIES`; None draws one according to the shares.

    Raises:
        ConfigError: If there is no such family in this class.
    """
    names = tuple(name for name, f in FAMILIES.items() if f.label == label)
    if family is None and names:
        family = _pick(rng, names, tuple(FAMILIES[name].share for name in names))
    if family not in names:
        msg = f"there is no {label} family {family!r}; choose one of: {', '.join(sorted(names))}"
        raise ConfigError(msg)
    f = FAMILIES[family]
    drawn = {name: _pick(rng, LEXICON[name], getattr(f, name)) for name in LEXICON if name != "family"}
    if drawn["shape"] == "round":
        drawn["orientation"] = "parallel"
    if drawn["margin"] == "spiculated":  # spicules make any outline irregular
        drawn["shape"] = "irregular"
    return Attributes(
        family=family,
        calcifications=bool(rng.random() < f.calcifications),
        halo=bool(rng.random() < f.halo),
        **drawn,
    )
