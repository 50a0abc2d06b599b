"""The charts of one run: curves with the thresholds of the run, reliability, and histograms of the scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from ultraad.model.abstain import parse
from ultraad.report.kit.charts import (
    LARGE,
    MARGIN,
    RISK,
    ROC,
    WIDTH,
    Curve,
    CurveType,
    draw_curves,
    draw_reliability,
    large,
    steps,
)
from ultraad.report.kit.svg import Axes, bar, number, padded, picture, shape, text, ticks
from ultraad.report.kit.words import count

if TYPE_CHECKING:
    from ultraad.report.kit.svg import Point
    from ultraad.report.run.read import RunData

BINS = 32
_ROW, _GAP = 74, 22  # height of a histogram and of the space above it


def curves(data: RunData, kind: CurveType) -> Markup | None:
    """ROC or precision-recall curves of images and pixels; None if neither is defined."""
    found = []
    for level, style in (("image", "a"), ("pixel", "b")):
        stored = data.measured and data.measured.curves.get(f"{level}_{kind.key}")
        if not stored:
            continue
        value = data.metric(f"{level}_{kind.metric}").value
        name = f"{level}s" + ("" if value is None else f", {kind.metric.upper()} {value:.3f}")
        points = list(zip(stored[kind.x], stored[kind.y], strict=True))
        mark = _at(stored["threshold"], points, getattr(data.thresholds, level))
        if kind is not ROC:  # if everything is called positive, precision is the share of positives
            found.append(Curve(steps([(0.0, points[0][1]), *points]), style, name, chance=points[-1][1], mark=mark))
        else:
            found.append(Curve(points, style, name, mark=mark))
    if not found:
        return None
    told = "; ".join(c.name + (f", threshold at {c.mark[0]:.2f}, {c.mark[1]:.2f}" if c.mark else "") for c in found)
    frame = large(kind.label_x, kind.label_y, [(c.name, c.kind) for c in found])
    told = f"{kind.label_y} against {kind.label_x}. {told}."
    return draw_curves(frame, f"{kind.title} curves", told, found, diagonal=kind is ROC)


def reliability(data: RunData) -> Markup | None:
    """Accuracy against confidence of the most probable class; None if no image was graded."""
    bins = data.measured and data.measured.curves.get("reliability")
    ece = data.metric("ece").value
    key = "most probable class" + ("" if ece is None else f", ECE {ece:.3f}")
    frame = large("confidence", "accuracy", [(key, "a thin")])
    return draw_reliability(frame, "Reliability diagram", [bins], "a") if bins else None


def risk_coverage(data: RunData) -> Markup | None:
    """Errors of the most probable class among the surest images, against the share of them; None if none was graded."""
    stored = data.measured and data.measured.curves.get("risk_coverage")
    if not stored:
        return None
    aurc = data.metric("aurc").value
    kind, most = parse(data.thresholds.abstain) if data.thresholds.abstain else (None, 0.0)
    points = list(zip(stored["coverage"], stored["risk"], strict=True))
    name = "most probable class" + ("" if aurc is None else f", AURC {aurc:.3f}")
    answered = [p for p, sure in zip(points, stored["confidence"], strict=True) if kind == "cost" and 1 - sure <= most]
    curve = Curve(points, "a", name, mark=answered[-1] if answered else None)
    told = f"Error rate among the surest images against their share. {name}; with all images {points[-1][1]:.2f}."
    frame = large(RISK.label_x, RISK.label_y, [(name, "a")])
    return draw_curves(frame, f"{RISK.title} curve", told, [curve], diagonal=False)


def histograms(groups: Sequence[tuple[str, Sequence[float], bool | None]], threshold: float | None) -> Markup | None:
    """One histogram of scores for each class, on one axis.

    Args:
        groups: (class, scores, whether it means lesion; None if unknown).
        threshold: Stored image threshold, drawn through all.
    """
    scores = [s for _, some, _ in groups for s in some]
    if not scores:
        return None
    base = len(groups) * (_ROW + _GAP) + 4
    across = padded([*scores, threshold] if threshold is not None else scores)
    axes = Axes(MARGIN, LARGE.right, 8, base, across=across)
    edges = np.linspace(*across, BINS + 1)
    parts: list[Markup] = []
    for i, (name, some, lesion) in enumerate(groups):
        floor = (i + 1) * (_ROW + _GAP)
        counts = np.histogram(some, bins=edges)[0]
        kind = {True: "b", False: "a", None: "c"}[lesion]
        for left, right, n in zip(edges[:-1], edges[1:], counts.tolist(), strict=True):
            if n:
                tall, x = _ROW * n / int(counts.max()), axes.x(left)
                told = f"{count(n, 'image')} at {left:.2f} to {right:.2f}"
                parts.append(bar(x + 0.5, floor - tall, axes.x(right) - x - 1, tall, f"bar {kind}", told))
        parts.append(shape("axis", f"M{MARGIN} {floor}H{LARGE.right}"))
        parts.append(text(MARGIN, floor - _ROW - 6, f"{name} ({len(some)})", "start strong"))
    for value in ticks(*across):
        parts.append(text(axes.x(value), base + 18, f"{value:g}", "middle"))
        parts.append(shape("axis", f"M{number(axes.x(value))} {base}v5"))
    parts.append(axes.labels("anomaly score"))
    told = "; ".join(
        f"{name}: {count(len(some), 'image')}, median {float(np.median(some)):.2f}" for name, some, _ in groups
    )
    if threshold is not None:
        parts.append(shape("cut", f"M{number(axes.x(threshold))} 8V{base}"))
        parts.append(text(LARGE.right, 18, f"dashed: threshold {threshold:.3f}", "end"))  # names are on the left
        told += f"; threshold {threshold:.3f}"
    return picture("Scores by class", f"{told}.", parts, width=WIDTH, height=base + 44)


def _at(thresholds: Sequence[float | None], points: Sequence[Point], threshold: float | None) -> Point | None:
    """The curve's point at a threshold: the last one whose own threshold is not below it."""
    if threshold is None:
        return None
    return next((p for p, t in reversed([*zip(points, thresholds, strict=True)]) if t is None or t >= threshold), None)
