"""The models of a project for users: what each is, how good it is, what it changed, and going back to one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ultraad.errors import ConfigError
from ultraad.serve import numbers
from ultraad.serve.jobs import Jobs, NotReadyError
from ultraad.serve.marking import Marking
from ultraad.serve.outcomes import ModelFacts, Outcomes
from ultraad.serve.project import Project
from ultraad.serve.schemas_work import Changes, ModelInfo, Numbers, ThresholdChange

_MOST_NUMBERS = 10  # models whose numbers are kept in memory


class History:
    """The models.

    Args:
        project: Open.
        outcomes: Its models.
        marking: Its marks.
        jobs: Its worker.
        tell: Called with (event, what) for the pages.
    """

    def __init__(
        self, project: Project, outcomes: Outcomes, marking: Marking, jobs: Jobs, *, tell: Callable[[str, Any], None]
    ) -> None:
        self._project, self._outcomes, self._marking, self._jobs = project, outcomes, marking, jobs
        self._tell = tell
        self._numbers: dict[int, tuple[tuple[int, int, ModelFacts], Numbers]] = {}

    def all(self) -> list[ModelInfo]:
        """Every model, newest first."""
        return [self.one(number) for number in sorted(self._outcomes.models, reverse=True)]

    def one(self, number: int) -> ModelInfo:
        """One model.

        Raises:
            KeyError: If there is none of this number.
        """
        facts = self._outcomes.models[number]
        ((predicted,),) = self._project.database.read("SELECT count(*) FROM prediction WHERE model = ?", (number,))
        return ModelInfo(
            number=number,
            name=f"model {number}" if facts.places else "starting model",
            made=facts.made,
            current=number == self._outcomes.current,
            method=facts.method,
            backbone=facts.backbone,
            seconds=facts.seconds,
            support=facts.support,
            digest=facts.digest,
            image_threshold=facts.image_threshold,
            pixel_threshold=facts.pixel_threshold,
            threshold_from=facts.threshold_from,
            notes=list(facts.notes),
            used_held_out=facts.used_held_out,
            sets=facts.sets,
            predicted=predicted,
        )

    def numbers(self, number: int) -> Numbers:
        """How good a model is; computed once for each state of marks, predictions and cross-validation.

        Raises:
            KeyError: If there is none of this number.
        """
        state = self._project.last_row, self.one(number).predicted, self._outcomes.models[number]
        if number not in self._numbers or self._numbers[number][0] != state:
            found = numbers.numbers(self._project, self._outcomes, self._marking, number)
            kept = dict(list(self._numbers.items())[-_MOST_NUMBERS:])
            self._numbers = {**kept, number: (state, found)}
        return self._numbers[number][1]

    def changes(self, number: int, against: int | None) -> Changes:
        """What a model says otherwise than another; without one, than the one in use before.

        Raises:
            KeyError: If there is none of these numbers.
        """
        if against is None:
            current = number == self._outcomes.current
            against = self._outcomes.before if current else self._outcomes.current
        if number not in self._outcomes.models or against not in (None, *self._outcomes.models):
            raise KeyError(number)
        return numbers.changes(self._project, self._outcomes, number, against)

    def use(self, number: int) -> ModelInfo:
        """Make a model the one in use.

        Raises:
            KeyError: If there is none of this number.
            NotReadyError: While an adaptation runs.
        """
        info, job = self.one(number), self._jobs.running
        if job is not None and job.kind == "adapt":
            msg = "an adaptation is running; wait until it is done, or cancel it"
            raise NotReadyError(msg)
        if not info.current:
            self._outcomes.use(number)
            self._tell("model", {"model": number, "why": "chosen"})
            self._tell("queue", {})
            self._jobs.nudge()
        return self.one(number)

    def set_thresholds(self, number: int, change: ThresholdChange) -> ModelInfo:
        """Set thresholds by hand; the saved model gets them when the worker is free.

        Raises:
            KeyError: If there is none of this number.
            ConfigError: If the model has no maps.
        """
        facts = self._outcomes.models[number]
        wanted = change.model_dump(exclude_none=True)
        if facts.pixel_threshold is None and "pixel_threshold" in wanted:
            msg = "this model draws no maps, so it has no pixel threshold"
            raise ConfigError(msg)
        changed = facts.model_copy(update={**wanted, "threshold_from": "you"})
        self._outcomes.put(changed)
        self._jobs.set_thresholds(changed)
        self._tell("model", {"model": number, "why": "chosen"})
        return self.one(number)
