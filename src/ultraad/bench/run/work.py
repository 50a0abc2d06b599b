"""One job from start to end: fit, evaluate, return rows with their files. Runs in any process on any machine."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ultraad.backbones import load_backbone
from ultraad.backbones._cache import FeatureCache
from ultraad.backbones._door import Backbone
from ultraad.bench.recipe import BackboneSpec
from ultraad.bench.results import ERRORS, MAPS, PICTURES, PIXELS, PREDICTIONS, Finished
from ultraad.bench.row import Files, FitFacts, Row, ThresholdFacts, Timings, parse_row
from ultraad.bench.run.jobs import Job, PlannedRow
from ultraad.bench.run.machine import stamp
from ultraad.bench.run.measure import Clock, Measured, measure
from ultraad.bench.run.peak_memory import PeakMemory
from ultraad.bench.run.protocol import HABITS, Habit, preference, stop_at
from ultraad.data.loader import iterate
from ultraad.data.preprocess import Preprocess
from ultraad.errors import Caught, DataError
from ultraad.model.adapt import adapt, zero_shot
from ultraad.model.model import Model
from ultraad.model.record import Origin
from ultraad.types import Sample


@dataclass(frozen=True, slots=True)
class Encode:
    """Images to encode before the jobs that need them.

    Attributes:
        backbone: What to load.
        device: Where it runs.
        samples: The images.
        threads: Of torch.
    """

    backbone: BackboneSpec
    device: str
    samples: tuple[Sample, ...]
    threads: int


def encode(task: Encode, features: Path) -> None:
    """Write the features of images into a folder. Errors are ignored here: the jobs meet and report them."""

    def ignore(sample: Sample, error: DataError) -> None:
        """Skip an image that cannot be read."""

    with _threads(task.threads), Caught():
        backbone, cache = _open(task.backbone, task.device, features)
        batches = iterate(
            [replace(s, label=None, masks=()) for s in task.samples],  # only the pixels matter here
            Preprocess(backbone.preprocess),
            classes=(),
            normal_class="",
            batch_size=8,
            on_error=ignore,
        )
        with closing(batches):
            for _, batch in batches:
                cache.encode(batch.images, layers=(), batch_size=1)


def forget() -> None:
    """Release the backbone that this process keeps between jobs."""
    _open.cache_clear()


@lru_cache(maxsize=1)  # jobs are sorted by backbone
def _open(spec: BackboneSpec, device: str, features: Path | None) -> tuple[Backbone, FeatureCache]:
    backbone = load_backbone(spec.name, device=device, dtype=spec.dtype, size=spec.size)
    return backbone, backbone.new_cache(features)


def run_job(job: Job, features: Path | None) -> list[Finished]:
    """Fit once, evaluate on every test set.

    Args:
        job: What to do.
        features: Folder of shared frozen features; None: the job runs the tower itself, on whole batches.

    Returns:
        One finished row for each row of the job. An error becomes a row with ``status: error``; only KeyboardInterrupt
        is raised.
    """
    peak = PeakMemory()
    done: list[Finished] = []
    with _threads(job.recipe.threads):
        with Caught() as fitting:
            fitted = _Fitted(job, features)
        if fitting.error is not None:
            return [_failed(job, planned, fitting.error, peak) for planned in job.rows]
        for planned in job.rows:
            with Caught() as evaluating:
                done.append(fitted.evaluate(planned, peak))
            if evaluating.error is not None:
                done.append(_failed(job, planned, evaluating.error, peak))
        fitted.close()
    return done


class _Fitted:
    """The fitted models of a job with their backbone and the time that fitting took.

    There is one model, or under ``published`` one for each checkpoint if the reference chooses among epochs.

    Args:
        job: What to do.
        features: Folder of shared frozen features, or None.
    """

    def __init__(self, job: Job, features: Path | None) -> None:
        self._job = job
        self._backbone, self._cache = _open(job.backbone, job.device, features)
        self._shared = features is not None
        self._clock = Clock(self._cache.usage)
        self._habit = HABITS[job.about.method] if job.about.protocol == "published" else Habit()
        self._models: list[tuple[Model, int | None]] = []  # with the epoch
        if not self._habit.criterion or job.support is None:
            self._models = [(self._fit(), None)]
            return
        for k in range(1, job.recipe.checkpoints + 1):
            reached: list[int] = []
            model = self._fit(stop_at(k / job.recipe.checkpoints, reached))
            if not reached:  # this method does not train
                self._models = [(model, None)]
                return
            if all(reached[-1] != epoch for _, epoch in self._models):
                self._models.append((model, reached[-1]))

    def evaluate(self, planned: PlannedRow, peak: PeakMemory) -> Finished:
        """One row with its files."""
        model, epoch = self._models[-1]
        if len(self._models) > 1:
            tried = [self._measure(m, planned).evaluation.result(bootstrap=0)["metrics"] for m, _ in self._models]
            preferences = [preference(self._habit, metrics) for metrics in tried]
            model, epoch = self._models[preferences.index(max(preferences))]
        rescale = self._measure(model, planned).range if self._habit.min_max else None
        whole, clock = Clock(self._cache.usage), Clock(self._cache.usage)
        with whole.running():
            found = self._measure(model, planned, clock=clock, keep_maps=planned.keep_maps, rescale=rescale)
            measured = found.evaluation.result(bootstrap=self._job.recipe.bootstrap, seed=0)
        per_image = 1000 / len(found.lines)
        timings = Timings(
            adapt_seconds=round(self._clock.seconds, 3),
            predict_ms=round(clock.seconds * per_image, 3),
            encode_ms=round(clock.encode * per_image, 3),
            evaluate_seconds=round(whole.seconds, 3),
        )
        id_ = planned.row.id
        contents = {
            "predictions": (f"{PREDICTIONS}/{id_}.jsonl", found.predictions()),
            "pixels": (f"{PIXELS}/{id_}.npz", found.pixels()),
            "maps": (f"{MAPS}/{id_}.npz", found.small_maps()),
        }
        written = {key: (path, content) for key, (path, content) in contents.items() if content is not None}
        paths = {key: path for key, (path, _) in written.items()}
        row = _finished(
            self._job,
            planned,
            peak,
            status="ok",
            test=planned.row.test.model_copy(update={"left_out": found.left_out, "failed": found.failed}),
            calibration=ThresholdFacts(**dict(model.calibration), calibrated=model.calibration.folds > 0),
            fit=_fit_facts(model.origin, epoch),
            timings=timings,
            files=_files(**paths, pictures=f"{PICTURES}/{planned.row.test.key}.npz"),
            **measured,
        )
        return Finished(row, dict(written.values()))

    def close(self) -> None:
        """Forget what only this job needed."""
        self._backbone.cache.clear()

    def _caching(self) -> AbstractContextManager[None]:
        return self._backbone.caching(self._cache) if self._shared else nullcontext()

    def _fit(self, progress: Callable[[str, int, int], None] | None = None) -> Model:
        job, about = self._job, self._job.about
        classes, normal_class = about.adapt.classes, about.adapt.normal_class
        with self._caching(), self._clock.running():
            if job.support is None and job.auxiliary is None:
                return zero_shot(
                    backbone=self._backbone,
                    classes=classes,
                    normal_class=normal_class,
                    method=about.method,
                    options=about.given,
                    seed=about.seed,
                )
            return adapt(
                job.support,
                auxiliary=job.auxiliary,
                method=about.method,
                backbone=self._backbone,
                options=about.given,
                classes=classes if job.support is None else None,
                normal_class=normal_class if job.support is None else None,
                seed=about.seed,
                calibrate=job.recipe.calibrate,
                progress=progress,
            )

    def _measure(self, model: Model, planned: PlannedRow, *, clock: Clock | None = None, **options: Any) -> Measured:  # noqa: ANN401
        clock = clock or Clock(self._cache.usage)
        with self._caching():
            return measure(model, planned.test, clock=clock, batch_size=self._job.recipe.batch_size, **options)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def without_result(job: Job, planned: PlannedRow, reason: str, *, status: str = "error") -> Finished:
    """A row that did not run here: its process was lost, or its test set is not public."""
    return Finished(_finished(job, planned, None, status=status, reason=reason), {})


def _failed(job: Job, planned: PlannedRow, error: Exception, peak: PeakMemory) -> Finished:
    path = f"{ERRORS}/{planned.row.id}.txt"
    row = _finished(job, planned, peak, reason=f"{type(error).__name__}: {error}", files=_files(error=path))
    return Finished(row, {path: "".join(traceback.format_exception(error)).encode()})


def _finished(job: Job, planned: PlannedRow, peak: PeakMemory | None, **facts: Any) -> Row:  # noqa: ANN401
    """The planned row with what is known now; every field is set, so that every key is written."""
    memory = {
        "peak_memory_mb": None if peak is None else round(peak.megabytes(), 1),
        "peak_device_mb": None if peak is None else peak.device_megabytes(),
    }
    known = {**dict(planned.row), "files": _files(), **memory, **stamp(job.recipe.threads, job.device)}
    return parse_row({**known, **facts})


def _files(**paths: str) -> Files:
    return Files(**{**dict.fromkeys(Files.model_fields), **paths})


def _fit_facts(origin: Origin, epoch: int | None) -> FitFacts:
    selection = origin.selection if epoch is None else "best epoch on the test set"
    parameters = sum(origin.learned.values())
    return FitFacts(**{**dict(origin), "selection": selection, "epoch": epoch, "parameters": parameters})
