"""The models of a project and what they say about each frame."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ultraad.fan import FanChoice
from ultraad.io.maps import read_map
from ultraad.metrics.lesions import find_lesions, flat
from ultraad.serve.marking import size_in_words
from ultraad.serve.project import Place, Project, Summary, now
from ultraad.serve.schemas import Outcome, Suggestion, Suggestions
from ultraad.serve.shapes import Mask, Outlined

KEPT = 2
"""Models whose maps are kept: the one in use and the one before it. Others predict again when they are chosen."""

_KEPT_SCORES = 10  # models whose scores are kept

ThresholdFrom = Literal["cross-validation", "fixed", "you"]


class ModelFacts(BaseModel):
    """One model, as it is stored.

    Attributes:
        number: Its number; 0 is the model that the project began with.
        made: ISO time.
        method: Name of the method.
        backbone: Name of the backbone.
        options: Options that were given.
        classes: Class names in label order.
        normal_class: The class that means "no lesion".
        seconds: Wall time of the fit.
        support: {class: images}.
        places: Frames that it was adapted to.
        digest: Of the saved model.
        image_threshold: An image is abnormal if its score is at least this.
        pixel_threshold: A pixel is lesion if its map value is at least this; None without maps.
        threshold_from: Where the thresholds come from.
        notes: For users.
        used_held_out: Whether held-out frames were used, so that nothing honest can be measured on them.
        estimates: {metric: (value, low, high, images)} out of fold.
        fan: How it sees pictures (:class:`ultraad.model.record.Description`).
        sets: What its prediction sets promise, or why it has none; empty for models of earlier versions.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    made: str
    method: str
    backbone: str
    options: dict[str, Any] = {}
    classes: tuple[str, ...] = ()
    normal_class: str = ""
    seconds: float = 0.0
    support: dict[str, int] = {}
    places: tuple[Place, ...] = ()
    digest: str = ""
    image_threshold: float = 0.5
    pixel_threshold: float | None = 0.5
    threshold_from: ThresholdFrom = "fixed"
    notes: tuple[str, ...] = ()
    used_held_out: bool = False
    estimates: dict[str, tuple[float, float | None, float | None, int]] = {}
    fan: FanChoice = "off"
    sets: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """What one model says about one frame."""

    model: int
    score: float
    probs: Mapping[str, float] | None
    has_map: bool
    out_of_scope: bool = False
    set: tuple[str, ...] | None = None


