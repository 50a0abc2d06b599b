"""The charts of one evaluation; see svg.py."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup

from ultraad.report.kit.svg import Axes, number, picture, text, ticks

WIDTH, HEIGHT = 420, 340  # SVG units; the page scales them
LEFT, RIGHT, TOP, BOTTOM = 58, 408, 34, 292  # the plotting area
MARGIN = 14  # its left end where no numbers stand beside it
BINS = 32  # ours: of score histograms
_AXES = Axes(LEFT, RIGHT, TOP, BOTTOM)


@dataclass(frozen=True, slots=True)
class Line:
    """One curve.

    Attributes:
        name: For the legend.
        x: In 0..1, rising.
        y: In 0..1.
        steps: Each y holds back to the x before: how average precision adds up.
        chance: Height of the line of no skill; None for none.
        mark: Point of the stored threshold; None if unknown.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    steps: bool = False
    chance: float | None = None
    mark: tuple[float, float] | None = None


def roc(results: Mapping[str, Any], thresholds: Mapping[str, float | None]) -> Markup | None:
    """ROC curves of images and pixels; None if neither is defined.

    Args:
        results: ``metrics.json``.
        thresholds: Stored ``image`` and ``pixel`` threshold.
    """
    lines = [
        Line(_legend(kind, results, f"{kind}_auroc", "AUROC"), c["fpr"], c["tpr"], mark=_at(c, "fpr", "tpr", cut))
        for kind, cut in thresholds.items()
        if (c := (results.get("curves") or {}).get(f"{kind}_roc"))
    ]
    if not lines:
        return None
    return _curves(
        lines, "ROC curves", "false positive rate (1 - specificity)", "true positive rate (sensitivity)", diagonal=True
    )


def precision_recall(results: Mapping[str, Any], thresholds: Mapping[str, float | None]) -> Markup | None:
    """Precision-recall curves of images and pixels, each with its line of no skill; arguments as in :func:`roc`."""
    lines = [
        Line(
            _legend(kind, results, f"{kind}_ap", "AP"),
            [0.0, *c["recall"]],
            [c["precision"][0], *c["precision"]],
            steps=True,
            chance=c["precision"][-1],  # everything called positive: the share of positives
            mark=_at(c, "recall", "precision", cut),
        )
        for kind, cut in thresholds.items()
        if (c := (results.get("curves") or {}).get(f"{kind}_pr"))
    ]
    if not lines:
        return None
    return _curves(lines, "Precision-recall curves", "recall (sensitivity)", "precision", diagonal=False)


def reliability(results: Mapping[str, Any]) -> Markup | None:
    """Accuracy against confidence of the most probable class; dot areas and bars show how many images each bin has.

    Args:
        results: ``metrics.json``.
    """
    full = [b for b in (results.get("curves") or {}).get("reliability") or () if b["n"]]
    if not full:
        return None
    most = max(b["n"] for b in full)
    parts = [_AXES.frame("confidence", "accuracy"), _AXES.path([(0, 0), (1, 1)], "chance")]
    parts += [
        Markup('<rect class="count" x="{}" y="{}" width="{}" height="{}"/>').format(
            number(_AXES.x(b["low"]) + 1), number(BOTTOM - 34 * b["n"] / most),
            number(_AXES.x(b["high"]) - _AXES.x(b["low"]) - 2), number(34 * b["n"] / most),
        )
        for b in full
    ]  # fmt: skip
    parts.append(_AXES.path([(b["confidence"], b["accuracy"]) for b in full], "line a thin"))
    ece = (results.get("metrics", {}).get("ece") or {}).get("value")
    parts.append(_key(0, "most probable class" + (f", ECE {ece:.3f}" if ece is not None else ""), "a thin"))
    parts += [
        _AXES.dot(
            (b["confidence"], b["accuracy"]),
            "dot a",
            3 + 6 * math.sqrt(b["n"] / most),
            f"{b['n']} images: confidence {b['confidence']:.2f}, accuracy {b['accuracy']:.2f}",
        )
        for b in full
    ]
    told = "; ".join(f"{b['n']} images at {b['confidence']:.2f}: {b['accuracy']:.2f}" for b in full)
    return _svg("Reliability diagram", f"Accuracy by confidence. {told}.", parts)


