"""One pass of a fitted model over a test set, with everything that a report needs of it."""

from __future__ import annotations

import json
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ultraad.bench.pictures import pack_maps, small_map
from ultraad.bench.results import npz
from ultraad.data.loader import iterate
from ultraad.errors import DataError, LeakageError
from ultraad.metrics.summary import Evaluation
from ultraad.runs.evaluate import in_classes, unseen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ultraad.backbones._cache import Usage
    from ultraad.bench.run.data import TestSet
    from ultraad.model.model import Model
    from ultraad.types import Prediction, Sample

_PIXEL_BINS = 256  # of the table for paired tests: about a megabyte a row  # ours


class Clock:
    """Wall time as if every frozen feature that was found had been made; see docs/bench-format.md, Timings.

    Attributes:
        seconds: So far.
        encode: Of them, for frozen features.
    """

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self.seconds = self.encode = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time what happens inside."""
        started, before = time.perf_counter(), replace(self._usage)
        yield
        worth = self._usage.worth - before.worth
        self.seconds += time.perf_counter() - started - (self._usage.spent - before.spent) + worth
        self.encode += worth


@dataclass(frozen=True, slots=True)
class Range:
    """Lowest and highest image score and map value of a test set; statistics of the test set, so never honest."""

    score: tuple[float, float] = (np.inf, -np.inf)
    map: tuple[float, float] = (np.inf, -np.inf)

    def including(self, p: Prediction) -> Range:
        """Widened by one image."""
        low, high = (np.inf, -np.inf) if p.map is None else (float(p.map.min()), float(p.map.max()))
        return Range(
            (min(self.score[0], p.score), max(self.score[1], p.score)), (min(self.map[0], low), max(self.map[1], high))
        )

    def moved(self, p: Prediction) -> Prediction:
        """The prediction with this range moved to [0, 1]."""

        def move(x: Any, ends: tuple[float, float]) -> Any:  # noqa: ANN401  # a number or an array
            return (x - ends[0]) / (ends[1] - ends[0]) if ends[1] > ends[0] else x

        return replace(p, score=float(move(p.score, self.score)), map=None if p.map is None else move(p.map, self.map))


@dataclass(slots=True, eq=False)
class Measured:
    """A model on a test set.

    Attributes:
        evaluation: All metrics.
        lines: One for each image, see docs/bench-format.md.
        maps: Small ones; empty if they are not kept.
        range: Of what the model gave.
        failed: {id: reason} of images that could not be used.
        left_out: Images of the support or its patients.
    """

    evaluation: Evaluation
    lines: list[dict[str, Any]] = field(default_factory=list)
    maps: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    range: Range = Range()
    failed: dict[str, str] = field(default_factory=dict)
    left_out: int = 0

    def predictions(self) -> bytes:
        """The lines as the content of a file."""
        return "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in self.lines).encode()

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
    model: Model, test: TestSet, *, clock: Clock, batch_size: int, keep_maps: bool = False, moved: Range | None = None
) -> Measured:
    """Predict and judge every image of a test set but those of the support and its patients.

    Args:
        model: Fitted.
        test: The images.
        clock: Times the prediction alone: no reading, no metrics.
        batch_size: Images per forward pass.
        keep_maps: Keep small maps.
        moved: Move scores and maps by this range first.

    Raises:
        DataError: If no image can be used, or a score or map is not finite.
        LeakageError: If every image is of the support or its patients.
    """
    c = model.calibration
    found = Measured(
        Evaluation(
            model.classes, model.normal_class, image_threshold=c.image_threshold, pixel_threshold=c.pixel_threshold
        )
    )
    samples = unseen([p for p, _ in (*model.support, *model.auxiliary)], test.samples, layout=test.layout)
    found.left_out = len(test.samples) - len(samples)
    if not samples:
        msg = f"every image of {test.name} belongs to the support or auxiliary set or its patients"
        raise LeakageError(msg)

    def note(sample: Sample, error: DataError) -> None:
        found.failed[sample.id] = str(error)

    batches = iterate(
        in_classes(samples, model),
        model.preprocess,
        classes=model.classes,
        normal_class=model.normal_class,
        batch_size=batch_size,
        on_error=note,
    )
    with closing(batches):  # a method that fails leaves no reading threads behind
        for decoded, batch in batches:
            with clock.running():
                predictions = model.method.predict(batch.unlabelled())
            for item, prediction in zip(decoded, predictions, strict=True):
                sample = item.sample
                found.range = found.range.including(prediction)
                p = prediction if moved is None else moved.moved(prediction)
                _judge(found, sample, p, item.mask)
                if keep_maps and p.map is not None:
                    found.maps[sample.id] = small_map(p.map)
    if not found.lines:
        first = next(iter(found.failed.values()))
        msg = f"none of the {len(samples)} images of {test.name} can be read; the first: {first}"
        raise DataError(msg)
    return found


def _judge(found: Measured, sample: Sample, p: Prediction, mask: NDArray[np.bool_] | None) -> None:
    pixels = found.evaluation.add(
        id=sample.id,
        score=p.score,
        anomalous=sample.anomalous,
        map=p.map,
        mask=mask,
        probs=p.probs,
        label=sample.label,
        group=sample.group,
        tags=sample.tags,
    )
    found.lines.append(
        {
            "id": sample.id,
            "score": p.score,
            "probs": p.probs,
            "label": sample.label,
            "anomalous": sample.anomalous,
            "group": sample.group,
            "device": sample.device,
            "site": sample.site,
            "tags": sorted(sample.tags),
            "pixels": pixels,
        }
    )
