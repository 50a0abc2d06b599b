"""One look at one image: the only place of the data check that decodes pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ultraad import io
from ultraad.data.support.draw import content_hash
from ultraad.errors import DataError
from ultraad.types import Region

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ultraad.types import Sample

THUMBNAIL = 32  # side in pixels  # ours
_HASH = 16  # dHash compares 16 x 16 neighbours: 256 bits  # ours
_FLAT = 1.0  # grey levels of standard deviation below which a picture shows nothing  # ours
_COLOURED = 64  # difference of the largest and smallest channel from which a pixel counts as coloured  # ours
_COLOUR_SHARE = 1e-3  # share of coloured pixels from which an image does  # ours


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What the check keeps of one image: about 1 KB.

    Attributes:
        sample: The sample.
        error: Why the image cannot be read; None if it can. Then nothing below is set.
        mask_error: Why the masks cannot be read; None if they can, or there are none.
        misaligned: The sizes (width x height), if a mask does not have the image's; None if they agree.
        lesion: Share of mask pixels, 0 to 1; None if there is no usable mask.
        hash: Content hash of the file.
        coloured: More than a thousandth of the pixels are coloured (Doppler, coloured marks).
        flat: The image shows nothing.
        bits: uint64 (4,), dHash.
        thumbnail: uint8 (32 32), grey.
    """

    sample: Sample
    error: str | None = None
    mask_error: str | None = None
    misaligned: str | None = None
    lesion: float | None = None
    hash: str = ""
    coloured: bool = False
    flat: bool = False
    bits: NDArray[np.uint64] | None = None
    thumbnail: NDArray[np.uint8] | None = None


def measure(sample: Sample) -> Measured:
    """Read one image and its masks; what cannot be read is noted, not raised."""
    try:
        image = io.read_image(sample.image, frame=sample.frame)
        hash_ = content_hash(sample)
    except DataError as e:
        return Measured(sample, error=str(e))
    lesion = mask_error = misaligned = None
    if sample.masks:
        try:
            lesion = float(io.read_mask(sample.masks, shape=image.shape[:2]).mean())
        except io.MaskSizeError:
            sizes = [m.size if isinstance(m, Region) else io.image_size(m) for m in sample.masks]
            masks = ", ".join(f"{w} x {h}" for h, w in sizes)
            misaligned = f"image {image.shape[1]} x {image.shape[0]}, mask {masks}"
        except DataError as e:
            mask_error = str(e)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    r, g, b = cv2.split(image)
    spread = cv2.subtract(cv2.max(cv2.max(r, g), b), cv2.min(cv2.min(r, g), b))
    return Measured(
        sample,
        mask_error=mask_error,
        misaligned=misaligned,
        lesion=lesion,
        hash=hash_,
        coloured=bool((spread >= _COLOURED).mean() > _COLOUR_SHARE),
        flat=bool(grey.std() < _FLAT),
        bits=_dhash(grey),
        thumbnail=np.asarray(cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA), dtype=np.uint8),
    )


def _dhash(grey: NDArray[Any]) -> NDArray[np.uint64]:
    """256 bits: is each cell of a 16 x 17 thumbnail brighter than its left neighbour."""
    small = cv2.resize(grey, (_HASH + 1, _HASH), interpolation=cv2.INTER_AREA)  # (16 17)
    return np.packbits(small[:, 1:] > small[:, :-1]).view(np.uint64)  # (4,)
