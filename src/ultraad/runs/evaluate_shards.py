"""Evaluate a model on more images than one machine should predict: in shards, measured together.

The shards are predicted anywhere, as :mod:`.shards` does it, with the maps as the model drew them. This process then
reads rows, maps and masks in the order of the data set and measures them as :func:`.evaluate.evaluate` does, so every
metric is the same to the last digit. That part is not shared out: metrics over all pixels depend on the order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ultraad.data.loader import truth_of, warn_misaligned
from ultraad.errors import DataError, first_names, printable
from ultraad.io.files import write_json, write_parts
from ultraad.io.maps import read_grid
from ultraad.metrics.bootstrap import RESAMPLES
from ultraad.model.predictor import Predictor
from ultraad.results.folder import ERRORS, METRICS, PREDICTIONS, read_errors
from ultraad.results.row import ImageRow
from ultraad.runs.engines.local import Engine
from ultraad.runs.evaluate import Plan, concluded, planned
from ultraad.runs.judge import by_mask, evaluation_of, measure
from ultraad.runs.shards import (
    SHARD,
    Shard,
    ShardedOutcome,
    Work,
    check_shard,
    errors_of,
    in_shards,
    line_of,
    place_of,
    report,
    rows_of,
)
from ultraad.types import InScope, Prediction, Result, Sample

_NO_PICTURE = np.zeros((0, 0, 3), dtype=np.uint8)  # nothing is drawn here
_OF_PREDICT = ("threshold", "pixel_threshold", "operating_point", "prevalence", "abstain", "sets", "region")


def evaluate_shards(
    load: Callable[[], Predictor],
    data: str | Path | Sequence[Sample],
    output: str | Path,
    *,
    engine: Engine,
    shard: int = SHARD,
    batch_size: int = 8,
    threads: int = 1,
    bootstrap: int = RESAMPLES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """All metrics of a model on a labelled data set, predicted shard by shard.

    Run the same again to resume, as with :func:`.shards.predict_shards`. Maps stay in the folder, so the metrics of
    finished shards can be measured again, e.g. with other subgroups.

    Args:
        load: Gives the model; picklable. Called once in each process.
        data: As in :func:`ultraad.evaluate`.
        output: Folder for the results; shared by all machines of a cluster, as the images are.
        engine: Where shards run: :mod:`ultraad.runs.engines`.
        shard: Images of a shard, a multiple of ``batch_size``.
        batch_size: Images per forward pass.
        threads: Of PyTorch for each shard.
        bootstrap: Resamples behind the 95 % intervals.
        seed: Of the bootstrap.
        progress: Called with (images predicted, images).
        options: Further options of :func:`ultraad.evaluate`.

    Returns:
        As :func:`ultraad.evaluate`.

    Raises:
        ConfigError: If ``shard`` is no multiple of ``batch_size``, or an option does not fit.
        DataError: As :func:`ultraad.evaluate`; also if a shard was not predicted.
        KeyboardInterrupt: If the run is interrupted; finished shards are in the folder.
    """
    check_shard(shard, batch_size)
    plan = planned(load(), data, **options)
    of_predict = {key: options[key] for key in _OF_PREDICT if key in options}
    drawn = {} if plan.thresholds.pixel is None else {"maps": "grid", "overlays": "all"}
    work = Work(load, {**of_predict, **drawn, "fan": plan.fan, "batch_size": batch_size}, threads)
    found: dict[str, Any] = {}

    def shards(folder: Path) -> Iterator[Shard]:
        for number, first in enumerate(range(0, len(plan.samples), shard)):
            some = tuple(plan.samples[first : first + shard])
            names = tuple(s.image.as_posix() for s in some)
            yield Shard(number, names, place_of(folder, number), _digest(some), samples=some)

    def conclude(folder: Path, numbers: list[int], outcome: ShardedOutcome) -> None:
        if outcome.lost:
            why = first_names([f"{number} ({reason})" for number, reason in outcome.lost.items()])
            msg = f"{len(outcome.lost)} shard(s) were not predicted, and metrics need all images: {why}. Run it again"
            raise DataError(msg)
        found.update(_measured(plan, folder, numbers, bootstrap=bootstrap, seed=seed))
        outcome.predicted, outcome.failed = found["n"]["images"], len(found["failed"])

    in_shards(
        plan.run,
        output,
        work,
        shards,
        engine=engine,
        conclude=conclude,
        progress=progress,
        total=len(plan.samples),
    )
    report(Path(output), images=found["n"]["images"])
    return found


def _digest(samples: Sequence[Sample]) -> str:
    """sha256 of all that is known about some samples."""
    facts = [{**asdict(s), "tags": sorted(s.tags)} for s in samples]
    return hashlib.sha256(json.dumps(facts, default=str).encode(errors="surrogateescape")).hexdigest()


def _measured(plan: Plan, folder: Path, numbers: list[int], *, bootstrap: int, seed: int) -> dict[str, Any]:
    """Measure the rows of all shards in their order, and write the tables and the metrics of the whole."""
    evaluation = evaluation_of(plan.model, plan.thresholds)
    samples = {s.id: s for s in plan.samples}
    failed, misaligned = dict[str, str](), list[str]()
    grades, outside = False, 0

    def lines() -> Iterator[bytes]:
        nonlocal grades, outside
        for row in rows_of(folder, numbers):
            try:
                result, fits = _result_of(row, samples[row.id], plan.model, folder)
                if not fits:
                    misaligned.append(row.id)
                measure(result, evaluation)
            except DataError as e:
                failed[row.id] = printable(str(e))
                continue
            grades |= row.probs is not None
            outside += row.out_of_scope
            yield line_of(row.model_copy(update={"anomalous": result.sample.anomalous}))

    write_parts(folder / PREDICTIONS, lines())
    told = (json.dumps({"id": id_, "error": why}, ensure_ascii=False) for id_, why in failed.items())
    mine = [f"{line}\n".encode(errors="backslashreplace") for line in told]
    write_parts(folder / ERRORS, [*errors_of(folder, numbers), *mine])
    failed = dict(read_errors(folder))
    if not failed:
        (folder / ERRORS).unlink()
    warn_misaligned(misaligned)
    if len(failed) == len(samples):
        msg = f"none of the {len(samples)} images could be evaluated; the first: {next(iter(failed.values()))}"
        raise DataError(msg)
    found = concluded(plan, evaluation, grades=grades, outside=outside, bootstrap=bootstrap, seed=seed)
    write_json(folder / METRICS, found)
    return {**found, "failed": failed}


def _result_of(row: ImageRow, sample: Sample, model: Predictor, folder: Path) -> tuple[Result, bool]:
    """What was predicted of a sample, without its picture, and whether its mask fits."""
    assert row.height is not None  # of this version
    assert row.width is not None
    mask, misaligned = truth_of(sample, (row.height, row.width), normal_class=model.normal_class)
    prediction = Prediction(
        row.id,
        row.score,
        map=None if row.map is None else read_grid(folder / row.map).on_pixels(),
        probs=row.probs,
        method=model.describe().method,
        in_scope=None if row.in_scope is None else InScope(**row.in_scope.model_dump()),
        prediction_set=row.prediction_set,
    )
    return by_mask(Result(sample, _NO_PICTURE, prediction, mask), model), not misaligned
