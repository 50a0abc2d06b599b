"""The videos of a run: scores over time, and the frame with the highest one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from ultraad.errors import DataError
from ultraad.io import read_image
from ultraad.report.kit.charts import HEIGHT, LARGE, WIDTH
from ultraad.report.kit.pictures import Picture, inline
from ultraad.report.kit.svg import Axes, picture, ticks
from ultraad.report.kit.words import count, decimals
from ultraad.report.run.gallery import SIDE

if TYPE_CHECKING:
    from ultraad.report.run.read import RunData
    from ultraad.results.row import ImageRow, VideoFacts

_POINTS = 400  # of a line: a chart is about as many pixels wide


@dataclass(frozen=True, slots=True)
class Shown:
    """One video on the page.

    Attributes:
        name: The last two parts of its name.
        lines: What was found, and which files show it.
        chart: Scores over time.
        peak: Overlay of the frame with the highest score; None if there is none.
        caption: What that picture is.
    """

    name: str
    lines: tuple[str, ...]
    chart: Markup
    peak: Picture | None
    caption: str


def shown(data: RunData) -> list[Shown]:
    """The videos of a run in their order."""
    rows: dict[str, list[ImageRow]] = {}
    for row in data.rows:
        if row.video is not None:
            rows.setdefault(row.video, []).append(row)
    facts = {video.name: video for video in (data.run.videos if data.run else ())}
    return [_shown(data, name, some, facts.get(name)) for name, some in rows.items()]


def _shown(data: RunData, name: str, rows: Sequence[ImageRow], facts: VideoFacts | None) -> Shown:
    short = "/".join(name.split("/")[-2:])
    points = sorted((row.seconds or 0.0, row.score) for row in rows)
    flagged = sorted(row.seconds or 0.0 for row in rows if row.abnormal)
    found = f"{count(len(rows), 'frame')} up to {points[-1][0]:.2f} s; {len(flagged)} reached the image threshold"
    if flagged:
        found += f", the first at {flagged[0]:.2f} s and the last at {flagged[-1]:.2f} s"
    lines = [f"{found}."]
    if facts is None:
        lines.append("It was not read to its end.")
    elif facts.dropped:
        lines.append(f"{count(facts.dropped, 'frame')} came too fast and were dropped.")
    if facts and facts.overlay:
        lines.append(f"Overlay video: {facts.overlay}")
    peak = facts.peak if facts else None
    caption = f"Highest score: {decimals(peak.score)} at {peak.seconds:.2f} s, frame {peak.frame}" if peak else ""
    still = _still(data, peak.overlay, f"Anomaly map over {short}. {caption}.") if peak and peak.overlay else None
    return Shown(short, tuple(lines), _chart(short, points, data.thresholds.image), still, caption)


def _still(data: RunData, path: str, alt: str) -> Picture | None:
    try:
        return inline(read_image(data.folder / path), side=SIDE, alt=alt)
    except DataError:
        return None


def _chart(name: str, points: Sequence[tuple[float, float]], threshold: float | None) -> Markup:
    """Scores over time; of neighbours that would share a pixel, the highest."""
    each = -(-len(points) // _POINTS)
    line = [max(points[i : i + each], key=lambda p: p[1]) for i in range(0, len(points), each)]
    first, last = points[0][0], points[-1][0]
    if last == first:
        first, last = first - 0.5, last + 0.5
    axes = Axes(LARGE.left, LARGE.right, LARGE.top, LARGE.bottom, across=(first, last))
    parts = [axes.grid(at_x=ticks(first, last, most=6), at_y=(0.0, 0.25, 0.5, 0.75, 1.0))]
    told = f"Score between {min(s for _, s in points):.2f} and {max(s for _, s in points):.2f}"
    if threshold is not None:
        parts.append(axes.path([(first, threshold), (last, threshold)], "chance"))
        told += f"; threshold {threshold:.3f}"
    parts += [axes.path(line, "line a thin"), axes.labels("seconds", "anomaly score")]
    if len(line) == 1:
        parts.append(axes.dot(line[0], "dot a", 4, told))
    return picture(f"Scores of {name} over time", f"{told}.", parts, width=WIDTH, height=HEIGHT)
