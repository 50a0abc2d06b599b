"""Look at a file: which of its pixels stay, and what looks like text there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ultraad.dicom.deidentify.decision import Looked
from ultraad.dicom.deidentify.pixels import check_supported, regions_in
from ultraad.dicom.deidentify.source import header_of
from ultraad.dicom.deidentify.text import TextFinder, find_in
from ultraad.dicom.deidentify.visible import hidden
from ultraad.errors import DataError
from ultraad.io.files import sha256
from ultraad.io.image import count_frames, image_turn, is_dicom, read_image
from ultraad.io.mask import mask_values, read_mask
from ultraad.io.names import is_two_valued
from ultraad.types import Box


def look_at(
    path: Path, name: str, finder: TextFinder, *, keep: Box | None, frames: int
) -> tuple[Looked, list[NDArray[np.uint8]]]:
    """What a review says about a file, and the pictures that it shows: the first frame, and the brightest of all.

    Args:
        path: The file.
        name: What the review calls it.
        finder: Of text.
        keep: The rectangle that stays if the file has no ultrasound regions.
        frames: How many frames of a cine are searched.

    Raises:
        DataError: If it cannot be read.
    """
    stays: tuple[Box, ...] = ()
    if is_dicom(path):
        check_supported(header_of(path), path)
        stays = regions_in(path)
    given = not stays and keep is not None
    if keep is not None and given:
        stays = (keep,)
    shown: list[NDArray[np.uint8]] = []
    texts = find_in(_searched(path, stays, frames, shown), finder)
    row = Looked(file=name, sha256=sha256(path), frames=count_frames(path), keep=stays, given=given, texts=tuple(texts))
    return row, shown


def look_at_mask(path: Path, name: str, image: Path, image_name: str) -> tuple[Looked, list[NDArray[np.uint8]]]:
    """What a review says about a mask, and the picture that it shows: lesions white. No text is looked for.

    Args:
        path: The file.
        name: What the review calls it.
        image: Its image.
        image_name: What the review calls that.

    Raises:
        DataError: If it cannot be read, or is no mask of this image: it could be a picture with text, then.
    """
    pages = count_frames(path)
    if pages > 1 or is_dicom(path) or not is_two_valued(path):
        found = "a DICOM file" if is_dicom(path) else f"{pages} pages" if pages > 1 else "the grey values of a picture"
        msg = (
            f"{path} is named like a mask of {image_name}, but has {found}, so it is neither searched for text nor "
            "written. Save it as a PNG of two values if it is a mask; give it another name or folder if it is a picture"
        )
        raise DataError(msg)
    shape = mask_values(path, image=image).shape[:2]
    lesion = read_mask([path], shape=shape, turn=image_turn(image))
    row = Looked(file=name, sha256=sha256(path), frames=1, mask_of=image_name)
    return row, [np.repeat(lesion[..., None], 3, axis=2).astype(np.uint8) * 255]


def _searched(
    path: Path, stays: tuple[Box, ...], most: int, shown: list[NDArray[np.uint8]]
) -> Iterator[NDArray[np.uint8]]:
    """The pictures to search, blanked outside of what stays; those to show are put into a list."""
    frames = count_frames(path)
    wanted = {round(at) for at in np.linspace(0, frames - 1, min(most, frames))}
    brightest: NDArray[np.uint8] | None = None
    for number in range(frames):
        picture = np.array(read_image(path, frame=number))
        picture[hidden((picture.shape[0], picture.shape[1]), stays)] = 0
        if number == 0:
            shown.append(picture)
        same_size = brightest is not None and brightest.shape == picture.shape  # pages of a TIFF may differ
        brightest = np.maximum(brightest, picture) if brightest is not None and same_size else picture
        if number in wanted:
            yield picture
    if frames > 1 and brightest is not None:
        shown.append(brightest)
        yield brightest
