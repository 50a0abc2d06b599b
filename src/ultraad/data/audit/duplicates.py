"""Duplicates: identical files, and near-duplicates (re-saved, cropped, calipers added, the next frame of a cine).

Near-duplicates are found in the content of the thumbnails, not in the frame around it: a scanner draws the same fan,
logo and depth scale into every image, and skin looks alike in all of them. So

1. only pixels inside the content count: bright enough around, and not at the edge;
2. an image is its fine detail, the thumbnail minus a blurred copy, at equal contrast everywhere;
3. what images with the same frame have in common is taken away: the mean of their detail;
4. two images are near-duplicates if their detail correlates far more than that of other images of the set does.

The constants were set on four data sets, by looking at the pairs around the limit (docs/data-check.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_DARK = 8.0  # grey levels; what is darker around a pixel is no content
_BLUR = 2.0  # Gaussian sigma in thumbnail pixels: what is coarser is no detail
_CONTRAST_BLUR = 3.0  # of the window in which contrast is equalised
_CONTRAST_FLOOR = 2.0  # grey levels; noise below is not enlarged
_MOST = 3.0  # of the local standard deviation; brighter detail (text, calipers) counts no more than this
_SAME_FRAME = 0.8  # share of common content (intersection over union) from which two images have the same frame
_SHRINK = 10  # images; the mean of fewer is drawn towards zero
_COMPARABLE = 0.6  # share of the larger content that must be common to both
_LEAST_CONTENT = 0.1  # of the thumbnail
_TIMES = 7.0  # a near-duplicate correlates this many times as much as other pairs, whose standard deviation
_SPREAD = (0.07, 0.11)  # is taken to be within these limits: so the limit of the correlation is between 0.49 and 0.77
_FEW, _SPREAD_OF_FEW = 20, 0.08  # images, and what is taken for fewer comparable ones
_REFERENCES = 1000  # images from which the mean and the spread are estimated
_BLOCK = 256  # images compared with all others at once


def exact_groups(hashes: Sequence[str]) -> list[list[int]]:
    """The positions of each hash that occurs more than once, in order of first occurrence."""
    places: dict[str, list[int]] = {}
    for i, hash_ in enumerate(hashes):
        places.setdefault(hash_, []).append(i)
    return [group for group in places.values() if len(group) > 1]


def near_pairs(thumbnails: NDArray[np.uint8]) -> Iterator[tuple[int, int, float]]:
    """Pairs of images that show the same scene.

    Args:
        thumbnails: uint8 (b 32 32).

    Yields:
        (i, j, correlation of their detail) with i < j.
    """
    found = [_detail(thumbnail) for thumbnail in thumbnails]
    detail = np.stack([d.ravel() for d, _ in found])  # (b n)
    content = np.stack([c.ravel() for _, c in found])  # (b n)
    some = slice(None, None, -(-len(detail) // _REFERENCES))
    detail -= content * _common(content, detail[some], content[some])
    spread = np.concatenate(
        [
            _spread(*_correlation(detail[rows], content[rows], detail[some], content[some]))
            for rows in _blocks(len(detail))
        ]
    )
    for rows in _blocks(len(detail)):
        correlation, _ = _correlation(detail[rows], content[rows], detail, content)
        limit = _TIMES * np.sqrt(spread[rows, None] * spread)
        for row, j in zip(*np.nonzero(correlation >= limit), strict=True):
            i = rows.start + int(row)
            if i < j:
                yield i, int(j), float(correlation[row, j])


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


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, count, _BLOCK))


def _detail(thumbnail: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(detail, zero outside the content; content, 0 or 1), both (32 32)."""
    x = thumbnail.astype(np.float32)
    bright = (cv2.GaussianBlur(x, (0, 0), _BLUR) > _DARK).astype(np.float32)
    inside = np.asarray(cv2.erode(bright, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE), dtype=np.float32)
    x -= _mean_around(x, bright, _BLUR)
    x /= np.sqrt(_mean_around(x * x, bright, _CONTRAST_BLUR) + _CONTRAST_FLOOR**2)
    return np.clip(x, -_MOST, _MOST) * inside, inside


def _mean_around(x: NDArray[np.float32], where: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """The Gaussian mean of the pixels that count."""
    weight = cv2.GaussianBlur(where, (0, 0), sigma)
    return np.asarray(cv2.GaussianBlur(x * where, (0, 0), sigma) / (weight + 1e-6), dtype=np.float32)


def _common(
    content: NDArray[np.float32], others_detail: NDArray[np.float32], others_content: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The mean detail of the images with the same frame (b n)."""
    means = []
    for rows in _blocks(len(content)):
        both = content[rows] @ others_content.T
        either = content[rows].sum(1)[:, None] + others_content.sum(1) - both
        same = (both > _SAME_FRAME * np.maximum(either, 1)).astype(np.float32)
        means.append((same @ others_detail) / (same @ others_content + _SHRINK))
    return np.concatenate(means)


def _correlation(
    detail: NDArray[np.float32],
    content: NDArray[np.float32],
    others_detail: NDArray[np.float32],
    others_content: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(correlation over the common content, whether there is enough of it), both (b others)."""
    both = content @ others_content.T
    size, others_size = content.sum(1)[:, None], others_content.sum(1)
    least = np.maximum(_COMPARABLE * np.maximum(size, others_size), _LEAST_CONTENT * content.shape[1])
    energy = (detail * detail) @ others_content.T
    others_energy = content @ (others_detail * others_detail).T
    correlation = (detail @ others_detail.T) / (np.sqrt(energy * others_energy) + 1e-9)
    enough = both >= least
    return np.where(enough, correlation, 0.0), enough


def _spread(correlation: NDArray[np.float32], comparable: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The standard deviation of each image's correlation with others (b), from the 95 % quantile of its size."""
    found = [
        np.quantile(np.abs(row[there]), 0.95) / 1.96 if there.sum() >= _FEW else _SPREAD_OF_FEW
        for row, there in zip(correlation, comparable, strict=True)
    ]
    return np.clip(found, *_SPREAD)
