"""Tracks of lesions over frames: cases by hand, and overlap against arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraad.metrics.tracks import GAP, OVERLAP, Blob, iou, link


def square(x: int, y: int, side: int = 10) -> Blob:
    return Blob((x, y, side, side), np.ones((side, side), bool))


@given(
    a=st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 9)] * 2),
    b=st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 9)] * 2),
    seed=st.integers(0, 99),
)
def test_overlap_is_that_of_the_pixels(a, b, seed) -> None:
    rng = np.random.default_rng(seed)
    blobs, masks = [], []
    for x, y, w, h in (a, b):
        pixels = rng.random((h, w)) < 0.7
        pixels[0, 0] = True
        mask = np.zeros((24, 24), bool)
        mask[y : y + h, x : x + w] = pixels
        blobs.append(Blob((x, y, w, h), pixels))
        masks.append(mask)
    assert iou(*blobs) == (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()


def test_a_lesion_that_moves_is_one_track_and_two_stay_two() -> None:
    frames = [(n, [square(2 * n, 0), square(50, 3 * n)]) for n in range(6)]
    assert link(frames) == [[0, 1]] * 6
    swapped = [(n, blobs[:: (-1) ** n]) for n, blobs in frames]
    assert link(swapped) == [[0, 1][:: (-1) ** n] for n in range(6)]


def test_a_gap_of_a_few_frames_is_bridged_and_a_longer_one_is_not() -> None:
    assert link([(0, [square(0, 0)]), (1 + GAP, [square(0, 0)])]) == [[0], [0]]
    assert link([(0, [square(0, 0)]), (2 + GAP, [square(0, 0)])]) == [[0], [1]]


def test_what_hardly_overlaps_is_another_lesion() -> None:
    moved = next(d for d in range(10) if iou(square(0, 0), square(d, 0)) < OVERLAP)
    assert link([(0, [square(0, 0)]), (1, [square(moved - 1, 0)])]) == [[0], [0]]
    assert link([(0, [square(0, 0)]), (1, [square(moved, 0)])]) == [[0], [1]]


def test_each_track_takes_one_lesion_the_one_that_overlaps_most() -> None:
    assert link([(0, [square(0, 0)]), (1, [square(4, 0), square(1, 0)])]) == [[0], [1, 0]]
    assert link([(0, [square(0, 0), square(8, 0)]), (1, [square(5, 0)])]) == [[0, 1], [1]]


def test_empty_frames() -> None:
    assert link([]) == []
    assert link([(0, []), (1, [square(0, 0)]), (2, [])]) == [[], [0], []]


@pytest.mark.parametrize("side", [1, 10])
def test_a_blob_overlaps_itself(side: int) -> None:
    assert iou(square(3, 4, side), square(3, 4, side)) == 1
