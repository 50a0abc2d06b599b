"""Which image to mark next, and why. Pure numpy: the state of the project comes in as arrays.

An image is offered for the largest of these reasons: the model is unsure; it is unlike everything that is marked; its
marked neighbours have another label than the model gives it; it may be of a class that has few marks. Near-duplicates
of marked or offered images are left out, and no patient comes twice in a row.

What a model picks is never a fair sample. So a share of the patients (of the images, where patients are unknown) is set
aside when they come into the project, before any model has seen them (:meth:`ultraad.serve.project.Project.add`). A
model never picks one of them, nor a near-duplicate. They are offered in an order that is fixed from the start, as that
share of the offers, and what is marked on them is kept out of the support: numbers on these marks are honest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Reason = Literal["unsure", "unlike", "disagrees", "class", "random"]

_NEIGHBOURS = 5
ENOUGH = 4
"""Images of a class; with fewer, more of it are looked for (the paper's smallest number of shots)."""

_SEEN_PATIENT = 0.5  # factor for a patient who has marks already
_WEIGHTS = {"unsure": 1.0, "unlike": 0.9, "disagrees": 1.0, "class": 1.1}
AGREED = 8
"""Marks in a row that agree with the model, after which marking more is not likely to help."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image without a label.

    Attributes:
        image: Its id.
        frame: The frame that would be marked.
        patient: None if unknown.
        score: Of the model; None if it has not been predicted.
        class_: The model's decision: a class, or None if the method does not grade and the score is abnormal.
        probs: {class: probability}; None if the method does not grade.
        uncertainty: 1 at the threshold, 0 at the ends of the scale.
        vector: float32 (d,), from the backbone; None if it has not been predicted.
        skipped: The user has skipped it.
    """

    image: str
    frame: int
    patient: str | None
    score: float | None
    class_: str | None
    probs: Mapping[str, float] | None
    uncertainty: float
    vector: NDArray[np.float32] | None
    skipped: bool


@dataclass(frozen=True, slots=True)
class Marked:
    """A frame with a label.

    Attributes:
        image: Its id.
        patient: None if unknown.
        label: Its class.
        held_out: Whether it is kept out of the support.
        vector: float32 (d,); None if it has not been predicted.
    """

    image: str
    patient: str | None
    label: str
    held_out: bool
    vector: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Pick:
    """An offer and its reason in words."""

    candidate: Candidate
    kind: Reason
    text: str


@dataclass(frozen=True, slots=True)
class Known:
    """What the offers depend on.

    Attributes:
        marked: Frames with labels.
        classes: Class names; ``normal`` is one of them.
        normal: The class that means "no lesion".
        alike: Pairs of images that show the same scene.
        aside: Images that were set aside at random when they were added, in the order to offer them.
        share: Of all marks, how many are to be of these.
        ready: Whether there are examples enough to adapt; before that, all marks are to be learned from.
    """

    marked: Sequence[Marked]
    classes: Sequence[str]
    normal: str
    alike: Collection[frozenset[str]]
    aside: Sequence[str]
    share: float
    ready: bool = True


def offers(candidates: Sequence[Candidate], known: Known, *, limit: int) -> list[Pick]:
    """The images to mark next, best first.

    Args:
        candidates: Images without a label.
        known: Everything else.
        limit: Most offers.
    """
    fresh = [c for c in candidates if not c.skipped] or list(candidates)
    twins: dict[str, set[str]] = {}
    for pair in known.alike:
        for image in pair:
            twins.setdefault(image, set()).update(pair - {image})
    closed = {twin for m in known.marked for twin in twins.get(m.image, ())}
    random = _random(fresh, known) if known.share else []
    kept = {p.candidate.image for p in random}
    kept |= {twin for image in kept for twin in twins.get(image, ())}
    ranked = _ranked([c for c in fresh if c.image not in kept], known)
    if ranked and not known.ready:
        random = []
    picks: list[Pick] = []
    held, total = sum(m.held_out for m in known.marked), len(known.marked)
    taken: set[str] = set()
    while len(picks) < limit and (ranked or random):
        due = held + 1 <= known.share * (total + 1) + 1e-9
        at_random = bool(random) and (not ranked or (due and (not picks or picks[-1].kind != "random")))
        last = picks[-1].candidate.patient if picks else None
        pick = _next(random if at_random else ranked, taken | closed, last)
        if pick is None:
            (random if at_random else ranked).clear()
            continue
        held, total = held + at_random, total + 1
        picks.append(pick)
        taken |= {pick.candidate.image, *twins.get(pick.candidate.image, ())}
    return picks


def _next(queue: list[Pick], closed: Collection[str], last: str | None) -> Pick | None:
    """Take the first open pick; one of another patient than the last if there is one."""
    open_ = [p for p in queue if p.candidate.image not in closed]
    other = next((p for p in open_ if last is None or p.candidate.patient != last), None)
    found = other or next(iter(open_), None)
    if found is not None:
        queue.remove(found)
    return found


def _random(candidates: Sequence[Candidate], known: Known) -> list[Pick]:
    """The images set aside, in their order, without those of a patient whom the user has put into the support."""
    patients = {m.patient for m in known.marked if not m.held_out and m.patient}
    there = {c.image: c for c in candidates if c.patient not in patients}
    text = "drawn at random; kept out of the support, for honest numbers"
    return [Pick(there[image], "random", text) for image in known.aside if image in there]


def _ranked(candidates: Sequence[Candidate], known: Known) -> list[Pick]:
    """Every candidate with its strongest reason, best first."""
    novelty, against = _neighbourhood(candidates, known)
    counts = {name: sum(m.label == name and not m.held_out for m in known.marked) for name in known.classes}
    seen = {m.patient for m in known.marked if m.patient}
    found: list[tuple[float, Pick]] = []
    for i, c in enumerate(candidates):
        reasons: dict[Reason, tuple[float, str]] = {}
        if c.score is not None:
            reasons["unsure"] = c.uncertainty, f"unsure: {c.score:.2f}"
        if len(known.marked) > 2 and c.vector is not None:
            reasons["unlike"] = float(novelty[i]), f"unlike your {len(known.marked)} images"
        if against[i] is not None:
            share, label = against[i] or (0.0, "")
            reasons["disagrees"] = share, f"disagrees: its nearest marked images are {label}"
        wanted = c.class_ if c.class_ in counts else None
        if wanted is not None and counts[wanted] < ENOUGH:
            sure = (c.probs or {}).get(wanted, 0.5)
            reasons["class"] = sure, f"may be {wanted}, of which you have {counts[wanted] or 'none'}"
        if not reasons:
            reasons["unsure"] = 0.0, "not predicted yet"
        kind: Reason = max(reasons, key=lambda k: reasons[k][0] * _WEIGHTS[k])
        value = reasons[kind][0] * _WEIGHTS[kind] * (_SEEN_PATIENT if c.patient in seen else 1.0)
        found.append((value, Pick(c, kind, reasons[kind][1])))
    return [pick for _, pick in sorted(found, key=lambda f: -f[0])]


def _neighbourhood(
    candidates: Sequence[Candidate], known: Known
) -> tuple[NDArray[np.float64], list[tuple[float, str] | None]]:
    """Per candidate: how new it is (rank in 0..1), and (share, label) of marked neighbours that contradict the model.

    Vectors are compared by cosine after their common mean is taken away, which all images of a kind share.
    """
    marked = [(m, m.vector) for m in known.marked if m.vector is not None]
    vectors = {i: c.vector for i, c in enumerate(candidates) if c.vector is not None}
    with_vector = list(vectors)
    novelty = np.zeros(len(candidates))
    against: list[tuple[float, str] | None] = [None] * len(candidates)
    if not marked or not with_vector:
        return novelty, against
    own = np.stack(list(vectors.values())).astype(np.float64)
    theirs = np.stack([vector for _, vector in marked]).astype(np.float64)
    mean = np.concatenate([own, theirs]).mean(0)
    own, theirs = _unit(own - mean), _unit(theirs - mean)
    cosine = own @ theirs.T  # (n m)
    novelty[with_vector] = (1 - cosine.max(1)).argsort().argsort() / max(1, len(with_vector) - 1)
    nearest = np.argsort(-cosine, axis=1)[:, :_NEIGHBOURS]
    for row, i in enumerate(with_vector):
        score_says = candidates[i].class_
        if candidates[i].score is None or len(marked) < _NEIGHBOURS:
            continue
        labels = [marked[j][0].label for j in nearest[row]]
        other = [label for label in labels if (label == known.normal) != (score_says == known.normal)]
        if len(other) > _NEIGHBOURS / 2:
            against[i] = len(other) / _NEIGHBOURS, max(set(other), key=other.count)
    return novelty, against


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), dtype=np.float64)


def worth(agreed: Sequence[bool], picks: Sequence[Pick], *, counts: Mapping[str, int]) -> tuple[bool, str]:
    """(whether marking more is likely to help, why) in words.

    Args:
        agreed: For every mark in order, whether the model had said the same before; only where it had said anything.
        picks: What would be offered.
        counts: {class: images in the support}.
    """
    lacking = [name for name, n in counts.items() if n < ENOUGH]
    if lacking:
        return True, f"mark at least {ENOUGH} images of each class; fewer so far: {', '.join(lacking)}"
    if not picks:
        return False, "every image is marked"
    last = list(agreed)[-AGREED:]
    if len(last) == AGREED and all(last):
        return False, f"the model had the last {AGREED} marks right before you made them; more are not likely to help"
    wrong = last.count(False)
    return True, f"the model was wrong on {wrong} of your last {len(last)} marks" if wrong else "keep marking"
