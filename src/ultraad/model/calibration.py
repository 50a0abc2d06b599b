"""Thresholds and a first estimate of accuracy from the support set alone, by cross-validation.

Each fold is held out in turn: a new method is fitted on the rest with the same seed and scores the held-out images. The
out-of-fold scores give the thresholds that are stored with the model. They come from methods fitted on fewer images
than the final one, so the estimates are slightly pessimistic. Evaluated data is never used.

With normal images only, the thresholds are quantiles of the out-of-fold scores; with lesions only, the image threshold
stays at 0.5, as without images.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ultraad.config import Strict
from ultraad.data.loader import lesion_of
from ultraad.errors import ConfigError
from ultraad.metrics import threshold
from ultraad.metrics.catalogue import METRICS
from ultraad.metrics.froc import false_levels
from ultraad.metrics.summary import Evaluation
from ultraad.metrics.threshold import Threshold
from ultraad.model.probabilities import Scaling
from ultraad.model.probabilities import fit as fit_scaling
from ultraad.model.shift import Transfer
from ultraad.rng import seeded
from ultraad.types import Batch, Prediction, Sample

if TYPE_CHECKING:
    from ultraad.methods._base import Method
    from ultraad.model.checkpoint import Checkpoints

_log = logging.getLogger(__name__)

SHARES = tuple(k / 32 for k in range(33))
"""Of the pixels of a lesion: the quantiles of its map values that are stored."""
FIXED = 0.5
"""Threshold where none could be fitted: scores and maps are probabilities."""

LONG_FOLDS = 2
"""Folds of a method that trains for minutes, unless the user asks for others."""

_ESTIMATES = (*(s.key for s in METRICS.values() if s.main), "benign_malignant_auroc", "balanced_accuracy")


class CalibrationConfig(Strict):
    """How thresholds are fitted. Given as ``calibration.<key>`` with the options of a method."""

    folds: int = Field(
        default=4,
        ge=2,
        description="held-out parts; as many as images per class leaves one out; 2 for methods that train for minutes",
    )
    rule: Literal["youden", "f1"] = Field(default="youden", description="what the image threshold maximises")
    quantile: float = Field(
        default=0.95, gt=0, lt=1, description="normal images only: share of held-out images below the threshold (ours)"
    )
    pixel_quantile: float = Field(
        default=0.99,
        gt=0,
        lt=1,
        description="normal images only: the same for pixels (rule: Bergmann et al., IJCV 2021; value: ours)",
    )


class Estimate(Strict):
    """One out-of-fold number with its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int


class HeldOut(Strict):
    """One support image, scored by a method that was fitted without it.

    Attributes:
        id: Sample id.
        score: Anomaly score.
        anomalous: True for lesion.
        group: Patient; None if unknown.
        label: Class; None in models of earlier versions.
        probs: {class: probability} as the method gave them; None if it does not grade, and in models of earlier
            versions.
        lesion_map: Quantiles of the map inside the lesion at :data:`SHARES`; None without map or mask, and in models of
            earlier versions.
        false_lesions: The highest thresholds at which the map has more than 0, 1 and 2 false lesions, -1 if there is
            none (:func:`ultraad.metrics.froc.false_levels`); None without map or mask, and in models of earlier
            versions.
    """

    id: str
    score: float
    anomalous: bool
    group: str | None = None
    label: str | None = None
    probs: dict[str, float] | None = None
    lesion_map: tuple[float, ...] | None = None
    false_lesions: tuple[float, ...] | None = None


class Calibration(Strict):
    """The result of calibration, stored in every saved model.

    Attributes:
        image_threshold: An image is abnormal if its score is at least this.
        pixel_threshold: A pixel is lesion if its map value is at least this; None without maps.
        rule: How the thresholds were found.
        folds: Number of folds; 0 if there was no cross-validation.
        grouped: True if no patient was on both sides of a fold.
        images: Number of images that were scored out of fold.
        estimates: {metric: out-of-fold value}.
        notes: Notes for users.
        held_out: The scores behind all this, so that any other threshold can be judged later
            (:mod:`ultraad.model.operating_point`); empty without folds, and in models of earlier versions.
        scaling: How class probabilities are scaled (:mod:`ultraad.model.probabilities`); None without folds, if a class
            has no image, if the method does not grade, and in models of earlier versions.
        transfer: How the image threshold was moved to another scanner; None: it was not.
    """

    image_threshold: float
    pixel_threshold: float | None
    rule: str
    folds: int = 0
    grouped: bool = False
    images: int = 0
    estimates: dict[str, Estimate] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    held_out: tuple[HeldOut, ...] = ()
    scaling: Scaling | None = None
    transfer: Transfer | None = None


