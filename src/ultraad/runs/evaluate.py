"""Evaluate a model on a labelled data set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from ultraad.config import names_of, one_of
from ultraad.data import sources
from ultraad.data.facts import check_table, facts_of, gaps_of
from ultraad.data.fans import in_fans, telling
from ultraad.data.regions import RegionChoice, in_regions
from ultraad.data.support import check_leakage
from ultraad.errors import DataError, LeakageError
from ultraad.fan import FanChoice
from ultraad.io.faults import one_run
from ultraad.io.files import write_json
from ultraad.metrics.bootstrap import RESAMPLES
from ultraad.metrics.summary import Evaluation
from ultraad.model.organ import check_sentences
from ultraad.model.predictor import Predictor
from ultraad.model.probabilities import Prevalence
from ultraad.report.run.page import render
from ultraad.results.folder import METRICS, RunFolder
from ultraad.results.row import DataFacts, LeakageFacts, Run, Thresholds
from ultraad.runs.gap import transfer_gap
from ultraad.runs.job import facts, failing, finishing, thresholds_of
from ultraad.runs.judge import by_mask, evaluation_of, in_classes, judged, measure, not_graded, unseen
from ultraad.types import Sample

_log = logging.getLogger(__name__)

Leaks = Literal["refuse", "drop"]


@one_run()
def evaluate(
    model: Predictor,
    data: str | Path | Sequence[Sample],
    *,
    layout: str = "auto",
    split: str | None = None,
    leaks: Leaks = "refuse",
    resize_masks: bool = False,
    threshold: float | None = None,
    pixel_threshold: float | None = None,
    operating_point: str | None = None,
    prevalence: Prevalence | None = None,
    abstain: str | None = None,
    sets: str | None = None,
    region: RegionChoice = "auto",
    fan: FanChoice | None = None,
    by: Sequence[str] = (),
    by_table: str | Path | None = None,
    output: str | Path | None = None,
    bootstrap: int = RESAMPLES,
    seed: int = 0,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """All metrics of a model on a labelled data set, on the original pixel grid. No threshold is fitted on the data.

    Args:
        model: Any model; the data does not change it.
        data: Root of a data set, or samples.
        layout: Layout of the root, or of the set the samples come from.
        split: Only this published split.
        leaks: What to do if the data holds images or patients of the support or auxiliary set: ``"refuse"`` to
            evaluate, or ``"drop"`` these images.
        resize_masks: As in :func:`ultraad.scan`.
        threshold: Image threshold in [0, 1]; None takes the one stored in the model.
        pixel_threshold: Of maps, likewise.
        operating_point: ``"sens=0.95"``, ``"spec=0.90"`` or ``"youden"`` in place of ``threshold``; see
            :meth:`~ultraad.model.predictor.Predictor.operating_point`. ``"fnr=0.2"`` in place of ``pixel_threshold``
            (:mod:`ultraad.model.pixel_risk`). Or both, after a comma.
        prevalence: As in :func:`ultraad.predict`.
        abstain: As in :func:`ultraad.predict`.
        sets: As in :func:`ultraad.predict`; coverage and size of the sets are measured.
        region: As in :func:`ultraad.predict`; metrics count the whole picture in both cases.
        fan: As in :func:`ultraad.predict`; metrics count the whole picture in both cases.
        by: Facts whose subgroups are compared, such as ``("device", "patient-age:40:60")``; see
            :func:`ultraad.data.facts.facts_of`.
        by_table: A table with further facts about the images, for ``by``.
        output: Folder for predictions, overlays, ``metrics.json``, ``run.json`` and ``report.html``; the results of an
            earlier run are replaced.
        bootstrap: Resamples behind the 95 % intervals.
        seed: Of the bootstrap.
        batch_size: Images per forward pass.
        progress: Called with (images done, images).

    Returns:
        :meth:`ultraad.metrics.summary.Evaluation.result` plus ``thresholds``, ``transfer_gap``
        (:func:`ultraad.runs.gap.transfer_gap`), ``notes`` (what a reader of the numbers must know, e.g. that detection
        was not adapted, or that images are out of scope: they count in every metric) and ``failed`` {id: reason}. With
        ``by``, ``subgroups`` as in :meth:`~ultraad.metrics.summary.Evaluation.subgroups`.

    Raises:
        ConfigError: If an option is out of range, or a threshold cannot be found.
        DataError: If no image can be evaluated, a fact is not known of any image, or the folder cannot be used.
        LeakageError: If ``leaks="refuse"`` and the data holds images or patients that the model has learned from.
        KeyboardInterrupt: If the run is interrupted.

    Examples:
        >>> import ultraad
        >>> from ultraad.simulate import write_dataset
        >>> folder = write_dataset("simulated", n=6, size=64)
        >>> found = ultraad.evaluate(ultraad.zero_shot(backbone="tiny"), "simulated", bootstrap=100)
        >>> auroc = found["metrics"]["image_auroc"]
        >>> auroc["n"], 0 <= auroc["low"] <= auroc["value"] <= auroc["high"] <= 1
        (6, True)
    """
    plan = planned(
        model,
        data,
        layout=layout,
        split=split,
        leaks=leaks,
        resize_masks=resize_masks,
        threshold=threshold,
        pixel_threshold=pixel_threshold,
        operating_point=operating_point,
        prevalence=prevalence,
        abstain=abstain,
        sets=sets,
        region=region,
        fan=fan,
        by=by,
        by_table=by_table,
    )
    model, samples = plan.model, plan.samples
    evaluation = evaluation_of(model, plan.thresholds)
    folder = None
    if output is not None:
        folder = RunFolder(
            output,
            plan.run,
            resume=False,
            wanted=samples,
            save=("overlays",),
            measure=partial(measure, evaluation=evaluation),
        )

    failed: dict[str, str] = {} if folder is None else folder.failed
    grades, outside = False, 0
    with finishing(folder) as outcome:
        note = failing(folder, failed)
        predicted = model.predict_many(samples, fan=plan.fan, batch_size=batch_size, on_error=note)
        results = (by_mask(result, model) for result in telling(predicted))
        if folder is None:
            results = (result for result, _ in judged(results, evaluation, on_error=note))
        for result in results:
            if folder is not None:
                folder.add(result)
            outcome.predicted += 1
            grades |= result.prediction.probs is not None
            outside += result.prediction.out_of_scope
            if progress is not None:
                progress(outcome.predicted + len(failed), len(samples))
        if folder is not None:
            folder.flush()
        if len(failed) == len(samples):
            first = next(iter(failed.values()))
            msg = f"none of the {len(samples)} images could be evaluated; the first: {first}"
            raise DataError(msg)
        found = concluded(plan, evaluation, grades=grades, outside=outside, bootstrap=bootstrap, seed=seed)
        if folder is not None:
            write_json(folder.folder / METRICS, found)
    if folder is not None:
        render(folder.folder)
    return {**found, "failed": failed}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is evaluated.

    Attributes:
        model: At the prevalence and with the sets that were chosen.
        thresholds: In use.
        samples: The images, with the model's class names.
        fan: Which pixels count as tissue.
        facts_by: {fact: {image: value}} of the subgroups.
        notes: What a reader of the subgroups must know.
        run: For ``run.json``.
    """

    model: Predictor
    thresholds: Thresholds
    samples: Sequence[Sample]
    fan: FanChoice
    facts_by: Mapping[str, Mapping[str, str]]
    notes: tuple[str, ...]
    run: Run


