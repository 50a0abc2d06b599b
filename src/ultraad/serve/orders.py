"""What the worker is told to do, made from the state of the project."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ultraad.data.fans import in_fans
from ultraad.fan import FanChoice
from ultraad.serve.decode import SAMPLES
from ultraad.serve.marking import Marking
from ultraad.serve.outcomes import ModelFacts, Outcomes, uncertainty
from ultraad.serve.project import Place, Project
from ultraad.serve.rank import ENOUGH
from ultraad.serve.schemas import Readiness
from ultraad.serve.schemas_work import JobRequest, MethodInfo

Order = dict[str, Any]

QUICK_EPOCHS = 15
"""Epochs of UltraAD here instead of 50: a third of the time, so that Adapt takes seconds.

Measured on BUSI and BUS-UCLM, 4 and 16 shots, two draws, 100 images each (November 2026): image AUROC 0.006 lower on
average, Dice at the best threshold 0.009 lower; single draws differ by more than ten times that.
"""
QUICK = {"ultraad": {"train.epochs": QUICK_EPOCHS}}
"""{method: defaults that differ from the command line's}."""


FIT = ("method", "backbone", "options", "seed", "support")
"""What an adaptation depends on, as keys of its order."""


def same_fit(ahead: Order | None, order: Order) -> bool:
    """Whether what is made ahead is what an order asks for, so that it need only be waited for."""
    return (
        ahead is not None and order["do"] == "adapt" and ahead["ready"] and all(ahead[key] == order[key] for key in FIT)
    )


class Orders:
    """Makes orders.

    Args:
        project: Open.
        marking: Its marks.
        outcomes: Its models.
        backbone: Name of the backbone that a new project uses.
        first: Folder of the model to begin with; None for a zero-shot model.
        fan: How models see pictures (:func:`ultraad.predict`); None: as at the last start, else as the model to begin
            with does.
    """

    def __init__(
        self,
        project: Project,
        marking: Marking,
        outcomes: Outcomes,
        *,
        backbone: str,
        first: str | None = None,
        fan: FanChoice | None = None,
    ) -> None:
        self._project, self._marking, self._outcomes = project, marking, outcomes
        if fan is not None:
            project.database.set(fan=fan)
        self.backbone = backbone
        self._first = first

    @property
    def usual_backbone(self) -> str:
        """The backbone of an adaptation that names none: that of the model which the server was told to begin with."""
        begun = None if self._first is None else self._outcomes.facts
        return self.backbone if begun is None else begun.backbone

    @property
    def fan(self) -> FanChoice:
        """How the next model sees pictures."""
        chosen: FanChoice | None = self._project.database.setting("fan")
        if chosen is None:
            first = self._outcomes.models.get(0)
            return "off" if first is None else first.fan
        return chosen

    def readiness(self, method: MethodInfo | None = None, *, use_held_out: bool = False) -> Readiness:
        """Whether there are marks enough to adapt.

        Args:
            method: Its needs count too; None for the default method.
            use_held_out: Whether held-out frames are used.
        """
        roles = self._project.roles()
        with self._project.lock:
            summaries = dict(self._project.summaries)
        by_role = {
            role: Counter(summaries[place].label for place, r in roles.items() if r == role)
            for role in ("support", "held_out")
        }
        classes, normal = self._project.class_names, self._project.normal_class
        support = {c: by_role["support"][c] + (by_role["held_out"][c] if use_held_out else 0) for c in classes}
        held_out = {c: by_role["held_out"][c] for c in classes}
        lacking = [c for c in classes if not support[c]]
        reason, notes = "", []
        if lacking == [normal] and self._lesions_are_enough(support, held_out, method):
            notes.append("no normal image is marked: whether there is a lesion is for the sentences alone to say")
        elif lacking:
            of = f"{_either(lacking)} " if len(lacking) < len(classes) else ""
            reason = f"no {of}image is marked yet"
            kept_out = [c for c in lacking if held_out[c]]
            if kept_out:
                reason += f"; those of {', '.join(kept_out)} are kept out for honest numbers"
            elif lacking == [normal] and (method is None or "normal images" not in method.needs):
                reason += f"; {ENOUGH} of each other class are enough without"
                reason += ", besides those that are kept out" * any(held_out.values())
        elif method is not None and "masks" in method.needs:
            bare = sum(
                1
                for place in self.support_places(use_held_out=use_held_out)
                if summaries[place].label != normal and not summaries[place].lesions
            )
            if bare:
                reason = f"{method.name} needs an outline on every abnormal image; {bare} have none"
        conflicts = sum(bool(s.conflict) for s in summaries.values())
        if conflicts:
            notes.append(f"{conflicts} image(s) are left out because their marks contradict each other")
        return Readiness(ready=not reason, reason=reason, support=support, held_out=held_out, notes=notes)

    def _lesions_are_enough(
        self, support: Mapping[str, int], held_out: Mapping[str, int], method: MethodInfo | None
    ) -> bool:
        """Whether no normal image is marked, but enough of the other classes for a method that can do without."""
        normal = self._project.normal_class
        able = method is None or "normal images" not in method.needs
        return able and not held_out[normal] and all(n >= ENOUGH for c, n in support.items() if c != normal)

    def support_places(self, *, use_held_out: bool) -> list[Place]:
        """The frames to adapt to, by class, then by the time they were marked."""
        order = {name: number for number, name in enumerate(self._project.class_names)}
        with self._project.lock:
            found = [
                (order[label], summary.marked or "", place)
                for place, role in self._project.roles().items()
                if (role == "support" or use_held_out)
                and (label := (summary := self._project.summaries[place]).label) in order
            ]
        return [place for *_, place in sorted(found)]

    def support(self, places: Iterable[Place]) -> Order:
        """The support set of some marked frames, as JSON."""
        samples = in_fans([self._marking.sample(place) for place in places], self.fan)
        sources = {self._project.pictures[place[0]].source for place in places}
        source = sources.pop() if len(sources) == 1 else None
        return {
            "samples": SAMPLES.dump_python(samples, mode="json"),
            "classes": self._project.class_names,
            "normal_class": self._project.normal_class,
            "source": source or f"csv:{self._project.folder}",
        }

    def options(self, request: JobRequest) -> dict[str, Any]:
        """The options of an adaptation: those of the request over the quick ones."""
        return {**QUICK.get(request.method, {}), **request.options}

    def adapt(self, request: JobRequest, number: int) -> Order:
        """Adapt to the marked frames and predict all frames: the visible ones first, then by rank."""
        places = self.support_places(use_held_out=request.use_held_out)
        visible = [(p.image, p.frame) for p in request.visible]
        return {
            "do": "adapt",
            "number": number,
            "method": request.method,
            "backbone": request.backbone or self.usual_backbone,
            "options": self.options(request),
            "seed": request.seed,
            "use_held_out": request.use_held_out,
            "support": self.support(places),
            "support_file": str(self._project.folder / "supports" / f"{number}.json"),
            "places": places,
            "visible": self.units(visible),
            "rest": self.units(self.ranked(set(visible))),
            **self._where(number),
        }

    def can_warm(self) -> bool:
        """Whether there is something to encode ahead: a marked image with a lesion."""
        normal, summaries = self._project.normal_class, self._project.summaries
        return any(summaries[place].label != normal for place in self.support_places(use_held_out=False))

    def warm(self, request: JobRequest) -> Order:
        """Adapt ahead of being asked, or encode what an adaptation will need."""
        return {
            "do": "warm",
            "ready": self.readiness().ready,
            "method": request.method,
            "backbone": request.backbone or self.usual_backbone,
            "options": self.options(request),
            "seed": request.seed,
            "support": self.support(self.support_places(use_held_out=request.use_held_out)),
        }

    def first(self, number: int) -> Order:
        """Make the model that the project begins with."""
        return {
            "do": "first",
            "number": number,
            "model": self._first,
            "backbone": self.backbone,
            "classes": self._project.class_names,
            "normal_class": self._project.normal_class,
            "fan": self.fan,
            **self._where(number),
        }

    def needs_first(self) -> bool:
        """Whether a model to begin with has to be made: there is none, or only one for other classes."""
        facts = self._outcomes.facts
        if not any(p.failed is None for p in self._project.pictures.values()):
            return False
        if facts is None:
            return True
        begun = not facts.places and self._first is None
        return begun and (facts.classes != self._project.class_names or facts.fan != self.fan)

    def predict(self, facts: ModelFacts, places: Sequence[Place]) -> Order:
        """Predict frames with a model."""
        return {
            "do": "predict",
            "number": facts.number,
            "backbone": facts.backbone,
            "units": self.units(places),
            **self._where(facts.number),
        }

    def why(self, facts: ModelFacts, place: Place) -> Order:
        """Say why a model says what it says of a frame."""
        about = {"number": facts.number, "digest": facts.digest, "backbone": facts.backbone}
        return {"do": "why", "unit": self.units([place])[0], **about, **self._where(facts.number)}

    def thresholds(self, facts: ModelFacts) -> Order:
        """Save a model with its present thresholds."""
        values = {"image_threshold": facts.image_threshold, "pixel_threshold": facts.pixel_threshold}
        return {"do": "thresholds", "number": facts.number, "backbone": facts.backbone, **values,
                **self._where(facts.number)}  # fmt: skip

    def check(self) -> Order:
        """The data check of all images."""
        tiny = dict(self._project.database.read("SELECT id, tiny FROM image"))
        roles = self._project.roles()
        with self._project.lock:
            images = []
            for id_, picture in self._project.pictures.items():
                summaries = [s for place, s in self._project.summaries.items() if place[0] == id_ and s.label]
                labels = {s.label for s in summaries}
                role = {roles[place] for place in roles if place[0] == id_}
                images.append(
                    {
                        "picture": picture.model_dump(mode="json"),
                        "tiny": (tiny.get(id_) or b"").hex(),
                        "label": labels.pop() if len(labels) == 1 else None,
                        "split": role.pop() if len(role) == 1 else None,
                    }
                )
        return {"do": "check", "images": images, "normal_class": self._project.normal_class}

    def units(self, places: Iterable[Place]) -> list[tuple[str, int, str]]:
        """(image, frame, path) of the frames that can be read."""
        with self._project.lock:
            found = [(i, f, self._project.pictures.get(i)) for i, f in places]
        return [(i, f, str(self._project.path(p))) for i, f, p in found if p and not p.failed and f < p.frames]

    def ranked(self, without: set[Place]) -> list[Place]:
        """All other frames: first frames before the rest of cines, the least certain ones first."""
        models: Mapping[int, ModelFacts] = self._outcomes.models
        with self._project.lock:
            newest = dict(self._outcomes.newest)
            places = [(p.id, f) for p in self._project.pictures.values() if not p.failed for f in range(p.frames)]

        def rank(place: Place) -> tuple[bool, float]:
            said = newest.get(place)
            doubt = 0.0 if said is None else uncertainty(said.score, models[said.model].image_threshold)
            return place[1] > 0, -doubt

        return sorted((place for place in places if place not in without), key=rank)

    def _where(self, number: int) -> dict[str, str]:
        return {
            "folder": str(self._outcomes.folder(number)),
            "maps": str(self._project.folder / "maps" / str(number)),
        }


def _either(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
