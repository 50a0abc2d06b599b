"""Inline SVG: a few KB each, sharp in print, coloured by the page's style sheet so that dark mode works.

All text passes through :class:`markupsafe.Markup`, which escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

Point = tuple[float, float]
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Axes:
    """A plotting area and what its ends mean.

    Attributes:
        left: In SVG units, like ``right``, ``top`` and ``bottom``.
        right: Right end.
        top: Upper end.
        bottom: Lower end.
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
        """Where a value lies from the left."""
        low, high = self.across
        return self.left + (self.right - self.left) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        """Where a value lies from the top."""
        low, high = self.up
        return self.bottom - (self.bottom - self.top) * (value - low) / (high - low)

    def path(self, points: Iterable[Point], kind: str) -> Markup:
        """A line through values (x, y)."""
        d = "M" + "L".join(f"{number(self.x(x))} {number(self.y(y))}" for x, y in points)
        return Markup('<path class="{}" d="{}"/>').format(kind, d)

    def band(self, x: Sequence[float], low: Sequence[float], high: Sequence[float], kind: str) -> Markup:
        """The area between two lines over the same x."""
        edge = [*zip(x, high, strict=True), *zip(reversed(x), reversed(low), strict=True)]
        d = "M" + "L".join(f"{number(self.x(a))} {number(self.y(b))}" for a, b in edge) + "Z"
        return Markup('<path class="{}" d="{}"/>').format(kind, d)

    def dot(self, point: Point, kind: str, radius: float, title: str) -> Markup:
        """A dot at a value (x, y) with its tooltip."""
        return Markup('<circle class="{}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
            kind, number(self.x(point[0])), number(self.y(point[1])), number(radius), title
        )

    def frame(
        self, label_x: str, label_y: str, *, at_x: Sequence[float] = QUARTERS, at_y: Sequence[float] = QUARTERS
    ) -> Markup:
        """Grid lines, their numbers and what they mean."""
        parts = []
        for value in at_x:
            parts.append(
                Markup('<path class="grid" d="M{} {}V{}"/>').format(number(self.x(value)), self.top, self.bottom)
            )
            parts.append(text(self.x(value), self.bottom + 17, f"{value:g}", "middle"))
        for value in at_y:
            parts.append(
                Markup('<path class="grid" d="M{} {}H{}"/>').format(self.left, number(self.y(value)), self.right)
            )
            parts.append(text(self.left - 7, self.y(value) + 4, f"{value:g}", "end"))
        parts.append(text((self.left + self.right) / 2, self.bottom + 39, label_x, "middle"))
        middle = (self.top + self.bottom) / 2
        parts.append(
            Markup('<text class="middle" transform="translate(13 {}) rotate(-90)">{}</text>').format(
                number(middle), label_y
            )
        )
        return Markup("").join(parts)


def picture(title: str, description: str, parts: Iterable[Markup], *, width: float, height: float) -> Markup:
    """The whole drawing; title and description are what a screen reader says."""
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        number(width), number(height), f"{title}. {description}", Markup("").join(parts)
    )


def text(x: float, y: float, content: str, kind: str) -> Markup:
    """A word at a place in SVG units."""
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, number(x), number(y), content)


def number(value: float) -> str:
    """A length with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")


def ticks(low: float, high: float, *, most: int = 9) -> list[float]:
    """Round values between two others, at most so many."""
    raw = (high - low) / (most - 1)
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw * 0.999)
    first = math.ceil(low / step)
    return [round(k * step, 12) for k in range(first, math.floor(high / step) + 1)]
