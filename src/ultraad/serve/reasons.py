"""Why the model in use says what it says of one frame: asked of the worker, and told to the page without paths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from ultraad.data.fans import fan_of, in_fans
from ultraad.data.loader import decode
from ultraad.errors import UltraadError
from ultraad.model.reasons import Part, Why
from ultraad.serve.jobs import Jobs
from ultraad.serve.orders import Orders
from ultraad.serve.outcomes import Outcomes
from ultraad.serve.project import Place, Project
from ultraad.types import Sample

if TYPE_CHECKING:
    from ultraad.model.model import Model


class NearImage(BaseModel):
    """A support image; ``image`` is None if it is not in this project."""

    image: str | None
    frame: int
    label: str
    similarity: float
    share: float | None
    score: float | None


class NearSentence(BaseModel):
    """A sentence of the text bank."""

    label: str
    text: str
    share: float | None


class ReasonsNow(BaseModel):
    """What is known now.

    Attributes:
        state: ``"waiting"``: ask again in a second.
        model: Whose reasons they are.
        error: Why there are none.
        on_marks: Whether the score rests on marks; None if there are none.
        lines: The findings in sentences.
        support: Support images with the largest shares.
        sentences: Sentences with the largest shares.
    """

    state: Literal["waiting", "done", "failed"]
    model: int
    error: str = ""
    on_marks: bool | None = None
    lines: list[str] = []
    support: list[NearImage] = []
    sentences: list[NearSentence] = []


class Reasons:
    """Asks for reasons, and keeps them.

    Args:
        project: Open.
        outcomes: Its models.
        orders: Makes orders.
        jobs: Gives them to the worker.
    """

    def __init__(self, project: Project, outcomes: Outcomes, orders: Orders, jobs: Jobs) -> None:
        self._project, self._outcomes, self._orders, self._jobs = project, outcomes, orders, jobs

    def of(self, place: Place) -> ReasonsNow:
        """The reasons of a frame; begins to look for them if they are not known.

        Raises:
            KeyError: If there is no such frame, or no model yet.
        """
        self._project.picture(*place)
        facts = self._outcomes.facts
        if facts is None:
            raise KeyError(place)
        found = self._jobs.answers.reasons.get((facts.number, facts.digest, place))
        if found is None:
            self._jobs.ask(self._orders.why(facts, place))
            return ReasonsNow(state="waiting", model=facts.number)
        if "error" in found:
            return ReasonsNow(state="failed", model=facts.number, error=found["error"])
        return self._told(facts.number, Why.model_validate(found["why"]))

    def _told(self, number: int, why: Why) -> ReasonsNow:
        with self._project.lock:
            known = {
                picture.sample if picture.frames == 1 else f"{picture.sample}#{frame}": (picture.id, frame)
                for picture in self._project.pictures.values()
                for frame in range(picture.frames)
            }
        places = [known.get(one.id, (None, 0)) for one in why.support]
        shown = tuple(
            one.model_copy(update={"image": image}) for one, (image, _) in zip(why.support, places, strict=True)
        )
        return ReasonsNow(
            state="done",
            model=number,
            on_marks=why.marks.rests,
            lines=why.model_copy(update={"support": shown}).sentences_in_words(),
            support=[
                NearImage(
                    image=image,
                    frame=frame,
                    label=one.label,
                    similarity=one.similarity,
                    share=_share(one.part),
                    score=one.score,
                )
                for one, (image, frame) in zip(why.support, places, strict=True)
            ],
            sentences=[NearSentence(label=one.label, text=one.text, share=_share(one.part)) for one in why.sentences],
        )


def _share(part: Part | None) -> float | None:
    return None if part is None else part.share


def explained(model: Model, order: Mapping[str, Any]) -> dict[str, Any]:
    """The worker's answer to an order for reasons; an image that cannot be read is an answer, too."""
    image, frame, path = order["unit"]
    about = {"say": "why", "number": order["number"], "digest": order["digest"], "image": image, "frame": frame}
    try:
        (sample,) = in_fans([Sample(image, Path(path), frame=frame)], model.fan)
        seen = decode(sample, normal_class=model.normal_class)
        return {**about, "why": model.explain(seen.image, None, fan_of(seen.sample)).model_dump(mode="json")}
    except UltraadError as e:
        return {**about, "error": str(e).replace(path, image)}
