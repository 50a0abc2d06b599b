"""The charts of a benchmark as inline SVG; colours are the page's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from ultraad.report.kit.svg import Axes, number, picture, text, ticks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ultraad.metrics.ranking import Ranks

STEPS = np.linspace(0, 1, 101)  # ours: where curves of several seeds are averaged
SHORTEST = 0.02  # ours: least width of a value axis, so that equal methods are not blown up


@dataclass(frozen=True, slots=True)
class Bar:
    """A method's number with its interval.

    Attributes:
        name: Of the method.
        value: In 0..1.
        low: Lower end.
        high: Upper end.
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
    """A curve averaged over seeds.

    Attributes:
        x: Rising, in 0..1.
        mean: Over seeds.
        low: The lowest seed.
        high: The highest seed.
    """

    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def intervals(title: str, bars: Sequence[Bar]) -> Markup | None:
    """Every method's number with its 95 % interval, the best first; None without any."""
    if not bars:
        return None
    ordered = sorted(bars, key=lambda b: (-b.value, b.name))
    width, name_width, row = 420.0, 132.0, 21.0
    ends = [v for b in ordered for v in (b.value, b.low, b.high) if v is not None]
    axes = _across(ends, Axes(name_width, width - 52, 8, 8 + row * len(ordered)))
    parts = [_grid(axes)]
    for i, b in enumerate(ordered):
        y = axes.top + row * (i + 0.5)
        weight = " strong" if b.kind == "reference" else ""
        parts.append(text(name_width - 8, y + 4, _cut(b.name, 19), f"end ink{weight}"))
        if b.low is not None and b.high is not None:
            line = Markup('<path class="span {}" d="M{} {}H{}"/>')
            parts.append(line.format(b.kind or "even", number(axes.x(b.low)), number(y), number(axes.x(b.high))))
        told = f"{b.name}: {100 * b.value:.1f}" + (
            f", 95 %: {100 * b.low:.1f} to {100 * b.high:.1f}" if b.low is not None and b.high is not None else ""
        )
        parts.append(_marker(axes.x(b.value), y, b.kind or "even", told))
        parts.append(text(width - 44, y + 4, f"{100 * b.value:.1f}", f"start ink{weight}"))
    told = "; ".join(f"{b.name} {100 * b.value:.1f}" for b in ordered)
    return picture(title, f"Best first: {told}.", parts, width=width, height=axes.bottom + 26)


def over_shots(title: str, series: Sequence[Series]) -> Markup | None:
    """Means over the number of shots with the standard deviation over seeds; None without at least two numbers."""
    shots = sorted({k for s in series for k, _, _ in s.points})
    if len(shots) < 2:
        return None
    ends = [v for s in series for _, mean, sd in s.points for v in (mean - (sd or 0), mean + (sd or 0))]
    low, high = _padded(ends)
    axes = Axes(46, 408, 14, 262, across=(-0.25, len(shots) - 0.75), up=(low, high))
    parts = []
    for value in ticks(low, high, most=7):
        y = number(axes.y(value))
        parts.append(Markup('<path class="grid" d="M{} {}H{}"/>').format(number(axes.left), y, number(axes.right)))
        parts.append(text(axes.left - 7, axes.y(value) + 4, f"{100 * value:g}", "end"))
    for i, k in enumerate(shots):
        parts.append(text(axes.x(i), axes.bottom + 17, f"{k}", "middle"))
    parts.append(text((axes.left + axes.right) / 2, axes.bottom + 37, "images of each class to adapt on", "middle"))
    shown = [s for s in series if s.points]
    front = [s for s in shown if s.kind != "rest"]
    for s in sorted(shown, key=lambda s: s.kind != "rest"):
        shift = 0.05 * (front.index(s) - (len(front) - 1) / 2) if s in front else 0.0
        parts.append(axes.path([(shots.index(k) + shift, mean) for k, mean, _ in s.points], f"line {s.kind}"))
        for k, mean, sd in s.points:
            x = shots.index(k) + shift
            if s in front and sd is not None:
                parts.append(axes.path([(x, mean - sd), (x, mean + sd)], f"whisker {s.kind}"))
            told = f"{s.name}, {k}: {100 * mean:.1f}" + (f" ± {100 * sd:.1f}" if sd is not None else "")
            parts.append(axes.dot((x, mean), f"dot {s.kind}", 4 if s in front else 2.5, told))
    told = "; ".join(f"{s.name} " + ", ".join(f"{k}: {100 * m:.1f}" for k, m, _ in s.points) for s in shown)
    return picture(title, f"{told}.", parts, width=420, height=306)


