"""Lists of images: sorted, searched, in pages. Everything is in memory, so 10,000 images take a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from ultraad.data.sources import natural_key
from ultraad.serve.outcomes import Outcomes, Said, uncertainty
from ultraad.serve.project import Picture, Place, Project, Summary
from ultraad.serve.schemas import FrameItem, Group, Item, ItemDetail, Items, Role

Sort = Literal["added", "name", "patient", "class", "score", "uncertainty", "disagreement", "marked"]
State = Literal["marked", "unmarked", "held_out", "support", "flipped", "missed", "failed", "review", "skipped"]

_REVIEWED = 0.5  # disagreement from which a marked image is to be looked at again


@dataclass(slots=True)
class _Entry:
    """One image with what is known of its frames.

    Attributes:
        picture: The image.
        marks: {frame: summary}.
        said: {frame: the newest prediction}.
        former: {frame: prediction of the former model}.
        role: Of its first frame that has one.
        shown: The summary that speaks for the image: that of its first labelled frame.
        top: The newest prediction of its most abnormal frame.
        says: Its class.
        said_before: The class that the former model gave.
    """

    picture: Picture
    marks: dict[int, Summary] = field(default_factory=dict)
    said: dict[int, Said] = field(default_factory=dict)
    former: dict[int, Said] = field(default_factory=dict)
    role: Role | None = None
    shown: Summary | None = None
    top: Said | None = None
    says: str | None = None
    said_before: str | None = None

    @property
    def label(self) -> str | None:
        """What people call the image."""
        return self.shown.label if self.shown else None

    @property
    def decision(self) -> str | None:
        """A person's label, else the model's class."""
        return self.label or self.says

    @property
    def best(self) -> int:
        """The frame to show first: a marked one, else the one with the highest score."""
        marked = [frame for frame, m in self.marks.items() if m.marked]
        return min(marked) if marked else max(self.said, key=lambda f: self.said[f].score, default=0)


class Listing:
    """The images of a project as the page shows them.

    Args:
        project: Open.
        outcomes: Its models.
        warnings: Gives {image: warnings} of the data check.
    """

    def __init__(
        self, project: Project, outcomes: Outcomes, *, warnings: Callable[[], Mapping[str, list[str]]]
    ) -> None:
        self._project, self._outcomes, self._warnings = project, outcomes, warnings

    def page(
        self,
        *,
        sort: Sort,
        descending: bool,
        search: str,
        class_: str | None,
        patient: str | None,
        device: str | None,
        states: Sequence[State],
        offset: int,
        limit: int,
        with_order: bool = False,
    ) -> Items:
        """A page of the list; see docs/page.md for the meaning of sorts and states."""
        words, normal = search.casefold().split(), self._project.normal_class
        found = [
            entry
            for entry in self._entries()
            if (patient is None or entry.picture.patient == patient)
            and (device is None or entry.picture.device == device)
            and (class_ is None or entry.decision == class_)
            and all(self._is(state, entry, normal) for state in states)
            and _has(words, entry)
        ]
        found = self._sorted(found, sort, normal, descending=descending)
        warnings = self._warnings()
        items = [self._item(entry, warnings) for entry in found[offset : offset + limit]]
        order = [entry.picture.id for entry in found] if with_order else []
        return Items(total=len(found), row=self._project.last_row, items=items, order=order)

    def detail(self, image: str) -> ItemDetail:
        """One image.

        Raises:
            KeyError: If there is none of this id.
        """
        picture = self._project.pictures[image]
        (entry,) = self._entries([picture])
        frames = [
            FrameItem(
                frame=number,
                label=entry.marks[number].label if number in entry.marks else None,
                lesions=entry.marks[number].lesions if number in entry.marks else 0,
                pred=self._outcomes.outcome(entry.said.get(number)),
            )
            for number in range(picture.frames)
        ]
        return ItemDetail(
            **self._item(entry, self._warnings()).model_dump(by_alias=True),
            spacing_mm=picture.spacing_mm,
            spacing_source=picture.spacing_source,
            frame_items=frames,
            site=picture.site,
            split=picture.split,
            added=picture.added,
            origin="upload" if picture.uploaded else "reference",
        )

    def some(self, images: Sequence[str], *, model: int | None) -> Items:
        """Some images in the given order, without those that are not there.

        Args:
            images: Their ids.
            model: Give what this model says; None for the newest that has seen each frame.
        """
        pictures = [self._project.pictures[i] for i in images if i in self._project.pictures]
        warnings, said = self._warnings(), None if model is None else self._outcomes.said_by(model)
        items = [self._item(entry, warnings) for entry in self._entries(pictures, said=said)]
        return Items(total=len(items), row=self._project.last_row, items=items)

    def groups(self, by: Literal["patient", "device", "site"]) -> list[Group]:
        """The images by patient, device or site, those with most images first."""
        found: dict[str | None, list[_Entry]] = {}
        for entry in self._entries():
            found.setdefault(getattr(entry.picture, by), []).append(entry)
        normal = self._project.normal_class

        def group(name: str | None, entries: list[_Entry]) -> Group:
            scores = [e.top.score for e in entries if e.top]
            judged = [e for e in entries if e.label and e.top]
            return Group(
                name=name,
                images=len(entries),
                marked=sum(e.label is not None for e in entries),
                abnormal=sum(e.decision not in (None, normal) for e in entries),
                mean_score=round(fmean(scores), 4) if scores else None,
                wrong=sum((e.says == normal) != (e.label == normal) for e in judged),
            )

        return sorted((group(name, entries) for name, entries in found.items()), key=lambda g: -g.images)

    def _entries(
        self, pictures: Sequence[Picture] | None = None, *, said: Mapping[Place, Said] | None = None
    ) -> list[_Entry]:
        roles = self._project.roles()
        with self._project.lock:
            wanted = list(self._project.pictures.values() if pictures is None else pictures)
            entries = {p.id: _Entry(p) for p in wanted}
            places: Iterable[Place] | None = None
            if pictures is not None:
                places = [(p.id, f) for p in wanted for f in range(p.frames)]
            for (image, frame), summary in _of(self._project.summaries, places):
                if image in entries:
                    entries[image].marks[frame] = summary
            for (image, frame), one in _of(self._outcomes.newest if said is None else said, places):
                if image in entries:
                    entries[image].said[frame] = one
            for (image, frame), one in _of(self._outcomes.former, places):
                if image in entries:
                    entries[image].former[frame] = one
        for entry in entries.values():
            self._fill(entry, roles)
        return list(entries.values())

    def _fill(self, entry: _Entry, roles: Mapping[Place, Role]) -> None:
        labelled = [frame for frame in sorted(entry.marks) if entry.marks[frame].label]
        first = labelled[0] if labelled else next(iter(entry.marks), None)
        entry.shown = None if first is None else entry.marks[first]
        entry.role = next((roles[entry.picture.id, f] for f in labelled if (entry.picture.id, f) in roles), None)
        entry.top = max(entry.said.values(), key=lambda s: s.score, default=None)
        entry.says = self._class(entry.top)
        entry.said_before = self._class(max(entry.former.values(), key=lambda s: s.score, default=None))

    def _class(self, said: Said | None) -> str | None:
        if said is None or said.model not in self._outcomes.models:
            return None
        return self._outcomes.class_of(said) or "abnormal"

    def _item(self, entry: _Entry, warnings: Mapping[str, list[str]]) -> Item:
        picture = entry.picture
        return Item(
            id=picture.id,
            name=picture.name,
            frames=picture.frames,
            width=picture.size[1],
            height=picture.size[0],
            patient=picture.patient,
            device=picture.device,
            label=entry.label,
            lesions=sum(m.lesions for m in entry.marks.values()),
            accepted=sum(m.accepted for m in entry.marks.values()),
            role=entry.role,
            skipped=any(m.skipped for m in entry.marks.values()),
            failed=picture.failed,
            best=entry.best,
            pred=self._outcomes.outcome(entry.top),
            former=self._outcomes.outcome(max(entry.former.values(), key=lambda s: s.score, default=None)),
            decision=entry.decision,
            warnings=warnings.get(picture.id, []),
        )

    @staticmethod
    def _is(state: State, entry: _Entry, normal: str) -> bool:
        if state == "review":
            if any(m.seen for m in entry.marks.values()):
                return False
            if entry.label is None:
                return entry.top is not None and entry.top.has_map and entry.says != normal
            return (_disagreement(entry, normal) or 0.0) >= _REVIEWED
        label, says = entry.label, entry.says
        return {
            "marked": label is not None,
            "unmarked": label is None,
            "held_out": entry.role == "held_out",
            "support": entry.role == "support",
            "flipped": None not in (says, entry.said_before) and says != entry.said_before,
            "missed": label not in (None, normal) and says == normal,
            "failed": entry.picture.failed is not None,
            "skipped": any(m.skipped for m in entry.marks.values()),
        }[state]

    def _sorted(self, found: list[_Entry], sort: Sort, normal: str, *, descending: bool) -> list[_Entry]:
        """Images that lack the value come last, whichever way the others are sorted."""
        if sort == "added":
            return found[::-1] if descending else found
        models = self._outcomes.models
        keys: dict[str, Callable[[_Entry], Any]] = {
            "name": lambda e: natural_key(e.picture.name),
            "patient": lambda e: natural_key(e.picture.patient) if e.picture.patient else None,
            "class": lambda e: natural_key(e.decision) if e.decision else None,
            "score": lambda e: e.top.score if e.top else None,
            "uncertainty": lambda e: uncertainty(e.top.score, models[e.top.model].image_threshold) if e.top else None,
            "disagreement": lambda e: _disagreement(e, normal),
            "marked": lambda e: max((m.marked for m in e.marks.values() if m.marked), default=None),
        }
        keyed = [(keys[sort](entry), entry) for entry in found]
        there = sorted((k for k in keyed if k[0] is not None), key=lambda k: k[0], reverse=descending)
        return [entry for _, entry in [*there, *(k for k in keyed if k[0] is None)]]


def _of(known: Mapping[Place, Any], places: Iterable[Place] | None) -> Iterable[tuple[Place, Any]]:
    """The items of a mapping; only some keys if given."""
    return known.items() if places is None else ((p, known[p]) for p in places if p in known)


def _disagreement(entry: _Entry, normal: str) -> float | None:
    """How far the model is from a person's label, 0 to 1; None without one of the two."""
    if entry.label is None or entry.top is None:
        return None
    if entry.top.probs and entry.label in entry.top.probs:
        return 1 - entry.top.probs[entry.label]
    return entry.top.score if entry.label == normal else 1 - entry.top.score


def _has(words: Sequence[str], entry: _Entry) -> bool:
    if not words:
        return True
    picture = entry.picture
    text = " ".join(filter(None, (picture.name, picture.patient, picture.device, entry.decision))).casefold()
    return all(word in text for word in words)
