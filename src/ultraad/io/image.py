"""Images of any kind, recognised by their content: DICOM, or PNG, JPEG, BMP, TIFF, WebP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ultraad.errors import DataError
from ultraad.io import raster
from ultraad.io.faults import Faults


def read_image(path: str | Path, *, frame: int = 0) -> NDArray[np.uint8]:
    """One frame of an image file as 8-bit RGB.

    See :func:`ultraad.io.brightness.to_rgb8` and :func:`ultraad.io.dicom.read_frame` for pixels of more than 8 bits.

    Args:
        path: Any supported file. The format is recognised by the content; the suffix matters only for a DICOM file
            without preamble.
        frame: 0-based frame of a multi-frame DICOM, TIFF or WebP; only this frame is decoded.

    Returns:
        uint8 (h w 3), red green blue, upright.

    Raises:
        DataError: If the file is missing, a folder, unreadable, empty, damaged, not an image, smaller than 8 pixels on
            a side, larger than 64 megapixels, or has no such frame.
    """
    path = Path(path)
    with Faults(f"{path} cannot be read", about=path):
        if is_dicom(path):
            from ultraad.io import dicom

            pixels = dicom.read_frame(path, frame=frame)
        else:
            pixels = raster.read_raster(path, frame=frame)
        return _checked(pixels, path)


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


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: ``DICM`` at byte 128, or the suffix of a DICOM file and no other image format.

    Raises:
        DataError: If the file is missing, a folder, unreadable, or empty.
    """
    header = raster.read_header(path)
    named = path.suffix.lower() in {".dcm", ".dicom", ".ima"}
    return header[128:132] == b"DICM" or (named and not raster.is_raster(header))
