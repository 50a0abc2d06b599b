"""Coloured marks in a picture, such as calipers, text and body marks: found, and painted out."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_COLOUR = 40  # difference between the colour channels that tissue, which is grey, does not have
_MARGIN = 2  # pixels around an overlay that its antialiasing has touched
_RADIUS = 3.0  # of Telea's inpainting, in pixels
_MOST = 0.1  # a larger coloured share means Doppler or a photograph, not an image with marks


def coloured(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The coloured pixels of an image uint8 (h w 3), bool (h w). Tissue is grey, so colour is overlay or Doppler."""
    return np.asarray(image.max(-1).astype(np.int16) - image.min(-1) > _COLOUR)


def are_marks(colour: NDArray[np.bool_]) -> bool:
    """Whether there are coloured pixels, and few enough to be marks: more than a tenth is Doppler or a photograph."""
    return bool(0 < colour.mean() <= _MOST)


def paint_overlays(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fill coloured overlays (calipers, text, body marks) from the pixels around them.

    White or grey letters look like tissue and stay. An image with more than a tenth of coloured pixels (Doppler) is
    left as it is. The inpainting is Telea's (J. Graphics Tools 2004).

    Args:
        image: uint8 (h w 3).

    Returns:
        uint8 (h w 3).
    """
    overlay = coloured(image)
    if not are_marks(overlay):
        return image
    grown = cv2.dilate(overlay.astype(np.uint8), np.ones((2 * _MARGIN + 1, 2 * _MARGIN + 1), np.uint8))
    return np.asarray(cv2.inpaint(image, grown, _RADIUS, cv2.INPAINT_TELEA), dtype=np.uint8)
