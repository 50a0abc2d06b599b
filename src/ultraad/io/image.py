"""Images of any kind, recognised by their content: DICOM, or PNG, JPEG, BMP, TIFF, WebP."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ultraad.errors import DataError
from ultraad.io import raster
from ultraad.io.faults import Faults, warn_of
from ultraad.io.files import stamp_of
from ultraad.types import Box

T = TypeVar("T")

_MOST_READ = 100  # pictures that decide about the depth of a set
_MOST_SIBLINGS = 50  # files that decide about the depth of a folder
_SHALLOW = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp"})  # formats of 8 bits
_PNG_START, _PNG_BITS = b"\x89PNG", 24  # where the header of a PNG says how many bits a sample has
_DARK = 4  # bits that a picture uses less than others of its set, from which it would look black


def read_image(path: str | Path, *, frame: int = 0, depth: int | None = None) -> NDArray[np.uint8]:
    """One frame of an image file as 8-bit RGB.

    Pixels of 16 bits are scaled by the depth that they use (:func:`ultraad.io.brightness.scale_grey`), the same for all
    pictures of a set.

    Args:
        path: Any supported file. The format is recognised by the content; the suffix matters only for a DICOM file
            without preamble.
        frame: 0-based frame of a multi-frame DICOM, TIFF or WebP; only this frame is decoded.
        depth: Bits that the set of this picture uses, from :func:`set_depth`; None takes the largest depth in the file
            and among the files of its kind in its folder.

    Returns:
        uint8 (h w 3), red green blue, upright.

    Raises:
        DataError: If the file is missing, a folder, unreadable, empty, damaged, not an image, smaller than 8 pixels on
            a side, larger than 64 megapixels, or has no such frame.
    """
    path = Path(path)

    def of_set() -> int:
        return _depth_beside(path) if depth is None else depth

    with Faults(f"{path} cannot be read", about=path):
        if is_dicom(path):
            from ultraad.io import dicom

            pixels = dicom.read_frame(path, frame=frame, depth=of_set)
        else:
            pixels = raster.read_raster(path, frame=frame, depth=of_set)
        return _checked(pixels, path)


def set_depth(frames: Sequence[tuple[Path, int]]) -> int | None:
    """The largest depth in bits among the 16-bit pictures of a set, so that dark ones are not shown brighter.

    At most 100 pictures are decoded, spread evenly over the set; those that cannot be read have no say. A picture that
    uses 4 bits less than the others is a warning.

    Args:
        frames: (file, 0-based frame) of each picture.

    Returns:
        None if all pictures have 8 bits.
    """
    perhaps = [item for item in frames if _may_be_deep(item[0])]
    found = [(depth, path) for path, frame in _spread(perhaps, _MOST_READ) if (depth := _depth_of(path, frame))]
    if not found:
        return None
    most, brightest = max(found)
    for depth, path in found:
        if depth <= most - _DARK:
            text = (
                f"its 16-bit pixels use {depth} bits, those of other pictures {most} ({brightest}); it will look dark"
            )
            warn_of(path, text, kind="two depths in one set")
    return most


def _depth_beside(path: Path) -> int:
    """The largest depth in the frames of a file, and in files with the same suffix in its folder."""
    stat, folder = path.stat(), path.parent.stat()
    return max(_file_depth(path, stamp_of(stat)), _folder_depth(path.parent, path.suffix, stamp_of(folder)))


@lru_cache(maxsize=64)
def _file_depth(path: Path, stamp: tuple[int, ...]) -> int:  # noqa: ARG001 - part of the cache's key
    frames = count_frames(path)
    return max(_depth_of(path, frame) for frame in {0, frames // 2, frames - 1})


@lru_cache(maxsize=64)
def _folder_depth(folder: Path, suffix: str, stamp: tuple[int, ...]) -> int:  # noqa: ARG001 - a folder with new files is another
    files = sorted(p for p in folder.iterdir() if p.suffix == suffix and p.is_file())
    return max((_depth_of(path, 0) for path in _spread(files, _MOST_SIBLINGS)), default=0)


def _spread(items: Sequence[T], most: int) -> Sequence[T]:
    """At most so many items, evenly from beginning to end."""
    return items[:: -(-len(items) // most) or 1]


def _may_be_deep(path: Path) -> bool:
    """Whether a file can hold 16 bits, without decoding it."""
    if path.suffix.lower() in _SHALLOW:
        return False
    try:
        header = raster.read_header(path)
    except DataError:
        return False
    return not (header.startswith(_PNG_START) and header[_PNG_BITS : _PNG_BITS + 1] < b"\x10")


def _depth_of(path: Path, frame: int) -> int:
    """The bits in use of one picture of 16 bits; 0 for one of 8 bits or one that cannot be read."""
    try:
        with Faults(f"{path} cannot be read", about=path):
            if is_dicom(path):
                from ultraad.io import dicom

                return dicom.frame_depth(path, frame=frame)
            return raster.raster_depth(path, frame=frame)
    except DataError:
        return 0


def _checked(pixels: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """The promise of :func:`read_image`, whatever reader the pixels came from."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
        msg = f"{path} decodes to {pixels.dtype} {pixels.shape}, wanted uint8 (h, w, 3). Export it as 8-bit RGB"
        raise DataError(msg)
    raster.check_size((pixels.shape[0], pixels.shape[1]), path)
    return pixels


def count_frames(path: str | Path) -> int:
    """Number of frames in the file, from its header; 1 for a still.

    Raises:
        DataError: If the file cannot be opened as an image, has more frames than it can hold or than
            ``raster.MAX_FRAMES``, or is a DICOM cine of which neither the first nor the last frame can be decoded.
    """
    path = Path(path)
    with Faults(f"{path} cannot be read", about=path):
        if not is_dicom(path):
            return raster.raster_frames(path)
        from ultraad.io import dicom

        frames = dicom.metadata(path)["frames"]
        if frames > 1:
            dicom.check_decodable(path, frames=frames)
        return frames


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) in pixels of the result of :func:`read_image`, from the header only.

    Raises:
        DataError: If the file cannot be opened as an image. Damaged pixels are not noticed here.
    """
    path = Path(path)
    with Faults(f"{path} cannot be read", about=path):
        if is_dicom(path):
            from ultraad.io import dicom

            return dicom.metadata(path)["size"]
        return raster.raster_size(path)


def image_turn(path: str | Path) -> int:
    """The EXIF orientation that :func:`read_image` undoes, from the header only: 1 for none, 2 to 8 for others.

    Raises:
        DataError: If the file cannot be opened as an image.
    """
    path = Path(path)
    with Faults(f"{path} cannot be read", about=path):
        return 1 if is_dicom(path) else raster.raster_turn(path)


def image_region(path: str | Path) -> Box | None:
    """The part of a DICOM picture that shows tissue, from its header: the box around its views.

    None if that is the whole picture, the header does not say, or cannot be trusted; also for any other image.

    Raises:
        DataError: If the file cannot be opened as an image.
    """
    path = Path(path)
    with Faults(f"{path} cannot be read", about=path):
        if not is_dicom(path):
            return None
        from ultraad.io import dicom

        return dicom.metadata(path)["region"]


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: ``DICM`` at byte 128, or the suffix of a DICOM file and no other image format.

    Raises:
        DataError: If the file is missing, a folder, unreadable, or empty.
    """
    header = raster.read_header(path)
    named = path.suffix.lower() in {".dcm", ".dicom", ".ima"}
    return header[128:132] == b"DICM" or (named and not raster.is_raster(header))
