"""Run a recipe into a results folder. Running it again continues where the last run stopped."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from ultraad import methods
from ultraad.bench.pictures import small_pictures
from ultraad.bench.recipe import BackboneSpec, Recipe
from ultraad.bench.results import BENCH, FEATURES, NAMES, PAINTED, PICTURES, SUPPORTS, BenchFolder, npz
from ultraad.bench.row import Bench, MachineFacts, MethodSummary, PlannedRows, Row, Status, SupportSummary
from ultraad.bench.run.data import Data, TestSet, duplicates, patients
from ultraad.bench.run.jobs import Job, Plan
from ultraad.bench.run.machine import now
from ultraad.bench.run.work import Encode, encode, forget, run_job, without_result
from ultraad.config import dump
from ultraad.data.support import save_support
from ultraad.errors import ConfigError
from ultraad.io.faults import one_run
from ultraad.io.files import ensure_writable, no_empty_folder, remove_leftovers, write_bytes
from ultraad.io.find import check_output
from ultraad.io.lock import lock_folder
from ultraad.model.record import versions
from ultraad.runs.engines.local import Engine, Lost, Processes, Serial
from ultraad.types import Sample, SupportSet

_CHUNK = 32  # images that one process encodes at a time


@dataclass(frozen=True, slots=True)
class RunCounts:
    """What a run did.

    Attributes:
        counts: {status: rows}, over all rows of the recipe.
        skipped: Rows that an earlier run had finished.
        seconds: Wall time.
    """

    counts: dict[Status, int]
    skipped: int
    seconds: float


@one_run()
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
) -> RunCounts:
    """Run every row of a recipe that the output folder does not have yet.

    On the CPU, rows are the same to the last bit for any number of jobs, engine and order, as long as the recipe's
    ``threads`` do not change.

    Args:
        recipe: From :func:`ultraad.bench.recipe.read_recipe`.
        output: Results folder; docs/bench-format.md.
        base: Folder for the recipe's relative data roots.
        roots: {data set: folder}, instead of the recipe's roots.
        jobs: Processes at a time; None: processors / threads of the recipe. Not used with ``engine``.
        engine: Runs the tasks instead, such as :class:`ultraad.runs.engines.ray.Ray`.
        device: ``"cpu"``, ``"cuda"`` ...; all jobs share a GPU.
        retry_errors: Run failed rows again.
        share: Encode each image once for all jobs, on disk; otherwise every job runs the tower itself.
        keep_features: Keep the shared features in the folder.
        path: File or name of the recipe, for ``bench.json``.
        progress: Called with (what is being done, done, total).
        on_row: Called with every row that was run.

    Raises:
        ConfigError: If a name or option is wrong; before any work.
        DataError: If data are missing, the folder cannot be used, holds data or other files under the names of results,
            or another run is writing to it.
        KeyboardInterrupt: As it came; finished rows are in the folder.
    """
    started = time.perf_counter()
    if jobs is not None and jobs < 1:
        msg = f"got {jobs} jobs; wanted at least 1"
        raise ConfigError(msg)
    folder = Path(output)
    places = [base, *(roots or {}).values(), *(d.root for d in recipe.data.values() if d.root and d.root.is_absolute())]
    with _own(folder, [Path(place) for place in places if place]):
        data = Data(recipe, base=None if base is None else Path(base), roots=roots or {}, work=folder / PAINTED)
        check_output(folder, record=BENCH, names=(), inputs=data.images)
        plan = Plan(recipe, data, device=device)
        results = BenchFolder.create(folder, _bench(plan, path))
        there = {row.id for row in results.rows() if not (retry_errors and row.status == "error")}
        todo = [job for job in (j.without(there) for j in plan.jobs) if job.rows]
        total = sum(len(job.rows) for job in plan.jobs)
        count = jobs or max(1, (os.cpu_count() or 1) // recipe.threads)
        own = Serial() if count == 1 else Processes(count)
        status = "failed"
        try:
            _write_shared_files(results, plan)
            _run(results, todo, engine or own, folder / FEATURES if share else None, progress, on_row, total)
            status = "complete"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            own.close()
            forget()
            seconds = time.perf_counter() - started
            results.update(status=status, finished=now(), seconds=round(seconds, 1))
        if not keep_features:
            shutil.rmtree(folder / FEATURES, ignore_errors=True)
        counts = dict(Counter(row.status for row in results.rows()))
        return RunCounts(counts, total - sum(len(job.rows) for job in todo), seconds)


@contextmanager
def _own(folder: Path, data: Sequence[Path]) -> Iterator[None]:
    """The folder for one run alone: refuse one that holds data or that another run writes to.

    Temporary files of a run that was killed are removed; without a result, no new folder stays.
    """
    with no_empty_folder(folder):
        ensure_writable(folder)
        check_output(folder, record=BENCH, names=NAMES, inputs=(place / "_" for place in data))
        lock = lock_folder(folder)
        try:
            remove_leftovers(folder)
            yield
        finally:
            lock.release()


def _run(
    results: BenchFolder,
    todo: Sequence[Job],
    engine: Engine,
    features: Path | None,
    progress: Callable[[str, int, int], None] | None,
    on_row: Callable[[Row], None] | None,
    total: int,
) -> None:
    """Encode every image once, then run the jobs."""
    tell = progress or (lambda _what, _done, _total: None)
    runnable = []
    for job in todo:
        private = [planned for planned in job.rows if not planned.test.public]
        for planned in private:
            results.add(without_result(job, planned, "the data set is not public", status="not_public"))
        if len(private) < len(job.rows):
            runnable.append(job.without({planned.row.id for planned in private}))
    if features is not None:
        tasks = list(_encodings(runnable))
        for done, _ in enumerate(engine.map(partial(encode, features=features), tasks), start=1):
            tell("features", done, len(tasks))
    left = sum(len(job.rows) for job in runnable)
    tell("rows", total - left, total)
    for job, found in engine.map(partial(run_job, features=features), runnable):
        if isinstance(found, Lost):
            found = [without_result(job, planned, found.reason) for planned in job.rows]
        for finished in found:
            results.add(finished)
            left -= 1
            tell("rows", total - left, total)
            if on_row is not None:
                on_row(finished.row)


def _encodings(jobs: Sequence[Job]) -> Iterator[Encode]:
    """Every image of the jobs once for each backbone, in chunks."""
    wanted: dict[tuple[BackboneSpec, str, int], dict[tuple[Path, int], Sample]] = {}
    for job in jobs:
        images = wanted.setdefault((job.backbone, job.device, job.recipe.threads), {})
        for sample in (*(job.support.samples if job.support else ()), *(s for r in job.rows for s in r.test.samples)):
            images.setdefault((sample.image, sample.frame), sample)
    for (backbone, device, threads), images in wanted.items():
        samples = list(images.values())
        for start in range(0, len(samples), _CHUNK):
            yield Encode(backbone, device, tuple(samples[start : start + _CHUNK]), threads)


def _bench(plan: Plan, path: Path | None) -> Bench:
    """``bench.json`` before anything has run."""
    tests = list({t.facts.name: t for _, tests in plan.data.splits for t in tests}.values())
    return Bench(
        status="running",
        recipe=Recipe.model_validate(dump(plan.recipe)),  # defaults count as set, so that they are written
        path=None if path is None else str(path),
        reference=plan.recipe.reference or plan.variants[0].label,
        roots={name: str(root) for name, root in plan.data.roots.items()},
        tests=tuple(t.summary() for t in tests),
        supports=tuple(_support(s, tests) for s in plan.supports.values()),
        methods=tuple(_method(v.label, v.name) for v in plan.variants),
        jobs=PlannedRows(
            planned=len(plan.jobs),
            rows=tuple(planned.row.id for job in plan.jobs for planned in job.rows),
            labels=tuple(planned.row.label for job in plan.jobs for planned in job.rows),
        ),
        versions=versions(),
        machine=MachineFacts(system=platform.platform(), cores=os.cpu_count()),
        started=now(),
        finished=None,
        seconds=None,
    )


def _support(support: SupportSet, tests: Sequence[TestSet]) -> SupportSummary:
    return SupportSummary(
        digest=support.digest,
        file=_support_file(support),
        source=support.source.partition(":")[0],
        shots=support.shots,
        seed=support.seed,
        images=len(support.samples),
        patients=patients(support.samples),
        ids=tuple(s.id for s in support.samples),
        duplicates=duplicates(support, tests),
    )


def _support_file(support: SupportSet) -> str:
    return f"{SUPPORTS}/{support.digest[:16]}.json"


def _method(label: str, name: str) -> MethodSummary:
    info = methods.get(name).info
    return MethodSummary(**{**asdict(info), "label": label, "method": name, "outputs": tuple(sorted(info.outputs))})


def _write_shared_files(results: BenchFolder, plan: Plan) -> None:
    """Write support sets and small pictures, which many rows share."""
    for support in plan.supports.values():
        save_support(support, results.path / _support_file(support))
    for test in (t for _, tests in plan.data.splits for t in tests):
        file = results.path / PICTURES / f"{test.facts.key}.npz"
        if test.public and not file.is_file():
            write_bytes(file, npz(small_pictures(test.samples)))
