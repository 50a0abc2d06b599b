"""Shared by both long jobs: facts for ``run.json``, counts, failures, and closing the folder in any case."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from ultraad.errors import ConfigError, DataError, printable
from ultraad.model.abstain import check_abstain
from ultraad.model.operating_point import at, divided
from ultraad.model.pixel_risk import pixel_point
from ultraad.model.predictor import Predictor
from ultraad.model.probabilities import Prevalence, check_prevalence
from ultraad.model.record import versions
from ultraad.results.folder import RunFolder
from ultraad.results.row import GIVEN, ModelFacts, Run, Status, Thresholds, VideoFacts
from ultraad.types import Sample


@dataclass(slots=True)
class Outcome:
    """The number of images of one run, by what happened to them.

    Attributes:
        predicted: Images predicted in this run.
        out_of_scope: Those of the predicted images that the model cannot judge.
        unsure: Those whose class is left open.
        skipped: Images that an earlier run had predicted.
        failed: {id: reason}.
        without_objects: {DICOM image: reason} of those that were predicted, but have no DICOM objects, or not all.
        seconds: Wall time.
        videos: Videos and cameras of this run that were read to their end.
    """

    predicted: int = 0
    out_of_scope: int = 0
    unsure: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    without_objects: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    videos: tuple[VideoFacts, ...] = ()


def thresholds_of(
    model: Predictor,
    *,
    threshold: float | None = None,
    pixel_threshold: float | None = None,
    operating_point: str | None = None,
    prevalence: Prevalence | None = None,
    abstain: str | None = None,
    sets: str | None = None,
) -> Thresholds:
    """The thresholds of a run: those stored in the model, unless others are chosen.

    Args:
        model: Any model.
        threshold: Of images, in [0, 1].
        pixel_threshold: Of map values, in [0, 1].
        operating_point: As in :meth:`~ultraad.model.predictor.Predictor.operating_point`, in place of ``threshold``;
            ``"fnr=0.2"`` or ``"fppi=0.5"`` in place of ``pixel_threshold`` (:mod:`ultraad.model.pixel_risk`); or both.
        prevalence: Share of images with a lesion, in (0, 1), or {class: share}, for class probabilities.
        abstain: ``"cost=0.2"`` or ``"size=1"``; see :mod:`ultraad.model.abstain`.
        sets: ``"0.9"`` or ``"class=0.9"``; see :mod:`ultraad.model.prediction_sets`.

    Raises:
        ConfigError: If a threshold or the prevalence is out of range, ``abstain`` is no rule, both image thresholds are
            chosen, there are no maps to apply a pixel threshold to, no class probabilities for a prevalence or
            ``abstain``, no scores to fit an operating point on, or too few to promise what ``sets`` asks for.
    """
    stored = model.calibration
    check_prevalence(prevalence, model.classes)
    check_abstain(abstain, sets)
    for name, choice in (("prevalence", prevalence), ("abstain", abstain)):
        if choice is not None and not model.grades:
            msg = f"{model.describe().method} gives no class probabilities, so {name} has none to act on; leave it out"
            raise ConfigError(msg)
    for name, value in (("threshold", threshold), ("pixel threshold", pixel_threshold)):
        if value is not None and not 0 <= value <= 1:  # also when NaN
            msg = f"{name} {value}: wanted a number in [0, 1], as scores and maps are"
            raise ConfigError(msg)
    of_images, of_pixels = divided(operating_point)
    for kind, value, wanted in (("image", threshold, of_images), ("pixel", pixel_threshold, of_pixels)):
        if value is not None and wanted is not None:
            msg = f"{kind} threshold {value} and operating point {wanted} choose the same threshold; give one of them"
            raise ConfigError(msg)
    if (pixel_threshold is not None or of_pixels) and stored.pixel_threshold is None:
        msg = f"{model.describe().method} draws no maps, so there is no pixel threshold to choose; leave it out"
        raise ConfigError(msg)
    chosen: dict[str, Any] = {"image": stored.image_threshold, "pixel": stored.pixel_threshold}
    chosen |= {"prevalence": prevalence, "abstain": abstain, "sets": sets}
    point = None
    if threshold is not None:
        point = at(stored, float(threshold), rule=GIVEN)
    elif of_images is not None:
        point = model.operating_point(of_images)
    if point is not None:
        rest = {"sensitivity": point.sensitivity, "specificity": point.specificity}
        chosen |= {"image": point.threshold, "image_rule": point.rule, **rest}
    notes = list(point.notes) if point is not None else []
    if (promised := model.with_sets(sets).sets) is not None:
        notes.append(promised.note)
    if pixel_threshold is not None:
        chosen |= {"pixel": float(pixel_threshold), "pixel_rule": GIVEN}
    elif of_pixels is not None:
        pixels = pixel_point(stored, of_pixels)
        chosen |= {"pixel": pixels.threshold, "pixel_rule": pixels.rule}
        notes.append(pixels.note)
    if notes:
        chosen["notes"] = tuple(notes)
    return Thresholds(**chosen)


def facts(
    model: Predictor,
    command: Literal["predict", "evaluate"],
    *,
    thresholds: Thresholds | None = None,
    **more: Any,  # noqa: ANN401
) -> Run:
    """``run.json`` of a run that begins now.

    Args:
        model: Any model.
        command: What is run.
        thresholds: Of the run; None takes those stored in the model.
        more: Other fields: ``data``, ``leakage``.
    """
    unnamed: Any = {"format": True, "note": True, "digest": True, "files": True, "calibration": {"held_out"}}
    described = model.describe().model_dump(mode="json", exclude=unnamed)
    return Run(
        command=command,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        model=ModelFacts(digest=model.digest, **described),
        thresholds=thresholds or thresholds_of(model),
        protocol=model.origin.setting,
        support_digest=model.origin.support_digest,
        versions=versions(),
        **more,
    )


@contextmanager
def finishing(folder: RunFolder | None) -> Iterator[Outcome]:
    """Time a run and close its folder, however it ends."""
    outcome, started = Outcome(), time.perf_counter()
    before = len(folder.done) if folder is not None else 0
    status: Status = "failed"
    try:
        yield outcome
        if folder is not None:
            folder.flush()
        status = "complete"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        outcome.seconds = time.perf_counter() - started
        if folder is not None:
            outcome.failed, outcome.out_of_scope, outcome.unsure = folder.failed, folder.out_of_scope, folder.unsure
            outcome.predicted = len(folder.done) - before  # without those that could not be written
            rate = round(outcome.predicted / outcome.seconds, 2) if outcome.seconds else None
            folder.finish(status, seconds=round(outcome.seconds, 2), images_per_second=rate)


def failing(folder: RunFolder | None, failed: dict[str, str] | None = None) -> Callable[[Sample, DataError], None]:
    """The ``on_error`` of a run: it records the failure in the folder and in ``failed``."""

    def note(sample: Sample, error: DataError) -> None:
        if failed is not None:
            failed[sample.id] = printable(str(error))
        if folder is not None:
            folder.fail(sample.id, str(error))

    return note
