"""``ultraad evaluate``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ultraad.cli.console import (
    SOME_FAILED,
    list_failures,
    progress,
    say,
    show_metrics,
    show_subgroups,
    show_thresholds,
    tell_interrupted,
    warn,
)
from ultraad.cli.options import (
    Abstain,
    Address,
    BatchSize,
    EngineOf,
    FanOf,
    Gpus,
    Jobs,
    Layout,
    OperatingPoint,
    PixelThreshold,
    Prevalence,
    Region,
    Regions,
    ResizeMasks,
    Seed,
    Sets,
    ShardSize,
    Threshold,
    check_shards,
    engine_of,
    prevalence_of,
    usage_errors,
)
from ultraad.cli.predictor import with_model
from ultraad.model.predictor import Predictor


@with_model
def evaluate(
    load: Callable[[], Predictor],
    folder: Annotated[str, typer.Argument(help="Root of a labelled data set, or its URL: s3://bucket/folder.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    layout: Layout = "auto",
    split: Annotated[str | None, typer.Option(help="Only this published split, e.g. test.")] = None,
    drop_support: Annotated[
        bool,
        typer.Option("--drop-support", help="Leave out the images and patients the model was adapted on."),
    ] = False,
    resize_masks: ResizeMasks = False,
    threshold: Threshold = None,
    pixel_threshold: PixelThreshold = None,
    operating_point: OperatingPoint = None,
    prevalence: Prevalence = None,
    sets: Sets = None,
    abstain: Abstain = None,
    region: Regions = Region.auto,
    fan: FanOf = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            metavar="A,B,...",
            help="Compare subgroups: device, site, split, class, patient-age, patient-sex, or columns of --by-table; "
            "several with commas. Cut points make ranges: patient-age:40:60.",
        ),
    ] = None,
    by_table: Annotated[
        Path | None, typer.Option(help="Table with further facts: one row for each image, its first column names it.")
    ] = None,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for the 95 % intervals.")] = 1000,
    seed: Seed = 0,
    engine: EngineOf = None,
    jobs: Jobs = None,
    shard: ShardSize = 1024,
    address: Address = None,
    gpus: Gpus = 0.0,
    batch_size: BatchSize = 8,
) -> None:
    """Measure a model on a labelled data set and write a report.

    Stops with an error if the data set contains images or patients the model was adapted on, unless --drop-support is
    given. Thresholds come with the model or are chosen; none is fitted on the data set. Exits with 3 if some images
    could not be evaluated.

    Example: ultraad evaluate model Dataset_BUSI_with_GT -o results
    """
    from ultraad.data.facts import check_table
    from ultraad.results.folder import REPORT, read_run
    from ultraad.runs.evaluate import evaluate as measure
    from ultraad.runs.evaluate_shards import evaluate_shards
    from ultraad.runs.shards import RECORD

    facts = [name for names in by or () for name in names.split(",") if name.strip()]
    with usage_errors():
        check_table(facts, by_table)
    if engine is not None:
        check_shards(shard, batch_size)
    options: dict[str, Any] = {
        "layout": layout,
        "split": split,
        "leaks": "drop" if drop_support else "refuse",
        "resize_masks": resize_masks,
        "threshold": threshold,
        "pixel_threshold": pixel_threshold,
        "operating_point": operating_point,
        "prevalence": prevalence_of(prevalence),
        "sets": sets,
        "abstain": abstain,
        "region": region.value,
        "fan": None if fan is None else fan.value,
        "by": facts,
        "by_table": by_table,
        "bootstrap": bootstrap,
        "seed": seed,
        "batch_size": batch_size,
    }
    with progress() as tell:
        options["progress"] = lambda k, n: tell("evaluate", k, n)
        try:
            if engine is None:
                found = measure(load(), folder, output=output, **options)
            else:
                with engine_of(engine, processes=jobs, threads=1, address=address, gpus=gpus) as chosen:
                    found = evaluate_shards(load, folder, output, engine=chosen, shard=shard, **options)
        except KeyboardInterrupt:
            if engine is None:
                rest = "metrics need all images, so the next evaluation starts from the first"
                warn(f"interrupted; {rest}", style="bold")
            else:
                tell_interrupted(output, "shards", record=RECORD)
            raise typer.Exit(130) from None
    show_metrics(found)
    show_subgroups(found)
    run = read_run(output)
    if run is not None and run.leakage is not None and run.leakage.dropped:
        say(f"{run.leakage.dropped} image(s) left out: in the support set, or of one of its patients")
    show_thresholds(output)
    for note in found["notes"]:
        warn(f"note: {note}")
    list_failures(found["failed"])
    say(f"report: {output / REPORT}")
    if found["failed"]:
        raise typer.Exit(SOME_FAILED)