def roc_band(curves: Sequence[dict[str, Any]]) -> Band:
    """ROC curves of several seeds, averaged at equal false positive rates; straight between their points."""
    # where the curve rises straight up, interp takes the last of the points, so it is the upper end
    return _band([np.interp(STEPS, c["fpr"], c["tpr"]) for c in curves])


def pr_band(curves: Sequence[dict[str, Any]]) -> Band:
    """Precision-recall curves of several seeds, averaged at equal recall; steps, as average precision adds up."""
    return _band([_steps(np.asarray(c["recall"]), np.asarray(c["precision"])) for c in curves])


def small_curve(title: str, own: Band, behind: Band | None, *, diagonal: bool, head: str, below: str) -> Markup:
    """One method's curve with its band over seeds, and the reference's behind it."""
    axes = _SMALL
    parts = [_small_frame(head, below)]
    if diagonal:
        parts.append(axes.path([(0, 0), (1, 1)], "chance"))
    if behind is not None:
        parts.append(axes.path(zip(behind.x, behind.mean, strict=True), "line back"))
    parts.append(axes.band(list(own.x), list(own.low), list(own.high), "band"))
    parts.append(axes.path(zip(own.x, own.mean, strict=True), "line s0"))
    return picture(title, f"{head}: {below}.", parts, width=200, height=214)


def small_reliability(title: str, bins: Sequence[Sequence[dict[str, Any]]], *, head: str, below: str) -> Markup:
    """Accuracy against confidence, the images of all seeds together."""
    full = []
    for same in zip(*bins, strict=True):
        n = sum(b["n"] for b in same)
        if n:
            confidence, accuracy = (sum(b["n"] * (b[k] or 0) for b in same) / n for k in ("confidence", "accuracy"))
            full.append((n, confidence, accuracy))
    most = max((n for n, _, _ in full), default=1)
    parts = [_small_frame(head, below), _SMALL.path([(0, 0), (1, 1)], "chance")]
    parts.append(_SMALL.path([(c, a) for _, c, a in full], "line s0 thin") if len(full) > 1 else Markup(""))
    for n, c, a in full:
        told = f"{n / len(bins):.0f} images: confidence {c:.2f}, accuracy {a:.2f}"
        parts.append(_SMALL.dot((c, a), "dot s0", 2 + 5 * (n / most) ** 0.5, told))
    told = "; ".join(f"confidence {c:.2f}: accuracy {a:.2f}" for _, c, a in full)
    return picture(title, f"{head}. {told}.", parts, width=200, height=214)


