"""Inline SVG: a few KB per chart, sharp in print, and coloured by the page's style sheet so that dark mode works.

All text goes through :class:`markupsafe.Markup`, which escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axes:
    """A plotting area and the values at its ends.

    Attributes:
        left, right, top, bottom: Ends in SVG units.
        across: Values at the left and right end.
        up: Values at the lower and upper end.
    """

    left: float
    right: float
    top: float
    bottom: float
    across: tuple[float, float] = (0.0, 1.0)
    up: tuple[float, float] = (0.0, 1.0)

    def x(self, value: float) -> float:
        """SVG position of a value on the horizontal axis."""
        low, high = self.across
        return self.left + (self.right - self.left) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        """SVG position of a value on the vertical axis."""
        low, high = self.up
        return self.bottom - (self.bottom - self.top) * (value - low) / (high - low)

    def path(self, points: Iterable[Point], kind: str) -> Markup:
        """A line through values (x, y)."""
        return shape(kind, "M" + "L".join(f"{number(self.x(x))} {number(self.y(y))}" for x, y in points))

    def band(self, x: Sequence[float], low: Sequence[float], high: Sequence[float], kind: str) -> Markup:
        """The area between two lines over the same x."""
        return self.path([*zip(x, high, strict=True), *zip(reversed(x), reversed(low), strict=True)], kind)

    def dot(self, point: Point, kind: str, radius: float, title: str) -> Markup:
        """A dot at a value (x, y) with its tooltip."""
        return Markup('<circle class="{}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
            kind, number(self.x(point[0])), number(self.y(point[1])), number(radius), title
        )

    def grid(self, *, at_x: Sequence[float] = (), at_y: Sequence[float] = (), scale: float = 1.0) -> Markup:
        """Grid lines with their values; ``scale=100`` prints percent."""
        parts = []
        for value in at_x:
            parts.append(shape("grid", f"M{number(self.x(value))} {number(self.top)}V{number(self.bottom)}"))
            parts.append(text(self.x(value), self.bottom + 17, f"{scale * value:g}", "middle"))
        for value in at_y:
            parts.append(shape("grid", f"M{number(self.left)} {number(self.y(value))}H{number(self.right)}"))
            parts.append(text(self.left - 7, self.y(value) + 4, f"{scale * value:g}", "end"))
        return Markup("").join(parts)

    def labels(self, across: str, up: str = "") -> Markup:
        """What the horizontal and the vertical axis show."""
        below = text((self.left + self.right) / 2, self.bottom + 39, across, "middle")
        turned = Markup('<text class="middle" transform="translate(13 {}) rotate(-90)">{}</text>')
        return below + (turned.format(number((self.top + self.bottom) / 2), up) if up else "")


def picture(title: str, description: str, parts: Iterable[Markup], *, width: float, height: float) -> Markup:
    """The whole drawing; a screen reader reads title and description."""
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        number(width), number(height), f"{title}. {description}", Markup("").join(parts)
    )


def shape(kind: str, d: str, title: str | None = None) -> Markup:
    """A path in SVG units, with a tooltip if it has a title."""
    inside = Markup("<title>{}</title>").format(title) if title else ""
    return Markup('<path class="{}" d="{}">{}</path>').format(kind, d, inside)


def text(x: float, y: float, content: str, kind: str) -> Markup:
    """Text at a position in SVG units."""
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, number(x), number(y), content)


def bar(x: float, y: float, width: float, height: float, kind: str, title: str | None = None) -> Markup:
    """A rectangle in SVG units, with a tooltip if it has a title."""
    inside = Markup("<title>{}</title>").format(title) if title else ""
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}">{}</rect>').format(
        kind, number(x), number(y), number(width), number(height), inside
    )


def number(value: float) -> str:
    """A length with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")


def padded(values: Sequence[float], *, shortest: float = 0.02) -> tuple[float, float]:
    """The ends of an axis: a little more than the values, and so wide that nearly equal values look nearly equal."""
    low, high = min(values), max(values)
    margin = max(0.05 * (high - low), (shortest - (high - low)) / 2)
    return low - margin, high + margin


def ticks(low: float, high: float, *, most: int = 9) -> list[float]:
    """Round values between two others, at most so many."""
    raw = (high - low) / (most - 1)
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw * 0.999)
    first = math.ceil(low / step)
    return [round(k * step, 12) for k in range(first, math.floor(high / step) + 1)]
