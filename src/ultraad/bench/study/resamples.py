"""Resamples of stored results: one draw of patients, the same for every row on a test set, so that rows can be paired.

A row is three blocks of metrics: of images, of classes, and of pixels. Each is a function of weights of its entries
(images, or patients for pixels); an entry belongs to a unit that is drawn as a whole: its patient, or itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ultraad.metrics import classes as grading
from ultraad.metrics import image as detection
from ultraad.metrics.bootstrap import Array, Compute, counts
from ultraad.metrics.catalogue import spec

if TYPE_CHECKING:
    from ultraad.bench.results import BenchFolder
    from ultraad.bench.row import ImageLine, MeasuredRow

IMAGE, CLASS, PIXEL = "image", "class", "pixel"
_CHUNK = 500  # resamples at a time  # ours


def kind(metric: str) -> str:
    """Which block a metric is in."""
    return spec(metric).kind


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some metrics of one row as functions of weights.

    Attributes:
        ids: Entries that are weighed.
        units: What each entry is drawn with.
        open: Gives the metrics as a function of weights (b n); {metric: (b,)}. Large tables are read only then.
    """

    ids: tuple[str, ...]
    units: tuple[str, ...]
    open: Callable[[], Compute]

    def draw(self, ids: Sequence[str], *, resamples: int) -> dict[str, Array]:
        """Every metric on these entries alone: {metric: (1 + resamples,)}, the value itself first.

        Blocks with the same units for these entries see the same patients drawn.
        """
        place = {id_: i for i, id_ in enumerate(self.ids)}
        at = np.array([place[i] for i in ids], dtype=np.intp)
        number: dict[str, int] = {}
        unit = np.array([number.setdefault(self.units[i], len(number)) for i in at], dtype=np.intp)
        drawn = np.concatenate([np.ones((1, len(number))), counts(len(number), resamples=resamples, seed=0)])
        compute, parts = self.open(), []
        for start in range(0, len(drawn), _CHUNK):
            some = drawn[start : start + _CHUNK]
            weights = np.zeros((len(some), len(self.ids)))
            weights[:, at] = some[:, unit]
            parts.append(compute(weights))
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What tests need of one row.

    Attributes:
        scores: {id: anomaly score}.
        anomalous: {id: truth}, of the images whose truth is known.
        grouped: Whether any image names its patient.
        blocks: {kind: block}; those without entries are left out.
    """

    scores: Mapping[str, float]
    anomalous: Mapping[str, bool]
    grouped: bool
    blocks: Mapping[str, Block]


def load(folder: BenchFolder, row: MeasuredRow) -> Scored:
    """The stored predictions of a row as blocks."""
    lines = folder.predictions(row)
    blocks = {IMAGE: _images(row, lines), CLASS: _classes(row, lines), PIXEL: _pixels(folder, row)}
    return Scored(
        scores={x.id: x.score for x in lines},
        anomalous={x.id: x.anomalous for x in lines if x.anomalous is not None},
        grouped=any(x.group is not None for x in lines),
        blocks={name: b for name, b in blocks.items() if b is not None and b.ids},
    )


def _unit(line: ImageLine) -> str:
    """As in the pixel table, so that all blocks draw alike."""
    return f"image/{line.id}" if line.group is None else f"group/{line.group}"


def _images(row: MeasuredRow, lines: Sequence[ImageLine]) -> Block:
    known = [x for x in lines if x.anomalous is not None]
    cut = row.calibration.image_threshold
    block = detection.statistics([x.score for x in known], [x.anomalous is True for x in known], threshold=cut)
    return Block(tuple(x.id for x in known), tuple(map(_unit, known)), lambda: block.compute)


def _classes(row: MeasuredRow, lines: Sequence[ImageLine]) -> Block | None:
    names, normal = row.adapt.classes, row.adapt.normal_class
    graded = [x for x in lines if x.probs is not None and x.label in names]
    if not graded:
        return None
    probs = [[(x.probs or {}).get(c, 0.0) for c in names] for x in graded]
    labels = [names.index(x.label) for x in graded]
    block = grading.statistics(probs, labels, classes=names, normal_class=normal)
    return Block(tuple(x.id for x in graded), tuple(map(_unit, graded)), lambda: block.compute)


def _pixels(folder: BenchFolder, row: MeasuredRow) -> Block | None:
    def open_table() -> Compute:
        table = folder.pixels(row)
        assert table is not None
        return table.compute

    table = folder.pixels(row)
    return None if table is None else Block(table.groups, table.groups, open_table)