class Outcomes:
    """Models, scores and maps.

    Attributes:
        models: {number: facts}.
        newest: {place: what the last model that predicted it says}; of the model in use where it has.
        former: {place: what the model before the one in use said}.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self.load()

    def load(self) -> None:
        """Read everything from the database."""
        self.models = {n: ModelFacts.model_validate(f) for n, f in self._project.database.facts("model").items()}
        for number in [n for n in self.models if not self.folder(n).is_dir()]:  # killed before it was saved
            del self.models[number]
            with self._project.database.write() as db:
                db.execute("DELETE FROM model WHERE number = ?", (number,))
        choices = [m for (m,) in self._project.database.read("SELECT model FROM choice ORDER BY number")]
        self._choices = [m for m in choices if m in self.models]
        self.newest: dict[Place, Said] = {}
        for model in reversed(self._used()):
            self.newest |= self.said_by(model)
        self.former = self.said_by(self.before) if self.before is not None else {}

    @property
    def current(self) -> int | None:
        """The model in use; None before the first."""
        return self._choices[-1] if self._choices else None

    @property
    def before(self) -> int | None:
        """The model that was in use before the current one; None if there was none."""
        return next((m for m in reversed(self._choices) if m != self.current), None)

    @property
    def facts(self) -> ModelFacts | None:
        """The facts of the model in use."""
        return None if self.current is None else self.models[self.current]

    def _used(self) -> list[int]:
        """The models by their last use, the one in use first."""
        return list(dict.fromkeys(reversed(self._choices)))

    def folder(self, model: int) -> Path:
        """Where a model is saved."""
        return self._project.folder / "models" / str(model)

    def new_number(self) -> int:
        """A number that no adapted model has had: 1, 2, ...; 0 is the model that a project begins with."""
        return max(self.models, default=0) + 1

    def clear(self, model: int) -> None:
        """Forget what a model has predicted, with its maps: it is made anew, or was not finished."""
        with self._project.lock:
            with self._project.database.write() as db:
                db.execute("DELETE FROM prediction WHERE model = ?", (model,))
            for known in (self.newest, self.former):
                for place in [p for p, said in known.items() if said.model == model]:
                    del known[place]
        shutil.rmtree(self._project.folder / "maps" / str(model), ignore_errors=True)

    def put(self, facts: ModelFacts) -> None:
        """Store a model, new or changed."""
        self._project.database.put("model", facts.number, facts.model_dump_json())
        self.models[facts.number] = facts

    def use(self, model: int) -> None:
        """Make a model the one in use, with what it has predicted; maps of models long out of use are deleted."""
        with self._project.lock:
            if model == self.current:
                return
            with self._project.database.write() as db:
                db.execute("INSERT INTO choice (model, made) VALUES (?, ?)", (model, now()))
            self._choices.append(model)
            self.former = self.said_by(self.before) if self.before is not None else {}
            self.newest = {**self.newest, **self.said_by(model)}
            used = self._used()
            kept = used[:KEPT]
            with self._project.database.write() as db:
                db.executemany("DELETE FROM prediction WHERE model = ?", [(n,) for n in used[_KEPT_SCORES:]])
        for folder in (self._project.folder / "maps").iterdir():
            if folder.name not in map(str, kept):
                shutil.rmtree(folder, ignore_errors=True)
                with self._project.database.write() as db:
                    db.execute("UPDATE prediction SET map = 0 WHERE model = ?", (int(folder.name),))

    def said_by(self, model: int) -> dict[Place, Said]:
        """Everything that one model has predicted."""
        rows = self._project.database.read(
            "SELECT image, frame, score, probs, map, out_of_scope, classes FROM prediction WHERE model = ?", (model,)
        )
        return {
            (image, frame): Said(model, score, _read(probs), bool(map_), bool(outside), _classes(classes))
            for image, frame, score, probs, map_, outside, classes in rows
        }

    def add(self, model: int, found: Sequence[Mapping[str, Any]]) -> list[str]:
        """Store predictions of a model.

        Args:
            model: Its number.
            found: Each with image, frame, score, probs, set, map (whether its file is written), out_of_scope, backbone
                and vector (bytes).

        Returns:
            Ids of the images that are in the project.
        """
        with self._project.lock:
            known = [f for f in found if f["image"] in self._project.pictures]
            with self._project.database.write() as db:
                db.executemany(
                    "INSERT OR REPLACE INTO prediction (model, image, frame, score, probs, map, out_of_scope, classes) "
                    "VALUES (:model, :image, :frame, :score, :probs, :map, :out_of_scope, :classes)",
                    [{**f, "model": model, **_written(f)} for f in known],
                )
                db.executemany(
                    "INSERT OR REPLACE INTO embedding (image, frame, backbone, vector) VALUES (?, ?, ?, ?)",
                    [(f["image"], f["frame"], f["backbone"], f["vector"]) for f in known],
                )
            if model == self.current:
                self.newest |= {
                    (f["image"], f["frame"]): Said(
                        model, f["score"], f["probs"], bool(f["map"]), f["out_of_scope"], _tuple(f["set"])
                    )
                    for f in known
                }
            return list(dict.fromkeys(f["image"] for f in known))

    def grade(self, model: int, found: Sequence[Mapping[str, Any]]) -> list[str]:
        """Store other probabilities and sets of frames that a model has predicted: its probabilities were scaled since.

        Args:
            model: Its number.
            found: Each with image, frame, probs and set.

        Returns:
            Ids of the images that are in the project.
        """
        with self._project.lock:
            known = [f for f in found if f["image"] in self._project.pictures]
            with self._project.database.write() as db:
                db.executemany(
                    "UPDATE prediction SET probs = :probs, classes = :classes "
                    "WHERE model = :model AND image = :image AND frame = :frame",
                    [{"image": f["image"], "frame": f["frame"], "model": model, **_written(f)} for f in known],
                )
            for f in known:
                said = self.newest.get((f["image"], f["frame"]))
                if said is not None and said.model == model:
                    other = replace(said, probs=f["probs"], set=_tuple(f["set"]))
                    self.newest[f["image"], f["frame"]] = other
            return list(dict.fromkeys(f["image"] for f in known))

    def missing(self, model: int) -> list[Place]:
        """The frames that a model has not predicted, or whose map is gone; first frames before the rest of cines."""
        with self._project.lock:
            said = self.said_by(model)
            with_map = self.models[model].pixel_threshold is not None
            there = {place for place, one in said.items() if one.has_map or not with_map}
            wanted = [(p.id, f) for p in self._project.pictures.values() if not p.failed for f in range(p.frames)]
        return sorted((place for place in wanted if place not in there), key=lambda place: place[1])

    def forget(self, image: str) -> None:
        """Forget a removed image."""
        with self._project.lock:
            for known in (self.newest, self.former):
                for place in [p for p in known if p[0] == image]:
                    del known[place]

    def outcome(self, said: Said | None) -> Outcome | None:
        """For the page: decided at the thresholds of the model that said it."""
        if said is None or said.model not in self.models:
            return None
        threshold = self.models[said.model].image_threshold
        abnormal = said.score >= threshold
        return Outcome(
            model=said.model,
            score=said.score,
            abnormal=abnormal,
            class_=self.class_of(said),
            probs=None if said.probs is None else dict(said.probs),
            uncertainty=uncertainty(said.score, threshold),
            has_map=said.has_map,
            out_of_scope=said.out_of_scope,
            set_=None if said.set is None else list(said.set),
        )

    def class_of(self, said: Said) -> str | None:
        """The most probable class on the score's side of the threshold; None if abnormal and there are no classes."""
        facts = self.models[said.model]
        if said.score < facts.image_threshold:
            return facts.normal_class
        lesions = {name: p for name, p in (said.probs or {}).items() if name != facts.normal_class}
        return max(lesions, key=lesions.__getitem__) if lesions else None

    def opinion(self, place: Place) -> tuple[bool, str | None] | None:
        """(abnormal, class) of the newest prediction of a frame."""
        said = self.newest.get(place)
        if said is None or said.model not in self.models:
            return None
        return said.score >= self.models[said.model].image_threshold, self.class_of(said)

    def map_file(self, place: Place, model: int | None = None) -> tuple[int, Path] | None:
        """(model, file) of a map; of the newest without a model. None if there is none."""
        if model is None:
            said = self.newest.get(place)
            if said is None:
                return None
            model = said.model
        path = self._project.folder / "maps" / str(model) / f"{place[0]}-{place[1]}.png"
        return (model, path) if path.is_file() else None

    def map_of(self, place: Place, model: int | None = None) -> tuple[int, NDArray[np.float32]] | None:
        """(model, map float32 (h w) on the model's grid); None if there is none."""
        found = self.map_file(place, model)
        return None if found is None else (found[0], read_map(found[1]))

    def suggestions(
        self, place: Place, *, model: int | None, threshold: float | None, marked: Iterable[Mask]
    ) -> Suggestions | None:
        """Lesions of a map, without those that overlap a marked one; None if there is no map.

        Args:
            place: The frame.
            model: Its number; None for the newest.
            threshold: None for the stored one.
            marked: Masks bool (H W) of the lesions that people marked.
        """
        import cv2

        found = self.map_of(place, model)
        if found is None:
            return None
        number, grid = found
        picture, facts = self._project.pictures[place[0]], self.models[number]
        level = facts.pixel_threshold if threshold is None else threshold
        level = 0.5 if level is None else level
        large = cv2.resize(grid, picture.size[::-1], interpolation=cv2.INTER_LINEAR)
        lesions = find_lesions(np.asarray(large, np.float32), level, spacing_mm=picture.spacing_mm)
        said = self.newest.get(place)
        class_ = self.class_of(said) if said is not None and said.model == number else None
        out: list[Suggestion] = []
        taken = list(marked)
        for index, lesion in enumerate(lesions):
            x, y, w, h = lesion.box
            if any((mask[y : y + h, x : x + w] & lesion.pixels).any() for mask in taken):
                continue
            mm = (lesion.long_mm, lesion.short_mm)
            size_mm = (round(mm[0], 1), round(mm[1], 1)) if mm[0] is not None and mm[1] is not None else None
            size_px = (round(lesion.long_px, 1), round(lesion.short_px, 1))
            in_words = size_in_words(Outlined([], None, 0, size_px, size_mm))
            out.append(
                Suggestion(
                    index=index,
                    outline=[[float(n) for n in flat(ring)] for ring in (lesion.outline, *lesion.holes)],
                    box=(x, y, x + w, y + h),
                    class_=None if class_ == facts.normal_class else class_,
                    peak=float(lesion.score or 0.0),
                    pixels=lesion.area_px,
                    size_mm=size_mm,
                    text=f"suggestion {len(out) + 1}, {in_words}, {lesion.score:.2f}",
                )
            )
        return Suggestions(model=number, threshold=level, suggestions=out)


def _read(text: str | None) -> Any:  # noqa: ANN401
    return json.loads(text) if text else None


def _tuple(classes: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if classes is None else tuple(classes)


def _classes(text: str | None) -> tuple[str, ...] | None:
    return _tuple(_read(text))


def _written(found: Mapping[str, Any]) -> dict[str, str | None]:
    """Probabilities and set of a frame as the database has them."""
    values = {"probs": found["probs"], "classes": found["set"]}
    return {key: None if value is None else json.dumps(value) for key, value in values.items()}


def uncertainty(score: float, threshold: float) -> float:
    """1 at the threshold, 0 at the ends 0 and 1 of the scale."""
    room = (1 - threshold) if score >= threshold else threshold
    return max(0.0, 1 - abs(score - threshold) / room) if room > 0 else 1.0


def decision(summary: Summary | None, said: Outcome | None) -> str | None:
    """The class of a frame: a person's label if there is one, else the model's decision."""
    if summary is not None and summary.label is not None:
        return summary.label
    return None if said is None else said.class_ or ("abnormal" if said.abnormal else "normal")
