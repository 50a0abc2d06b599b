"""What to mark next, from the state of a project; :mod:`ultraad.serve.rank` has the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ultraad.serve import rank
from ultraad.serve.jobs import Jobs
from ultraad.serve.orders import Orders
from ultraad.serve.outcomes import Outcomes, uncertainty
from ultraad.serve.project import Picture, Place, Project, Summary, now
from ultraad.serve.schemas_work import Offer, Queue

Vectors = Mapping[Place, NDArray[np.float32]]


class Upcoming:
    """The queue.

    Args:
        project: Open.
        outcomes: Its models.
        orders: Says what the support has.
        jobs: Has the result of the data check.
    """

    def __init__(self, project: Project, outcomes: Outcomes, orders: Orders, jobs: Jobs) -> None:
        self._project, self._outcomes, self._orders, self._jobs = project, outcomes, orders, jobs

    def queue(self, limit: int) -> Queue:
        """What to mark next. Images set aside that are offered here are remembered: marks on them are held out.

        None is offered before there are examples enough to adapt: the first marks are all to be learned from.
        """
        project, ready = self._project, self._orders.readiness()
        vectors = self._vectors()
        with project.lock:
            marked = self._marked(vectors)
            done = {m.image for m in marked}
            candidates = [
                self._candidate(p, vectors) for p in project.pictures.values() if not p.failed and p.id not in done
            ]
            known = rank.Known(
                marked=marked,
                classes=project.class_names,
                normal=project.normal_class,
                alike={frozenset(pair) for pair in (self._jobs.answers.checked or {}).get("alike", ())},
                aside=project.aside(),
                share=project.database.setting("held_out_share"),
                ready=ready.ready,
            )
            agreed = self._agreed()
        picks = rank.offers(candidates, known, limit=limit)
        self._remember([p.candidate.image for p in picks if p.kind == "random"])
        worth, message = rank.worth(agreed, picks, counts=ready.support)
        return Queue(items=[self._offer(p) for p in picks], worth=worth, message=message)

    def _vectors(self) -> Vectors:
        """The vectors of frames; none while they are of two backbones."""
        rows = self._project.database.read("SELECT image, frame, backbone, vector FROM embedding")
        if len({backbone for _, _, backbone, _ in rows}) != 1:
            return {}
        return {(image, frame): np.frombuffer(vector, "<f4") for image, frame, _, vector in rows}

    def _marked(self, vectors: Vectors) -> list[rank.Marked]:
        project, roles = self._project, self._project.roles()
        return [
            rank.Marked(
                image=place[0],
                patient=project.pictures[place[0]].patient,
                label=summary.label,
                held_out=roles.get(place) == "held_out",
                vector=vectors.get(place),
            )
            for place, summary in project.summaries.items()
            if summary.label is not None
        ]

    def _candidate(self, picture: Picture, vectors: Vectors) -> rank.Candidate:
        frames = range(picture.frames)
        said = {f: s for f in frames if (s := self._outcomes.newest.get((picture.id, f))) is not None}
        frame = max(said, key=lambda f: said[f].score, default=0)
        one = said.get(frame)
        threshold = 0.5 if one is None else self._outcomes.models[one.model].image_threshold
        summaries = [self._project.summaries.get((picture.id, f), Summary()) for f in frames]
        return rank.Candidate(
            image=picture.id,
            frame=frame,
            patient=picture.patient,
            score=None if one is None else one.score,
            class_=None if one is None else self._outcomes.class_of(one),
            probs=None if one is None else one.probs,
            uncertainty=0.0 if one is None else uncertainty(one.score, threshold),
            vector=vectors.get((picture.id, frame)),
            skipped=any(s.skipped for s in summaries),
        )

    def _agreed(self) -> list[bool]:
        """For every mark in order, whether the model had said the same; only where it had said anything."""
        normal = self._project.normal_class
        marked = sorted((s for s in self._project.summaries.values() if s.marked), key=lambda s: s.marked or "")
        return [
            abnormal == (s.label != normal) and class_ in (None, s.label)
            for s in marked
            if s.label is not None and s.guess is not None
            for abnormal, class_ in [s.guess]
        ]

    def _offer(self, pick: rank.Pick) -> Offer:
        return Offer(
            image=pick.candidate.image,
            frame=pick.candidate.frame,
            name=self._project.pictures[pick.candidate.image].name,
            reason=pick.text,
            kind=pick.kind,
            held_out=pick.kind == "random",
            score=pick.candidate.score,
        )

    def _remember(self, drawn: Sequence[str]) -> None:
        fresh = [image for image in drawn if image not in self._project.drawn]
        if fresh:
            with self._project.database.write() as db:
                db.executemany("INSERT OR IGNORE INTO offer (image, made) VALUES (?, ?)", [(i, now()) for i in fresh])
            self._project.drawn.update(fresh)
