"""What both long jobs share: facts for ``run.json``, counts, failures, and an end that always closes the folder."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ultraad.model.record import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ultraad.errors import DataError
    from ultraad.model.predictor import Predictor
    from ultraad.results.folder import RunFolder
    from ultraad.types import Sample


@dataclass(slots=True)
class Outcome:
    """What became of the images of one run.

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


def facts(model: Predictor, command: str) -> dict[str, Any]:
    """What ``run.json`` says about the model; the report is made from this."""
    calibration = model.calibration
    return {
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {
            "digest": model.digest,
            **model.describe().model_dump(mode="json", exclude={"format", "note", "digest", "files"}),
        },
        "thresholds": {"image": calibration.image_threshold, "pixel": calibration.pixel_threshold},
        "protocol": model.origin.setting,
        "support_digest": model.origin.support_digest,
        "versions": versions(),
    }


@contextmanager
def finishing(folder: RunFolder | None) -> Iterator[Outcome]:
    """Time a run and close its folder, whatever ends it."""
    outcome, started, status = Outcome(), time.perf_counter(), "failed"
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
