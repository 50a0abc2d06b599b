"""Which images a report shows, by rules that leave nothing to taste, and how they get into the page."""

from __future__ import annotations

import base64
import io
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ultraad.errors import DataError
from ultraad.io import read_image
from ultraad.io.overlay import THRESHOLD_COLOUR, TRUTH_COLOUR, heat
from ultraad.report.run.numbers import of_class

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ultraad.report.run.read import Results, Row

_log = logging.getLogger(__name__)

EACH = 2  # ours: images for each of highest, middle and lowest, so that neither is one odd case
MISTAKES = 4  # ours: images for each kind of mistake
SIDE = 360  # ours: longest side in pixels; two fit beside each other on a phone, sharp at double density
QUALITY = 80  # ours
BUDGET = 5_500_000  # ours: bytes of pictures, so that the page stays well below 8 MB


@dataclass(frozen=True, slots=True)
class Picture:
    """A small picture inside the page; width and height in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Shot:
    """One shown image: what was predicted, the plain picture and the one with the map; None where there is none."""

    row: Row
    plain: Picture | None
    overlay: Picture | None


@dataclass(frozen=True, slots=True)
class Strip:
    """Images chosen by one rule."""

    title: str
    shots: list[Shot]


class Album:
    """Turns chosen rows into pictures until the page has grown enough.

    Args:
        budget: Most bytes of pictures.

    Attributes:
        left_out: Shots that got no picture because the budget was spent.
        missing: Files that are no longer where they were.
    """

    def __init__(self, *, budget: int = BUDGET) -> None:
        self._left = budget
        self.left_out = 0
        self.missing = 0

    def strip(self, title: str, rows: Sequence[Row]) -> Strip:
        """The rows with their pictures."""
        return Strip(title, [self._shot(row) for row in rows])

    def _shot(self, row: Row) -> Shot:
        if self._left <= 0:
            self.left_out += 1
            return Shot(row, None, None)
        plain = self._picture(row, original=True)
        return Shot(row, plain, self._picture(row, original=False))

    def _picture(self, row: Row, *, original: bool) -> Picture | None:
        path = row.image if original else row.overlay
        if path is None:
            return None
        try:
            pixels = read_image(path, frame=row.frame if original else 0)
        except DataError as e:
            _log.info("not in the report: %s", e)
            self.missing += 1
            return None
        picture = shrink(pixels)
        self._left -= len(picture.uri)
        return picture


def shrink(pixels: NDArray[np.uint8]) -> Picture:
    """A JPEG data URI of uint8 (h w 3), at most :data:`SIDE` pixels on the longer side."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=QUALITY, subsampling=0)  # full colour: outlines are one pixel thin
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(uri, image.width, image.height)


def examples(results: Results, album: Album) -> list[tuple[str, list[Strip]]]:
    """For each class the images with the highest, middle and lowest scores; a class that small is shown whole."""
    return [
        (label or "no class known", [album.strip(title, rows) for title, rows in extremes(members)])
        for label, members in of_class(results).items()
    ]


def extremes(rows: Sequence[Row], *, each: int = EACH) -> list[tuple[str, list[Row]]]:
    """Rank by falling score (ties by id) and take both ends and the middle."""
    ranked = sorted(rows, key=lambda r: (-r.score, r.id))
    if len(ranked) <= 3 * each:
        return [("all, highest score first", ranked)]
    middle = (len(ranked) - each) // 2
    return [
        ("highest scores", ranked[:each]),
        ("median scores", ranked[middle : middle + each]),
        ("lowest scores", ranked[-each:]),
    ]


def mistakes(results: Results, album: Album) -> list[Strip]:
    """The most confident mistakes of each kind; kinds without any are left out."""
    return [album.strip(title, rows) for title, rows in worst(results.rows) if rows]


def worst(rows: Sequence[Row], *, most: int = MISTAKES) -> list[tuple[str, list[Row]]]:
    """Pick the most confident mistakes.

    Missed lesions, lowest score first; false alarms, highest score first; and images rightly flagged or left alone
    whose most probable class is not the true one, highest probability first.
    """
    missed = sorted((r for r in rows if r.verdict == "missed"), key=lambda r: (r.score, r.id))
    alarms = sorted((r for r in rows if r.verdict == "false alarm"), key=lambda r: (-r.score, r.id))
    misnamed = [
        (-r.probs[r.guess], r.id, r)
        for r in rows
        if r.verdict == "right" and r.probs and r.guess is not None and r.guess != r.label and r.label is not None
    ]
    return [
        (f"Missed lesions ({len(missed)} in all)", missed[:most]),
        (f"False alarms ({len(alarms)} in all)", alarms[:most]),
        (f"Wrong class, detection right ({len(misnamed)} in all)", [r for _, _, r in sorted(misnamed)[:most]]),
    ]


def scale(steps: int = 32) -> dict[str, str]:
    """CSS colours of the legend: ``ramp`` of the shared scale 0..1, ``truth`` and ``model`` outlines."""
    colours = heat(np.linspace(0.0, 1.0, steps)[None])[0]
    return {
        "ramp": ", ".join(_css(c) for c in colours.tolist()),
        "truth": _css(TRUTH_COLOUR),
        "model": _css(THRESHOLD_COLOUR),
    }


def _css(colour: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
