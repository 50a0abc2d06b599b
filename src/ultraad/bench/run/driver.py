"""Run a recipe into a results folder; run it again to go on where it stopped."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ultraad import methods
from ultraad.bench.pictures import small_pictures
from ultraad.bench.results import FEATURES, LOCK, PAINTED, PICTURES, SUPPORTS, BenchFolder, npz
from ultraad.bench.row import Bench
from ultraad.bench.run.data import Data, duplicates, summary
from ultraad.bench.run.jobs import Plan
from ultraad.bench.run.local import Lost, Processes, Serial
from ultraad.bench.run.work import Encode, died, encode, forget, not_public, run_job
from ultraad.config import dump
from ultraad.data.support import save_support
from ultraad.errors import ConfigError, DataError
from ultraad.io.files import ensure_writable, write_bytes
from ultraad.model.record import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ultraad.bench.recipe import Recipe
    from ultraad.bench.row import Row
    from ultraad.bench.run.jobs import Job, TowerSpec
    from ultraad.bench.run.local import Engine
    from ultraad.types import Sample

_CHUNK = 32  # images that one process encodes at a time  # ours


@dataclass(slots=True)
class Outcome:
    """What a run did.

    Attributes:
        counts: {status: rows}, of all rows that the recipe asks for.
        skipped: Rows that were there already.
        seconds: Wall time.
    """

    counts: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    seconds: float = 0.0


def run(
    recipe: Recipe,
    output: str | Path,
    *,
    base: str | Path | None = None,
    roots: Mapping[str, Path] | None = None,
    jobs: int | None = None,
    engine: Engine | None = None,
    device: str = "cpu",
    retry_errors: bool = False,
    share: bool = True,
    keep_features: bool = False,
    path: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> Outcome:
    """Run every row of a recipe that the output folder does not have yet.

    Rows come out bit for bit the same on the CPU whatever the number of jobs, the engine and the order, as long as the
    recipe's ``threads`` stay the same.

    Args:
        recipe: From :func:`ultraad.bench.recipe.read_recipe`.
        output: Results folder; docs/bench-format.md.
        base: Folder that the recipe's relative data roots are below.
        roots: {data set: folder} that replace the recipe's.
        jobs: Processes at a time; None: as many as the recipe's threads leave room for. Not with ``engine``.
        engine: Something else to run tasks with, such as :class:`ultraad.bench.run.ray.Ray`.
        device: ``"cpu"``, ``"cuda"`` ...; a GPU is shared by all jobs.
        retry_errors: Try rows again that failed before.
        share: Encode images once for all jobs, on disk; otherwise every job runs the tower itself.
        keep_features: Leave the shared features in the folder.
        path: Of the recipe's file, for the record.
        progress: Called with (what is being done, done, total).
        on_row: Called with every new row.

    Raises:
        ConfigError: If a name or option is wrong; before any work.
        DataError: If data are missing, the folder cannot be used, or another run is writing to it.
        KeyboardInterrupt: As it came; finished rows are in the folder.
    """
    started, tell = time.perf_counter(), progress or _silent
    if jobs is not None and jobs < 1:
        msg = f"got {jobs} jobs; wanted at least 1"
        raise ConfigError(msg)
    folder = ensure_writable(output)
    with _alone(folder):
        data = Data(recipe, base=None if base is None else Path(base), roots=roots or {}, work=folder / PAINTED)
        plan = Plan(recipe, data, device=device)
        results = BenchFolder.create(folder, Bench.model_validate(_record(plan, path)))
        there = {row.id for row in results.rows() if not (retry_errors and row.status == "error")}
        todo = [job for job in (j.without(there) for j in plan.jobs) if job.rows]
        total = sum(len(job.rows) for job in plan.jobs)
        outcome = Outcome(skipped=total - sum(len(job.rows) for job in todo))
        own = _local(jobs or max(1, (os.cpu_count() or 1) // recipe.threads))
        status = "failed"
        try:
            _write_pictures(results, plan)
            _run(results, todo, engine or own, folder / FEATURES if share else None, tell, on_row, total)
            status = "complete"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            own.close()
            forget()
            outcome.seconds = time.perf_counter() - started
            outcome.counts = dict(Counter(row.status for row in results.rows()))
            now = datetime.now(UTC).isoformat(timespec="seconds")
            results.update(status=status, finished=now, seconds=round(outcome.seconds, 1))
        if not keep_features:
            shutil.rmtree(folder / FEATURES, ignore_errors=True)
        return outcome


# --- pieces ----------------------------------------------------------------------------------------------------------


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse a folder that another run writes to. The operating system frees the lock of a process that died."""
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        msg = f"another run is writing to {folder}; wait until it is done, or choose another folder"
        raise DataError(msg) from None
    try:
        yield
    finally:
        lock.release()


