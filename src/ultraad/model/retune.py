"""A model that knows another scanner by unlabelled images of it: its image threshold is moved by their scores.

How the images differ is kept, too, for prediction sets under this shift (:mod:`ultraad.model.shift`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from pathlib import Path
from typing import Literal

from ultraad.data.fans import in_fans
from ultraad.data.samples import samples_of
from ultraad.errors import ConfigError, DataError
from ultraad.fan import FanChoice
from ultraad.model.calibration import held_out_of
from ultraad.model.model import Model
from ultraad.model.operating_point import operating_point as fitted
from ultraad.model.probabilities import check_prevalence
from ultraad.model.shift import Shift, Transfer, shift_of
from ultraad.model.transfer import WAYS, Way, interval, moved
from ultraad.types import Sample

FEWEST = 20
"""Images of the new scanner: with fewer, shift and scale of their scores are chance."""


def retune(
    model: Model,
    images: str | Path | Iterable[str | Path | Sample],
    *,
    way: Way | Literal["keep"] = "mixture",
    operating_point: str | None = None,
    prevalence: float | None = None,
    fan: FanChoice | None = None,
    seed: int = 0,
    batch_size: int = 8,
    on_error: Callable[[Sample, DataError], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Model:
    """Move the image threshold of a model to the scanner of some unlabelled images; nothing else is changed.

    Their labels are not looked at, even if there are any. Images out of scope are left out.

    Args:
        model: Adapted on normal and lesion images, with held-out scores.
        images: A file, a folder or a pattern, or several of them; or samples. At least :data:`FEWEST`.
        way: ``"mixture"``, ``"quantile"`` or ``"moments"`` (:mod:`ultraad.model.transfer`); ``"keep"``: the threshold
            stays, and only the shift is kept.
        operating_point: ``"sens=0.95"``, ``"spec=0.90"`` or ``"youden"``, fitted on the held-out scores before it is
            moved; None moves the stored threshold.
        prevalence: Share of the images that show a lesion, in (0, 1); None: that of the support set.
        fan: As in :func:`ultraad.predict`.
        seed: Of the resamples behind the interval.
        batch_size: Images per forward pass.
        on_error: Called for each image that cannot be used, which is then left out; None raises.
        progress: Called with (images done, images).

    Returns:
        Another model, with a record of the move (:class:`~ultraad.model.calibration.Transfer`).

    Raises:
        ConfigError: If the model was moved before, lacks held-out scores of either kind, or an option is out of range.
        DataError: If too few images can be used.
    """
    calibration = model.calibration
    held_out = held_out_of(calibration, "retune", instead="use the model as it is")
    normal = [one.score for one in held_out if not one.anomalous]
    lesion = [one.score for one in held_out if one.anomalous]
    _check(model, normal, lesion, way, prevalence)
    before = calibration.image_threshold
    rule = "the stored threshold"
    if operating_point is not None:
        point = fitted(calibration, operating_point)
        before, rule = point.threshold, point.rule
    wanted = [images] if isinstance(images, (str, Path)) else list(images)
    fan = model.chosen_fan(fan)
    samples = in_fans(samples_of(wanted), fan)
    scores, distances, outside = list[float](), list[float | None](), 0
    found = model.predict_many(samples, fan=fan, batch_size=batch_size, on_error=on_error)
    for done, result in enumerate(found, start=1):
        outside += result.prediction.out_of_scope
        if not result.prediction.out_of_scope:
            scores.append(result.prediction.score)
            distances.append(result.prediction.in_scope.distance if result.prediction.in_scope is not None else None)
        if progress is not None:
            progress(done, len(samples))
    if len(scores) < FEWEST:
        msg = (
            f"retune: {len(scores)} of {len(samples)} images can be used ({outside} out of scope), wanted at least "
            f"{FEWEST}; give more images of the new scanner"
        )
        raise DataError(msg)
    share = len(lesion) / len(held_out) if prevalence is None else prevalence
    value, low, high = before, before, before
    if way != "keep":
        value = moved(before, normal, lesion, scores, way=way, prevalence=share)
        low, high = interval(before, normal, lesion, scores, way=way, prevalence=share, seed=seed)
    record = Transfer(
        way=way,
        before=before,
        low=low,
        high=high,
        images=len(scores),
        prevalence=prevalence,
        rule=rule,
        shift=_shift(model, distances),
    )
    other = copy(model)
    other.calibration = calibration.model_copy(
        update={
            "image_threshold": value,
            "transfer": record,
            "rule": calibration.rule
            if way == "keep"
            else f"{calibration.rule}; image threshold moved to another scanner ({way})",
        }
    )
    return other


def _shift(model: Model, distances: list[float | None]) -> Shift | None:
    """How the images differ from the held-out support images; None if the model has no distances of these."""
    known = dict(zip((one.id for one, _ in model.support), model.scope.own_log_distances.tolist(), strict=False))
    own = [known.get(one.id) for one in model.calibration.held_out]
    if any(one is None for one in (*own, *distances)):
        return None
    return shift_of([one for one in own if one is not None], [one for one in distances if one is not None])


def _check(
    model: Model, normal: list[float], lesion: list[float], way: Way | Literal["keep"], prevalence: float | None
) -> None:
    if model.calibration.transfer is not None:
        msg = "retune: the threshold of this model was moved to another scanner before; retune the model it came from"
        raise ConfigError(msg)
    if way not in (*WAYS, "keep"):
        msg = f"retune: way {way!r}: wanted one of {', '.join((*WAYS, 'keep'))}"
        raise ConfigError(msg)
    for noun, scores in (("normal", normal), ("lesion", lesion)):
        if not scores:
            msg = (
                f"retune: no {noun} image was held out of the support set, so its scores cannot be compared with those "
                "of another scanner; adapt on normal and lesion images"
            )
            raise ConfigError(msg)
    check_prevalence(prevalence)
