"""PNG, JPEG, BMP, TIFF and WebP through Pillow; every fault of a file becomes a DataError.

The first bytes of a file decide its format, never its name. Pillow's format classes are called directly: ``Image.open``
warns about large images, and a library must not change the warning filters or ``Image.MAX_IMAGE_PIXELS`` of its host.
:func:`check_size` refuses large images before any pixel is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ultraad.errors import DataError

MIN_SIDE = 8  # pixels; anything smaller is no ultrasound image
MAX_PIXELS = 64_000_000  # 8000 x 8000: far more than any scanner writes, and still fits a laptop's memory
GREY_DEPTHS = (8, 12, 16)  # bits that ultrasound scanners and exporters write

_BROKEN = (  # what Pillow raises on damaged data
    EOFError,
    Image.DecompressionBombError,
    IndexError,
    KeyError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)

_HEADER_BYTES = 132  # contains the signature of every format here, and DICOM's at byte 128
_ORIENTATION_TAG = 0x0112  # EXIF
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def read_header(path: Path) -> bytes:
    """The first bytes of a file.

    Raises:
        DataError: If the path is missing, a folder, unreadable, or empty.
    """
    with open_file(path) as file:
        return _header(file, path)


def _header(file: BufferedReader, path: Path) -> bytes:
    header = file.read(_HEADER_BYTES)
    if not header:
        msg = f"{path} is empty (0 bytes); copy it again from its source"
        raise DataError(msg)
    return header


@contextmanager
def open_file(path: Path) -> Iterator[BufferedReader]:
    """Open for reading; every error of the file system, now or while reading, becomes a DataError."""
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        msg = f"{path} does not exist; check the path"
        raise DataError(msg) from None
    except IsADirectoryError:
        msg = f"{path} is a folder, wanted an image file; name a file in it"
        raise DataError(msg) from None
    except PermissionError:
        # Windows also says "permission denied" for folders.
        what = "is a folder" if path.is_dir() else "cannot be read: permission denied"
        msg = f"{path} {what}; name a file with read permission"
        raise DataError(msg) from None
    except OSError as e:
        msg = f"{path} cannot be read: {e}"
        raise DataError(msg) from e


def check_size(hw: tuple[int, int], name: object) -> None:
    """Refuse pictures that are too small to be ultrasound or too large to be decoded.

    Args:
        hw: (height, width) in pixels.
        name: What the message calls the picture.

    Raises:
        DataError: If a side is less than MIN_SIDE or the area more than MAX_PIXELS.
    """
    h, w = hw
    if min(h, w) < MIN_SIDE:
        msg = f"{name} is {w} x {h} pixels; at least {MIN_SIDE} x {MIN_SIDE} are needed"
        raise DataError(msg)
    if h * w > MAX_PIXELS:
        msg = (
            f"{name} is {w} x {h} pixels; the limit is {MAX_PIXELS // 10**6} megapixels. Scale it down or crop it first"
        )
        raise DataError(msg)


def is_raster(header: bytes) -> bool:
    """Whether a file with these first bytes has one of the formats read here."""
    return _format_of(header) is not None


def read_raster(path: Path, *, frame: int = 0) -> NDArray[np.uint8]:
    """One picture as 8-bit RGB; see :func:`to_rgb8` for brightness.

    Args:
        path: The file.
        frame: 0-based page of a multi-page TIFF or animated WebP.

    Returns:
        uint8 (h w 3), EXIF orientation applied.

    Raises:
        DataError: If the file is damaged, too small, too large, or has no such frame.
    """
    with open_raster(path, frame=frame) as picture:
        return to_rgb8(picture, name=path)


@contextmanager
def open_raster(path: Path, *, frame: int = 0) -> Iterator[ImageFile]:
    """A decoded, upright Pillow image in the mode of the file.

    Raises:
        DataError: As :func:`read_raster`.
    """
    with _open_undecoded(path) as file:
        frames = int(getattr(file, "n_frames", 1))
        if not 0 <= frame < frames:
            msg = f"{path} has {frames} frame(s), but frame {frame} was requested; frames count from 0"
            raise DataError(msg)
        if frame:
            file.seek(frame)
        check_size((file.height, file.width), path)
        file.load()
        ImageOps.exif_transpose(file, in_place=True)
        yield file


def raster_size(path: Path) -> tuple[int, int]:
    """(height, width) of the upright picture, from the header only."""
    with _open_undecoded(path) as file:
        w, h = file.size
        exif = Image.Image.getexif(file)  # the method of the PNG class would decode the whole picture
        return (w, h) if exif.get(_ORIENTATION_TAG) in _SIDEWAYS else (h, w)


def raster_frames(path: Path) -> int:
    """Pages of a TIFF or frames of a WebP; 1 for everything else."""
    with _open_undecoded(path) as file:
        return int(getattr(file, "n_frames", 1))


def to_rgb8(picture: Image.Image, *, name: object) -> NDArray[np.uint8]:
    """Convert any Pillow mode to 8-bit RGB, independent of the picture's own minimum and maximum.

    - 16-bit grey: the depth is the smallest of 8, 12, 16 bits that can represent the brightest pixel, since scanners
      store 12 bits in 16 and a PNG does not say so; the full range of that depth is scaled to 0..255.
    - 16-bit colour: the upper byte. Float: 0..1 is scaled to 0..255, other values are refused. 1 bit: 0 and 255.
    - Transparency: over black, the background of ultrasound.

    Args:
        picture: A decoded image.
        name: What a message calls the picture.

    Returns:
        uint8 (h w 3).

    Raises:
        DataError: If the pixels have no defined brightness.
    """
    if picture.mode == "F":
        return grey_to_rgb(unit_to_byte(np.asarray(picture), name=name))
    if picture.mode.startswith("I"):
        return grey_to_rgb(scale_grey(np.asarray(picture), name=name))
    if picture.has_transparency_data:
        rgba = np.asarray(picture.convert("RGBA"), dtype=np.uint16)
        over_black = (rgba[..., :3] * rgba[..., 3:] + 127) // 255
        return np.asarray(over_black, dtype=np.uint8)
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"), dtype=np.uint8)


def scale_grey(values: NDArray[Any], *, name: object) -> NDArray[np.uint8]:
    """Integer grey of unknown depth to 8 bits; see :func:`to_rgb8`.

    Raises:
        DataError: If a value is negative or needs more than 16 bits.
    """
    low, high = int(values.min()), int(values.max())
    depth = next((bits for bits in GREY_DEPTHS if high < 2**bits), None)
    if low < 0 or depth is None:
        msg = f"{name} has grey values {low}..{high}, wanted 0..65535. Export it as 8- or 16-bit grey"
        raise DataError(msg)
    return np.asarray(np.rint(values * (255.0 / (2**depth - 1))), dtype=np.uint8)


def unit_to_byte(values: NDArray[Any], *, name: object) -> NDArray[np.uint8]:
    """Float values in 0..1 to 0..255.

    Raises:
        DataError: If a value is outside 0..1 or NaN.
    """
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and high <= 1.0):  # also when NaN
        msg = (
            f"{name} has float pixels in {low:g}..{high:g}, wanted 0..1: only 0..1 has a defined brightness. "
            "Divide by the full scale, or use 8 or 16 bits"
        )
        raise DataError(msg)
    return np.asarray(np.rint(values * 255.0), dtype=np.uint8)


def grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (h w) to (h w 3)."""
    return np.stack([grey] * 3, axis=-1)  # (h w 3); three times as fast as np.repeat


def _format_of(header: bytes) -> type[ImageFile] | None:
    if header.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if header.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if header.startswith(b"BM"):
        return BmpImageFile
    if header.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):  # +: BigTIFF
        return TiffImageFile
    if header.startswith(b"RIFF") and header[8:12] == b"WEBP":
        return WebPImageFile
    return None


@contextmanager
def _open_undecoded(path: Path) -> Iterator[ImageFile]:
    with open_file(path) as stream:
        format_ = _format_of(_header(stream, path))
        if format_ is None:
            msg = f"{path} is not an image: it does not begin like a PNG, JPEG, BMP, TIFF, WebP or DICOM file"
            raise DataError(msg)
        stream.seek(0)
        try:
            yield format_(stream, str(path))
        except _BROKEN as e:
            kind = format_.__name__.removesuffix("ImageFile").upper()
            msg = f"{path} begins like a {kind} file but cannot be decoded: {e}. It may be truncated; copy it again"
            raise DataError(msg) from e
