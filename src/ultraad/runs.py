"""The two long jobs: predict many images into a folder, and evaluate a model on a labelled data set."""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ultraad.data import sources
from ultraad.data.sources.base import samples_of
from ultraad.data.support import check_leakage, leaking
from ultraad.errors import DataError, LeakageError
from ultraad.io import read_mask
from ultraad.io.files import write_json
from ultraad.metrics.bootstrap import RESAMPLES
from ultraad.metrics.summary import Evaluation
from ultraad.origin import versions
from ultraad.report import render
from ultraad.results import METRICS, ResultsFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ultraad.calibrate import Calibration
    from ultraad.data.support import Fingerprint
    from ultraad.origin import Origin
    from ultraad.results import Result
    from ultraad.types import Sample


_log = logging.getLogger(__name__)


class Predictor(Protocol):
    """What the jobs need of a model; a :class:`~ultraad.model.Model` has it, and so does an exported one."""

    calibration: Calibration
    origin: Origin
    support: tuple[tuple[Fingerprint, str], ...]
    auxiliary: tuple[tuple[Fingerprint, str], ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""

    @property
    def normal_class(self) -> str:
        """The class that means "no lesion"."""

    @property
    def digest(self) -> str:
        """One digest, one set of results."""

    def describe(self) -> dict[str, Any]:
        """What the model is, as plain JSON types."""

    def predict_many(
        self,
        items: Iterable[str | Path | Sample],
        *,
        batch_size: int = 8,
        on_error: Callable[[Sample, DataError], None] | None = None,
    ) -> Iterator[Result]:
        """Many images in a stream."""


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


def predict_into(
    model: Predictor,
    paths: Iterable[str | Path],
    output: str | Path,
    *,
    frame: int | None = None,
    resume: bool = True,
    overlays: bool = True,
    maps: bool = True,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Predict files into a folder (:mod:`ultraad.results`), with a page to look at.

    Args:
        model: Any model.
        paths: Files, folders and patterns.
        output: Folder for the results.
        frame: Only this 0-based frame of multi-frame files; None takes all.
        resume: Skip what the folder has already; otherwise an earlier run's results are removed.
        overlays: Write overlays.
        maps: Write 16-bit maps.
        batch_size: Images per forward pass.
        progress: Called with (images done, images).

    Raises:
        DataError: If nothing is found, or the folder cannot be used. Files that cannot be read are listed instead.
        KeyboardInterrupt: As it came; everything done by then is in the folder.
    """
    wanted = list(paths)
    samples = samples_of(wanted, frame=frame)
    facts = {**_facts(model, "predict"), "data": {"paths": [str(p) for p in wanted], "images": len(samples)}}
    folder = ResultsFolder(output, facts, resume=resume, overlays=overlays, maps=maps)
    todo = [s for s in samples if s.id not in folder.done]
    skipped = len(samples) - len(todo)
    with _finishing(folder) as outcome:
        outcome.skipped = skipped
        results = model.predict_many(todo, batch_size=batch_size, on_error=_failing(folder))
        for result in results:
            folder.add(result, model.calibration)
            outcome.predicted += 1
            if progress is not None:
                progress(skipped + outcome.predicted + len(folder.failed), len(samples))
    if folder.done or outcome.predicted:
        render(folder.folder)
    return outcome


def evaluate(
    model: Predictor,
    data: str | Path | Sequence[Sample],
    *,
    layout: str = "auto",
    split: str | None = None,
    leaks: Literal["refuse", "drop"] = "refuse",
    output: str | Path | None = None,
    bootstrap: int = RESAMPLES,
    seed: int = 0,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """All metrics of a model on a labelled data set, on the original pixel grid, at the stored thresholds.

    Args:
        model: Any model; nothing in it is changed by the data.
        data: Root of a data set, or samples.
        layout: Layout of the root, or of the set the samples come from.
        split: Only this published split.
        leaks: What to do with images and patients of the support and auxiliary sets: ``"refuse"`` to evaluate, or
            ``"drop"`` them.
        output: Folder for predictions, overlays, ``metrics.json``, ``run.json`` and ``report.html``; what an earlier
            run left there is replaced.
        bootstrap: Resamples behind the 95 % intervals.
        seed: Of the bootstrap.
        batch_size: Images per forward pass.
        progress: Called with (images done, images).

    Returns:
        :meth:`ultraad.metrics.summary.Evaluation.result` plus ``thresholds`` and ``failed`` {id: reason}.

    Raises:
        DataError: If there is nothing to evaluate, or the folder cannot be used.
        LeakageError: If the data holds images or patients the model has learned from and ``leaks="refuse"``.
        KeyboardInterrupt: As it came.
    """
    samples, about = _samples(data, layout=layout, split=split)
    samples, leakage = _without_leaks(model, samples, about["layout"], leaks=leaks)
    samples = in_classes(samples, model)
    if all(s.anomalous is None and s.label is None for s in samples):
        msg = f"none of the {len(samples)} images has a label, so nothing can be measured; use predict instead"
        raise DataError(msg)
    thresholds = {"image": model.calibration.image_threshold, "pixel": model.calibration.pixel_threshold}
    evaluation = Evaluation(
        model.classes, model.normal_class, image_threshold=thresholds["image"], pixel_threshold=thresholds["pixel"]
    )
    folder = None
    if output is not None:
        facts = {**_facts(model, "evaluate"), "data": about, "leakage": leakage}
        folder = ResultsFolder(output, facts, resume=False, maps=False)

    failed: dict[str, str] = {}
    with _finishing(folder) as outcome:
        note = _failing(folder, failed)
        for result in model.predict_many(samples, batch_size=batch_size, on_error=note):
            try:
                mask = _judge(result, evaluation)
            except DataError as e:
                note(result.sample, e)
            else:
                outcome.predicted += 1
                if folder is not None:
                    folder.add(result, model.calibration, mask=mask)
            if progress is not None:
                progress(outcome.predicted + len(failed), len(samples))
        if not outcome.predicted:
            first = next(iter(failed.values()))
            msg = f"none of the {len(samples)} images could be evaluated; the first: {first}"
            raise DataError(msg)
        found = {**evaluation.result(bootstrap=bootstrap, seed=seed), "thresholds": thresholds}
        if folder is not None:
            write_json(folder.folder / METRICS, found)
    if folder is not None:
        render(folder.folder)
    return {**found, "failed": failed}


def unseen(support: Sequence[Fingerprint], samples: Sequence[Sample], *, layout: str | None) -> list[Sample]:
    """The samples that are no such image and of no such patient; see :func:`check_leakage` for the rules."""
    seen = {s.id for s in leaking(support, samples, layout=layout)}
    return [s for s in samples if s.id not in seen]


def in_classes(samples: Sequence[Sample], model: Predictor) -> list[Sample]:
    """The samples in the model's class names: any name for "no lesion" is its normal class, unknown names go."""
    unknown = Counter(s.label for s in samples if s.label not in (None, *model.classes) and s.anomalous is not False)
    if unknown:
        _log.warning(
            "the model knows the classes %s; images of %s count for detection and maps, not for grading",
            ", ".join(model.classes),
            ", ".join(f"{label} ({n})" for label, n in unknown.items()),
        )
    return [
        s if s.label in model.classes else replace(s, label=model.normal_class if s.anomalous is False else None)
        for s in samples
    ]


# --- pieces ----------------------------------------------------------------------------------------------------------


def _facts(model: Predictor, command: str) -> dict[str, Any]:
    """What ``run.json`` says about the model; the report is made from this."""
    calibration = model.calibration
    return {
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {"digest": model.digest, **model.describe()},
        "thresholds": {"image": calibration.image_threshold, "pixel": calibration.pixel_threshold},
        "protocol": model.origin.protocol,
        "support_digest": model.origin.support_digest,
        "versions": versions(),
    }


@contextmanager
def _finishing(folder: ResultsFolder | None) -> Iterator[Outcome]:
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


def _failing(folder: ResultsFolder | None, failed: dict[str, str] | None = None) -> Callable[[Sample, DataError], None]:
    def note(sample: Sample, error: DataError) -> None:
        if failed is not None:
            failed[sample.id] = str(error)
        if folder is not None:
            folder.fail(sample.id, str(error))

    return note


def _samples(
    data: str | Path | Sequence[Sample], *, layout: str, split: str | None
) -> tuple[list[Sample], dict[str, Any]]:
    """The samples, and what ``run.json`` says about them."""
    root = None
    if isinstance(data, (str, Path)):
        root = Path(data)
        layout = sources.detect(root) if layout == "auto" else layout
        samples = sources.scan(root, layout=layout)
    else:
        samples = list(data)
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
    return samples, {
        "root": str(root.resolve()) if root else None,
        "layout": None if layout == "auto" else layout,
        "split": split,
        "images": len(samples),
    }


def _without_leaks(
    model: Predictor, samples: list[Sample], layout: str | None, *, leaks: Literal["refuse", "drop"]
) -> tuple[list[Sample], dict[str, Any]]:
    """The samples that may be evaluated, and what ``run.json`` says about the check."""
    support, auxiliary = [p for p, _ in model.support], [p for p, _ in model.auxiliary]
    if leaks == "refuse":
        check_leakage(support, samples, layout=layout)
        check_leakage(auxiliary, samples, layout=layout, role="auxiliary")
        return samples, {"checked": True, "leaks": 0, "dropped": 0}

    kept = unseen([*support, *auxiliary], samples, layout=layout)
    if not kept:
        msg = "every image belongs to the support or auxiliary set or its patients; nothing is left to evaluate"
        raise LeakageError(msg)
    return kept, {"checked": True, "leaks": len(samples) - len(kept), "dropped": len(samples) - len(kept)}


def _judge(result: Result, evaluation: Evaluation) -> NDArray[np.bool_] | None:
    """Compare one result with its truth, whose mask is returned: bool (H W), None if unknown."""
    s, p = result.sample, result.prediction
    mask = read_mask(s.masks, shape=(result.image.shape[0], result.image.shape[1])) if result.mask_known else None
    evaluation.add(
        id=s.id,
        score=p.score,
        anomalous=s.anomalous,
        map=p.map,
        mask=mask,
        probs=p.probs,
        label=s.label,
        group=s.group,
        tags=s.tags,
    )
    return mask
