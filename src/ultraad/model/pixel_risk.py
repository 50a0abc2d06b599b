"""Pixel thresholds with a promise: about what a map misses of a lesion, or about the lesions that it makes up.

fnr=0.2    The highest threshold with (sum of the shares that held-out lesions miss + 1) / (lesions + 1) <= 0.2:
           conformal risk control (Angelopoulos et al., ICLR 2024).
fppi=0.5   The lowest threshold with (sum of the false lesions of held-out images + 3) / (images + 1) <= 0.5, the same
           theorem from the other side. At most 3 of an image count, and the number at a threshold is the largest at
           any higher one, so that it only falls. False lesions are those of FROC (:mod:`ultraad.metrics.froc`).

New images are drawn by the final method, the held-out ones by those of the folds, as in :mod:`.prediction_sets`.

The share of missed pixels is the false-negative rate of the map inside a lesion, whatever the image score says. The one
promises nothing about healthy tissue, the other nothing about lesions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from ultraad.config import Strict, shortened
from ultraad.errors import ConfigError
from ultraad.metrics.conformal import count_threshold, risk_threshold
from ultraad.metrics.froc import COUNTED, STEPS
from ultraad.model.calibration import Calibration, HeldOut, held_out_of


class PixelPoint(Strict):
    """A pixel threshold, and how it was found.

    Attributes:
        threshold: A pixel is lesion if its map value is at least this.
        rule: How it was found, e.g. ``"fnr<=0.2 on 32 held-out lesions"``.
        note: What is promised, and what is not.
    """

    threshold: float
    rule: str
    note: str


def parse(text: str) -> tuple[str, float]:
    """(``"fnr"`` or ``"fppi"``, the share or number) from ``fnr=0.2`` or ``fppi=0.5``.

    Raises:
        ConfigError: If it is neither, the share is not in (0, 1), or the number not above 0 and below 3.
    """
    found = re.fullmatch(r"(fnr|fppi)=(\d*\.?\d+)", text)
    if found is None or not 0 < float(found[2]) < (1 if found[1] == "fnr" else COUNTED):
        msg = (
            f"operating point {shortened(repr(text))}: wanted fnr=SHARE with the share of a lesion's pixels that may "
            "be missed, above 0 and below 1, such as fnr=0.2; or fppi=NUMBER of false lesions per image, above 0 and "
            f"below {COUNTED}, such as fppi=0.5"
        )
        raise ConfigError(msg)
    return found[1], float(found[2])


def pixel_point(calibration: Calibration, wanted: str) -> PixelPoint:
    """Fit a pixel threshold on the held-out images of the support set.

    Args:
        calibration: Of any model.
        wanted: As in :func:`parse`.

    Raises:
        ConfigError: If it is no such risk, or there are too few held-out images with maps and masks to promise it.
    """
    kind, level = parse(wanted)
    images = held_out_of(calibration, f"operating point {wanted}", instead="give a pixel threshold instead")
    return (_missed if kind == "fnr" else _made_up)(images, wanted, level)


def _missed(images: Sequence[HeldOut], wanted: str, level: float) -> PixelPoint:
    """The threshold of a share of missed pixels."""
    lesions = [one.lesion_map for one in images if one.lesion_map is not None]
    if not lesions:
        raise ConfigError(_without_maps(wanted, "maps of held-out lesions"))
    n = len(lesions)
    found = risk_threshold(lesions, level=level)
    if found is None:
        msg = (
            f"operating point {wanted}: with {n} held-out lesions no promise below {math.ceil(100 / (n + 1))} % can be "
            f"made; choose a higher share, or adapt on at least {math.ceil(1 / level - 1e-9) - 1} lesions with masks"
        )
        raise ConfigError(msg)
    return PixelPoint(
        threshold=found[0],
        rule=f"fnr<={level:g} on {n} held-out lesions",
        note=f"of the pixels of a new lesion of the same kind, at most {100 * level:g} % are missed on average over "
        f"such support sets; of the {n} held-out lesions {100 * found[1]:.0f} % are. Nothing is promised on another "
        "scanner",
    )


def _made_up(images: Sequence[HeldOut], wanted: str, level: float) -> PixelPoint:
    """The threshold of a number of false lesions."""
    counts = [one.false_lesions for one in images if one.false_lesions is not None]
    if not counts:
        raise ConfigError(_without_maps(wanted, "maps of held-out images with known masks"))
    n = len(counts)
    found = count_threshold(counts, STEPS, level=level)
    if found is None:
        enough = math.ceil(COUNTED / level - 1e-9) - 1
        msg = (
            f"operating point {wanted}: with {n} held-out images no promise below {COUNTED / (n + 1):.2g} false "
            f"lesions per image can be made; choose a higher number, or adapt on at least {enough}"
            if n < enough
            else f"operating point {wanted}: at no threshold do the {n} held-out images have so few false lesions; "
            "choose a higher number"
        )
        raise ConfigError(msg)
    return PixelPoint(
        threshold=found[0],
        rule=f"fppi<={level:g} on {n} held-out images",
        note=f"a new image of the same kind has on average at most {level:g} false lesions, of which {COUNTED} count, "
        f"over such support sets; the {n} held-out images have {found[1]:.2g}. Nothing is promised about missed "
        "lesions, with another share of normal images, or on another scanner",
    )


def _without_maps(wanted: str, what: str) -> str:
    return (
        f"operating point {wanted}: there are no {what}, because the method draws none, no support image has a mask, "
        "or an earlier version saved the model; adapt again, or give a pixel threshold"
    )
