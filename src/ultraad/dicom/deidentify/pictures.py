"""PNG, JPEG, TIFF and the like: their pixels as new PNG files, and nothing of what stands beside the pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultraad.dicom.deidentify.visible import hidden
from ultraad.io.files import write_bytes
from ultraad.io.image import count_frames, read_image
from ultraad.io.mask import mask_values
from ultraad.io.png import encode_png
from ultraad.io.raster import open_raster
from ultraad.types import Box


def write_pictures(path: Path, name: Callable[[int, int], Path], *, keep: Sequence[Box], blank: Sequence[Box]) -> int:
    """Write every page of a picture file as a PNG of its own, upright.

    Grey values of 8 and 16 bits stay what they are; everything else becomes 8-bit RGB.

    Args:
        path: The file.
        name: Gives the file to write for (page, number of pages).
        keep: Rectangles that stay; empty keeps everything.
        blank: Rectangles that do not.

    Returns:
        The number of pages.

    Raises:
        DataError: If a page cannot be read or written.
    """
    pages = count_frames(path)
    for page in range(pages):
        pixels = _pixels(path, page)
        pixels[hidden((pixels.shape[0], pixels.shape[1]), keep, blank)] = 0
        write_bytes(name(page, pages), encode_png(pixels))
    return pages


def write_mask(path: Path, out: Path, *, image: Path, blank: Sequence[Box]) -> None:
    """Write a mask as a PNG, upright as its image: as it is, but for what a person blanked.

    Raises:
        DataError: If it cannot be read or written.
    """
    pixels = mask_values(path, image=image)
    if blank:
        pixels[hidden((pixels.shape[0], pixels.shape[1]), (), blank)] = 0
    write_bytes(out, encode_png(pixels))


def _pixels(path: Path, page: int) -> NDArray[Any]:
    with open_raster(path, frame=page) as picture:
        if picture.mode in ("1", "L"):
            return np.array(picture.convert("L"))
        if picture.mode.startswith("I;16"):
            return np.array(picture).astype(np.uint16)
    return np.array(read_image(path, frame=page))