def _silent(what: str, done: int, total: int) -> None:
    """No progress wanted."""


def _local(jobs: int) -> Serial | Processes:
    return Serial() if jobs == 1 else Processes(jobs)


def _run(
    results: BenchFolder,
    todo: Sequence[Job],
    engine: Engine,
    features: Path | None,
    tell: Callable[[str, int, int], None],
    on_row: Callable[[Row], None] | None,
    total: int,
) -> None:
    """First the frozen features, each image once; then the jobs."""
    runnable = []
    for job in todo:
        private = [planned for planned in job.rows if not planned.test.public]
        for planned in private:
            results.add(not_public(job, planned))
        if len(private) < len(job.rows):
            runnable.append(job.without({planned.id for planned in private}))
    if features is not None:
        tasks = list(_encodings(runnable))
        for done, _ in enumerate(engine.map(partial(encode, features=features), tasks), start=1):
            tell("features", done, len(tasks))
    left = sum(len(job.rows) for job in runnable)
    tell("rows", total - left, total)
    for job, found in engine.map(partial(run_job, features=features), runnable):
        rows = [died(job, planned, found.reason) for planned in job.rows] if isinstance(found, Lost) else found
        for finished in rows:
            results.add(finished)
            left -= 1
            tell("rows", total - left, total)
            if on_row is not None:
                on_row(finished.row)


def _encodings(jobs: Sequence[Job]) -> Iterator[Encode]:
    """Every (backbone, image) of the jobs once, in parcels."""
    wanted: dict[TowerSpec, dict[tuple[Path, int], Sample]] = {}
    threads = 1
    for job in jobs:
        threads = job.recipe.threads
        images = wanted.setdefault(job.tower, {})
        for sample in (*(job.support.samples if job.support else ()), *(s for r in job.rows for s in r.test.samples)):
            images.setdefault((sample.image, sample.frame), sample)
    for tower, images in wanted.items():
        samples = list(images.values())
        for start in range(0, len(samples), _CHUNK):
            yield Encode(tower, tuple(samples[start : start + _CHUNK]), threads)


def _record(plan: Plan, path: Path | None) -> dict[str, Any]:
    """``bench.json`` before anything has run."""
    tests = {t.name: t for split in plan.data.splits for t in split.tests}
    infos = [(e, methods.get(e.name).info) for e in plan.entries]
    return {
        "status": "running",
        "recipe": dump(plan.recipe),
        "path": None if path is None else str(path),
        "reference": plan.recipe.reference or plan.entries[0].label,
        "roots": {name: str(root) for name, root in plan.data.roots.items()},
        "tests": [summary(t) for t in tests.values()],
        "supports": [
            {
                "digest": s.digest,
                "file": f"{SUPPORTS}/{s.digest[:16]}.json",
                "source": s.source.partition(":")[0],
                "shots": s.shots,
                "seed": s.seed,
                "images": len(s.samples),
                "patients": len({x.group for x in s.samples if x.group}),
                "ids": [x.id for x in s.samples],
                "duplicates": duplicates(s, list(tests.values())),
            }
            for s in plan.supports.values()
        ],
        "methods": [
            {
                "label": e.label,
                "method": e.name,
                "title": i.title,
                "paper": i.paper,
                "url": i.url,
                "reference": i.reference,
                "licence": i.licence,
                "outputs": sorted(i.outputs),
                "deviations": list(i.deviations),
            }
            for e, i in infos
        ],
        "jobs": {
            "planned": len(plan.jobs),
            "rows": [row.id for job in plan.jobs for row in job.rows],
            "labels": [job.facts["label"] for job in plan.jobs for _ in job.rows],
        },
        "versions": versions(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
        "seconds": None,
    }


def _write_pictures(results: BenchFolder, plan: Plan) -> None:
    """Support sets and small pictures, once."""
    for support in plan.supports.values():
        save_support(support, results.path / SUPPORTS / f"{support.digest[:16]}.json")
    for split in plan.data.splits:
        for test in split.tests:
            place = results.path / PICTURES / f"{test.facts['key']}.npz"
            if test.public and not place.is_file():
                write_bytes(place, npz(small_pictures(test.samples)))
