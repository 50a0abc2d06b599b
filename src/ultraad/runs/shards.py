"""Predict more images than one machine should: a list in shards, each a run of its own, on any engine.

    run.json            as of one run: model, thresholds, counts
    shards.jsonl        one line for each shard that is done
    shards/00000000/    what :func:`ultraad.predict` leaves of it: tables, pictures, report
    predictions.jsonl   the lines of all shards, in the order of the list; pictures are named below this folder
    predictions.parquet the same as a table (extra ``[ray]``)
    errors.jsonl        images that could not be used
    report.html         of at most 20,000 images; beyond that each shard has one

A shard holds a multiple of the batch size, so its images share batches as in one long run, and their numbers are the
same to the last digit. The exception: where a file cannot be read, the last images of its shard are in a smaller batch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from ultraad.data.lists import parts_of
from ultraad.errors import Caught, ConfigError, brief
from ultraad.io.files import append_line, ensure_writable, json_lines, write_json, write_parts
from ultraad.io.find import check_output
from ultraad.io.lock import lock_folder
from ultraad.io.store import is_url, public_url
from ultraad.model.exported import ExportedModel
from ultraad.model.predictor import Predictor
from ultraad.report.run.page import render
from ultraad.results.folder import ERRORS, PREDICTIONS, REPORT, RUN, read_rows, read_run
from ultraad.results.parquet import write_parquet
from ultraad.results.row import DataFacts, Facts, ImageRow, Run, Status
from ultraad.results.same import check_same
from ultraad.results.saving import FOLDERS, check_no_maps, chosen
from ultraad.results.top import highest
from ultraad.runs.copies import check_saving, readable, remove_copies
from ultraad.runs.engines.local import Engine, Lost
from ultraad.runs.job import facts, thresholds_of
from ultraad.runs.predict import predict
from ultraad.types import Sample

_log = logging.getLogger(__name__)

SHARD = 1024  # images: minutes of work on one core, so that a lost machine costs little
SHARDS, RECORD, PARQUET = "shards", "shards.jsonl", "predictions.parquet"
_IN_A_REPORT = 20_000
_THRESHOLDS = ("threshold", "pixel_threshold", "operating_point", "prevalence", "sets", "abstain")


class ShardRow(Facts):
    """A line of ``shards.jsonl``."""

    shard: int = Field(description="its number; its folder is `shards/<number>`, eight digits")
    digest: str = Field(description="sha256 of its paths")
    images: int = Field(description="images in the list")
    predicted: int = Field(0, description="images and frames with a line")
    failed: int = Field(0, description="images that could not be used")
    depths: tuple[int, ...] = Field((), description="bits that its 16-bit pictures use")
    seconds: float = Field(0.0, description="wall time")
    lost: str | None = Field(None, description="why it was not predicted; null if it was")


@dataclass(slots=True)
class ShardedOutcome:
    """What happened to the images of a sharded run.

    Attributes:
        predicted: Images and frames with a line, those of earlier runs among them.
        skipped: Those of earlier runs.
        failed: Images that could not be used.
        lost: {shard: reason} of shards that were not predicted; the same command tries them again.
        seconds: Wall time.
    """

    predicted: int = 0
    skipped: int = 0
    failed: int = 0
    lost: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Shard:
    """Images that are a run of their own.

    Attributes:
        number: In the order of the list.
        images: Their paths or URLs.
        folder: Of the run.
        digest: sha256 of all that tells the images from others.
        resume: Whether to go on where an earlier run stopped.
        samples: What is known about them; empty: nothing but their paths.
    """

    number: int
    images: tuple[str, ...]
    folder: str
    digest: str
    resume: bool = True
    samples: tuple[Sample, ...] = ()


_MODELS: dict[str, Predictor] = {}
"""The model of this process, by how it is loaded: the next shard uses it again."""


@dataclass(frozen=True, slots=True)
class Work:
    """The work on one shard, :func:`ultraad.predict`; runs in any process.

    Attributes:
        load: Gives the model.
        options: Of :func:`ultraad.predict`.
        threads: Of PyTorch.
    """

    load: Callable[[], Predictor]
    options: Mapping[str, Any]
    threads: int

    def __call__(self, shard: Shard) -> ShardRow:
        """Predict a shard; a failure of the whole is its ``lost``."""
        about: dict[str, Any] = {"shard": shard.number, "digest": shard.digest, "images": len(shard.images)}
        with Caught() as caught:
            key = repr(self.load)
            if key not in _MODELS:
                _MODELS.clear()
                _MODELS[key] = self.load()
            model = _MODELS[key]
            if isinstance(model, ExportedModel):
                model.threads = self.threads
            else:
                sys.modules["torch"].set_num_threads(self.threads)
            known = nullcontext(list(shard.samples))
            with known if shard.samples else readable(shard.images, shard.folder, self.options) as samples:
                done = predict(model, samples, shard.folder, resume=shard.resume, **self.options)
                depths = tuple(sorted({s.depth for s in samples if s.depth is not None}))
            counts = {"predicted": done.predicted + done.skipped, "failed": len(done.failed), "depths": depths}
            return ShardRow(**about, **counts, seconds=round(done.seconds, 2))
        assert caught.error is not None
        return ShardRow(**about, lost=brief(caught.error))


def predict_shards(
    load: Callable[[], Predictor],
    source: str | Path,
    output: str | Path,
    *,
    engine: Engine,
    shard: int = SHARD,
    batch_size: int = 8,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,  # noqa: ANN401
) -> ShardedOutcome:
    """Predict the images of a long list, shard by shard, and put the results together.

    Run the same again to resume: shards without a failure are not looked at again, others continue where they stopped.
    A shard of which the list names other images now is predicted from its first, and one beyond its end does not count.

    Args:
        load: Gives the model; picklable. Called once in each process.
        source: A list (``.txt``, ``.csv``, ``.tsv``, ``.parquet``) or a folder, or the URL of one, as in
            :func:`ultraad.data.lists.parts_of`.
        output: Folder for the results. With machines of a cluster, a folder that all of them share, as the images are.
        engine: Where shards run: :mod:`ultraad.runs.engines`.
        shard: Images of a shard, a multiple of ``batch_size``.
        batch_size: Images per forward pass.
        threads: Of PyTorch for each shard. The numbers of runs with different threads differ in the last digits.
        progress: Called with (images done, 0): how many there are is not known.
        options: Further options of :func:`ultraad.predict`: thresholds, ``save``, ``overlays``, ``maps``, ``region``,
            ``fan``, ``keep_out_of_scope``, ``frame``, ``every``. With ``overlays="top:N"``, each shard keeps the
            overlays of its own N, and the tables of the whole name those of the N highest scores.

    Raises:
        ConfigError: If ``shard`` is no multiple of ``batch_size``, or an option does not fit.
        DataError: If the list cannot be read, or the folder cannot be used.
        KeyboardInterrupt: If the run is interrupted; finished shards are in the folder.
    """
    check_shard(shard, batch_size)
    save, drawn = options.get("save"), {name: options.get(name) for name in ("overlays", "maps")}
    top = chosen(save, **drawn).top
    if is_url(source):
        check_saving(save)
    model = load()
    thresholds = thresholds_of(model, **{key: options.get(key) for key in _THRESHOLDS})
    if thresholds.pixel is None:
        check_no_maps(model.describe().method, save, **drawn)
    keep = bool(options.get("keep_out_of_scope", False))
    run = facts(
        model,
        "predict",
        thresholds=thresholds,
        data=DataFacts(paths=(public_url(str(source)),)),
        keep_out_of_scope=keep,
    )
    work = Work(load, {**options, "batch_size": batch_size}, threads)

    def shards(folder: Path) -> Iterator[Shard]:
        for number, images in enumerate(parts_of(source, shard)):
            digest = hashlib.sha256("\n".join(map(public_url, images)).encode(errors="surrogateescape")).hexdigest()
            yield Shard(number, images, place_of(folder, number), digest)

    def conclude(folder: Path, numbers: list[int], outcome: ShardedOutcome) -> None:
        _put_together(folder, numbers, images=outcome.predicted, top=top)

    return in_shards(run, output, work, shards, engine=engine, conclude=conclude, progress=progress)


def check_shard(shard: int, batch_size: int) -> None:
    """Refuse shards that would end within a batch.

    Raises:
        ConfigError: If ``shard`` is no multiple of ``batch_size``.
    """
    if shard < 1 or shard % batch_size:
        msg = f"shard={shard}: wanted a multiple of the batch size, {batch_size}, so that batches are those of one run"
        raise ConfigError(msg)


def place_of(folder: Path, number: int) -> str:
    """The folder of a shard."""
    return str(folder / SHARDS / f"{number:08d}")


def in_shards(
    run: Run,
    output: str | Path,
    work: Work,
    shards: Callable[[Path], Iterator[Shard]],
    *,
    engine: Engine,
    conclude: Callable[[Path, list[int], ShardedOutcome], None],
    progress: Callable[[int, int], None] | None,
    total: int = 0,
) -> ShardedOutcome:
    """Do the work on every shard that is not done, and keep a record of it.

    Args:
        run: For ``run.json``; an earlier run in the folder must have been the same.
        output: The folder.
        work: On a shard.
        shards: Gives the shards of a folder.
        engine: Where they run.
        conclude: Called at the end with the folder, the numbers of its shards and their counts.
        progress: Called with (images done, ``total``).
        total: Images; 0 if that is not known.

    Raises:
        DataError: If the folder cannot be used, or holds another run.
        KeyboardInterrupt: If the run is interrupted; finished shards are in the folder.
    """
    folder = ensure_writable(Path(output).absolute())  # workers may have another working directory
    check_output(folder, record=RUN, names=(PREDICTIONS, ERRORS, SHARDS, RECORD), inputs=())
    lock = lock_folder(folder)
    started, outcome = time.perf_counter(), ShardedOutcome()
    status: Status = "failed"

    def write_run(status: Status) -> None:
        counts = {"images": outcome.predicted, "failed": outcome.failed, "seconds": round(outcome.seconds, 2)}
        write_json(folder / RUN, run.model_copy(update={"status": status, **counts}).to_dict())

    try:
        if (earlier := read_run(folder)) is not None:
            check_same(folder, earlier, run)
        write_run("running")
        known = {row.shard: row for row in _records(folder)}
        rows: dict[int, ShardRow] = {}
        try:
            for row in _done(engine, work, shards(folder), known):
                if row is known.get(row.shard):
                    outcome.skipped += row.predicted
                else:
                    append_line(folder / RECORD, row.to_json())
                rows[row.shard] = row
                _count(outcome, row)
                if progress is not None:
                    progress(outcome.predicted + outcome.failed, total)
            conclude(folder, sorted(rows), outcome)
            status = "complete"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        _tell_of_depths(rows.values())
    finally:
        outcome.seconds = time.perf_counter() - started
        remove_copies(folder)
        write_run(status)
        lock.release()
    return outcome


def _count(outcome: ShardedOutcome, row: ShardRow) -> None:
    outcome.predicted += row.predicted
    outcome.failed += row.failed
    if row.lost is not None:
        outcome.lost[row.shard] = row.lost


def _done(engine: Engine, work: Work, shards: Iterator[Shard], known: Mapping[int, ShardRow]) -> Iterator[ShardRow]:
    """The rows of all shards, as they come; those that are done already come without work."""
    earlier: list[ShardRow] = []

    def todo() -> Iterator[Shard]:
        for shard in shards:
            row = known.get(shard.number)
            if row is not None and row.digest != shard.digest:
                _log.warning("shard %d: the list names other images now; it is predicted from its first", shard.number)
                yield replace(shard, resume=False)
            elif row is not None and row.lost is None and not row.failed:
                earlier.append(row)
            else:
                yield shard

    for shard, result in engine.map(work, todo()):
        yield from earlier
        earlier.clear()
        if isinstance(result, Lost):
            images = len(shard.images)
            yield ShardRow(shard=shard.number, digest=shard.digest, images=images, lost=result.reason)
        else:
            yield result
    yield from earlier


def _records(folder: Path) -> Iterator[ShardRow]:
    for _, found in json_lines(folder / RECORD):
        yield ShardRow.model_validate(found)


def _put_together(folder: Path, numbers: list[int], *, images: int, top: int) -> None:
    """The tables of all shards as those of one run, in the order of the list.

    Args:
        folder: Of the whole.
        numbers: Of its shards.
        images: How many were predicted.
        top: Only so many of the highest scores keep their overlays; 0: all.
    """
    drawn = highest((row for number in numbers for row in read_rows(Path(place_of(folder, number)))), top)

    def lines() -> Iterator[bytes]:
        for row in rows_of(folder, numbers):
            kept = row.model_copy(update={"overlay": None}) if top and row.id not in drawn and row.overlay else row
            yield line_of(kept)

    write_parts(folder / PREDICTIONS, lines())
    write_parts(folder / ERRORS, errors_of(folder, numbers))
    write_parquet(folder / PARQUET, read_rows(folder))
    report(folder, images=images)


def rows_of(folder: Path, numbers: Iterable[int]) -> Iterator[ImageRow]:
    """The rows of some shards, with the places of their pictures below the folder of the whole."""
    for number in numbers:
        place = f"{SHARDS}/{number:08d}"
        for row in read_rows(folder / place):
            moved = {key: f"{place}/{path}" for key in FOLDERS.values() if (path := getattr(row, key))}
            yield row.model_copy(update=moved)


def line_of(row: ImageRow) -> bytes:
    """The line of a row."""
    return f"{row.to_json()}\n".encode(errors="backslashreplace")


def errors_of(folder: Path, numbers: Iterable[int]) -> Iterator[bytes]:
    """The lines of the images of some shards that could not be used."""
    for number in numbers:
        for _, found in json_lines(Path(place_of(folder, number)) / ERRORS):
            yield f"{json.dumps(found, ensure_ascii=False)}\n".encode(errors="backslashreplace")


def report(folder: Path, *, images: int) -> None:
    """The page of all shards, unless they have too many images."""
    if 0 < images <= _IN_A_REPORT:
        render(folder)
    else:
        with suppress(FileNotFoundError):
            (folder / REPORT).unlink()


def _tell_of_depths(rows: Iterable[ShardRow]) -> None:
    depths = sorted({depth for row in rows for depth in row.depths})
    if len(depths) > 1:
        _log.warning(
            "16-bit pictures of different shards use %s bits: in one run all would be read with %d. Predict each "
            "scanner's pictures by themselves",
            " and ".join(map(str, depths)),
            depths[-1],
        )
