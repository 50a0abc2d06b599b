"""What goes over the wire about jobs, models and the project as a whole; see schemas.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from ultraad.serve.schemas import ClassName, Limits, Place, Readiness, Share, Wire

Interval = tuple[float, float, float]
"""(value, low, high); low and high are the ends of the 95 % interval."""


JobKind = Literal["adapt", "predict", "export", "check"]
JobState = Literal["waiting", "fitting", "predicting", "calibrating", "writing", "done", "failed", "cancelled"]


class Job(Wire):
    """One piece of work of the worker."""

    number: int
    kind: JobKind
    state: JobState = "waiting"
    model: int | None = None
    text: str = ""
    done: int = 0
    total: int = 0
    fraction: float = 0.0
    predicted: int = 0
    to_predict: int = 0
    started: str
    seconds: float = 0.0
    error: str | None = None
    cancellable: bool = True


class CurvePoint(Wire):
    """Sensitivity and specificity at one threshold."""

    threshold: float
    sensitivity: Interval | None
    specificity: Interval | None


class OptionInfo(Wire):
    """One option of a method, from the same model as the command line's."""

    key: str
    values: str
    default: Any
    description: str
    section: str
    type: Literal["number", "integer", "boolean", "text", "choice", "other"]
    choices: list[str] | None = None


class MethodInfo(Wire):
    """A method and whether the marks are enough for it."""

    name: str
    title: str
    idea: str
    needs: list[str]
    gives: list[str]
    ready: bool = True
    reason: str = ""
    options: list[OptionInfo]


class BackboneInfo(Wire):
    """A backbone that can be loaded by name."""

    name: str
    about: str


class JobRequest(Wire):
    """Work to start."""

    kind: JobKind
    method: Annotated[str, StringConstraints(max_length=64)] = "ultraad"
    backbone: Annotated[str, StringConstraints(max_length=200)] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    use_held_out: bool = False
    visible: list[Place] = Field([], max_length=200)
    what: list[Literal["predictions", "masks", "coco", "support", "model", "report"]] | None = None


class Numbers(Wire):
    """How good a model is on marks that it has not learned from."""

    source: Literal["held-out marks", "cross-validation on the support", "none"]
    images: int = 0
    patients: int | None = None
    abnormal: int = 0
    normal: int = 0
    threshold: float
    curve: list[CurvePoint] = Field(default_factory=list)
    at: CurvePoint | None = None
    auroc: Interval | None = None
    dice: Interval | None = None
    text: str
    caution: str | None = None


class ModelInfo(Wire):
    """One model of the project."""

    number: int
    name: str
    made: str
    current: bool
    method: str
    backbone: str
    seconds: float
    support: dict[str, int]
    digest: str
    image_threshold: float
    pixel_threshold: float | None
    threshold_from: Literal["cross-validation", "fixed", "you"]
    notes: list[str]
    used_held_out: bool
    sets: str
    numbers: Numbers | None = None
    predicted: int


class ThresholdChange(Wire):
    """Thresholds set by hand."""

    image_threshold: Share | None = None
    pixel_threshold: Share | None = None


class Flip(Place):
    """A frame that two models judge differently."""

    name: str
    before: str
    after: str
    score_before: float
    score: float
    label: str | None


class Changes(Wire):
    """What is different from another model."""

    against: int | None
    flipped: list[Flip]
    missed: list[Flip]
    found: list[Flip]
    false_alarms: list[Flip]
    compared: int
    text: str


class Offer(Place):
    """An image to mark next, and why."""

    name: str
    reason: str
    kind: Literal["unsure", "unlike", "disagrees", "class", "random"]
    held_out: bool
    score: float | None


class Queue(Wire):
    """What to mark next."""

    items: list[Offer]
    worth: bool
    message: str


class CheckFinding(Wire):
    """One finding of the data check."""

    severity: Literal["error", "warning", "info"]
    kind: str
    message: str
    images: list[str]
    items: list[str]


class Check(Wire):
    """The data check of this project."""

    state: Literal["none", "running", "done", "stale"]
    findings: list[CheckFinding] = Field(default_factory=list)


class Export(Wire):
    """One folder of results."""

    number: int
    made: str
    model: int
    folder: str
    files: int
    bytes: int
    what: list[str]
    command: str


class ProjectInfo(Wire):
    """The project as a whole."""

    id: str
    title: str
    version: str
    classes: list[ClassName]
    raters: list[str]
    held_out_share: float
    images: int
    frames: int
    marked: int
    held_out: int
    model: int | None
    row: int
    job: Job | None
    adapt: Readiness
    limits: Limits
    voice: bool
    notice: str = "For research only. Not a medical device."
