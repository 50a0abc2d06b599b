"""Predict what waits in the queue, one image at a time, each as a run of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom

from ultraad.errors import Caught, DataError, UltraadError, brief
from ultraad.model.predictor import Predictor
from ultraad.node.queue import MOST_TRIES, Queue, Waiting
from ultraad.results.saving import DICOM
from ultraad.runs.predict import predict


@dataclass(frozen=True, slots=True)
class Job:
    """How images are predicted.

    Attributes:
        model: Any model.
        peers: Names of the peers that get the objects.
        options: Arguments of :func:`ultraad.runs.predict.predict`: thresholds, region, objects.
    """

    model: Predictor
    peers: tuple[str, ...]
    options: dict[str, Any]


def work(queue: Queue, job: Job, *, stopped: Callable[[], bool]) -> int:
    """Predict until nothing waits, or the node is stopped; returns the number of images that were tried.

    Raises:
        DataError: If the disk is full. The images wait, also the one whose prediction that ended.
    """
    tried = 0
    while not stopped() and (image := queue.next_image()) is not None:
        if queue.is_full():
            queue.put_back(image)
            raise _full(queue)
        tried += 1
        if image.tries >= MOST_TRIES:
            queue.fail(image, f"its prediction ended the process {MOST_TRIES} times")
            continue
        with Caught() as caught:
            _predict(queue, job, image)
        if caught.error is not None:
            error = caught.error
            if queue.is_full():
                queue.put_back(image)
                raise _full(queue) from error
            queue.fail(image, str(error) if isinstance(error, UltraadError) else brief(error))
    return tried


def _full(queue: Queue) -> DataError:
    return DataError(f"the disk of {queue.folder} is full, so nothing is predicted; free space there")


def _predict(queue: Queue, job: Job, image: Waiting) -> None:
    done = predict(job.model, image.file, image.job, save=[DICOM], **job.options)
    reasons = [*done.failed.values(), *done.without_objects.values()]
    if reasons and queue.is_full():
        raise _full(queue)  # what is missing may be missing for that
    objects = _objects(image.job / DICOM)
    if not objects:
        queue.fail(image, "; ".join(reasons) or "no object was made of it")
        shutil.rmtree(image.job, ignore_errors=True)
        return
    queue.finish(image, objects, job.peers, model=job.model.digest, reason="; ".join(reasons) or None)


def _objects(folder: Path) -> list[tuple[str, str, Path]]:
    """(UID, SOP class, file) of the objects of a run."""
    listed = folder / "objects.json"
    if not listed.is_file():
        return []
    found = []
    for entry in json.loads(listed.read_text(encoding="utf-8"))["images"]:
        for one in entry["objects"].values():
            path = folder / one["file"]
            sop_class = pydicom.dcmread(path, specific_tags=["SOPClassUID"]).SOPClassUID
            found.append((one["uid"], str(sop_class), path))
    return found
