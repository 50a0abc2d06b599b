"""Lesions of a cine that are one lesion: tracks over its frames.

A lesion continues the track whose last outline it overlaps most, by intersection over union (IoU) of their pixels, if
that is at least :data:`OVERLAP` and the track was seen at most :data:`GAP` frames before. Pairs are taken by falling
overlap; of equal ones, the older track and the lesion listed first. What is left begins a track.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ultraad.types import Box

OVERLAP = 0.1  # ours: a lesion of 10 mm that moves by 8 mm between two frames still overlaps itself so much
GAP = 5  # frames, ours: a map that falls below the threshold for a sixth of a second is still the same lesion


@dataclass(frozen=True, slots=True, eq=False)
class Blob:
    """The pixels of a lesion.

    Attributes:
        box: Where they are.
        pixels: bool (height width) of the box.
    """

    box: Box
    pixels: NDArray[np.bool_]


def link(frames: Iterable[tuple[int, Sequence[Blob]]]) -> list[list[int]]:
    """The track of each lesion.

    Args:
        frames: (number of the frame, its lesions), by rising number.

    Returns:
        For each frame and lesion the number of its track, from 0, in the order of first appearance.
    """
    last: dict[int, tuple[int, Blob]] = {}  # {track: (frame, lesion) where it was seen last}
    found: list[list[int]] = []
    tracks = 0
    for number, blobs in frames:
        last = {track: seen for track, seen in last.items() if number - seen[0] <= GAP + 1}
        pairs = sorted(
            ((iou(seen[1], blob), track, i) for track, seen in last.items() for i, blob in enumerate(blobs)),
            key=lambda pair: (-pair[0], pair[1], pair[2]),
        )
        chosen: dict[int, int] = {}  # {lesion: track}
        for overlap, track, i in pairs:
            if overlap >= OVERLAP and i not in chosen and track not in chosen.values():
                chosen[i] = track
        for i, blob in enumerate(blobs):
            if i not in chosen:
                chosen[i], tracks = tracks, tracks + 1
            last[chosen[i]] = (number, blob)
        found.append([chosen[i] for i in range(len(blobs))])
    return found


def iou(a: Blob, b: Blob) -> float:
    """Intersection over union of two lesions, in [0, 1]."""
    left, top = max(a.box[0], b.box[0]), max(a.box[1], b.box[1])
    right, bottom = (min(a.box[i] + a.box[i + 2], b.box[i] + b.box[i + 2]) for i in (0, 1))
    if right <= left or bottom <= top:
        return 0.0
    here, there = (
        blob.pixels[top - blob.box[1] : bottom - blob.box[1], left - blob.box[0] : right - blob.box[0]]
        for blob in (a, b)
    )
    both = int(np.count_nonzero(here & there))
    return both / (int(np.count_nonzero(a.pixels)) + int(np.count_nonzero(b.pixels)) - both)
