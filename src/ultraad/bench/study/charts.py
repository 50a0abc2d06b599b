"""The charts of a benchmark as inline SVG; the page's style sheet colours them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ultraad.metrics.ranking import Ranks
from ultraad.report.kit.charts import ROC, Curve, CurveType, cut, draw_curves, draw_reliability, small
from ultraad.report.kit.svg import Axes, number, padded, picture, shape, text, ticks

STEPS = np.linspace(0, 1, 101)
"""Where curves of several seeds are averaged."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A method's number with its interval.

    Attributes:
        name: Of the method.
        value: In 0..1.
        low, high: Ends of the interval; None if there is none.
        kind: ``"reference"``, ``"better"``, ``"worse"`` or nothing.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """A method's means over the number of shots.

    Attributes:
        name: Of the method.
        kind: Style: ``"s0"`` .. ``"s4"``, or ``"rest"``.
        points: (shots, mean, standard deviation over seeds).
    """

    name: str
    kind: str
    points: Sequence[tuple[int, float, float | None]]


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """A curve averaged over seeds at :data:`STEPS`.

    Attributes:
        mean, low, high: Over seeds.
    """

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def curve(self, kind: str, *, shaded: bool) -> Curve:
        """Ready to be drawn."""
        points = list(zip(STEPS.tolist(), self.mean.tolist(), strict=True))
        return Curve(points, kind, band=(list(STEPS), list(self.low), list(self.high)) if shaded else None)


def intervals(title: str, bars: Sequence[Bar]) -> Markup | None:
    """Every method's number with its 95 % interval, the best first; None without any."""
    if not bars:
        return None
    ordered = sorted(bars, key=lambda b: (-b.value, b.name))
    width, left, height = 420.0, 132.0, 21.0
    across = padded([v for b in ordered for v in (b.value, b.low, b.high) if v is not None])
    axes = Axes(left, width - 52, 8, 8 + height * len(ordered), across=across)
    parts = [axes.grid(at_x=ticks(*across, most=6), scale=100)]
    for i, b in enumerate(ordered):
        y = axes.top + height * (i + 0.5)
        weight = " strong" if b.kind == "reference" else ""
        told = f"{b.name}: {100 * b.value:.1f}"
        parts.append(text(left - 8, y + 4, cut(b.name, 19), f"end ink{weight}"))
        if b.low is not None and b.high is not None:
            line = f"M{number(axes.x(b.low))} {number(y)}H{number(axes.x(b.high))}"
            parts.append(shape(f"span {b.kind or 'even'}", line))
            told += f", 95 %: {100 * b.low:.1f} to {100 * b.high:.1f}"
        parts.append(_marker(axes.x(b.value), y, b.kind or "even", told))
        parts.append(text(width - 44, y + 4, f"{100 * b.value:.1f}", f"start ink{weight}"))
    told = "; ".join(f"{b.name} {100 * b.value:.1f}" for b in ordered)
    return picture(title, f"Best first: {told}.", parts, width=width, height=axes.bottom + 26)


def over_shots(title: str, series: Sequence[Series]) -> Markup | None:
    """Means over the number of shots with the standard deviation over seeds; None for fewer than two of them."""
    shots = sorted({k for s in series for k, _, _ in s.points})
    if len(shots) < 2:
        return None
    up = padded([v for s in series for _, mean, sd in s.points for v in (mean - (sd or 0), mean + (sd or 0))])
    axes = Axes(46, 408, 14, 262, across=(-0.25, len(shots) - 0.75), up=up)
    parts = [axes.grid(at_y=ticks(*up, most=7), scale=100), axes.labels("images per class for adaptation")]
    parts += [text(axes.x(i), axes.bottom + 17, f"{k}", "middle") for i, k in enumerate(shots)]
    shown = sorted((s for s in series if s.points), key=lambda s: s.kind != "rest")
    front = [s for s in shown if s.kind != "rest"]
    for s in shown:
        shift = 0.05 * (front.index(s) - (len(front) - 1) / 2) if s in front else 0.0
        parts.append(axes.path([(shots.index(k) + shift, mean) for k, mean, _ in s.points], f"line {s.kind}"))
        for k, mean, sd in s.points:
            x, told = shots.index(k) + shift, f"{s.name}, {k}: {100 * mean:.1f}"
            if sd is not None:
                told += f" ± {100 * sd:.1f}"
                if s in front:
                    parts.append(axes.path([(x, mean - sd), (x, mean + sd)], f"whisker {s.kind}"))
            parts.append(axes.dot((x, mean), f"dot {s.kind}", 4 if s in front else 2.5, told))
    told = "; ".join(f"{s.name} " + ", ".join(f"{k}: {100 * m:.1f}" for k, m, _ in s.points) for s in shown)
    return picture(title, f"{told}.", parts, width=420, height=306)


