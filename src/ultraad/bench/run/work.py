"""One job, start to end: fit, evaluate, hand back rows with their files. Runs in any process on any machine."""

from __future__ import annotations

import os
import platform
import traceback
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ultraad.backbones import load_backbone
from ultraad.bench.results import ERRORS, MAPS, PICTURES, PIXELS, PREDICTIONS, Finished
from ultraad.bench.row import FORMAT, parse_row
from ultraad.bench.run.measure import Clock, Measured, measure
from ultraad.bench.run.peak_memory import PeakMemory
from ultraad.bench.run.protocol import HABITS, Habit, preference, stop_at
from ultraad.data.loader import iterate
from ultraad.data.preprocess import Preprocess
from ultraad.model.adapt import adapt, zero_shot
from ultraad.model.record import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType

    from ultraad.backbones._cache import FeatureCache
    from ultraad.backbones._door import Backbone
    from ultraad.bench.run.jobs import Job, Planned, TowerSpec
    from ultraad.errors import DataError
    from ultraad.model.model import Model
    from ultraad.types import Sample

_NO_HABIT = Habit()


# --- frozen features -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Encode:
    """Images that several jobs will ask for, to be encoded beforehand, each by one process.

    Attributes:
        tower: The backbone.
        samples: The images.
        threads: Of torch.
    """

    tower: TowerSpec
    samples: tuple[Sample, ...]
    threads: int


def encode(task: Encode, features: Path) -> None:
    """Put the features of these images into the folder. What goes wrong is passed over: the jobs meet it again."""

    def pass_over(sample: Sample, error: DataError) -> None:
        """The evaluation of this image says why."""

    with _threads(task.threads), _Boundary():
        tower, memory = _open(task.tower, features)
        batches = iterate(
            [replace(s, label=None, masks=()) for s in task.samples],  # only the pixels matter here
            Preprocess(tower.preprocess),
            classes=(),
            normal_class="",
            batch_size=8,
            on_error=pass_over,
        )
        with closing(batches):
            for _, batch in batches:
                memory.encode(batch.images, layers=(), batch_size=1)


def forget() -> None:
    """Let go of the backbone that this process keeps from job to job."""
    _open.cache_clear()


@lru_cache(maxsize=1)  # jobs come sorted by backbone
def _open(spec: TowerSpec, features: Path | None) -> tuple[Backbone, FeatureCache]:
    tower = load_backbone(spec.name, device=spec.device, dtype=spec.dtype, size=spec.size)
    return tower, tower.new_cache(features)


# --- jobs ------------------------------------------------------------------------------------------------------------


def run_job(job: Job, features: Path | None) -> list[Finished]:
    """Fit once, evaluate on every test set.

    Args:
        job: What to do.
        features: Folder of shared frozen features; None: the job runs the tower itself, on whole batches.

    Returns:
        One row for each of the job's rows. Whatever goes wrong becomes a row with ``status: error``; only a wish to
        stop (Ctrl-C) gets through.
    """
    peak, done = PeakMemory(), []
    with _threads(job.recipe.threads):
        with _Boundary() as fitting:
            bench = _Bench(job, features)
            bench.fit()
        if fitting.error is not None:
            return [_failed(job, row, fitting.error, peak) for row in job.rows]
        for row in job.rows:
            with _Boundary() as evaluating:
                done.append(bench.row(row, peak))
            if evaluating.error is not None:
                done.append(_failed(job, row, evaluating.error, peak))
        bench.close()
    return done


