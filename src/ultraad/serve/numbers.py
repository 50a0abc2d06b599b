"""How good a model is on marks it has not learned from, and what changed from one model to the next."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ultraad.metrics.summary import Evaluation
from ultraad.metrics.threshold import FEW
from ultraad.serve.marking import Marking
from ultraad.serve.outcomes import ModelFacts, Outcomes, Said
from ultraad.serve.project import Place, Project
from ultraad.serve.schemas_work import Changes, CurvePoint, Flip, Interval, Numbers

_MOST_MASKS = 200  # maps compared with outlines for Dice
_ESTIMATES = {"image_auroc": "AUROC", "dice": "Dice", "balanced_accuracy": "balanced accuracy"}


def honest_places(project: Project, facts: ModelFacts) -> list[Place]:
    """The held-out frames of which a model has seen neither the image nor the patient."""
    used = {place[0] for place in facts.places}
    with project.lock:
        patients = {project.pictures[i].patient for i in used if i in project.pictures} - {None}
        return [
            place
            for place, role in project.roles().items()
            if role == "held_out" and place[0] not in used and project.pictures[place[0]].patient not in patients
        ]


def numbers(project: Project, outcomes: Outcomes, marking: Marking, model: int) -> Numbers:
    """The numbers of a model on held-out marks; out-of-fold estimates where there are none.

    Args:
        project: Open.
        outcomes: Its models.
        marking: Its marks.
        model: Number of the model.
    """
    facts, said = outcomes.models[model], outcomes.said_by(model)
    places = [place for place in honest_places(project, facts) if place in said]
    if not places:
        return _estimated(facts)
    labels = [project.summaries[place].label for place in places]
    abnormal = np.array([label != facts.normal_class for label in labels])
    scores = np.array([said[place].score for place in places])
    found = _evaluated(project, outcomes, marking, facts, {place: said[place] for place in places})
    at = _point(scores, abnormal, facts.image_threshold)
    patients = {project.pictures[place[0]].patient for place in places} - {None}
    few = [n for n in (int(abnormal.sum()), int((~abnormal).sum())) if n < FEW]
    return Numbers(
        source="held-out marks",
        images=len(places),
        patients=len(patients) or None,
        abnormal=int(abnormal.sum()),
        normal=int((~abnormal).sum()),
        threshold=facts.image_threshold,
        curve=[_point(scores, abnormal, t) for t in _steps(scores)],
        at=at,
        auroc=_of(found, "image_auroc"),
        dice=_of(found, "dice"),
        text=f"{_in_words('sensitivity', at.sensitivity, scores[abnormal], facts.image_threshold, above=True)}, "
        f"{_in_words('specificity', at.specificity, scores[~abnormal], facts.image_threshold, above=False)}, "
        f"on {len(places)} held-out image{'s' * (len(places) > 1)}",
        caution=f"fewer than {FEW} images of a kind: one image alone changes a rate by more than {100 // FEW} points"
        if few
        else None,
    )


def _estimated(facts: ModelFacts) -> Numbers:
    known = {_ESTIMATES[k]: v for k, v in facts.estimates.items() if k in _ESTIMATES}
    if not known:
        text = "nothing is known yet: no held-out image is marked"
        return Numbers(source="none", threshold=facts.image_threshold, text=text)
    parts = ", ".join(
        f"{name} {value:.2f}" + (f" ({low:.2f} to {high:.2f})" if low is not None and high is not None else "")
        for name, (value, low, high, _) in known.items()
    )
    n = max(v[3] for v in known.values())
    auroc = facts.estimates.get("image_auroc")
    return Numbers(
        source="cross-validation on the support",
        images=n,
        threshold=facts.image_threshold,
        auroc=(auroc[0], auroc[1], auroc[2]) if auroc and auroc[1] is not None and auroc[2] is not None else None,
        text=f"{parts}; cross-validation on {n} marked images, of models fitted on fewer",
        caution="marked images were chosen, not drawn at random; mark those that the queue draws for honest numbers",
    )


def _evaluated(
    project: Project, outcomes: Outcomes, marking: Marking, facts: ModelFacts, said: dict[Place, Said]
) -> dict[str, dict[str, float | None]]:
    """The metrics of :mod:`ultraad.metrics` on these frames."""
    evaluation = Evaluation(
        facts.classes,
        facts.normal_class,
        image_threshold=facts.image_threshold,
        pixel_threshold=facts.pixel_threshold,
    )
    for number, (place, one) in enumerate(said.items()):
        summary, picture = project.summaries[place], project.pictures[place[0]]
        map_ = mask = None
        if number < _MOST_MASKS and (found := outcomes.map_of(place, facts.number)) is not None:
            map_ = np.asarray(cv2.resize(found[1], picture.size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
            masks = list(marking.masks(place).values())
            if masks:
                mask = np.logical_or.reduce(masks)
            elif summary.label == facts.normal_class:
                mask = np.zeros(picture.size, dtype=np.bool_)
        evaluation.add(
            id=f"{place[0]}#{place[1]}",
            score=one.score,
            anomalous=summary.label != facts.normal_class,
            map=map_ if mask is not None else None,
            mask=mask,
            probs=dict(one.probs) if one.probs else None,
            label=summary.label if summary.label in facts.classes else None,
            group=picture.patient,
        )
    metrics: dict[str, dict[str, float | None]] = evaluation.result(seed=0)["metrics"]
    return metrics


def _of(found: dict[str, dict[str, float | None]], key: str) -> Interval | None:
    metric = found.get(key, {})
    value, low, high = (metric.get(k) for k in ("value", "low", "high"))
    return None if value is None or low is None or high is None else (value, low, high)


def _steps(scores: np.ndarray) -> list[float]:
    """The thresholds at which a rate changes: 0, each score, and just above the highest."""
    distinct = sorted({0.0, *map(float, scores)})
    return [*distinct, float(np.nextafter(distinct[-1], np.inf))][-200:]


def _point(scores: np.ndarray, abnormal: np.ndarray, threshold: float) -> CurvePoint:
    flagged = scores >= threshold
    return CurvePoint(
        threshold=threshold,
        sensitivity=_wilson(int((flagged & abnormal).sum()), int(abnormal.sum())),
        specificity=_wilson(int((~flagged & ~abnormal).sum()), int((~abnormal).sum())),
    )


def _wilson(hits: int, n: int) -> Interval | None:
    """A proportion with its 95 % interval (Wilson 1927), which stays honest for few images; None without any."""
    from scipy.stats import binomtest

    if not n:
        return None
    ends = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    return hits / n, float(ends.low), float(ends.high)


def _in_words(name: str, rate: Interval | None, scores: np.ndarray, threshold: float, *, above: bool) -> str:
    if rate is None:
        return f"{name} unknown"
    hits = int(((scores >= threshold) == above).sum())
    return f"{name} {hits} of {len(scores)} ({rate[0]:.2f}, {rate[1]:.2f} to {rate[2]:.2f})"


def changes(project: Project, outcomes: Outcomes, model: int, against: int | None) -> Changes:
    """What a model says otherwise than another one.

    Args:
        project: Open.
        outcomes: Its models.
        model: Number of the model.
        against: Number of the other; None if there is none.
    """
    if against is None:
        empty: list[Flip] = []
        return Changes(against=None, flipped=empty, missed=empty, found=empty, false_alarms=empty, compared=0,
                       text="this is the first model")  # fmt: skip
    now, before = outcomes.said_by(model), outcomes.said_by(against)
    with project.lock:
        both = [place for place in now if place in before and place[0] in project.pictures]
        flips = [f for place in both if (f := _flip(project, outcomes, place, before[place], now[place]))]
    normal = outcomes.models[model].normal_class
    missed = [f for f in flips if f.label not in (None, normal) and f.after == normal]
    found = [f for f in flips if f.label not in (None, normal) and f.before == normal]
    alarms = [f for f in flips if f.label == normal and f.before == normal]
    return Changes(
        against=against,
        flipped=flips,
        missed=missed,
        found=found,
        false_alarms=alarms,
        compared=len(both),
        text=_summed_up(flips, missed, found, alarms),
    )


def _flip(project: Project, outcomes: Outcomes, place: Place, before: Said, now: Said) -> Flip | None:
    said = [outcomes.class_of(one) or "abnormal" for one in (before, now)]
    if said[0] == said[1]:
        return None
    summary = project.summaries.get(place)
    return Flip(
        image=place[0],
        frame=place[1],
        name=project.pictures[place[0]].name,
        before=said[0],
        after=said[1],
        score_before=before.score,
        score=now.score,
        label=summary.label if summary else None,
    )


def _summed_up(flips: Sequence[Flip], missed: Sequence[Flip], found: Sequence[Flip], alarms: Sequence[Flip]) -> str:
    if not flips:
        return "no decision changed"
    parts = [f"{len(flips)} decision{'s' * (len(flips) > 1)} changed"]
    for some, text in (
        (missed, "marked and now missed"),
        (found, "marked and now found"),
        (alarms, "marked normal and now called abnormal"),
    ):
        if some:
            parts.append(f"{len(some)} {text}")
    return "; ".join(parts)
