"""From a box or a scribble to a mask, by a stated rule; runs in the decoding child.

Both are completed by GrabCut (Rother, Kolmogorov, Blake, SIGGRAPH 2004) on the image blurred by two pixels, because
speckle has no edges: what is surely lesion and surely background is fixed, the rest follows the grey values.

box        surely lesion: the ellipse of 0.75 of its size; surely not: outside the ellipse of 1.2 of its size
scribble   surely lesion: nearer to it than 0.06 of its extent; surely not: further away than 0.6 of its extent

How well both do, and how much worse a model is that was adapted to them, is measured by ``python -m perf.page``.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ultraad.errors import DataError
from ultraad.serve.shapes import Mask, Shape, mask_of

BOX_RULE = "the dark or bright region in the ellipse of the box"
SCRIBBLE_RULE = "the region like the scribble, around it"

_BLUR = 2.0  # Gaussian sigma in pixels
_ROUNDS = 5
_CORE, _OUTER = 0.75, 1.2  # of the box
_NEAR, _REACH = 0.06, 0.6  # of a scribble's extent
_LIKELY = 0.2  # of a scribble's extent: where GrabCut begins with lesion
_LONGEST = 256  # pixels of the longer side that GrabCut works on
_MARGIN = 0.5  # of the extent, around it: the background that is looked at
_SMOOTH = 5  # pixels; smaller bumps and gaps are removed
_CLOSE = 15  # pixels; wider gaps stay


def from_box(image: NDArray[np.uint8], corners: Sequence[float]) -> Mask:
    """The lesion in a box.

    Args:
        image: uint8 (h w 3).
        corners: x0, y0, x1, y1 of two opposite corners.

    Raises:
        DataError: If the box has no pixel in the image.
    """
    (x0, x1), (y0, y1) = sorted(corners[::2]), sorted(corners[1::2])
    size = (image.shape[0], image.shape[1])
    whole = _ellipse(size, (x0, y0, x1, y1), 1.0)
    if not whole.any():
        msg = "the box has no pixel inside the image; draw it larger"
        raise DataError(msg)
    core, outer = _ellipse(size, (x0, y0, x1, y1), _CORE), _ellipse(size, (x0, y0, x1, y1), _OUTER)
    found = _grown(image, sure=core, likely=whole, never=~outer)
    return found if found.any() else whole


def from_scribble(image: NDArray[np.uint8], points: Sequence[float], radius: float) -> Mask:
    """The lesion that a line was scribbled on.

    Args:
        image: uint8 (h w 3).
        points: x0, y0, x1, y1, ...
        radius: Of the line in pixels.

    Raises:
        DataError: If the line has no pixel in the image.
    """
    size = (image.shape[0], image.shape[1])
    line = mask_of([Shape(tuple(points), (max(radius, 1.0),) * (len(points) // 2))], size)
    if not line.any():
        msg = "the scribble has no pixel inside the image"
        raise DataError(msg)
    rows, columns = np.nonzero(line)
    extent = float(np.hypot(np.ptp(rows) + 1, np.ptp(columns) + 1))
    away = cv2.distanceTransform((~line).astype(np.uint8), cv2.DIST_L2, 5)
    sure = line | (away <= _NEAR * extent)
    found = _grown(image, sure=sure, likely=away <= _LIKELY * extent, never=away > _REACH * extent)
    return found if found.any() else line


def _ellipse(size: tuple[int, int], box: tuple[float, float, float, float], scale: float) -> Mask:
    """The pixels whose centre is in the ellipse of a box, scaled about its middle."""
    x0, y0, x1, y1 = box
    a, b = max(x1 - x0, 1.0) / 2 * scale, max(y1 - y0, 1.0) / 2 * scale
    x = (np.arange(size[1]) + 0.5 - (x0 + x1) / 2) / a
    y = (np.arange(size[0]) + 0.5 - (y0 + y1) / 2) / b
    return x**2 + y[:, None] ** 2 <= 1


def _grown(image: NDArray[np.uint8], *, sure: Mask, likely: Mask, never: Mask) -> Mask:
    """GrabCut in the part of the image around ``~never``; the piece that holds most of ``sure``, smoothed."""
    rows, columns = np.flatnonzero((~never).any(1)), np.flatnonzero((~never).any(0))
    wide = round(_MARGIN * max(len(rows), len(columns)))
    part = (
        slice(max(0, int(rows[0]) - wide), int(rows[-1]) + 1 + wide),
        slice(max(0, int(columns[0]) - wide), int(columns[-1]) + 1 + wide),
    )
    labels: NDArray[np.uint8] = np.full(image[part].shape[:2], cv2.GC_PR_BGD, np.uint8)
    labels[likely[part]] = cv2.GC_PR_FGD
    labels[sure[part]] = cv2.GC_FGD
    labels[never[part]] = cv2.GC_BGD
    if not (labels == cv2.GC_BGD).any() or not (labels == cv2.GC_FGD).any():
        return likely
    size = labels.shape[1], labels.shape[0]
    scale = min(1.0, _LONGEST / max(size))
    blurred = cv2.GaussianBlur(image, (0, 0), _BLUR)[part]
    if scale < 1:
        small = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        blurred = cv2.resize(blurred, small, interpolation=cv2.INTER_AREA)
        labels = np.asarray(cv2.resize(labels, small, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    cv2.setRNGSeed(0)  # the mixtures begin with k-means
    models = np.zeros((1, 65)), np.zeros((1, 65))
    unused = (0, 0, 1, 1)  # a rectangle, where there are no labels
    cv2.grabCut(blurred, labels, unused, *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    lesion = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.float32)
    large = cv2.resize(lesion, size, interpolation=cv2.INTER_LINEAR) >= 0.5
    found = np.zeros(image.shape[:2], dtype=np.bool_)
    found[part] = _one_piece(large, sure[part])
    return found


def _one_piece(mask: Mask, sure: Mask) -> Mask:
    small, wide = (cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (n, n)) for n in (_SMOOTH, _CLOSE))
    smooth = cv2.morphologyEx(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, small), cv2.MORPH_CLOSE, small)
    count, pieces = cv2.connectedComponents(smooth)
    if count < 2:
        return mask
    inside = np.bincount(pieces[sure], minlength=count)
    inside[0] = 0
    piece = pieces == int(inside.argmax() if inside.any() else np.bincount(pieces[pieces > 0]).argmax())
    return np.asarray(cv2.morphologyEx(piece.astype(np.uint8), cv2.MORPH_CLOSE, wide), dtype=np.bool_)