class _Boundary:
    """Whatever fails inside ends here and is kept in ``error``, so that the grid goes on."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> _Boundary:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, Exception):
            self.error = error
        return isinstance(error, Exception)


class _Bench:
    """The backbone, the fitted models and the clock of one job.

    Args:
        job: What to do.
        features: Folder of shared frozen features, or None.
    """

    def __init__(self, job: Job, features: Path | None) -> None:
        self.job = job
        self._tower, self._memory = _open(job.tower, features)
        self._shared = features is not None
        self._models: list[tuple[Model, int | None]] = []
        self._fit_clock = Clock(self._memory.usage)

    def fit(self) -> None:
        """The fitted model; under ``published`` one for each checkpoint, if the reference chooses among them."""
        job = self.job
        chooses = job.protocol == "published" and HABITS[job.method].criterion and job.support is not None
        if not chooses:
            self._models = [(self._fitted(), None)]
            return
        for k in range(1, job.recipe.checkpoints + 1):
            reached: list[int] = []
            model = self._fitted(stop_at(k / job.recipe.checkpoints, reached))
            if not reached:  # nothing is trained, so there is nothing to stop
                self._models = [(model, None)]
                return
            if all(reached[-1] != epoch for _, epoch in self._models):
                self._models.append((model, reached[-1]))

    def row(self, row: Planned, peak: PeakMemory) -> Finished:
        """One row with its files."""
        job = self.job
        habit = HABITS[job.method] if job.protocol == "published" else _NO_HABIT
        model, epoch = self._models[-1]
        if len(self._models) > 1:
            tried = [self._measure(m, row) for m, _ in self._models]
            preferences = [preference(habit, t.evaluation.result(bootstrap=0)["metrics"]) for t in tried]
            model, epoch = self._models[preferences.index(max(preferences))]
        rescale = self._measure(model, row).range if habit.min_max else None
        whole, clock = Clock(self._memory.usage), Clock(self._memory.usage)
        with whole.running():
            found = self._measure(model, row, clock=clock, keep_maps=row.keep_maps, rescale=rescale)
            metrics = found.evaluation.result(bootstrap=job.recipe.bootstrap, seed=0)
        per_image = 1000 / len(found.lines)
        facts = _base(job, row, peak) | metrics
        facts["status"] = "ok"
        facts["test"] |= {"left_out": found.left_out, "failed": found.failed}
        facts["calibration"] = _calibration(model)
        facts["fit"] = _fit_facts(model, epoch)
        facts["timings"] = {
            "adapt_seconds": round(self._fit_clock.seconds, 3),
            "predict_ms": round(clock.seconds * per_image, 3),
            "encode_ms": round(clock.encode * per_image, 3),
            "evaluate_seconds": round(whole.seconds, 3),
        }
        return _with_files(facts, row, found)

    def close(self) -> None:
        """Forget what only this job needed."""
        self._tower.cache.clear()

    def _sharing(self) -> AbstractContextManager[None]:
        return self._tower.caching(self._memory) if self._shared else nullcontext()

    def _fitted(self, progress: Callable[[str, int, int], None] | None = None) -> Model:
        job = self.job
        with self._sharing(), self._fit_clock.running():
            if job.support is None and job.auxiliary is None:
                return zero_shot(
                    backbone=self._tower,
                    classes=job.classes,
                    normal_class=job.normal_class,
                    method=job.method,
                    options=job.given,
                    seed=job.seed,
                )
            return adapt(
                job.support,
                auxiliary=job.auxiliary,
                method=job.method,
                backbone=self._tower,
                options=job.given,
                classes=job.classes if job.support is None else None,
                normal_class=job.normal_class if job.support is None else None,
                seed=job.seed,
                calibrate=job.recipe.calibrate,
                progress=progress,
            )

    def _measure(self, model: Model, row: Planned, *, clock: Clock | None = None, **options: Any) -> Measured:  # noqa: ANN401
        with self._sharing():
            clock = clock or Clock(self._memory.usage)
            return measure(model, row.test, clock=clock, batch_size=self.job.recipe.batch_size, **options)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- rows ------------------------------------------------------------------------------------------------------------


def _base(job: Job, row: Planned, peak: PeakMemory | None) -> dict[str, Any]:
    """Every key of a row, with what is known before anything runs."""
    empty = dict.fromkeys(("calibration", "fit", "timings", "metrics", "subsets", "curves", "confusion", "n"))
    return {
        "format": FORMAT,
        "id": row.id,
        "job": job.id,
        "status": "error",
        "reason": None,
        **job.facts,
        "test": {**row.test.facts, "left_out": None, "failed": {}},
        **empty,
        "bootstrap": None,
        "peak_memory_mb": None if peak is None else round(peak.megabytes(), 1),
        "peak_device_mb": None if peak is None else peak.device_megabytes(),
        "files": {**dict.fromkeys(("predictions", "pixels", "maps", "error")), "pictures": None},
        "versions": versions(),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": job.recipe.threads,
            "device": str(_device_name(job.tower.device)),
        },
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def not_public(job: Job, row: Planned) -> Finished:
    """The row of a test set that nobody can have."""
    facts = _base(job, row, None)
    return Finished(parse_row({**facts, "status": "not_public", "reason": "the data set is not public"}), {})


def died(job: Job, row: Planned, reason: str) -> Finished:
    """The row of a job whose process was lost."""
    return Finished(parse_row({**_base(job, row, None), "reason": reason}), {})


def _failed(job: Job, row: Planned, error: Exception, peak: PeakMemory) -> Finished:
    facts = _base(job, row, peak)
    path = f"{ERRORS}/{row.id}.txt"
    facts["files"]["error"] = path
    facts["reason"] = f"{type(error).__name__}: {error}"
    return Finished(parse_row(facts), {path: "".join(traceback.format_exception(error)).encode()})


def _with_files(facts: dict[str, Any], row: Planned, found: Measured) -> Finished:
    files = {f"{PREDICTIONS}/{row.id}.jsonl": found.predictions()}
    facts["files"] |= {
        "predictions": f"{PREDICTIONS}/{row.id}.jsonl",
        "pictures": f"{PICTURES}/{row.test.facts['key']}.npz",
    }
    for key, folder, content in (("pixels", PIXELS, found.pixels()), ("maps", MAPS, found.small_maps())):
        if content is not None:
            facts["files"][key] = f"{folder}/{row.id}.npz"
            files[f"{folder}/{row.id}.npz"] = content
    return Finished(parse_row(facts), files)


def _calibration(model: Model) -> dict[str, Any]:
    c = model.calibration
    return {
        "calibrated": c.folds > 0,
        "rule": c.rule,
        "folds": c.folds,
        "image_threshold": c.image_threshold,
        "pixel_threshold": c.pixel_threshold,
    }


def _fit_facts(model: Model, epoch: int | None) -> dict[str, Any]:
    o = model.origin
    return {
        "selection": o.selection if epoch is None else "best epoch on the test set",
        "epoch": epoch,
        "loss": list(o.loss),
        "learned": o.learned,
        "parameters": sum(o.learned.values()),
        "notes": list(o.notes),
    }


@lru_cache(maxsize=1)
def _processor() -> str:
    """The processor's name, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@lru_cache(maxsize=4)
def _device_name(device: str) -> str:
    cuda = device != "cpu" and torch.cuda.is_available()
    return torch.cuda.get_device_name() if cuda else "cpu" if device == "auto" else device