def planned(
    model: Predictor,
    data: str | Path | Sequence[Sample],
    *,
    layout: str = "auto",
    split: str | None = None,
    leaks: Leaks = "refuse",
    resize_masks: bool = False,
    region: RegionChoice = "auto",
    fan: FanChoice | None = None,
    by: Sequence[str] = (),
    by_table: str | Path | None = None,
    **chosen: Any,  # noqa: ANN401
) -> Plan:
    """The images that :func:`evaluate` measures, and all that is known before the first is predicted.

    Args and errors are those of :func:`evaluate`; ``chosen`` are those of :func:`.job.thresholds_of`.
    """
    one_of("leaks", leaks, get_args(Leaks))
    by = names_of(by)
    check_table(by, by_table)
    thresholds = thresholds_of(model, **chosen)
    model = model.at_prevalence(chosen.get("prevalence")).with_sets(chosen.get("sets"))
    whole, samples, about = _samples(data, layout=layout, split=split, resize_masks=resize_masks)
    fan = model.chosen_fan(fan)
    samples = in_fans(in_regions(samples, region), fan)
    samples, leakage = _without_leaks(model, samples, about.layout, leaks=leaks)
    check_sentences(model, about.layout)
    facts_by = facts_of(samples, by, table=by_table)
    gaps = () if by_table is None else gaps_of(by_table, samples, whole=whole)
    for gap in gaps:
        _log.warning("%s", gap)
    samples = in_classes(samples, model)
    if not any(s.anomalous is not None or s.label in model.classes or s.masks for s in samples):
        msg = (
            f"none of the {len(samples)} images has a label that says whether it shows a lesion, or a mask, so nothing "
            "can be measured; use predict instead"
        )
        raise DataError(msg)
    run = facts(model, "evaluate", thresholds=thresholds, data=about, leakage=leakage)
    return Plan(model, thresholds, samples, fan, facts_by, gaps, run)


