"""Other image thresholds than the stored one: fitted on the held-out scores of the support set, and judged by them.

Support sets are small, so every rate has its interval, and a rate that the images cannot resolve is named. The scores
come from methods fitted on fewer images than the model (:mod:`ultraad.model.calibration`). Evaluated data is never
used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ultraad.config import Strict, shortened
from ultraad.errors import ConfigError
from ultraad.metrics import threshold
from ultraad.metrics.threshold import rate_interval
from ultraad.model import pixel_risk
from ultraad.model.calibration import Calibration, Estimate, HeldOut, held_out_of


class OperatingPoint(Strict):
    """An image threshold, and what the held-out support images say about it.

    Attributes:
        threshold: An image is abnormal if its score is at least this.
        rule: How it was found, e.g. ``"sensitivity>=0.95 on 24 held-out support images"``.
        sensitivity: Share of the held-out lesion images that reach it; None without such images.
        specificity: Share of the held-out normal images that do not; None without such images.
        notes: What these images cannot show.
    """

    threshold: float
    rule: str
    sensitivity: Estimate | None = None
    specificity: Estimate | None = None
    notes: tuple[str, ...] = ()


def divided(text: str | None) -> tuple[str | None, str | None]:
    """(the operating point of images, that of pixels) of ``sens=0.95,fnr=0.2``, or of either alone.

    Raises:
        ConfigError: If one of them is none, or there are two of a kind.
    """
    parts = [] if text is None else [part.strip() for part in text.split(",")]
    pixel = [part for part in parts if part.startswith(("fnr", "fppi"))]
    image = [part for part in parts if part not in pixel]
    for point in image:
        parse(point)
    for point in pixel:
        pixel_risk.parse(point)
    if len(image) > 1 or len(pixel) > 1:
        msg = (
            f"operating point {shortened(repr(text))}: wanted at most one for images and one for pixels, such as "
            "sens=0.95,fnr=0.2"
        )
        raise ConfigError(msg)
    return next(iter(image), None), next(iter(pixel), None)


def parse(text: str) -> tuple[str, float | None]:
    """(``"sens"``, ``"spec"`` or ``"youden"``, the rate to keep) from ``sens=0.95``, ``spec=0.90`` or ``youden``.

    Raises:
        ConfigError: If it is none of these, or the rate is not in (0, 1].
    """
    if text == "youden":
        return text, None
    found = re.fullmatch(r"(sens|spec)=(\d*\.?\d+)", text)
    rate = float(found[2]) if found else 0.0
    if found is None or not 0 < rate <= 1:
        msg = (
            f"operating point {shortened(repr(text))}: wanted sens=RATE or spec=RATE with a rate in (0, 1], such as "
            "sens=0.95, or youden; for pixels fnr=SHARE or fppi=NUMBER"
        )
        raise ConfigError(msg)
    return found[1], rate


def operating_point(calibration: Calibration, wanted: str) -> OperatingPoint:
    """Fit an image threshold on the held-out scores of a calibration.

    Args:
        calibration: Of any model.
        wanted: ``sens=0.95``: the highest threshold that finds this share of the lesion images. ``spec=0.90``: the
            lowest one that passes this share of the normal images. ``youden``: the highest sensitivity + specificity.

    Raises:
        ConfigError: If ``wanted`` is none of these, there are no scores to fit it on, or they are of another scanner.
    """
    kind, rate = parse(wanted)
    if calibration.transfer is not None:
        msg = (
            f"operating point {wanted}: the threshold of this model was moved to another scanner, and its held-out "
            "scores are those of the first scanner; retune the model it came from with this operating point"
        )
        raise ConfigError(msg)
    held_out = held_out_of(calibration, f"operating point {wanted}", instead="give a threshold instead")
    scores, anomalous = [s.score for s in held_out], [s.anomalous for s in held_out]
    if rate is None:
        fitted = threshold.youden(scores, anomalous)
    elif kind == "sens":
        fitted = threshold.at_sensitivity(scores, anomalous, sensitivity=rate)
    else:
        fitted = threshold.at_specificity(scores, anomalous, specificity=rate)
    if fitted.value is None:
        msg = f"operating point {wanted} {fitted.note} in the support set; give a threshold instead"
        raise ConfigError(msg)
    rule = f"{fitted.rule} on {len(scores)} held-out support images"
    point = at(calibration, fitted.value, rule=rule)
    if rate is None:
        return point.model_copy(update={"notes": (*point.notes, _OPTIMISTIC)})
    estimate = point.sensitivity if kind == "sens" else point.specificity
    assert estimate is not None  # the threshold was fitted on these images
    return point.model_copy(update={"notes": (*_doubts(kind, rate, estimate), *point.notes)})


def at(calibration: Calibration, value: float, *, rule: str) -> OperatingPoint:
    """What the held-out support images say about any threshold; nothing without them, or for another scanner.

    Args:
        calibration: Of any model.
        value: The threshold.
        rule: How it was found.
    """
    known = calibration.held_out if calibration.transfer is None else ()
    lesions = [s for s in known if s.anomalous]
    normals = [s for s in known if not s.anomalous]
    return OperatingPoint(
        threshold=value,
        rule=rule,
        sensitivity=_rate([s.score >= value for s in lesions]),
        specificity=_rate([s.score < value for s in normals]),
        notes=tuple(note for kind in ((lesions, "lesion"), (normals, "normal")) for note in _few_patients(*kind)),
    )


_OPTIMISTIC = "the threshold maximises both rates on these images, so expect lower ones on new images"
_NOUNS = {"sens": "lesion", "spec": "normal"}


def _rate(hits: Sequence[bool]) -> Estimate | None:
    if not hits:
        return None
    low, high = rate_interval(sum(hits), len(hits))
    return Estimate(value=sum(hits) / len(hits), low=low, high=high, n=len(hits))


def _doubts(kind: str, rate: float, found: Estimate) -> list[str]:
    """What a kept rate does not promise."""
    images = f"{found.n} {_NOUNS[kind]} image{'s' * (found.n != 1)}"
    if found.n * (1 - rate) < 1 - 1e-9:  # not even one image may be on the wrong side
        return [f"{images} cannot resolve {rate:g}: one image is {1 / found.n:.3f} of the rate"]
    if found.low is not None and found.low < rate:
        return [f"{images} do not show that new images keep {rate:g}: the interval begins at {found.low:.3f}"]
    return []


def _few_patients(scores: Sequence[HeldOut], noun: str) -> list[str]:
    patients = len({("group", s.group) if s.group is not None else ("image", s.id) for s in scores})
    if patients == len(scores):
        return []
    return [f"the {len(scores)} {noun} images show {patients} patients, so the interval of their rate is too narrow"]
