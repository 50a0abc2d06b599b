"""Which images of an earlier run have to be predicted again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from ultraad.results.inputs import is_replaced, seen_otherwise
from ultraad.results.row import ImageRow
from ultraad.results.saving import Saving, lacks
from ultraad.results.top import gets_overlay
from ultraad.types import Sample

REPLACED = "file(s) were replaced since they were predicted"
CROPPED = "image(s) were predicted on another region, with another fan, or on the whole picture,"
POORER = "image(s) were predicted without all that is to be saved now"


def outdated(
    rows: Iterable[ImageRow],
    wanted: Mapping[str, Sample],
    saved_of: Callable[[float | None], Saving],
    top: Collection[str],
    *,
    maps: bool,
) -> dict[str, list[str]]:
    """The ids of these images, by the reason.

    Args:
        rows: Of the earlier run.
        wanted: The images and videos of this run, by id; other rows are left alone.
        saved_of: What is saved now of an image (None) or of a frame (its seconds).
        top: The images with the highest scores.
        maps: Whether the model draws any.
    """
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.id not in wanted and row.video not in wanted:
            continue
        save = saved_of(row.seconds)
        if is_replaced(row, wanted):
            found.setdefault(REPLACED, []).append(row.id)
        elif seen_otherwise(row, wanted):
            found.setdefault(CROPPED, []).append(row.id)
        elif lacks(row, save, maps=maps, overlay=gets_overlay(save, abnormal=row.abnormal, top=row.id in top)):
            found.setdefault(POORER, []).append(row.id)
    return found
