"""Which images get an overlay, if not all do: those of the highest scores are known only at the end of a run.

The overlay of an image is drawn while it is among the N highest of those so far, so nothing is predicted or read again.
In a random order that is N (1 + ln(M / N)) overlays of M images; those that were overtaken are removed at the end.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable
from pathlib import Path

from ultraad.io.files import write_parts
from ultraad.results.row import ImageRow
from ultraad.results.saving import Saving


def gets_overlay(save: Saving, *, abnormal: bool, top: bool) -> bool:
    """Whether an image gets an overlay.

    Args:
        save: What is saved.
        abnormal: Whether its score reaches the image threshold.
        top: Whether it is among those with the highest scores.
    """
    return save.overlays == "all" or (top if save.overlays == "top" else abnormal)


def highest(rows: Iterable[ImageRow], count: int) -> set[str]:
    """The ids of the images with the highest scores; of equal ones, the first come first. Frames of videos are none."""
    images = ((row.score, -number, row.id) for number, row in enumerate(rows) if row.seconds is None)
    return {id_ for _, _, id_ in heapq.nlargest(count, images)}


class Top:
    """The images with the highest scores so far.

    Args:
        count: How many.

    Attributes:
        left: Ids of those that were among them before.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._number = 0
        self._heap: list[tuple[float, int, str]] = []
        self.left: set[str] = set()

    def begin(self, rows: Iterable[ImageRow]) -> None:
        """Those of an earlier run."""
        for row in rows:
            self.takes(row.id, row.score)

    def takes(self, id_: str, score: float) -> bool:
        """Whether the next image is among them."""
        self._number += 1
        entry = (score, -self._number, id_)
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, entry)
            return True
        if not self._heap or entry < self._heap[0]:
            return False
        self.left.add(heapq.heapreplace(self._heap, entry)[2])
        return True


def remove_overlays(folder: Path, ids: Collection[str], *, rows: Iterable[ImageRow], table: str) -> None:
    """Remove the overlays of some images: from their rows first, so that no row names a file that is not there.

    Args:
        folder: Of the run.
        ids: Of the images.
        rows: All rows of the run.
        table: The file of the rows.
    """
    if not ids:
        return
    gone: list[str] = []

    def lines() -> Iterable[bytes]:
        for row in rows:
            if row.id in ids and row.overlay is not None:
                gone.append(row.overlay)
                row = row.model_copy(update={"overlay": None})
            yield f"{row.to_json()}\n".encode(errors="backslashreplace")

    write_parts(folder / table, lines())
    for path in gone:
        (folder / path).unlink(missing_ok=True)
