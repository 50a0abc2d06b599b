"""Shared by both long jobs: facts for ``run.json``, counts, failures, and closing the folder in any case."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from ultraad.errors import DataError
from ultraad.model.predictor import Predictor
from ultraad.model.record import versions
from ultraad.results.folder import RunFolder
from ultraad.results.row import ModelFacts, Run, Status, Thresholds
from ultraad.types import Sample


@dataclass(slots=True)
class Outcome:
    """The number of images of one run, by what happened to them.

    Attributes:
        predicted: Images predicted in this run.
        skipped: Images that an earlier run had predicted.
        failed: {id: reason}.
        seconds: Wall time.
    """

    predicted: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def facts(model: Predictor, command: Literal["predict", "evaluate"], **more: Any) -> Run:  # noqa: ANN401
    """``run.json`` of a run that begins now.

    Args:
        model: Any model.
        command: What is run.
        more: Other fields: ``data``, ``leakage``.
    """
    calibration = model.calibration
    described = model.describe().model_dump(mode="json", exclude={"format", "note", "digest", "files"})
    return Run(
        command=command,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        model=ModelFacts(digest=model.digest, **described),
        thresholds=Thresholds(image=calibration.image_threshold, pixel=calibration.pixel_threshold),
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
            outcome.failed = folder.failed
            outcome.predicted = len(folder.done) - before  # without those that could not be written
            rate = round(outcome.predicted / outcome.seconds, 2) if outcome.seconds else None
            folder.finish(status, seconds=round(outcome.seconds, 2), images_per_second=rate)


def failing(folder: RunFolder | None, failed: dict[str, str] | None = None) -> Callable[[Sample, DataError], None]:
    """The ``on_error`` of a run: it records the failure in the folder and in ``failed``."""

    def note(sample: Sample, error: DataError) -> None:
        if failed is not None:
            failed[sample.id] = str(error)
        if folder is not None:
            folder.fail(sample.id, str(error))

    return note
