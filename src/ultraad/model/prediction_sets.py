"""Prediction sets: every class that an image may be, so that the true one is among them with a stated probability.

A class is in the set if the image is no more unlike it than a quantile of the held-out support images is unlike their
own classes (:mod:`ultraad.metrics.conformal`). These were scored by methods that were fitted without them: calibrating
on the scores of the final method, which has seen its support images, promises nothing (arXiv 2506.17503).

0.9          of all images, where the classes are as frequent as in the support set
class=0.9    of the images of each class, at any frequency; needs more images
shift=0.9    of the images of the scanner that the model was retuned to (:mod:`ultraad.model.retune`): the held-out
             images count by likelihood ratios (:mod:`ultraad.model.shift`; Tibshirani et al., NeurIPS 2019). It holds
             if the ratios are right and the classes of like images are as probable there; it costs effective images

New images are scored by the final method, which is fitted on more images than the methods of the folds. CV+ would keep
all of those, and is a theorem; with the final method the promise holds if it scores new images as they do (Steinberger
and Leeb, Annals of Statistics 51:290, 2023). The methods of the folds know less, so in practice the sets are too large
rather than too small; docs/trust.md has simulations and measurements.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ultraad.config import shortened
from ultraad.errors import ConfigError
from ultraad.metrics.conformal import best_level, quantile, weighted_quantile
from ultraad.model.calibration import Calibration, HeldOut, held_out_of
from ultraad.model.shift import Shift


@dataclass(frozen=True, slots=True)
class Weighted:
    """Held-out images that count by how frequent their like is on another scanner.

    Attributes:
        own: How unlike its own class each is.
        shift: Their likelihood ratios, and those of new images.
        level: Wanted coverage.
    """

    own: tuple[float, ...]
    shift: Shift
    level: float

    def most(self, distance: float | None) -> float:
        """The most that an image at this log distance may be unlike a class; infinite if that is not known."""
        if distance is None:
            return math.inf
        weight = float(self.shift.ratio([distance])[0])
        return weighted_quantile(self.own, self.shift.ratio(self.shift.distances), weight, self.level)


@dataclass(frozen=True, slots=True)
class PredictionSets:
    """How the sets of a model are made.

    Attributes:
        most: {class: the most that an image may be unlike it, as 1 - probability}.
        note: What the held-out support images promise.
        weighted: How the most depends on an image, in place of ``most``; None: it does not.
    """

    most: Mapping[str, float]
    note: str
    weighted: Weighted | None = None

    def __call__(self, probs: Mapping[str, float], *, distance: float | None = None) -> tuple[str, ...]:
        """The set of an image, in label order; it may be empty, if the image is unlike every class.

        Args:
            probs: {class: probability} as the method gives them, neither scaled nor moved to a prevalence.
            distance: ``InScope.distance`` of the image, for weighted sets; None names every class then.
        """
        if self.weighted is not None:
            most = self.weighted.most(distance)
            return tuple(name for name, p in probs.items() if 1 - p <= most)
        return tuple(name for name, p in probs.items() if 1 - p <= self.most[name])


def parse(text: str) -> tuple[float, str]:
    """(level, what it is promised for: ``""``, ``"class"`` or ``"shift"``) from ``0.9``, ``class=0.9``, ``shift=0.9``.

    Raises:
        ConfigError: If it is none of these, or the level is not in (0, 1).
    """
    found = re.fullmatch(r"(?:(class|shift)=)?(\d*\.?\d+)", text)
    if found is None or not 0 < float(found[2]) < 1:
        msg = (
            f"sets {shortened(repr(text))}: wanted the share of sets that hold the true class, above 0 and below 1, "
            "such as 0.9 for all images, class=0.9 for those of each class, or shift=0.9 for those of another scanner"
        )
        raise ConfigError(msg)
    return float(found[2]), found[1] or ""


def sets_of(calibration: Calibration, wanted: str, *, classes: Sequence[str]) -> PredictionSets:
    """The prediction sets of a model.

    Args:
        calibration: Of any model.
        wanted: As in :func:`parse`.
        classes: Class names in label order.

    Raises:
        ConfigError: If ``wanted`` is no level, the model does not grade, no support image of a class was held out, or
            so few that they cannot promise this level; or if a shift is wanted and the model was not retuned.
    """
    level, kind = parse(wanted)
    by_class = kind == "class"
    images = held_out_of(calibration, f"sets {wanted}", instead="leave it out")
    if any(one.probs is None for one in images):
        earlier = any(one.label is None for one in images)
        why = "was saved by an earlier version; adapt again" if earlier else "does not grade; leave them out"
        msg = f"sets {wanted}: there are no held-out class probabilities, because this model {why}"
        raise ConfigError(msg)
    own = {name: [_own(one) for one in images if one.label == name] for name in classes}
    if empty := [name for name, values in own.items() if not values]:
        msg = f"sets {wanted}: no support image of {', '.join(empty)} was held out; adapt on images of every class"
        raise ConfigError(msg)
    if kind == "shift":
        return _under_shift(calibration, wanted, level)
    fewest = min(own, key=lambda name: len(own[name]))
    n = len(own[fewest]) if by_class else len(images)
    whose = f" of {fewest}" if by_class else ""
    if level > best_level(n) + 1e-9:
        msg = (
            f"sets {wanted}: with {n} held-out images{whose} no promise above {math.floor(100 * best_level(n))} % can "
            f"be made; choose a lower level, or adapt on at least {math.ceil(level / (1 - level) - 1e-9)}"
        )
        raise ConfigError(msg)
    every = quantile([value for values in own.values() for value in values], level)
    most = {name: quantile(values, level) if by_class else every for name, values in own.items()}
    return PredictionSets(most, _promise(level, n, whose, images))


def _under_shift(calibration: Calibration, wanted: str, level: float) -> PredictionSets:
    """Weighted sets, for the scanner that the model was retuned to."""
    shift = None if calibration.transfer is None else calibration.transfer.shift
    if shift is None:
        msg = (
            f"sets {wanted}: nothing is known of another scanner; run 'ultraad retune MODEL IMAGES -o NEW' with "
            "unlabelled images of it, and use the new model (--way keep leaves its threshold as it is)"
        )
        raise ConfigError(msg)
    n, best = len(shift.distances), best_level(shift.effective)
    worth = f"the {n} held-out images are worth {shift.effective:.1f} on the new scanner"
    if level > best + 1e-9:
        msg = (
            f"sets {wanted}: {worth}, since its images are unlike most of them, so no promise above "
            f"{math.floor(100 * best)} % can be made; choose a lower level, or adapt on images of that scanner"
        )
        raise ConfigError(msg)
    own = tuple(_own(one) for one in calibration.held_out)
    note = (
        f"prediction sets at {100 * level:g} % for the scanner that the model was retuned to: {worth}. They hold the "
        "true class so often, on average over support sets, if the likelihood ratios are right and the classes of like "
        "images are as probable there; neither is known without labels"
    )
    return PredictionSets({}, note, Weighted(own, shift, level))


def _own(one: HeldOut) -> float:
    """How unlike its own class an image is."""
    assert one.probs is not None  # checked by the caller
    assert one.label is not None
    return 1 - one.probs[one.label]


def _promise(level: float, n: int, whose: str, images: Sequence[HeldOut]) -> str:
    """What so many images promise: the coverage over new images is beta distributed (Vovk, ACML 2012)."""
    from scipy.special import betaincinv  # slow to import

    k = math.ceil((n + 1) * level - 1e-9)
    low, high = (100 * float(betaincinv(k, n + 1 - k, q)) for q in (0.025, 0.975))
    patients = {one.group if one.group is not None else ("image", one.id) for one in images}
    few = f"; the images show {len(patients)} patients, so less is sure" if len(patients) < len(images) else ""
    return (
        f"prediction sets at {100 * level:g} % rest on {n} held-out support images{whose}: the share of new images of "
        f"the same kind whose set holds the true class is between {np.floor(low):.0f} and {np.ceil(high):.0f} % (95 % "
        f"interval); on another scanner nothing is promised{few}"
    )
