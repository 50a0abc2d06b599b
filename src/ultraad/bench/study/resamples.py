"""Resamples of stored results. All rows on a test set see the same patients drawn, so that rows can be paired.

A row has three blocks of metrics: of images, of classes, and of pixels. The metrics of a block are functions of the
weights of its entries (images, or patients for pixel metrics). Entries with the same unit are drawn together: the unit
of an entry is its patient, or the entry itself if the patient is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ultraad.metrics import classes as grading
from ultraad.metrics import image as detection
from ultraad.metrics.bootstrap import Array, Compute, counts
from ultraad.metrics.catalogue import Kind

if TYPE_CHECKING:
    from ultraad.bench.results import BenchFolder
    from ultraad.bench.row import ImageLine, MeasuredRow

_CHUNK = 500  # resamples that are computed at a time, to bound the memory


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some metrics of one row as functions of weights.

    Attributes:
        units: {entry that is weighted: the unit that it is drawn with}.
        open: Gives the metrics as a function of weights (b n); {metric: (b,)}. Large tables are read only then.
    """

    units: Mapping[str, str]
    open: Callable[[], Compute]

    def resample(self, ids: Sequence[str], units: Sequence[str], *, resamples: int) -> dict[str, Array]:
        """Every metric on these entries alone: {metric: (1 + resamples,)}, the value itself first.

        Args:
            ids: The entries.
            units: What is drawn: the units of these entries, and any others, which count for nothing here. Blocks that
                are given the same units see the same ones drawn.
            resamples: How often.
        """
        place = {id_: i for i, id_ in enumerate(self.units)}
        at = np.array([place[i] for i in ids], dtype=np.intp)
        number = {unit: i for i, unit in enumerate(units)}
        unit = np.array([number[self.units[i]] for i in ids], dtype=np.intp)
        drawn = np.concatenate([np.ones((1, len(number))), counts(len(number), resamples=resamples, seed=0)])
        compute, parts = self.open(), []
        for start in range(0, len(drawn), _CHUNK):
            some = drawn[start : start + _CHUNK]
            weights = np.zeros((len(some), len(place)))
            weights[:, at] = some[:, unit]
            parts.append(compute(weights))
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What paired tests need of one row.

    Attributes:
        scores: {id: anomaly score}.
        anomalous: {id: truth}, of the images whose truth is known.
        grouped: Whether the patient of any image is known.
        blocks: {kind: block}; those without entries are left out.
    """

    scores: Mapping[str, float]
    anomalous: Mapping[str, bool]
    grouped: bool
    blocks: Mapping[Kind, Block]


def load(folder: BenchFolder, row: MeasuredRow) -> Scored:
    """The stored predictions of a row as blocks."""
    lines = folder.predictions(row)
    blocks: dict[Kind, Block | None] = {
        "image": _images(row, lines),
        "class": _classes(row, lines),
        "pixel": _pixels(folder, row),
    }
    return Scored(
        scores={x.id: x.score for x in lines},
        anomalous={x.id: x.anomalous for x in lines if x.anomalous is not None},
        grouped=any(x.group is not None for x in lines),
        blocks={kind: b for kind, b in blocks.items() if b is not None and b.units},
    )


def _block(lines: Sequence[ImageLine], compute: Compute) -> Block:
    """A block whose entries are images; its units are named as in the pixel table, so that all blocks draw alike."""
    units = {x.id: f"image/{x.id}" if x.group is None else f"group/{x.group}" for x in lines}
    return Block(units, lambda: compute)


def _images(row: MeasuredRow, lines: Sequence[ImageLine]) -> Block:
    known = [x for x in lines if x.anomalous is not None]
    cut = row.calibration.image_threshold
    block = detection.statistics([x.score for x in known], [x.anomalous is True for x in known], threshold=cut)
    return _block(known, block.compute)


def _classes(row: MeasuredRow, lines: Sequence[ImageLine]) -> Block | None:
    names = row.adapt.classes
    graded = [(x, x.probs, names.index(x.label)) for x in lines if x.probs is not None and x.label in names]
    if not graded:
        return None
    probs = [[p.get(c, 0.0) for c in names] for _, p, _ in graded]
    labels = [label for _, _, label in graded]
    block = grading.statistics(probs, labels, classes=names, normal_class=row.adapt.normal_class)
    return _block([x for x, _, _ in graded], block.compute)


def _pixels(folder: BenchFolder, row: MeasuredRow) -> Block | None:
    def open_table() -> Compute:
        table = folder.pixels(row)
        assert table is not None
        return table.compute

    table = folder.pixels(row)
    return None if table is None else Block({g: g for g in table.groups}, open_table)
