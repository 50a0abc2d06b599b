"""One pass of a fitted model over a test set, with everything that a report needs of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ultraad.bench.pictures import pack_maps, small_map
from ultraad.bench.results import npz
from ultraad.bench.row import ImageLine, ImagePixels
from ultraad.bench.run.data import TestSet
from ultraad.data.loader import iterate
from ultraad.errors import DataError, LeakageError
from ultraad.metrics.summary import Evaluation
from ultraad.runs.job import thresholds_of
from ultraad.runs.judge import evaluation_of, in_classes, judged, unseen
from ultraad.types import Prediction, Result, Sample

if TYPE_CHECKING:
    from ultraad.backbones._cache import Usage
    from ultraad.model.model import Model

_PIXEL_BINS = 256  # of the table for paired tests: about a megabyte per row


class Clock:
    """Wall time without the savings of shared features; see docs/bench-format.md, Timings.

    Attributes:
        seconds: Measured so far. A feature that was found in the cache counts with the time that it took to compute.
        encode: The part of ``seconds`` for frozen features.
    """

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self.seconds = self.encode = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time the block."""
        started, before = time.perf_counter(), replace(self._usage)
        yield
        worth = self._usage.worth - before.worth
        self.seconds += time.perf_counter() - started - (self._usage.spent - before.spent) + worth
        self.encode += worth


@dataclass(frozen=True, slots=True)
class Range:
    """Lowest and highest image score and map value of a test set. Only the published protocol may use them."""

    score: tuple[float, float] = (np.inf, -np.inf)
    map: tuple[float, float] = (np.inf, -np.inf)

    def including(self, p: Prediction) -> Range:
        """The range that also covers this image."""
        low, high = (np.inf, -np.inf) if p.map is None else (float(p.map.min()), float(p.map.max()))
        return Range(
            (min(self.score[0], p.score), max(self.score[1], p.score)), (min(self.map[0], low), max(self.map[1], high))
        )

    def rescaled(self, p: Prediction) -> Prediction:
        """The prediction with this range mapped to [0, 1]."""

        def rescale(x: Any, ends: tuple[float, float]) -> Any:  # noqa: ANN401  # a number or an array
            return (x - ends[0]) / (ends[1] - ends[0]) if ends[1] > ends[0] else x

        map_ = None if p.map is None else rescale(p.map, self.map)
        return replace(p, score=float(rescale(p.score, self.score)), map=map_)


@dataclass(slots=True, eq=False)
class Measured:
    """A model on a test set.

    Attributes:
        evaluation: All metrics.
        lines: One for each image.
        maps: {id: small map}; empty if they are not kept.
        range: Of scores and maps, before any rescaling.
        failed: {id: reason} of images that could not be used.
        left_out: Images of the support set, the auxiliary set or their patients.
    """

    evaluation: Evaluation
    lines: list[ImageLine] = field(default_factory=list)
    maps: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    range: Range = Range()
    failed: dict[str, str] = field(default_factory=dict)
    left_out: int = 0

    def predictions(self) -> bytes:
        """The lines as the content of a file."""
        return "".join(line.to_json() + "\n" for line in self.lines).encode()

    def pixels(self) -> bytes | None:
        """The table for paired tests as the content of a file."""
        t = self.evaluation.pixel_table(bins=_PIXEL_BINS)
        if t is None:
            return None
        mass = t.mass.astype(np.float32)
        return npz(
            {"groups": np.array(t.groups), "mass": mass, "wide": t.wide, "sums": t.sums, "stored": np.array(t.stored)}
        )

    def small_maps(self) -> bytes | None:
        """The small maps as the content of a file."""
        return npz(pack_maps(list(self.maps), list(self.maps.values()))) if self.maps else None


def measure(
    model: Model, test: TestSet, *, clock: Clock, batch_size: int, keep_maps: bool = False, rescale: Range | None = None
) -> Measured:
    """Predict and measure every image of a test set, except images and patients that the model has learned from.

    Args:
        model: Fitted.
        test: The images.
        clock: Times only the prediction: no reading, no metrics.
        batch_size: Images per forward pass.
        keep_maps: Keep small maps.
        rescale: Map scores and maps from this range to [0, 1] first.

    Raises:
        DataError: If no image can be used, or a score or map is not finite.
        LeakageError: If the model has learned from every image or its patient.
    """
    found = Measured(evaluation_of(model, thresholds_of(model)))
    samples = unseen([p for p, _ in (*model.support, *model.auxiliary)], test.samples, layout=test.facts.layout)
    found.left_out = len(test.samples) - len(samples)
    if not samples:
        msg = f"every image of {test.facts.name} belongs to the support or auxiliary set or its patients"
        raise LeakageError(msg)

    def note(sample: Sample, error: DataError) -> None:
        found.failed[sample.id] = str(error)

    batches = iterate(
        [s if s.label in model.classes else replace(s, label=None) for s in in_classes(samples, model)],
        model.preprocess,
        classes=model.classes,
        normal_class=model.normal_class,
        batch_size=batch_size,
        on_error=note,
    )

    def results() -> Iterator[Result]:
        for decoded, batch in batches:
            with clock.running():
                predictions = model.method.predict(batch.unlabelled())
            for item, p in zip(decoded, predictions, strict=True):
                found.range = found.range.including(p)
                yield Result(item.sample, item.image, rescale.rescaled(p) if rescale else p, item.mask)

    with closing(batches):  # ends the reading threads if a method fails
        for result, pixels in judged(results(), found.evaluation):
            s, p = result.sample, result.prediction
            found.lines.append(
                ImageLine(
                    id=s.id,
                    score=p.score,
                    probs=p.probs,
                    label=s.label,
                    anomalous=s.anomalous,
                    group=s.group,
                    device=s.device,
                    site=s.site,
                    tags=tuple(sorted(s.tags)),
                    pixels=None if pixels is None else ImagePixels.model_validate(pixels),
                )
            )
            if keep_maps and p.map is not None:
                found.maps[s.id] = small_map(p.map)
    if not found.lines:
        first = next(iter(found.failed.values()))
        msg = f"none of the {len(samples)} images of {test.facts.name} can be read; the first: {first}"
        raise DataError(msg)
    return found