def average(kind: CurveType, curves: Sequence[Mapping[str, Any]]) -> Band:
    """Curves of several seeds, averaged at equal x: straight between the points of ROC, in steps for precision-recall.

    ROC rises straight up where several points share an x; there ``interp`` takes the last, which is the upper end.
    """
    if kind is ROC:
        found = [np.interp(STEPS, c[kind.x], c[kind.y]) for c in curves]
    else:
        found = [_steps(np.asarray(c[kind.x]), np.asarray(c[kind.y])) for c in curves]
    together = np.stack(found)
    return Band(together.mean(0), together.min(0), together.max(0))


def small_curve(kind: CurveType, title: str, own: Band, behind: Band | None, *, head: str, below: str) -> Markup:
    """One method's curve with its band over seeds, and the reference's behind it."""
    drawn = [behind.curve("back", shaded=False)] if behind is not None else []
    drawn.append(own.curve("s0", shaded=True))
    return draw_curves(small(head, below), title, f"{head}: {below}.", drawn, diagonal=kind is ROC)


def small_reliability(title: str, bins: Sequence[Sequence[Mapping[str, Any]]], *, head: str, below: str) -> Markup:
    """Accuracy against confidence, the images of all seeds together."""
    return draw_reliability(small(head, below), title, bins, "s0") or Markup("")


def critical_difference(title: str, ranks: Ranks) -> Markup:
    """Mean ranks on one axis, the best at the left; bars join what Nemenyi's test cannot tell apart."""
    names, k = list(ranks.mean), len(ranks.mean)
    half = (k + 1) // 2
    groups = ranks.ties()
    width, left, right, level = 640.0, 150.0, 490.0, 62.0
    first = level + 16 + 9 * len(groups)
    axes = Axes(left, right, 0, 1, across=(1, k))
    parts = [shape("axis", f"M{left} {level}H{right}")]
    for value in range(1, k + 1):
        parts.append(shape("axis", f"M{number(axes.x(value))} {level}v-6"))
        parts.append(text(axes.x(value), level - 11, f"{value}", "middle"))
    reach = min(axes.x(1 + ranks.critical), right)
    parts.append(shape("span even", f"M{number(left)} 22H{number(reach)}"))
    wide = " (wider than the axis)" if 1 + ranks.critical > k else ""
    parts.append(text(left, 14, f"critical difference {ranks.critical:.2f}{wide}", "start"))
    for i, name in enumerate(names):
        at_left = i < half
        y = first + 19 * (i if at_left else k - 1 - i) + 8
        end, shift, side = (left - 8, -4, "end") if at_left else (right + 8, 4, "start")
        parts.append(shape("lead", f"M{number(axes.x(ranks.mean[name]))} {level}V{number(y)}H{number(end)}"))
        parts.append(text(end + shift, y + 4, f"{cut(name, 17)} {ranks.mean[name]:.2f}", f"{side} ink"))
    for i, group in enumerate(groups):
        a, b = axes.x(ranks.mean[group[0]]) - 4, axes.x(ranks.mean[group[-1]]) + 4
        parts.append(shape("tie", f"M{number(a)} {number(level + 11 + 9 * i)}H{number(b)}"))
    told = "; ".join(f"{n} {r:.2f}" for n, r in ranks.mean.items())
    return picture(title, f"Mean ranks: {told}.", parts, width=width, height=first + 19 * half + 12)


def _steps(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """The precision of the first point that reaches each recall."""
    at = np.searchsorted(recall, STEPS - 1e-12).clip(max=recall.size - 1)
    return np.asarray(precision[at], dtype=np.float64)


def _marker(x: float, y: float, kind: str, title: str) -> Markup:
    """A dot; a triangle up or down if the paired test decided, so that the colour is not needed."""
    d = {
        "better": f"M{number(x - 5)} {number(y + 4)}h10l-5 -9z",
        "worse": f"M{number(x - 5)} {number(y - 4)}h10l-5 9z",
        "reference": f"M{number(x - 5.5)} {number(y)}l5.5 -5.5 5.5 5.5 -5.5 5.5z",
    }.get(kind, f"M{number(x - 4)} {number(y)}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z")
    return shape(f"point {kind}", d, title)