def histograms(groups: Sequence[tuple[str, Sequence[float], bool | None]], threshold: float | None) -> Markup | None:
    """One histogram of scores for each class, on one axis.

    Args:
        groups: (class, scores, whether it means lesion; None if unknown).
        threshold: Stored image threshold, drawn through all.
    """
    scores = [s for _, some, _ in groups for s in some]
    if not scores:
        return None
    low, high = _range([*scores, threshold] if threshold is not None else scores)
    row, gap = 74, 22
    height = len(groups) * (row + gap) + 48
    base = height - 44
    edges = np.linspace(low, high, BINS + 1)

    def at(value: float) -> float:
        return MARGIN + (RIGHT - MARGIN) * (value - low) / (high - low)

    parts: list[Markup] = []
    for i, (name, some, lesion) in enumerate(groups):
        floor = (i + 1) * (row + gap)
        counts = np.histogram(some, bins=edges)[0]
        kind = {True: "b", False: "a", None: "c"}[lesion]
        for left, right, count in zip(edges[:-1], edges[1:], counts.tolist(), strict=True):
            tall = row * count / max(1, int(counts.max()))
            if count:
                parts.append(
                    Markup('<rect class="bar {}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
                        kind, number(at(left) + 0.5), number(floor - tall),
                        number(at(right) - at(left) - 1), number(tall),
                        f"{count} images at {left:.2f} to {right:.2f}",
                    )
                )  # fmt: skip
        parts.append(Markup('<path class="axis" d="M{} {}H{}"/>').format(MARGIN, floor, RIGHT))
        parts.append(text(MARGIN, floor - row - 6, f"{name} ({len(some)})", "start strong"))
    for value in ticks(low, high):
        parts.append(text(at(value), base + 18, f"{value:g}", "middle"))
        parts.append(Markup('<path class="axis" d="M{} {}v5"/>').format(number(at(value)), base))
    parts.append(text((MARGIN + RIGHT) / 2, base + 38, "anomaly score", "middle"))
    told = "; ".join(f"{name}: {len(some)} images, median {float(np.median(some)):.2f}" for name, some, _ in groups)
    if threshold is not None:
        side = "end" if at(threshold) > WIDTH * 0.7 else "start"
        parts.append(Markup('<path class="cut" d="M{} 8V{}"/>').format(number(at(threshold)), base))
        parts.append(text(at(threshold) + (-5 if side == "end" else 5), 18, f"threshold {threshold:.3f}", side))
        told += f"; stored threshold {threshold:.3f}"
    return _svg("Scores by class", f"{told}.", parts, height=height)


# --- pieces ----------------------------------------------------------------------------------------------------------


def _curves(lines: Sequence[Line], title: str, label_x: str, label_y: str, *, diagonal: bool) -> Markup:
    parts = [_AXES.frame(label_x, label_y)]
    if diagonal:
        parts.append(_AXES.path([(0, 0), (1, 1)], "chance"))
    for line, kind in zip(lines, "ab", strict=False):
        points = list(zip(line.x, line.y, strict=True))
        if line.steps:
            points = [p for (x, _), (x1, y1) in pairwise(points) for p in ((x, y1), (x1, y1))]
        if line.chance is not None:
            parts.append(_AXES.path([(0, line.chance), (1, line.chance)], f"chance {kind}"))
        parts.append(_AXES.path(points, f"line {kind}"))
    for line, kind in zip(lines, "ab", strict=False):
        if line.mark is not None:
            parts.append(_AXES.dot(line.mark, f"dot {kind}", 5, f"stored threshold: {line.name}"))
    parts += [_key(i, line.name, kind) for i, (line, kind) in enumerate(zip(lines, "ab", strict=False))]
    told = "; ".join(
        line.name + (f", stored threshold at {line.mark[0]:.2f}, {line.mark[1]:.2f}" if line.mark else "")
        for line in lines
    )
    return _svg(title, f"{label_y} against {label_x}. {told}.", parts)


def _key(place: int, name: str, kind: str) -> Markup:
    """An entry of the legend above the frame; there is room for two."""
    x = MARGIN + place * (RIGHT - MARGIN) / 2
    return Markup('<path class="line {}" d="M{} 14h22"/>{}').format(
        kind, number(x), text(x + 28, 18, name, "start ink")
    )


def _legend(kind: str, results: Mapping[str, Any], key: str, short: str) -> str:
    value = (results.get("metrics", {}).get(key) or {}).get("value")
    return f"{kind}s, {short} {value:.3f}" if value is not None else f"{kind}s"


def _at(curve: Mapping[str, Any], x: str, y: str, threshold: float | None) -> tuple[float, float] | None:
    """The curve's point at a threshold: the last one whose own threshold is not below it."""
    reached = [i for i, t in enumerate(curve["threshold"]) if threshold is not None and (t is None or t >= threshold)]
    return (curve[x][reached[-1]], curve[y][reached[-1]]) if reached else None


def _svg(title: str, description: str, parts: Iterable[Markup], *, height: int = HEIGHT) -> Markup:
    return picture(title, description, parts, width=WIDTH, height=height)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """A little more than the values, so that no bar touches the frame; never empty."""
    low, high = min(values), max(values)
    margin = 0.03 * (high - low) or 0.05 * max(abs(high), 1.0)
    return low - margin, high + margin
