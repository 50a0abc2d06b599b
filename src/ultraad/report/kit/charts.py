"""The charts that both pages draw, large or as small multiples: ROC, precision-recall and reliability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from ultraad.report.kit.svg import Axes, Point, bar, number, picture, shape, text
from ultraad.report.kit.words import count

WIDTH, HEIGHT = 420, 340
LARGE = Axes(58, 408, 34, 292)
SMALL = Axes(26, 192, 38, 190)
MARGIN = 14
"""Left end of a legend or histogram in SVG units; the page scales them."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An empty chart of values in 0..1.

    Attributes:
        axes: The plotting area.
        width, height: Of the whole chart, in SVG units.
        parts: Grid and text.
        dot: Factor of all radii.
    """

    axes: Axes
    width: float
    height: float
    parts: Markup
    dot: float = 1.0


@dataclass(frozen=True, slots=True)
class Curve:
    """One curve.

    Attributes:
        points: (x, y) in 0..1, x rising.
        kind: CSS class.
        name: For legend, tooltip and screen reader.
        band: (x, lower y, upper y) of the area around it; None for none.
        chance: Height of the line of no skill; None for none.
        mark: Point of the threshold; None if unknown.
    """

    points: Sequence[Point]
    kind: str
    name: str = ""
    band: tuple[Sequence[float], Sequence[float], Sequence[float]] | None = None
    chance: float | None = None
    mark: Point | None = None


@dataclass(frozen=True, slots=True)
class CurveType:
    """ROC or precision-recall: which lists of a stored curve are drawn.

    Attributes:
        key, metric: Second part of the names of the curve and of its area, after ``image_`` or ``pixel_``.
        title: Its name on the page.
        x, y: The lists that are drawn.
        label_x, label_y: What the axes show.
    """

    key: str
    metric: str
    title: str
    x: str
    y: str
    label_x: str
    label_y: str


ROC = CurveType(
    "roc", "auroc", "ROC", "fpr", "tpr", "false positive rate (1 - specificity)", "true positive rate (sensitivity)"
)
PR = CurveType("pr", "ap", "Precision-recall", "recall", "precision", "recall (sensitivity)", "precision")
RISK = CurveType(
    "risk_coverage", "aurc", "Risk-coverage", "coverage", "risk", "share of images answered", "error rate among them"
)


def large(label_x: str, label_y: str, keys: Sequence[tuple[str, str]]) -> Frame:
    """A frame with labelled axes and a legend of at most two (name, CSS class)."""
    quarters = (0.0, 0.25, 0.5, 0.75, 1.0)
    parts = [LARGE.grid(at_x=quarters, at_y=quarters), LARGE.labels(label_x, label_y)]
    for i, (name, kind) in enumerate(keys):
        x = MARGIN + i * (LARGE.right - MARGIN) / 2
        parts += [shape(f"line {kind}", f"M{number(x)} 14h22"), text(x + 28, 18, name, "start ink")]
    return Frame(LARGE, WIDTH, HEIGHT, Markup("").join(parts))


def small(head: str, below: str) -> Frame:
    """A frame with two lines of text above it; the page explains the axes."""
    halves = (0.0, 0.5, 1.0)
    words = text(26, 14, cut(head, 24), "start ink strong") + text(26, 30, below, "start")
    return Frame(SMALL, 200, 214, words + SMALL.grid(at_x=halves, at_y=halves), dot=0.7)


def draw_curves(frame: Frame, title: str, description: str, curves: Sequence[Curve], *, diagonal: bool) -> Markup:
    """Curves in a frame; the first is at the back."""
    axes, parts = frame.axes, [frame.parts]
    if diagonal:
        parts.append(axes.path([(0, 0), (1, 1)], "chance"))
    for curve in curves:
        if curve.chance is not None:
            parts.append(axes.path([(0, curve.chance), (1, curve.chance)], f"chance {curve.kind}"))
        if curve.band is not None:
            parts.append(axes.band(*curve.band, "band"))
        parts.append(axes.path(curve.points, f"line {curve.kind}"))
    for curve in curves:
        if curve.mark is not None:
            parts.append(axes.dot(curve.mark, f"dot {curve.kind}", 5 * frame.dot, f"threshold: {curve.name}"))
    return picture(title, description, parts, width=frame.width, height=frame.height)


def draw_reliability(frame: Frame, title: str, runs: Sequence[Sequence[Mapping[str, Any]]], kind: str) -> Markup | None:
    """Accuracy against confidence, all images together; bars and areas of dots show the images per bin.

    Of one run, whiskers show the 95 % interval of the accuracy in each bin.

    Args:
        frame: Where to draw it.
        title: Of the chart.
        runs: Stored bins of one or more runs on the same images.
        kind: CSS class.

    Returns:
        The chart; None without any image.
    """
    bins = []
    for same in zip(*runs, strict=True):
        if n := sum(b["n"] for b in same):
            confidence, accuracy = (sum(b["n"] * (b[k] or 0) for b in same) / n for k in ("confidence", "accuracy"))
            ends = [same[0].get(f"accuracy_{end}") if len(same) == 1 else None for end in ("low", "high")]
            bins.append((same[0]["low"], same[0]["high"], n, (confidence, accuracy), ends))
    if not bins:
        return None
    axes, most = frame.axes, max(n for _, _, n, _, _ in bins)
    tallest = 0.13 * (axes.bottom - axes.top)
    parts, told = [frame.parts, axes.path([(0, 0), (1, 1)], "chance")], []
    for low, high, n, _, _ in bins:
        tall = tallest * n / most
        parts.append(bar(axes.x(low) + 1, axes.bottom - tall, axes.x(high) - axes.x(low) - 2, tall, "count"))
    parts.append(axes.path([point for *_, point, _ in bins], f"line {kind} thin"))
    for _, _, _, point, (least, greatest) in bins:
        if least is not None and greatest is not None:
            parts.append(axes.path([(point[0], least), (point[0], greatest)], "whisker"))
    for _, _, n, point, _ in bins:
        told.append(f"{count(round(n / len(runs)), 'image')}: confidence {point[0]:.2f}, accuracy {point[1]:.2f}")
        parts.append(axes.dot(point, f"dot {kind}", frame.dot * (3 + 6 * math.sqrt(n / most)), told[-1]))
    return picture(title, f"{'; '.join(told)}.", parts, width=frame.width, height=frame.height)


def steps(points: Sequence[Point]) -> list[Point]:
    """The corners of a curve whose y holds back to the x before: how average precision is summed."""
    return [p for (x, _), (x1, y1) in pairwise(points) for p in ((x, y1), (x1, y1))]


def cut(name: str, longest: int) -> str:
    """A name with an ellipsis if it is too long."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
