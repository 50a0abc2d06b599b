"""The content of the page, and its charts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ultraad.metrics.spread import SpreadCalibration
from ultraad.report.kit.charts import HEIGHT, LARGE, WIDTH, Curve, draw_curves, large
from ultraad.report.kit.page import environment
from ultraad.report.kit.pictures import Example, Strip, inline
from ultraad.report.kit.svg import Axes, number, picture, shape, text, ticks

SIDE = 1200  # pixels of a row of four panels
WHITE = 10.0  # grey values at which a panel of errors is white

CAUTIONS = (
    "A translation invents: texture, echoes and borders that the other scanner's images have often may appear where "
    "there was nothing, and small or rare lesions may fade. Never read a diagnosis from a translated image.",
    "The uncertainty is that of the way there and back. What the network invents on the way there and takes out again "
    "on the way back is not seen by it.",
    "Masks were not moved: they are right as far as the shapes in the image are the same.",
)


@dataclass(frozen=True, slots=True, eq=False)
class Panels:
    """A held-out picture u8 (h w 3), its translation, and predicted and observed errors f32 (h w) in grey values."""

    name: str
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    spread: NDArray[Any]
    error: NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class TranslationReport:
    """What the page shows.

    Attributes:
        before: Calibration of the spreads as predicted, on held-out pictures.
        after: The same, recalibrated on other held-out pictures.
        about: The content of ``calibration.json``.
        shown: Held-out pictures.
    """

    before: SpreadCalibration
    after: SpreadCalibration
    about: Mapping[str, Any]
    shown: tuple[Panels, ...]


def render(report: TranslationReport) -> str:
    """The page as one HTML file that asks the network for nothing."""
    pictures = report.about["pictures"]
    apart = "of other patients" if report.about["patients apart"] else "of the same patients, as there is only one"
    content = {
        "title": "Translation: is its uncertainty calibrated?",
        "date": "",
        "lead": (
            f"{pictures['tested on']} pictures that were not trained on, recalibrated on {pictures['recalibrated on']} "
            f"{apart}.",
        ),
        "cautions": CAUTIONS,
        "files": ["calibration.json", "certainty.csv"],
        "coverage": _coverage(report),
        "reliability": _reliability(report),
        "rows": _rows(report),
        "strip": Strip("", tuple(_example(p) for p in report.shown)),
        "white": f"{WHITE:.0f}",
    }
    return environment("ultraad.report.translation").get_template("page.html.j2").render(content)


def _rows(report: TranslationReport) -> list[tuple[str, str, str]]:
    b, a = report.before, report.after
    return [
        ("calibration error (0 is perfect)", f"{b.error:.3f}", f"{a.error:.3f}"),
        ("ENCE: relative error of the spread in ten bins", f"{b.relative:.3f}", f"{a.relative:.3f}"),
        ("mean expected error, grey values", f"{b.predicted.mean():.2f}", f"{a.predicted.mean():.2f}"),
        ("mean observed error, grey values", f"{b.observed.mean():.2f}", f"{a.observed.mean():.2f}"),
        ("spread s becomes", "s", f"{report.about['scale']:.3f} s^{report.about['power']:.3f}"),
        ("rank correlation of images, expected and observed", f"{report.about['rank correlation of images']:.2f}", ""),
    ]


def _coverage(report: TranslationReport) -> Markup:
    frame = large(
        "share of pixels that intervals should hold",
        "share that they hold",
        [("as predicted", "b"), ("recalibrated", "a")],
    )
    curves = [
        Curve([(0, 0), *zip(c.levels, c.held, strict=True), (1, 1)], kind)
        for c, kind in ((report.before, "b"), (report.after, "a"))
    ]
    told = f"Calibration error {report.before.error:.3f}, recalibrated {report.after.error:.3f}."
    return draw_curves(frame, "Coverage of intervals", told, curves, diagonal=True)


def _reliability(report: TranslationReport) -> Markup:
    most = 1.08 * max(float(max(c.predicted.max(), c.observed.max())) for c in (report.before, report.after))
    axes = Axes(LARGE.left, LARGE.right, LARGE.top, LARGE.bottom, across=(0, most), up=(0, most))
    at = ticks(0, most, most=6)
    parts = [axes.grid(at_x=at, at_y=at), axes.labels("expected error, grey values", "observed error, grey values")]
    parts.append(axes.path([(0, 0), (most, most)], "chance"))
    for i, (name, kind, c) in enumerate((("as predicted", "b", report.before), ("recalibrated", "a", report.after))):
        x = 14 + i * (LARGE.right - 14) / 2
        parts += [shape(f"line {kind}", f"M{number(x)} 14h22"), text(x + 28, 18, name, "start ink")]
        points = [*zip(c.predicted.tolist(), c.observed.tolist(), strict=True)]
        parts.append(axes.path(points, f"line {kind} thin"))
        parts += [axes.dot(p, f"dot {kind}", 4, f"expected {p[0]:.1f}, observed {p[1]:.1f}") for p in points]
    told = f"ENCE {report.before.relative:.3f}, recalibrated {report.after.relative:.3f}."
    return picture("Expected and observed error in ten bins", told, parts, width=WIDTH, height=HEIGHT)


def _example(p: Panels) -> Example:
    def errors(values: NDArray[Any]) -> NDArray[np.uint8]:
        return np.repeat((255 * np.clip(values / WHITE, 0, 1)).astype(np.uint8)[..., None], 3, 2)

    panels = [v if v.ndim == 3 else np.repeat(v[..., None], 3, 2) for v in (p.before, p.after)]
    gap = np.full((len(p.before), max(4, p.before.shape[1] // 60), 3), 255, np.uint8)
    row: NDArray[np.uint8] = np.hstack([panels[0], gap, panels[1], gap, errors(p.spread), gap, errors(p.error)])
    lines = (f"expected error {p.spread.mean():.1f}, observed {p.error.mean():.1f} grey values over the picture",)
    shown = inline(row, side=SIDE, alt=f"{p.name}: before, after, expected and observed error")
    return Example(p.name, shown, None, lines)