def held_out_of(calibration: Calibration, what: str, *, instead: str) -> tuple[HeldOut, ...]:
    """The held-out support images of a model.

    Args:
        calibration: Of any model.
        what: What needs them, for messages.
        instead: What to do without them, for messages.

    Raises:
        ConfigError: If there are none.
    """
    if calibration.held_out:
        return calibration.held_out
    if calibration.folds:
        why = "this model was saved by an earlier version, without its held-out scores"
        msg = f"{what}: {why}. Adapt again, or {instead}"
        raise ConfigError(msg)
    why = calibration.notes[0] if calibration.notes else "no image was held out"
    msg = f"{what}: there are no held-out scores to fit it on ({why}). {instead[:1].upper()}{instead[1:]}"
    raise ConfigError(msg)


def fixed(*, has_map: bool, note: str) -> Calibration:
    """Thresholds at 0.5, with a note that says why."""
    return Calibration(
        image_threshold=FIXED, pixel_threshold=FIXED if has_map else None, rule=f"fixed at {FIXED}", notes=(note,)
    )


def cross_validate(
    make: Callable[[], Method],
    support: Batch,
    samples: Sequence[Sample],
    *,
    config: CalibrationConfig,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> Calibration:
    """Cross-validate on the support set.

    Args:
        make: Returns a new, unfitted method.
        support: The labelled support.
        samples: Its samples, in the same order; masks are compared on the original pixel grid.
        config: Folds and rule.
        seed: Of the folds and of every fit.
        progress: Called with (folds done, folds); of a method that trains for minutes, with hundredths of a fold.
        checkpoints: Where such a method keeps its trainings.

    Returns:
        Thresholds and estimates; thresholds at 0.5, with a note, if the support is too small to be split.
    """
    method = make()
    has_map = "map" in method.info.outputs
    labels = [] if support.labels is None else support.labels.tolist()
    parts = folds(labels, support.groups, count=config.folds, seed=seed)
    if not parts:
        note = "too few images or patients in one class to hold any out, so thresholds are not fitted"
        return fixed(has_map=has_map, note=note)

    predictions: dict[int, Prediction] = {}
    unit = 100 if method.long else 1
    tell = progress or (lambda _done, _total: None)
    for done, part in enumerate(parts):
        rest = sorted(set(range(len(support))) - set(part))
        method = make()
        if method.long:
            method.progress = partial(_within, tell, done * unit, len(parts) * unit)
            method.checkpoint = checkpoints.of(f"fold-{done + 1}") if checkpoints else None
        method.fit(support.select(rest), seed=seed)
        held_out = method.predict(support.select(part).unlabelled())
        predictions.update(zip(part, held_out, strict=True))
        tell((done + 1) * unit, len(parts) * unit)

    order = sorted(predictions)
    anomalous = [labels[i] != method.normal_index for i in order]
    known = [support.mask_known is not None and bool(support.mask_known[i]) for i in range(len(support))]
    masks = {i: lesion_of(samples[i], support.geometry[i].original_hw) for i in order if known[i]}
    for i, truth in zip(order, anomalous, strict=True):
        if not truth and i not in masks:  # a normal image needs none, as in an evaluation
            masks[i] = np.zeros(support.geometry[i].original_hw, dtype=np.bool_)
    maps = {i: m for i in order if (m := predictions[i].map) is not None}
    pairs = [(maps[i], masks[i]) for i in order if i in maps and i in masks]
    image, pixel, rule, notes = _thresholds(config, [predictions[i].score for i in order], anomalous, pairs)
    image_threshold = FIXED if image.value is None else image.value
    pixel_threshold = (FIXED if pixel.value is None else pixel.value) if has_map else None
    notes += [
        f"image threshold {image.note}" if image.note else "",
        f"pixel threshold {pixel.note}" if pixel.note else "",
    ]
    return Calibration(
        image_threshold=image_threshold,
        pixel_threshold=pixel_threshold,
        rule=rule,
        folds=len(parts),
        grouped=any(g is not None for g in support.groups),
        images=len(order),
        estimates=_estimates(method, support, predictions, masks, seed=seed),
        notes=tuple(filter(None, notes)),
        held_out=tuple(
            HeldOut(
                id=support.ids[i],
                score=predictions[i].score,
                anomalous=truth,
                group=support.groups[i] if support.groups else None,
                label=method.classes[labels[i]],
                probs=predictions[i].probs,
                lesion_map=_quantiles(maps.get(i), masks.get(i)),
                false_lesions=false_levels(maps[i], masks[i]) if i in maps and i in masks else None,
            )
            for i, truth in zip(order, anomalous, strict=True)
        ),
        scaling=_scaling(method, [predictions[i] for i in order], [labels[i] for i in order], _places(parts, order)),
    )


def _within(tell: Callable[[int, int], None], before: int, total: int, done: int, epochs: int) -> None:
    """Progress inside a fold, in hundredths of it."""
    tell(before + 100 * done // epochs, total)


def _quantiles(found: NDArray[np.float32] | None, mask: NDArray[np.bool_] | None) -> tuple[float, ...] | None:
    """Map values inside a lesion: less than each of :data:`SHARES` of its pixels are below; None without them."""
    if found is None or mask is None or not mask.any():
        return None
    values = np.quantile(found[mask], SHARES, method="inverted_cdf").astype(np.float64)
    return tuple((np.floor(values * 1e6) / 1e6).tolist())


def _places(parts: Sequence[Sequence[int]], order: Sequence[int]) -> list[list[int]]:
    """Each part as places in ``order``."""
    at = {i: place for place, i in enumerate(order)}
    return [[at[i] for i in part] for part in parts]


def _scaling(
    method: Method, predictions: Sequence[Prediction], labels: Sequence[int], parts: Sequence[Sequence[int]]
) -> Scaling | None:
    """The scaling of class probabilities; None if the method does not grade."""
    probs = [p.probs for p in predictions if p.probs is not None]
    if len(probs) < len(predictions):
        return None
    return fit_scaling([[p[c] for c in method.classes] for p in probs], labels, parts, classes=method.classes)


def _thresholds(
    config: CalibrationConfig,
    scores: Sequence[float],
    anomalous: Sequence[bool],
    pairs: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]],
) -> tuple[Threshold, Threshold, str, list[str]]:
    """Image and pixel threshold from out-of-fold scores and (map, mask) pairs; the rule, and notes for users."""
    if not any(anomalous):
        image = threshold.at_specificity(scores, anomalous, specificity=config.quantile)
        pixel = threshold.pixel_quantile((found for found, _ in pairs), quantile=config.pixel_quantile)
        rule = f"{config.quantile:g} quantile of the scores of {len(scores)} held-out normal images"
        rule += f", {config.pixel_quantile:g} quantile of their pixels" if pairs else ""
        return image, pixel, rule, ["the thresholds come from normal images alone: no sensitivity is known"]
    pixel = threshold.pixel_dice(pairs)
    dice = "mean lesion Dice on out-of-fold support images"
    if all(anomalous):
        rule = f"image: fixed at {FIXED}, as no support image is normal; pixel: {dice}"
        note = f"no support image is normal: the image threshold stays at {FIXED}; check it on normal images"
        return Threshold(None, "fixed", len(scores)), pixel, rule, [note]
    return getattr(threshold, config.rule)(scores, anomalous), pixel, f"{config.rule} and {dice}", []


