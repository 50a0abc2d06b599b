"""Compare predictions with the truth, image by image: what ``evaluate`` and the benchmark have in common."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ultraad.data.sources import plain
from ultraad.data.support import Fingerprint, leaking
from ultraad.errors import DataError
from ultraad.metrics.summary import Evaluation
from ultraad.model.predictor import Predictor
from ultraad.results.row import Thresholds
from ultraad.types import Result, Sample

_log = logging.getLogger(__name__)


def evaluation_of(model: Predictor, thresholds: Thresholds) -> Evaluation:
    """An empty evaluation with the classes of a model."""
    return Evaluation(
        model.classes, model.normal_class, image_threshold=thresholds.image, pixel_threshold=thresholds.pixel
    )


def measure(result: Result, evaluation: Evaluation) -> Mapping[str, float | None] | None:
    """Add one result to an evaluation. An image out of scope counts like any other, with the tag ``out_of_scope``.

    Returns:
        Its own pixel metrics (:meth:`~ultraad.metrics.summary.Evaluation.add`).

    Raises:
        DataError: If it cannot be measured; the evaluation is then unchanged.
    """
    s, p = result.sample, result.prediction
    return evaluation.add(
        id=s.id,
        score=p.score,
        anomalous=s.anomalous,
        map=p.map,
        mask=result.mask,
        probs=p.probs,
        prediction_set=p.prediction_set,
        label=s.label if s.label in evaluation.classes else None,
        group=s.group,
        tags={*s.tags, "out_of_scope"} if p.out_of_scope else s.tags,
    )


def judged(
    results: Iterable[Result], evaluation: Evaluation, *, on_error: Callable[[Sample, DataError], None] | None = None
) -> Iterator[tuple[Result, Mapping[str, float | None] | None]]:
    """Add results to an evaluation as they come.

    Args:
        results: Predictions with their samples and masks.
        evaluation: Gets every result that can be measured.
        on_error: Called for each result that cannot be measured, which is then skipped; None raises.

    Yields:
        Each result with its own pixel metrics.
    """
    for result in results:
        try:
            pixels = measure(result, evaluation)
        except DataError as e:
            if on_error is None:
                raise
            on_error(result.sample, e)
        else:
            yield result, pixels


def unseen(learned: Sequence[Fingerprint], samples: Sequence[Sample], *, layout: str | None) -> list[Sample]:
    """The samples that show neither an image of ``learned`` nor one of its patients.

    :func:`~ultraad.data.support.check_leakage` has the rules.

    Args:
        learned: Images that a model has learned from.
        samples: Images of a data set.
        layout: Layout of the data set.
    """
    seen = {s.id for s in leaking(learned, samples, layout=layout)}
    return [s for s in samples if s.id not in seen]


def in_classes(samples: Sequence[Sample], model: Predictor) -> list[Sample]:
    """The samples with the model's class names, which match without regard to case, spaces and dashes.

    Normal images get the model's normal class. A class that the model does not know keeps its name and is not graded.
    """
    alike = Counter(map(plain, model.classes))
    names = {plain(c): c for c in model.classes if alike[plain(c)] == 1}
    renamed = {
        s.label: names[plain(s.label)]
        for s in samples
        if s.label is not None and s.label not in model.classes and plain(s.label) in names
    }
    if renamed:
        found = ", ".join(f"{label} as {name}" for label, name in renamed.items())
        _log.warning("class names that differ only in case or spaces are taken as the model's: %s", found)
        samples = [replace(s, label=renamed.get(s.label, s.label)) if s.label else s for s in samples]
    samples = [
        replace(s, label=model.normal_class) if s.anomalous is False and s.label not in model.classes else s
        for s in samples
    ]
    foreign = [s for s in samples if _is_foreign(s, model)]
    if unknown := _counted(s for s in foreign if s.anomalous or s.masks):
        _log.warning(
            "the model has the classes %s; images of %s count for detection and maps, not for grading",
            ", ".join(model.classes),
            unknown,
        )
    if unknown := _counted(s for s in foreign if not (s.anomalous or s.masks)):
        _log.warning(
            "images of %s are not measured: neither the name of the class nor a mask says whether they show a lesion; "
            "rename the class, e.g. to 'lesion' or 'normal'",
            unknown,
        )
    return samples


def not_graded(samples: Sequence[Sample], model: Predictor) -> tuple[str, ...]:
    """A sentence about the lesion classes that the model does not know, for reports; empty without any."""
    unknown = _counted(s for s in samples if _is_foreign(s, model) and (s.anomalous or s.masks))
    if not unknown:
        return ()
    return (
        f"classes that the model does not know: {unknown}; these images count for detection and maps, and grading was "
        "not measured for them",
    )


def by_mask(result: Result, model: Predictor) -> Result:
    """The result as that of a lesion, if nothing but its mask says that it shows one."""
    s = result.sample
    if s.anomalous is not None or s.label in model.classes or result.mask is None or not result.mask.any():
        return result
    return replace(result, sample=replace(s, anomalous=True))


def _is_foreign(sample: Sample, model: Predictor) -> bool:
    """Whether it has a class that the model does not know."""
    return sample.label is not None and sample.label not in model.classes


def _counted(samples: Iterable[Sample]) -> str:
    """``"cyst (4), papilloma (2)"``: the classes with their images."""
    return ", ".join(f"{label} ({n})" for label, n in Counter(s.label for s in samples).items())
