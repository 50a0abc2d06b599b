"""Measure one image: the only part of the data check that decodes pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ultraad import io
from ultraad.data.loader import lesion_of
from ultraad.data.support.draw import content_hash
from ultraad.errors import DataError
from ultraad.io.image import is_dicom
from ultraad.io.mask import fit_of
from ultraad.io.names import has_two_values
from ultraad.types import Region, Sample

_THUMBNAIL = 32  # side in pixels
_FLAT = 1.0  # standard deviation in grey levels below which an image is flat
_INVERTED = 0.5  # share of mask pixels, and
_BORDER = 0.9  # share of the border, above which a mask may be inverted
_COLOURED = 64  # a pixel is coloured if its largest and smallest channel differ by this many grey levels
_COLOUR_SHARE = 1e-3  # an image is coloured if a larger share of its pixels is


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What the check keeps of one image, about 1 KB.

    Attributes:
        sample: The sample.
        error: Why the image cannot be read; None if it can. If set, nothing below is.
        mask_error: Why the masks cannot be read; None if they can, or there are none.
        misaligned: The sizes (width x height) if a mask does not fit the image; None if it does.
        same_aspect: True if such a mask could be resized.
        lesion: Share of mask pixels, 0 to 1; None if there is no usable mask.
        inverted: True if the mask covers most of the image and its border: background and lesion may be swapped.
        hash: Content hash of the file.
        coloured: True if more than a thousandth of the pixels are coloured (Doppler, coloured marks).
        two_valued: True if the image has the few grey values of a mask. A DICOM image is none.
        flat: True if the image is a single grey level.
        thumbnail: Grey, uint8 (32 32).
    """

    sample: Sample
    error: str | None = None
    mask_error: str | None = None
    misaligned: str | None = None
    same_aspect: bool = False
    lesion: float | None = None
    inverted: bool = False
    hash: str = ""
    coloured: bool = False
    two_valued: bool = False
    flat: bool = False
    thumbnail: NDArray[np.uint8] | None = None


def measure(sample: Sample) -> Measured:
    """Read one image and its masks; errors are recorded, not raised."""
    try:
        image = io.read_image(sample.image, frame=sample.frame, depth=sample.depth)
        hash_ = content_hash(sample)
    except DataError as e:
        return Measured(sample, error=str(e))
    lesion = mask_error = misaligned = None
    inverted = same_aspect = False
    if sample.masks:
        try:
            mask = lesion_of(sample, image.shape[:2])
            lesion = float(mask.mean())
            border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
            inverted = lesion > _INVERTED and float(border.mean()) > _BORDER
        except io.MaskSizeError:
            sizes = [m.size if isinstance(m, Region) else io.image_size(m) for m in sample.masks]
            masks = ", ".join(f"{w} x {h}" for h, w in sizes)
            misaligned = f"image {image.shape[1]} x {image.shape[0]}, mask {masks}"
            turn = io.image_turn(sample.image)
            same_aspect = all(fit_of(size, image.shape[:2], turn=turn) != "none" for size in sizes)
        except DataError as e:
            mask_error = str(e)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    r, g, b = cv2.split(image)
    spread = cv2.subtract(cv2.max(cv2.max(r, g), b), cv2.min(cv2.min(r, g), b))
    return Measured(
        sample,
        mask_error=mask_error,
        misaligned=misaligned,
        same_aspect=same_aspect,
        lesion=lesion,
        inverted=inverted,
        hash=hash_,
        coloured=bool((spread >= _COLOURED).mean() > _COLOUR_SHARE),
        two_valued=not is_dicom(sample.image) and has_two_values(np.asarray(grey, dtype=np.uint8)),
        flat=bool(grey.std() < _FLAT),
        thumbnail=np.asarray(cv2.resize(grey, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA), dtype=np.uint8),
    )
