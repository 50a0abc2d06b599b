"""All metrics of one evaluation, collected sample by sample."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultraad.errors import ConfigError, DataError
from ultraad.metrics import classes as grading
from ultraad.metrics import image as detection
from ultraad.metrics.bootstrap import RESAMPLES, Array, Statistics, clusters, measure
from ultraad.metrics.calibration import reliability
from ultraad.metrics.compare import Difference
from ultraad.metrics.curves import ratio
from ultraad.metrics.metric import Metric
from ultraad.metrics.pixel import PixelMetrics, PixelTable
from ultraad.metrics.selective import risk_coverage
from ultraad.metrics.subgroups import UNKNOWN, Subgroup, adjusted, differences, worst_first
from ultraad.texts.tags import is_grade


@dataclass(frozen=True, slots=True)
class _Row:
    score: float
    anomalous: bool | None
    probs: tuple[float, ...] | None
    label: int | None
    group: str | None
    tags: frozenset[str]
    pixels: Mapping[str, float | None] | None
    named: tuple[bool, ...] | None


_OF_ONE_IMAGE = {"dice": "dice", "peak_in_lesion": "peak"}
"""Metrics that are means over lesion images: {key: name among the image's own metrics}."""


class Evaluation:
    """Collects predictions and their truth. Maps are processed at once and not kept.

    Args:
        classes: Class names in label order.
        normal_class: The member of ``classes`` that means "no lesion".
        image_threshold: Stored image threshold; None leaves the metrics at it undefined.
        pixel_threshold: Stored pixel threshold; None leaves the metrics at it undefined.

    Raises:
        ConfigError: If the normal class is not among the classes.

    Examples:
        >>> e = Evaluation(["normal", "benign", "malignant"], "normal")
        >>> e.add(score=0.2, anomalous=False, id="a")
        >>> e.add(score=0.9, anomalous=True, id="b")
        >>> e.result()["metrics"]["image_auroc"]["value"]
        1.0
    """

    def __init__(
        self,
        classes: Sequence[str],
        normal_class: str,
        *,
        image_threshold: float | None = None,
        pixel_threshold: float | None = None,
    ) -> None:
        if normal_class not in classes:
            msg = f"the normal class {normal_class!r} is not among the classes {list(classes)}; choose one of them"
            raise ConfigError(msg)
        self.classes = tuple(classes)
        self.normal_class = normal_class
        self.image_threshold = image_threshold
        self._pixels = PixelMetrics(threshold=pixel_threshold)
        self._rows: dict[str, _Row] = {}

    def add(
        self,
        *,
        id: str,  # noqa: A002
        score: float,
        anomalous: bool | None,
        map: NDArray[np.float32] | None = None,  # noqa: A002
        mask: NDArray[np.bool_] | None = None,
        probs: Mapping[str, float] | None = None,
        label: str | None = None,
        group: str | None = None,
        tags: Collection[str] = frozenset(),
        prediction_set: Collection[str] | None = None,
    ) -> dict[str, float | None] | None:
        """Add one image.

        Pixel metrics use the image if it has a map and its lesion pixels are known, either from the mask or because the
        image is normal. An anomalous image with an empty mask counts as one without a mask.

        Args:
            id: Unique id of the image.
            score: Finite, higher is more anomalous.
            anomalous: Truth; None if unknown, then it follows from the label if there is one.
            map: float32 (h w), higher is more anomalous; None if the method has none.
            mask: bool (h w), True on lesion; None if unknown.
            probs: {class: probability}; None if the method does not grade.
            label: True class; None if unknown.
            group: Patient; None if unknown.
            tags: Facts about the image, which define the subsets of :meth:`result`.
            prediction_set: Classes that it may be; None if there are no such sets.

        Returns:
            The image's own pixel metrics (:meth:`.PixelMetrics.add`); None if pixel metrics do not use it.

        Raises:
            DataError: If the id was added before, the score is not finite, a class is unknown, or truth, label and mask
                contradict each other.
        """
        if id in self._rows:
            msg = f"image {id!r} was added before; add every image once"
            raise DataError(msg)
        if not math.isfinite(score):
            msg = f"image {id!r} has the score {score}, but metrics need finite scores"
            raise DataError(msg)
        for name in (*(probs or ()), *(prediction_set or ()), *([label] if label is not None else ())):
            if name not in self.classes:
                msg = f"image {id!r}: class {name!r} is not among {list(self.classes)}"
                raise DataError(msg)
        if label is not None:
            implied = label != self.normal_class
            if anomalous is not None and anomalous != implied:
                msg = f"image {id!r} is labelled {label!r} but marked anomalous={anomalous}; correct one of them"
                raise DataError(msg)
            anomalous = implied
        if anomalous is False and mask is not None and mask.any():
            msg = f"image {id!r} is normal but its mask has {int(mask.sum())} lesion pixels; correct label or mask"
            raise DataError(msg)
        own = None
        if map is not None:
            if mask is None and anomalous is False:
                mask = np.zeros(map.shape, dtype=bool)
            if mask is not None and not (anomalous and not mask.any()):
                own = self._pixels.add(map, mask, group=f"image/{id}" if group is None else f"group/{group}")
        self._rows[id] = _Row(
            score=float(score),
            anomalous=None if anomalous is None else bool(anomalous),
            probs=None if probs is None else tuple(float(probs.get(c, 0.0)) for c in self.classes),
            label=None if label is None else self.classes.index(label),
            group=group,
            tags=frozenset(tags),
            pixels=own,
            named=None if prediction_set is None else tuple(c in prediction_set for c in self.classes),
        )
        return own

    def pixel_table(self, *, bins: int) -> PixelTable | None:
        """The table for paired tests on pixel metrics (:meth:`.PixelMetrics.table`); None without maps and masks."""
        return self._pixels.table(bins=bins) if self._pixels.images else None

    def result(self, *, bootstrap: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
        """All results so far.

        Args:
            bootstrap: Resamples for the 95 % intervals; 0 for no intervals.
            seed: Seed of the bootstrap.

        Returns:
            A dict of plain JSON types: ``metrics`` {key: metric}; ``subsets`` {"without_<tag>": {key: metric}} with the
            image and class metrics of the images without a tag, for every tag but grades; ``curves`` (None where
            undefined); ``confusion`` {"classes", "matrix"} with true classes in rows; ``n`` (counts); ``bootstrap``.
        """
        rows, draw = list(self._rows.values()), {"resamples": bootstrap, "seed": seed}
        subsets = {
            f"without_{tag}": _measured(self._image_and_class([r for r in rows if tag not in r.tags]), **draw)
            for tag in sorted({t for r in rows for t in r.tags if not is_grade(t)})
        }
        scores, truth = _known(rows)
        image, pixel = detection.image_curves(scores, truth), self._pixels.curves()
        probs, labels = self._graded(rows)
        matrix = grading.confusion_matrix(probs, labels, classes=len(self.classes))
        groups = {r.group for r in rows if r.group is not None}
        return {
            "metrics": _plain(_measured(self._image_and_class(rows), **draw) | self._pixels.result(**draw)),
            "subsets": {name: _plain(m) for name, m in subsets.items()},
            "curves": {
                "image_roc": image.get("roc"),
                "image_pr": image.get("pr"),
                "pixel_roc": pixel.get("roc"),
                "pixel_pr": pixel.get("pr"),
                "froc": self._pixels.froc(),
                "reliability": reliability(probs, labels) if labels.size else None,
                "risk_coverage": risk_coverage(probs, labels) if labels.size else None,
            },
            "confusion": {"classes": list(self.classes), "matrix": matrix.tolist()},
            "n": {
                "images": len(rows),
                "lesions": sum(r.anomalous is True for r in rows),
                "normals": sum(r.anomalous is False for r in rows),
                "groups": len(groups),
                "graded": int(labels.size),
                "maps": self._pixels.images,
                "masks": self._pixels.lesions,
                "regions": self._pixels.regions,
            },
            "bootstrap": {"unit": "patient" if groups else "image", **draw},
        }

    def subgroups(
        self, facts: Mapping[str, Mapping[str, str]], *, bootstrap: int = RESAMPLES, seed: int = 0
    ) -> dict[str, Any]:
        """The metrics of subgroups, and whether they differ from all other images.

        Args:
            facts: {fact: {image id: value}}, such as ``{"device": {"a.png": "LOGIQ"}}``; images without a value form
                a subgroup of their own.
            bootstrap: Resamples for intervals and p-values; 0 for none of them.
            seed: Seed of the bootstrap.

        Returns:
            {fact: {"ordered_by": key of the metric, "subgroups": [:class:`.Subgroup` as a dict, the worst first]}}.
            Beside image and class metrics there are ``dice`` and ``peak_in_lesion``.
        """
        return {fact: self._by_value(values, bootstrap=bootstrap, seed=seed) for fact, values in facts.items()}

    def _by_value(self, values: Mapping[str, str], *, bootstrap: int, seed: int) -> dict[str, Any]:
        members: dict[str, list[str]] = {}
        for id_ in self._rows:
            members.setdefault(values.get(id_, UNKNOWN), []).append(id_)
        blocks = self._all_blocks(list(self._rows.values()))
        gaps: list[dict[str, Difference]] = []
        for ids in members.values():
            inside = {id(self._rows[i]) for i in ids}
            own: dict[str, Difference] = {}
            for used, statistics in blocks if bootstrap else ():
                member = np.array([id(r) in inside for r in used], dtype=bool)
                own |= differences(statistics, [r.group for r in used], member, resamples=bootstrap, seed=seed)
            gaps.append(own)
        found = []
        for (value, ids), gap in zip(members.items(), adjusted(gaps), strict=True):
            rows = [self._rows[i] for i in ids]
            metrics = _measured(self._all_blocks(rows), resamples=bootstrap, seed=seed)
            patients, without = len({r.group for r in rows} - {None}), sum(r.group is None for r in rows)
            found.append(Subgroup(value, len(rows), patients, metrics, gap, without))
        pair = grading.pair_auroc_name(self.classes, self.normal_class)
        key, ordered = worst_first(found, ("image_auroc", pair, "class_auroc_macro", *_OF_ONE_IMAGE))
        return {"ordered_by": key, "subgroups": [s.as_dict() for s in ordered]}

    def _image_and_class(self, rows: list[_Row]) -> list[_Block]:
        known = [r for r in rows if r.anomalous is not None]
        detecting = detection.statistics(*_known(known), threshold=self.image_threshold)
        graded = [r for r in rows if r.probs is not None and r.label is not None]
        probs, labels = self._graded(graded)
        named = [r.named for r in graded]
        grades = grading.statistics(
            probs,
            labels,
            classes=self.classes,
            normal_class=self.normal_class,
            sets=np.array(named) if named and None not in named else None,
        )
        return [(known, detecting), (graded, grades)]

    def _all_blocks(self, rows: list[_Row]) -> list[_Block]:
        """The same, and what each image says about its own map."""
        mapped = [r for r in rows if r.pixels is not None and r.anomalous]
        blocks = self._image_and_class(rows)
        for key, name in _OF_ONE_IMAGE.items():
            used = [r for r in mapped if r.pixels and r.pixels[name] is not None]
            blocks.append((used, _mean_of(key, [float((r.pixels or {})[name] or 0) for r in used])))
        return blocks

    def _graded(self, rows: list[_Row]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Probabilities (n c) and labels (n,) of the rows with both."""
        found = [(r.probs, r.label) for r in rows if r.probs is not None and r.label is not None]
        probs = np.array([p for p, _ in found], dtype=np.float64).reshape(len(found), len(self.classes))
        return probs, np.array([y for _, y in found], dtype=np.int64)


_Block = tuple[list[_Row], Statistics]
"""Images, and metrics as functions of their weights."""


def _measured(blocks: Sequence[_Block], *, resamples: int, seed: int) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for rows, statistics in blocks:
        found |= measure(statistics, clusters([r.group for r in rows]), resamples=resamples, seed=seed)
    return found


def _mean_of(key: str, values: Sequence[float]) -> Statistics:
    """The mean of one number of each image (n,) as a function of image weights."""
    numbers = np.array(values, dtype=np.float64)

    def compute(weights: Array) -> dict[str, Array]:
        return {key: ratio(weights @ numbers, weights.sum(1))}

    return Statistics.of(
        compute,
        [key],
        sizes={"lesion": numbers.size},
        sides={"lesion": np.ones((1, numbers.size), dtype=bool)},
        unmet={} if values else {"images": "no lesion image with a map"},
    )


def _known(rows: list[_Row]) -> tuple[list[float], list[bool]]:
    """Scores and truth of the rows whose truth is known."""
    found = [(r.score, r.anomalous) for r in rows if r.anomalous is not None]
    return [s for s, _ in found], [y for _, y in found]


def _plain(metrics: Mapping[str, Metric]) -> dict[str, dict[str, float | int | str | None]]:
    return {name: m.as_dict() for name, m in metrics.items()}
