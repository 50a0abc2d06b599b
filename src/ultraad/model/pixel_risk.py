"""A pixel threshold that misses at most a stated share of a lesion's pixels, on average over lesions.

fnr=0.2    The highest threshold with (sum of the shares that held-out lesions miss + 1) / (lesions + 1) <= 0.2:
           conformal risk control (Angelopoulos et al., ICLR 2024). New images are drawn by the final method, the
           held-out ones by those of the folds, as in :mod:`.prediction_sets`.

The share of missed pixels is the false-negative rate of the map inside a lesion, whatever the image score says. How
much healthy tissue the threshold marks is not promised.
"""

from __future__ import annotations

import math
import re

from ultraad.config import Strict, shortened
from ultraad.errors import ConfigError
from ultraad.metrics.conformal import risk_threshold
from ultraad.model.calibration import Calibration, held_out_of


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


def parse(text: str) -> float:
    """The share of a lesion's pixels that may be missed, from ``fnr=0.2``.

    Raises:
        ConfigError: If it is something else, or the share is not in (0, 1).
    """
    found = re.fullmatch(r"fnr=(\d*\.?\d+)", text)
    if found is None or not 0 < float(found[1]) < 1:
        msg = (
            f"operating point {shortened(repr(text))}: wanted fnr=SHARE with the share of a lesion's pixels that may "
            "be missed, above 0 and below 1, such as fnr=0.2"
        )
        raise ConfigError(msg)
    return float(found[1])


def pixel_point(calibration: Calibration, wanted: str) -> PixelPoint:
    """Fit a pixel threshold on the held-out lesions of the support set.

    Args:
        calibration: Of any model.
        wanted: As in :func:`parse`.

    Raises:
        ConfigError: If it is no such share, or there are too few held-out lesions with maps and masks to promise it.
    """
    level = parse(wanted)
    images = held_out_of(calibration, f"operating point {wanted}", instead="give a pixel threshold instead")
    lesions = [one.lesion_map for one in images if one.lesion_map is not None]
    if not lesions:
        msg = (
            f"operating point {wanted}: there are no maps of held-out lesions, because the method draws none, no "
            "support image has a mask, or an earlier version saved the model; adapt again, or give a pixel threshold"
        )
        raise ConfigError(msg)
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
