"""The rows of a run as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable

from ultraad.results.row import ImageRow

_PLAIN = ("id", "image", "frame", "seconds", "score", "abnormal", "unsure", "label", "group", "map", "overlay")
_SCOPE = ("in_scope", "like_reference", "like_support")


def csv_of(rows: Callable[[], Iterable[ImageRow]]) -> str:
    """A line per row, with a column for each class; of seconds, unsure, sets and lesions only if any are known.

    Args:
        rows: Called for each of two passes, so that not all rows are in memory at once.
    """
    classes: dict[str, None] = {}
    counted = timed = asked = named = False
    for row in rows():
        classes.update(dict.fromkeys(row.probs or ()))
        counted |= row.lesions is not None
        timed |= row.seconds is not None
        asked |= row.unsure is not None
        named |= row.prediction_set is not None
    plain = [key for key in _PLAIN if {"seconds": timed, "unsure": asked}.get(key, True)]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    # each name of a column begins with a letter, so none is a formula
    table.writerow(
        [
            *plain,
            *(f"p_{c}" for c in classes),
            *(["prediction_set"] if named else []),
            *_SCOPE,
            *(["lesions"] if counted else []),
        ]
    )
    for row in rows():
        values = [_cell(getattr(row, key)) for key in plain]
        probs = row.probs or {}
        lesions = [] if not counted else ["" if row.lesions is None else len(row.lesions)]
        sets = [] if not named else [_cell("" if row.prediction_set is None else " | ".join(row.prediction_set))]
        table.writerow(
            [
                *("" if v is None else v for v in values),
                *(probs.get(c, "") for c in classes),
                *sets,
                *_scope(row),
                *lesions,
            ]
        )
    return text.getvalue()


def _scope(row: ImageRow) -> list[object]:
    """Whether the model can judge the image, and the two p-values; empty where it is not known."""
    s = row.in_scope
    return ["" if s is None or value is None else value for value in (s and s.ok, s and s.reference, s and s.support)]


def _cell(value: object) -> object:
    """A cell that a spreadsheet shows as text: one that begins like a formula gets an apostrophe. Numbers stay."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
