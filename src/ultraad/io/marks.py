"""Marks in a picture, such as calipers, text and body marks: found by colour or by shape, and painted out.

Tissue is grey, so colour is a mark or Doppler. White and grey marks have the colour of tissue and are found by their
shape: a caliper is a plus or a cross that is brighter than the four quarters between its arms, and letters are small
bright strokes that stand in a row with the same top and the same foot. Speckle has neither.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_COLOUR = 40  # difference between the colour channels that tissue, which is grey, does not have
_MARGIN = 2  # pixels around an overlay that its antialiasing has touched
_RADIUS = 3.0  # of Telea's inpainting, in pixels
_MOST = 0.1  # a larger share means Doppler, a photograph or a page of text, not an image with marks

# Chosen on 125 images of BUS-BRA without each fifth case, most of which have marks, and on images without: 131 of
# BUS-UCLM, 62 of liver and 60 simulated ones. The contrast is at most 14 without marks. At 20 there are 147 calipers in
# 77 of the 125 images, at 25 there are 137 in 74. Letters are in 90 of the 125, in 3 simulated ones and in no other.
_ARM = 3  # pixels of a caliper's arm, at least
_REACH = 8  # pixels that an arm may be long
_CONTRAST = 20  # grey levels between the darkest pixel of the arms and the quarters between them
_STROKE = 9  # side in pixels of the opening that removes strokes
_LEVELS = (40, 60, 80, 110, 140)  # grey levels of a stroke over its surroundings, since letters merge at the lower ones
_HEIGHTS = (6, 24)  # pixels of a letter
_LETTERS = 3  # in a row, at least
_OFF = 1  # pixels by which tops and feet of a row may differ


def coloured(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The coloured pixels of an image uint8 (h w 3), bool (h w). Tissue is grey, so colour is overlay or Doppler."""
    return np.asarray(image.max(-1).astype(np.int16) - image.min(-1) > _COLOUR)


def white(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The pixels of calipers and of rows of letters in an image uint8 (h w 3), bool (h w), whatever their colour.

    Found are plus signs and crosses with arms of at least three pixels (grey-level hit-or-miss transform; Soille,
    Morphological Image Analysis, 2003), and at least three letters of the same height side by side (white top-hat).
    Dots, lines, frames, logos and body marks are not.
    """
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    strokes = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, np.ones((_STROKE, _STROKE), np.uint8))
    found = np.zeros(grey.shape, dtype=np.bool_)
    for cross in (_plus, _diagonal):
        centres = (_contrast(grey, cross(_ARM)) >= _CONTRAST).astype(np.uint8)
        found |= (cv2.dilate(centres, cross(_REACH)) > 0) & (strokes >= _CONTRAST)
    for level in _LEVELS:
        found |= _letters(strokes >= level)
    return found


def overlays(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The pixels of an image uint8 (h w 3) that are :func:`coloured` or :func:`white`, bool (h w)."""
    return coloured(image) | white(image)


def are_marks(found: NDArray[np.bool_]) -> bool:
    """Whether there are such pixels, and few enough to be marks: more than a tenth is Doppler or a photograph."""
    return bool(0 < found.mean() <= _MOST)


def paint_out(image: NDArray[np.uint8], found: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill pixels and two more around them from their surroundings (Telea, J. Graphics Tools 2004).

    Args:
        image: uint8 (h w 3).
        found: bool (h w). If they are no marks (:func:`are_marks`), the image is left as it is.

    Returns:
        uint8 (h w 3).
    """
    if not are_marks(found):
        return image
    grown = cv2.dilate(found.astype(np.uint8), np.ones((2 * _MARGIN + 1, 2 * _MARGIN + 1), np.uint8))
    return np.asarray(cv2.inpaint(image, grown, _RADIUS, cv2.INPAINT_TELEA), dtype=np.uint8)


def paint_overlays(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fill coloured overlays of an image uint8 (h w 3) from the pixels around them; white and grey ones stay."""
    return paint_out(image, coloured(image))


def _plus(arm: int) -> NDArray[np.uint8]:
    cross = np.zeros((2 * arm + 1, 2 * arm + 1), np.uint8)
    cross[arm] = cross[:, arm] = 1
    return cross


def _diagonal(arm: int) -> NDArray[np.uint8]:
    falling = np.eye(2 * arm + 1, dtype=np.uint8)
    return np.maximum(falling, falling[::-1])


def _contrast(grey: NDArray[np.uint8], cross: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Darkest pixel of a cross less the brightest of the four quarters between its arms, f32 (h w).

    A quarter is as bright as its mean, or as its pixel next to the centre, which is dark in a cross and not in a dot.
    """
    arms = cv2.erode(grey, cross, borderType=cv2.BORDER_CONSTANT, borderValue=0).astype(np.float32)
    thick = cv2.dilate(cross, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))  # an arm with its antialiasing
    parts, labels = cv2.connectedComponents(1 - thick, connectivity=4)
    distance = np.hypot(*(np.indices(cross.shape) - len(cross) // 2))
    quarters = []
    for i in range(1, parts):
        quarter = labels == i
        inner = quarter & (distance == distance[quarter].min())
        quarters += [
            cv2.filter2D(grey, cv2.CV_32F, part / np.float32(part.sum()), borderType=cv2.BORDER_REPLICATE)
            for part in (quarter, inner)
        ]
    return np.asarray(arms - np.max(quarters, axis=0), dtype=np.float32)


def _letters(strokes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The strokes that are rows of letters, and what stands between and beside the letters of a row."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(strokes.astype(np.uint8), connectivity=8)
    left, top, width, height, _ = stats[1:].T
    right, foot = left + width, top + height
    low, high = _HEIGHTS
    small = (height >= low) & (height <= high) & (width <= 2 * height)
    rows = np.zeros(len(left), dtype=np.bool_)
    for first in np.flatnonzero(small).tolist():
        if rows[first]:
            continue
        same = small & (abs(top - top[first]) <= _OFF) & (abs(foot - foot[first]) <= _OFF)
        row = _chain(first, np.flatnonzero(same), left, right, int(height[first]))
        if len(row) >= _LETTERS:
            beside = (top >= top[first] - _OFF) & (foot <= foot[first] + _OFF) & (2 * height >= height[first])
            rows[_chain(first, np.flatnonzero(beside), left, right, int(height[first]))] = True
    return np.asarray(np.concatenate([[False], rows])[labels], dtype=np.bool_)


def _chain(
    first: int, others: NDArray[np.intp], left: NDArray[np.int32], right: NDArray[np.int32], gap: int
) -> list[int]:
    """The pieces that follow each other to both sides of the first one, with gaps of at most ``gap`` pixels."""
    ordered = others[np.argsort(left[others])]
    starts, ends = left[ordered], np.maximum.accumulate(right[ordered])
    runs = np.concatenate([[0], np.cumsum(starts[1:] - ends[:-1] > gap)])
    return [int(i) for i in ordered[runs == runs[np.flatnonzero(ordered == first)[0]]]]