def critical_difference(title: str, ranks: Ranks) -> Markup:
    """Mean ranks on one axis, the best at the left; bars join what Nemenyi's test cannot tell apart."""
    names, k = list(ranks.mean), len(ranks.mean)
    half = (k + 1) // 2
    groups = ranks.ties()
    width, left, right = 640.0, 150.0, 490.0
    level = 62.0
    first = level + 16 + 9 * len(groups)
    axes = Axes(left, right, 0, 1, across=(1, k))
    parts = [Markup('<path class="axis" d="M{} {}H{}"/>').format(left, level, right)]
    for value in range(1, k + 1):
        parts.append(Markup('<path class="axis" d="M{} {}v-6"/>').format(number(axes.x(value)), level))
        parts.append(text(axes.x(value), level - 11, f"{value}", "middle"))
    reach = min(axes.x(1 + ranks.critical), right)
    parts.append(Markup('<path class="span even" d="M{} 22H{}"/>').format(number(left), number(reach)))
    wide = " (wider than the axis)" if 1 + ranks.critical > k else ""
    parts.append(text(left, 14, f"critical difference {ranks.critical:.2f}{wide}", "start"))
    for i, name in enumerate(names):
        at_left = i < half
        y = first + 19 * (i if at_left else k - 1 - i) + 8
        x = axes.x(ranks.mean[name])
        end = left - 8 if at_left else right + 8
        line = Markup('<path class="lead" d="M{} {}V{}H{}"/>')
        parts.append(line.format(number(x), level, number(y), number(end)))
        label = f"{_cut(name, 17)} {ranks.mean[name]:.2f}"
        parts.append(text(end - 4 if at_left else end + 4, y + 4, label, "end ink" if at_left else "start ink"))
    for i, group in enumerate(groups):
        y = level + 11 + 9 * i
        a, b = axes.x(ranks.mean[group[0]]) - 4, axes.x(ranks.mean[group[-1]]) + 4
        parts.append(Markup('<path class="tie" d="M{} {}H{}"/>').format(number(a), number(y), number(b)))
    told = "; ".join(f"{n} {r:.2f}" for n, r in ranks.mean.items())
    return picture(title, f"Mean ranks: {told}.", parts, width=width, height=first + 19 * half + 12)


# --- pieces ----------------------------------------------------------------------------------------------------------

_SMALL = Axes(26, 192, 38, 190)


def _small_frame(head: str, below: str) -> Markup:
    parts = [text(26, 14, _cut(head, 24), "start ink strong"), text(26, 30, below, "start")]
    for value in (0.0, 0.5, 1.0):
        x, y = number(_SMALL.x(value)), number(_SMALL.y(value))
        grid = Markup('<path class="grid" d="M{} {}V{}M{} {}H{}"/>')
        parts.append(
            grid.format(x, number(_SMALL.top), number(_SMALL.bottom), number(_SMALL.left), y, number(_SMALL.right))
        )
        parts.append(text(_SMALL.x(value), _SMALL.bottom + 15, f"{value:g}", "middle"))
        parts.append(text(_SMALL.left - 5, _SMALL.y(value) + 4, f"{value:g}", "end"))
    return Markup("").join(parts)


def _band(curves: Sequence[NDArray[np.float64]]) -> Band:
    together = np.stack(curves)
    return Band(STEPS, together.mean(0), together.min(0), together.max(0))


def _steps(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """The precision of the first point that reaches each recall."""
    at = np.searchsorted(recall, STEPS - 1e-12).clip(max=recall.size - 1)
    return np.asarray(precision[at], dtype=np.float64)


def _across(values: Sequence[float], axes: Axes) -> Axes:
    return Axes(axes.left, axes.right, axes.top, axes.bottom, across=_padded(values), up=axes.up)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = max(0.05 * (high - low), (SHORTEST - (high - low)) / 2)
    return low - margin, high + margin


def _grid(axes: Axes) -> Markup:
    parts = []
    for value in ticks(*axes.across, most=6):
        x = number(axes.x(value))
        parts.append(Markup('<path class="grid" d="M{} {}V{}"/>').format(x, number(axes.top), number(axes.bottom)))
        parts.append(text(axes.x(value), axes.bottom + 17, f"{100 * value:g}", "middle"))
    return Markup("").join(parts)


def _marker(x: float, y: float, kind: str, title: str) -> Markup:
    """A dot; a triangle up or down where the paired test decided, so that colour is not needed."""
    shapes = {
        "better": f"M{number(x - 5)} {number(y + 4)}h10l-5 -9z",
        "worse": f"M{number(x - 5)} {number(y - 4)}h10l-5 9z",
        "reference": f"M{number(x - 5.5)} {number(y)}l5.5 -5.5 5.5 5.5 -5.5 5.5z",
    }
    if kind in shapes:
        shape = Markup('<path class="point {}" d="{}"><title>{}</title></path>')
        return shape.format(kind, shapes[kind], title)
    dot = Markup('<circle class="point even" cx="{}" cy="{}" r="4"><title>{}</title></circle>')
    return dot.format(number(x), number(y), title)


def _cut(name: str, longest: int) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
