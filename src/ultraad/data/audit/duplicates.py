"""Duplicates: identical files, and near-duplicates (re-saved, cropped, calipers added, the next frame of a cine).

Two images are near-duplicates if their 256-bit dHashes differ in at most ``MAX_BITS`` bits (128 is chance) and the
fine detail of their 32 x 32 thumbnails correlates by at least ``MIN_DETAIL``. Fine detail is the thumbnail minus a
blurred copy; without the subtraction, the bright top and dark bottom make all ultrasound images similar. Both limits
were set on BUS-UCLM and BUSI: images of different patients of BUS-UCLM differ in at least 71 bits and correlate by at
most 0.62, and the least similar pairs found in BUSI (60 bits, 0.71) still show the same scene (docs/data-check.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_BITS = 64  # of 256
MIN_DETAIL = 0.7
_BLUR = 3.0  # Gaussian sigma in thumbnail pixels
_BLOCK = 256  # rows compared at once; limits the memory to 8 * _BLOCK * n bytes


def exact_groups(hashes: Sequence[str]) -> list[list[int]]:
    """The positions of each hash that occurs more than once, in order of first occurrence."""
    places: dict[str, list[int]] = {}
    for i, hash_ in enumerate(hashes):
        places.setdefault(hash_, []).append(i)
    return [group for group in places.values() if len(group) > 1]


def near_pairs(bits: NDArray[np.uint64], thumbnails: NDArray[np.uint8]) -> Iterator[tuple[int, int, float]]:
    """Pairs of images that show the same scene.

    Args:
        bits: uint64 (b 4), dHashes.
        thumbnails: uint8 (b 32 32).

    Yields:
        (i, j, correlation of fine detail) with i < j.
    """
    for start in range(0, len(bits), _BLOCK):
        block = bits[start : start + _BLOCK]
        distance = np.zeros((len(block), len(bits)), dtype=np.int64)
        for word in range(bits.shape[1]):  # one word at a time: one number per pair in memory
            distance += np.bitwise_count(block[:, None, word] ^ bits[None, :, word])  # (block b)
        for row, j in zip(*np.nonzero(distance <= MAX_BITS), strict=True):
            i = start + int(row)
            if i < j:
                detail = float(np.vdot(_detail(thumbnails[i]), _detail(thumbnails[j])))
                if detail >= MIN_DETAIL:
                    yield i, int(j), detail


def clusters(pairs: Sequence[tuple[int, int]]) -> int:
    """Number of connected components of the graph whose edges are the pairs."""
    parent: dict[int, int] = {}

    def find(i: int) -> int:
        while parent.setdefault(i, i) != i:
            i = parent[i]
        return i

    for i, j in pairs:
        parent[find(i)] = find(j)
    return sum(i == find(i) for i in list(parent))


def _detail(thumbnail: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The fine detail, float64 (32 32) with mean 0 and norm 1; all zero if there is none."""
    x = thumbnail.astype(np.float64)
    x -= cv2.GaussianBlur(x, (0, 0), _BLUR)
    x -= x.mean()
    norm = np.linalg.norm(x)
    return np.asarray(x / norm if norm > 0 else x, dtype=np.float64)