def _estimates(
    method: Method,
    support: Batch,
    predictions: dict[int, Prediction],
    masks: dict[int, NDArray[np.bool_]],
    *,
    seed: int,
) -> dict[str, Estimate]:
    """Threshold-free metrics only: metrics at thresholds fitted on the same scores would be too optimistic."""
    evaluation = Evaluation(method.classes, method.normal_class)
    assert support.labels is not None  # folds exist only for labelled images
    for i, p in sorted(predictions.items()):
        label = method.classes[int(support.labels[i])]
        group = support.groups[i] if support.groups else None
        evaluation.add(
            id=f"{i}/{p.id}",
            score=p.score,
            anomalous=None,
            map=p.map,
            mask=masks.get(i),
            probs=p.probs,
            label=label,
            group=group,
        )
    metrics = evaluation.result(seed=seed)["metrics"]
    found = {key: metrics[key] for key in _ESTIMATES if key in metrics and metrics[key]["value"] is not None}
    return {key: Estimate(value=m["value"], low=m["low"], high=m["high"], n=m["n"]) for key, m in found.items()}


def folds(labels: Sequence[int], groups: Sequence[str | None], *, count: int, seed: int) -> list[list[int]]:
    """Split positions into folds: patients stay together, and classes are spread evenly.

    Patients are assigned from the one with most images to the one with fewest, in random order among equals, each to
    the fold where its classes are rarest so far.

    Args:
        labels: Label number of each image; an image with a negative one is in no fold.
        groups: Patient of each image, None where unknown (then the image is its own patient); may be empty.
        count: Number of folds; fewer if a class has fewer patients.
        seed: Of the random order.

    Returns:
        At least two folds, none empty, such that every class also occurs outside each of them; or an empty list if the
        images do not allow that.
    """
    members: dict[Hashable, list[int]] = {}
    for i, label in enumerate(labels):
        if label >= 0:
            group = groups[i] if groups else None
            members.setdefault(("image", i) if group is None else ("group", group), []).append(i)
    patients = Counter(label for m in members.values() for label in {labels[i] for i in m})
    count = min(count, min(patients.values(), default=0))
    if count < 2:
        return []
    units = list(members.values())
    order = [units[i] for i in seeded(seed, "calibration").permutation(len(units))]
    parts: list[list[int]] = [[] for _ in range(count)]
    tallies: list[Counter[int]] = [Counter() for _ in range(count)]
    for unit in sorted(order, key=len, reverse=True):
        kinds = Counter(labels[i] for i in unit)
        target = min(range(count), key=lambda p: (sum(tallies[p][k] * n for k, n in kinds.items()), len(parts[p]), p))
        parts[target] += unit
        tallies[target] += kinds
    total = sum(tallies, Counter[int]())
    complete = all(part and all(total[k] > tally[k] for k in total) for part, tally in zip(parts, tallies, strict=True))
    return [sorted(part) for part in parts] if complete else []
