"""Which images a report shows, chosen by rule."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from ultraad.errors import DataError
from ultraad.io import read_image
from ultraad.io.overlay import THRESHOLD_COLOUR, TRUTH_COLOUR, heat
from ultraad.report.kit.pictures import Example, Picture, Strip, css, extremes, inline
from ultraad.report.kit.words import decimals
from ultraad.results.row import ImageRow

_log = logging.getLogger(__name__)

EACH = 2  # images each of highest, middle and lowest, so that none of them is one odd case
MISTAKES = 4  # images for each kind of mistake
SIDE = 360  # longest side in pixels: two beside each other on a phone are sharp at double density
BUDGET = 5_500_000  # bytes of pictures, so that the page stays well below 8 MB


class Album:
    """Turns rows into examples; once the budget is spent, without pictures.

    Args:
        folder: The run's, which holds the overlays.
        budget: Most bytes of pictures.

    Attributes:
        left_out: Examples that got no picture because the budget was spent.
        missing: Files that could not be read.
    """

    def __init__(self, folder: Path, *, budget: int = BUDGET) -> None:
        self._folder = folder
        self._left = budget
        self.left_out = 0
        self.missing = 0

    def strip(self, title: str, rows: Sequence[ImageRow]) -> Strip:
        """The rows with their pictures."""
        return Strip(title, tuple(map(self._example, rows)))

    def _example(self, row: ImageRow) -> Example:
        graded = f"graded {row.guess} {row.probs[row.guess]:.2f}" if row.probs and row.guess else ""
        graded += ", unsure" if row.unsure else ""
        graded += "" if row.prediction_set is None else f", set: {' or '.join(row.prediction_set) or 'none'}"
        lines = (_verdict(row), ", ".join(filter(None, (row.label, graded))), _scope(row))
        if self._left <= 0:
            self.left_out += 1
            return Example(row.name, None, None, lines, grey=row.out_of_scope)
        alt = f"Image {', '.join(filter(None, (row.name, row.label)))}."
        plain = self.picture(Path(row.image), alt, frame=row.frame, depth=row.depth)
        alt = f"Anomaly map over {row.name}, score {decimals(row.score)}, with outlines."
        over = self.picture(self._folder / row.overlay, alt) if row.overlay else None
        return Example(row.name, plain, over, lines, grey=row.out_of_scope)

    def picture(self, path: Path, alt: str, *, frame: int = 0, depth: int | None = None) -> Picture | None:
        """A small copy of a file; None, and counted as missing, if it cannot be read."""
        try:
            picture = inline(read_image(path, frame=frame, depth=depth), side=SIDE, alt=alt)
        except DataError as e:
            _log.info("not in the report: %s", e)
            self.missing += 1
            return None
        self._left -= len(picture.uri)
        return picture


def spread(rows: Sequence[ImageRow], *, each: int = EACH) -> list[tuple[str, Sequence[ImageRow]]]:
    """Rank by falling score (ties by id) and take both ends and the middle; a short ranking is kept whole."""
    ranked = sorted(rows, key=lambda r: (-r.score, r.id))
    parts = extremes(ranked, each)
    if parts is None:
        return [("all, highest score first", ranked)]
    return list(zip(("highest scores", "median scores", "lowest scores"), parts, strict=True))


def worst(rows: Sequence[ImageRow], *, most: int = MISTAKES) -> list[tuple[str, list[ImageRow]]]:
    """The most confident mistakes of three kinds.

    Missed lesions, lowest score first; false alarms, highest score first; and images whose detection is right but
    whose most probable class is not the true one, highest probability first. Ties are broken by id.
    """
    missed = sorted((r for r in rows if r.verdict == "missed"), key=lambda r: (r.score, r.id))
    alarms = sorted((r for r in rows if r.verdict == "false alarm"), key=lambda r: (-r.score, r.id))
    graded = [
        (-r.probs[r.guess], r.id, r)
        for r in rows
        if r.verdict == "right" and r.probs and r.label in r.probs and r.guess
    ]
    wrong = [r for _, _, r in sorted(graded, key=lambda g: g[:2]) if r.guess != r.label]
    return [
        (f"Missed lesions ({len(missed)} in all)", missed[:most]),
        (f"False alarms ({len(alarms)} in all)", alarms[:most]),
        (f"Wrong class, detection right ({len(wrong)} in all)", wrong[:most]),
    ]


def scale(steps: int = 32) -> dict[str, str]:
    """CSS colours of the legend: ``ramp`` of the fixed scale 0..1, ``truth`` and ``model`` outlines."""
    colours = heat(np.linspace(0.0, 1.0, steps)[None])[0]
    return {
        "ramp": ", ".join(map(css, colours.tolist())),
        "truth": css(TRUTH_COLOUR),
        "model": css(THRESHOLD_COLOUR),
    }


def _scope(row: ImageRow) -> str:
    """What a reader must know about an image that is not simply in scope."""
    s = row.in_scope
    return s.words if s is not None and s.ok is not None and s.words != "in scope" else ""


def _verdict(row: ImageRow) -> Markup:
    """The score, and what it means at the threshold of the run."""
    said = "abnormal" if row.abnormal else "normal"
    kind = ""
    if row.verdict == "right":
        kind, said = "right", f"✓ {'lesion found' if row.abnormal else 'not flagged'}"
    elif row.verdict:
        kind, said = "wrong", f"✗ {row.verdict}"
    return Markup('<b>{}</b> <span class="badge {}">{}</span>').format(decimals(row.score), kind, said)
