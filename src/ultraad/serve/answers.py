"""What the worker finds out, apart from how far it is: taken into the project, and told to the pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ultraad.serve.orders import Order
from ultraad.serve.outcomes import ModelFacts, Outcomes
from ultraad.serve.project import Place, Project
from ultraad.serve.schemas_work import BackboneInfo, MethodInfo

Tell = Callable[[str, Any], None]


class Answers:
    """Takes in answers of the worker.

    Args:
        project: Open.
        outcomes: Gets models and predictions.
        tell: Called with (event, what) for the pages.
        resave: Called with a model whose file needs other thresholds than the worker gave it.

    Attributes:
        methods: What can be chosen; empty until the worker has started.
        backbones: The same.
        checked: Findings of the last data check, and the state of the data then (``at``); None before the first.
        unreadable: {(model, place): why} of frames that could not be predicted.
        reasons: {(model, digest, place): answer} to questions why a model says what it says of a frame.
    """

    def __init__(
        self, project: Project, outcomes: Outcomes, *, tell: Tell, resave: Callable[[ModelFacts], None]
    ) -> None:
        self._project, self._outcomes, self._tell, self._resave = project, outcomes, tell, resave
        self.methods: list[MethodInfo] = []
        self.backbones: list[BackboneInfo] = []
        self.checked: dict[str, Any] | None = project.database.setting("checked")
        self.unreadable: dict[tuple[int, Place], str] = {}
        self.reasons: dict[tuple[int, str, Place], Mapping[str, Any]] = {}

    def method(self, name: str) -> MethodInfo | None:
        """What is known of a method."""
        return next((m for m in self.methods if m.name == name), None)

    def take(self, what: Mapping[str, Any], data: bytes, order: Order) -> None:
        """Take in one answer; one that only says how far the worker is, is left to the caller.

        Args:
            what: The answer.
            data: The bytes with it.
            order: What the worker was told to do.
        """
        taking: dict[str, Callable[[], None]] = {
            "predictions": lambda: self._predictions(what, data),
            "graded": lambda: self._graded(what["number"], what["found"]),
            "unreadable": lambda: self._cannot(order["number"], what),
            "model": lambda: self._model(ModelFacts.model_validate(what["facts"])),
            "digest": lambda: self._digest(what["number"], what["digest"]),
            "catalogue": lambda: self._catalogue(what),
            "checked": lambda: self._checked(what, order),
            "why": lambda: self._why(what),
            "exported": lambda: self._exported(what, order),
        }
        if what["say"] in taking:
            taking[what["say"]]()

    def _predictions(self, what: Mapping[str, Any], vectors: bytes) -> None:
        found = what["found"]
        rows = np.frombuffer(vectors, "<f4").reshape(len(found), -1)
        with_vectors = [{**f, "vector": row.tobytes()} for f, row in zip(found, rows, strict=True)]
        images = self._outcomes.add(what["number"], with_vectors)
        self._tell("predictions", {"model": what["number"], "images": images})

    def _graded(self, model: int, found: Sequence[Mapping[str, Any]]) -> None:
        self._tell("predictions", {"model": model, "images": self._outcomes.grade(model, found)})

    def _cannot(self, model: int, what: Mapping[str, Any]) -> None:
        self.unreadable[model, (what["image"], what["frame"])] = what["error"]

    def _model(self, facts: ModelFacts) -> None:
        """A model was fitted, or its thresholds were."""
        earlier = self._outcomes.models.get(facts.number)
        if earlier is not None and earlier.threshold_from == "you":  # set while the cross-validation ran
            own = earlier.model_dump(include={"image_threshold", "pixel_threshold", "threshold_from"})
            facts = facts.model_copy(update=own)
            self._resave(facts)
        self._outcomes.put(facts)
        adapted = earlier is None or not facts.places  # else it is there already, and now has thresholds
        if adapted:
            self._outcomes.use(facts.number)
        self._tell("model", {"model": facts.number, "why": "adapted" if adapted else "calibrated"})
        self._tell("queue", {})

    def _digest(self, model: int, digest: str) -> None:
        self._outcomes.put(self._outcomes.models[model].model_copy(update={"digest": digest}))

    def _why(self, what: Mapping[str, Any]) -> None:
        self.reasons[what["number"], what["digest"], (what["image"], what["frame"])] = what

    def _catalogue(self, what: Mapping[str, Any]) -> None:
        self.methods = [MethodInfo.model_validate(m) for m in what["methods"]]
        self.backbones = [BackboneInfo.model_validate(b) for b in what["backbones"]]
        self._tell("project", {})

    def _checked(self, what: Mapping[str, Any], order: Order) -> None:
        self.checked = {"at": order["at"], "findings": what["findings"], "alike": what["alike"]}
        self._project.database.set(checked=self.checked)
        self._tell("queue", {})

    def _exported(self, what: Mapping[str, Any], order: Order) -> None:
        facts = {**order["about"], "files": what["files"], "bytes": what["bytes"]}
        self._project.database.put("export", order["export"], json.dumps(facts))
