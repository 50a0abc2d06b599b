"""Numbers of :mod:`perf.promises` from what a model said of each image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ultraad.errors import ConfigError
from ultraad.metrics.conformal import nonconformity, quantile
from ultraad.model.calibration import Calibration
from ultraad.model.model import Model
from ultraad.model.operating_point import operating_point
from ultraad.model.pixel_risk import pixel_point
from ultraad.model.prediction_sets import parse, sets_of
from ultraad.model.shift import Transfer, shift_of
from ultraad.model.transfer import WAYS, moved

LEVELS = ("0.9", "class=0.8", "class=0.9")
POINTS = ("sens=0.95", "youden")


def table_of(model: Model, images: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that is measured of one model on one data set."""
    c = model.calibration
    graded = [i for i in images if i["label"] in model.classes and i["probs"]]
    found: dict[str, Any] = {"sets": {w: _sets(c, w, model.classes, graded) for w in LEVELS}}
    found["sets, sum"] = _sums(c, "0.9", model.classes, graded)
    found["sets, shift"] = _shifted(c, model, graded)
    found["points"] = {w: _points(c, w, images) for w in POINTS}
    found |= _pixels(c, [i for i in images if i.get("known")])
    return found


def _sets(c: Calibration, wanted: str, classes: tuple[str, ...], images: list[dict[str, Any]]) -> dict[str, Any] | str:
    try:
        sets = sets_of(c, wanted, classes=classes)
    except ConfigError as e:
        return str(e)
    named = [sets(i["probs"]) for i in images]
    hit = [i["label"] in s for i, s in zip(images, named, strict=True)]
    by_class = {k: [h for i, h in zip(images, hit, strict=True) if i["label"] == k] for k in classes}
    return {
        "coverage": _mean(hit),
        "size": _mean([len(s) for s in named]),
        "one": _mean([len(s) == 1 for s in named]),
        "by class": {k: _mean(h) for k, h in by_class.items()},
        "right among one": _mean([h for h, s in zip(hit, named, strict=True) if len(s) == 1]),
    }


def _shifted(c: Calibration, model: Model, images: list[dict[str, Any]]) -> dict[str, Any] | str:
    """Weighted sets; the ratios are fitted to all images of the set, whose labels do not count."""
    known = dict(zip((f.id for f, _ in model.support), model.scope.own_log_distances.tolist(), strict=False))
    own = [known.get(one.id) for one in c.held_out]
    fresh = [i.get("distance") for i in images]
    if not own or not fresh or any(x is None for x in (*own, *fresh)):
        return "no distances"
    shift = shift_of([x for x in own if x is not None], [x for x in fresh if x is not None])
    record = Transfer(way="keep", rule="", before=0.5, low=0.5, high=0.5, images=len(fresh), shift=shift)
    moved_to = c.model_copy(update={"transfer": record})
    found: dict[str, Any] = {"effective": round(shift.effective, 2), "of": len(own)}
    for wanted in ("shift=0.9", "shift=0.8", "shift=0.5"):
        try:
            sets = sets_of(moved_to, wanted, classes=model.classes)
        except ConfigError as e:
            found[wanted] = str(e)
            continue
        named = [sets(i["probs"], distance=i["distance"]) for i in images]
        hit = [i["label"] in s for i, s in zip(images, named, strict=True)]
        found[wanted] = {"coverage": _mean(hit), "size": _mean([len(s) for s in named])}
    return found


def _sums(c: Calibration, wanted: str, classes: tuple[str, ...], images: list[dict[str, Any]]) -> dict[str, Any] | str:
    """The same with the other measure of nonconformity."""
    if any(one.probs is None or one.label is None for one in c.held_out) or len(c.held_out) < 9:
        return "no held-out probabilities"
    own = nonconformity([[(one.probs or {})[k] for k in classes] for one in c.held_out], score="sum")
    labels = [classes.index(str(one.label)) for one in c.held_out]
    most = quantile(own[np.arange(len(labels)), labels], parse(wanted)[0])
    sets = nonconformity([[i["probs"][k] for k in classes] for i in images], score="sum") <= most
    y = [classes.index(i["label"]) for i in images]
    return {"coverage": _mean(sets[np.arange(len(y)), y]), "size": _mean(sets.sum(1))}


def _points(c: Calibration, wanted: str, images: list[dict[str, Any]]) -> dict[str, Any] | str:
    """Sensitivity and specificity at the stored threshold and at those that each way moves, at two prevalences."""
    try:
        point = operating_point(c, wanted)
    except ConfigError as e:
        return str(e)
    known = [i for i in images if i["anomalous"] is not None]
    scores, truth = np.array([i["score"] for i in known]), np.array([i["anomalous"] for i in known])
    normal = [o.score for o in c.held_out if not o.anomalous]
    lesion = [o.score for o in c.held_out if o.anomalous]
    found: dict[str, Any] = {"stored": _rates(point.threshold, scores, truth)}
    for way in WAYS if normal and lesion else ():
        for name, prevalence in (("", len(lesion) / len(c.held_out)), (", prevalence known", float(truth.mean()))):
            prevalence = min(max(prevalence, 0.01), 0.99)
            value = moved(point.threshold, normal, lesion, scores, way=way, prevalence=prevalence)
            found[f"{way}{name}"] = _rates(value, scores, truth)
    return found


def _rates(threshold: float, scores: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    return {
        "threshold": round(threshold, 4),
        "sensitivity": _mean(scores[truth] >= threshold),
        "specificity": _mean(scores[~truth] < threshold),
    }


def _pixels(c: Calibration, images: list[dict[str, Any]]) -> dict[str, Any]:
    """Dice and missed share of lesions at the stored threshold, at the best one, and at controlled ones."""
    lesions = [i for i in images if i["lesion"][0]]
    if not lesions or c.pixel_threshold is None:
        return {}
    inside, rest = (np.array([i[name] for i in lesions], float) for name in ("lesion", "rest"))
    dice = 2 * inside / (inside[:, :1] + inside + rest)  # (n 201)
    missed = 1 - inside / inside[:, :1]
    marked = rest / (rest[:, :1])
    steps = np.linspace(0, 1, inside.shape[1])
    false = np.array([i["false"] for i in images if i.get("false") is not None], float)  # (n 3), or none

    def at(threshold: float) -> dict[str, float]:
        k = int(np.searchsorted(steps, threshold - 1e-9))
        return {
            "threshold": round(threshold, 4),
            "dice": round(float(dice[:, k].mean()), 4),
            "missed": round(float(missed[:, k].mean()), 4),
            "marked of the rest": round(float(marked[:, k].mean()), 4),
            **({"false lesions": round(float((false >= threshold).sum(1).mean()), 4)} if false.size else {}),
        }

    best = float(steps[int(dice.mean(0).argmax())])
    found: dict[str, Any] = {"stored": at(c.pixel_threshold), "best": at(best)}
    for wanted in ("fnr=0.1", "fnr=0.2", "fnr=0.3", "fppi=0.5"):
        try:
            found[wanted] = at(pixel_point(c, wanted).threshold)
        except ConfigError as e:
            found[wanted] = str(e)
    return {"pixels": found}


def _mean(values: ArrayLike) -> float | None:
    found = np.asarray(values, float)
    return round(float(found.mean()), 4) if found.size else None