def concluded(
    plan: Plan, evaluation: Evaluation, *, grades: bool, outside: int, bootstrap: int, seed: int
) -> dict[str, Any]:
    """What :func:`evaluate` returns, without the failures.

    Args:
        plan: What was evaluated.
        evaluation: Has every image that could be measured.
        grades: Whether the model grades.
        outside: Images out of scope.
        bootstrap: Resamples behind the 95 % intervals.
        seed: Of the bootstrap.
    """
    model, thresholds = plan.model, plan.thresholds
    found = evaluation.result(bootstrap=bootstrap, seed=seed)
    gap, told = transfer_gap(model, thresholds, found["metrics"])
    ungraded = not_graded(plan.samples, model) if grades else ()
    notes = [*model.origin.notes, *ungraded, *_outside(outside), *told, *plan.notes]
    used = {"image": thresholds.image, "pixel": thresholds.pixel}
    found |= {"thresholds": used, "transfer_gap": gap, "notes": notes}
    if plan.facts_by:
        found["subgroups"] = evaluation.subgroups(plan.facts_by, bootstrap=bootstrap, seed=seed)
    return found


def _outside(count: int) -> tuple[str, ...]:
    """A sentence about images that the model cannot judge; empty without any."""
    if not count:
        return ()
    return (
        f"{count} image(s) are out of scope: unlike what the model can judge. Every metric counts them; "
        "the subset without_out_of_scope does not",
    )


def _samples(
    data: str | Path | Sequence[Sample], *, layout: str, split: str | None, resize_masks: bool
) -> tuple[list[Sample], list[Sample], DataFacts]:
    """All samples, those of the split, and the facts about these for ``run.json``."""
    root = None
    if isinstance(data, (str, Path)):
        root, layout = sources.locate(data, layout)
        whole = sources.scan(root, layout=layout, resize_masks=resize_masks)
    else:
        whole = list(data)
    samples = whole
    where = str(root) if root else f"the {len(samples)} given samples"
    if split is not None:
        published = sorted({s.split for s in samples if s.split})
        samples = [s for s in samples if s.split == split]
        if not samples:
            msg = f"{where}: no image is in split {split!r}; published splits: {', '.join(published) or 'none'}"
            raise DataError(msg)
    if not samples:
        msg = "there are no samples to evaluate"
        raise DataError(msg)
    about = DataFacts(
        root=str(root) if root else None,
        layout=None if layout == "auto" else layout,
        split=split,
        images=len(samples),
        resize_masks=any(s.resize_masks for s in samples),
    )
    return whole, samples, about


def _without_leaks(
    model: Predictor, samples: list[Sample], layout: str | None, *, leaks: Leaks
) -> tuple[list[Sample], LeakageFacts]:
    """The samples that may be evaluated, and the facts about the check for ``run.json``."""
    support, auxiliary = [p for p, _ in model.support], [p for p, _ in model.auxiliary]
    if leaks == "refuse":
        check_leakage(support, samples, layout=layout)
        check_leakage(auxiliary, samples, layout=layout, role="auxiliary")
        return samples, LeakageFacts(checked=True, leaks=0, dropped=0)
    kept = unseen([*support, *auxiliary], samples, layout=layout)
    if not kept:
        msg = "every image belongs to the support or auxiliary set or its patients; nothing is left to evaluate"
        raise LeakageError(msg)
    dropped = len(samples) - len(kept)
    return kept, LeakageFacts(checked=True, leaks=dropped, dropped=dropped)
