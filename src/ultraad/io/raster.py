"""PNG, JPEG, BMP, TIFF and WebP through Pillow; every fault of a file becomes a DataError (see faults.py).

The first bytes of a file decide its format, never its name. Pillow's format classes are called directly: ``Image.open``
warns about large images, and a library must not change the warning filters or ``Image.MAX_IMAGE_PIXELS`` of its host.
:func:`check_size` refuses large images before any pixel is decoded.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

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
from ultraad.io.faults import Faults, warn_of

MIN_SIDE = 8  # pixels; anything smaller is no ultrasound image
MAX_PIXELS = 64_000_000  # 8000 x 8000: far more than any scanner writes, and still fits a laptop's memory
MAX_FRAMES = 10_000  # more than five minutes of video; counting and listing them stays fast
GREY_DEPTHS = (8, 10, 12, 14, 16)  # bits that ultrasound scanners and exporters write

_BYTES_PER_FRAME = 40  # of an animated PNG, at least: the control chunk alone takes 38
_HOT_PIXELS = 3  # defective pixels that do not decide about the depth of a picture
_PHOTOMETRIC_TAG, _BITS_TAG = 262, 258  # TIFF 6.0
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
    """Open a regular file for reading; every error of the file system, now or while reading, becomes a DataError."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a pipe or a terminal may wait forever
            msg = f"{path} is not a regular file (a pipe, socket or device); name an image file"
            raise DataError(msg)
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
    except (OSError, ValueError) as e:  # ValueError: a name with a zero byte
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
        frames = _frames(file, path)
        if not 0 <= frame < frames:
            msg = f"{path} has {frames} frame(s), but frame {frame} was requested; frames count from 0"
            raise DataError(msg)
        if frame:
            file.seek(frame)
        check_size((file.height, file.width), path)
        if isinstance(file, PngImageFile) and not frame:
            _check_png(path)
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
        return _frames(file, path)


def _frames(file: ImageFile, path: Path) -> int:
    """Pages or frames, counted without decoding or allocating.

    Raises:
        DataError: If there are more than MAX_FRAMES, or more than the file can hold.
    """
    if isinstance(file, TiffImageFile):
        frames = _count_pages(path)
    else:
        frames = max(1, int(getattr(file, "n_frames", 1)))
        held = path.stat().st_size // _BYTES_PER_FRAME
        if isinstance(file, PngImageFile) and frames > max(1, held):
            msg = f"{path} says that it has {frames} frames, but it is too small for them; export it again"
            raise DataError(msg)
    check_frames(frames, path)
    return frames


def check_frames(frames: int, name: object) -> None:
    """Refuse files with more than MAX_FRAMES frames.

    Raises:
        DataError: If there are more.
    """
    if frames > MAX_FRAMES:
        many = f"at least {frames}" if frames == MAX_FRAMES + 1 else f"{frames}"
        msg = f"{name} has {many} frames; the limit is {MAX_FRAMES}. Split the file, or check its header"
        raise DataError(msg)


def _count_pages(path: Path) -> int:
    """Pages of a TIFF, from the chain of its directories; stops at MAX_FRAMES + 1, and where the chain is broken."""
    with open_file(path) as stream:
        header = stream.read(16)
        order: Literal["little", "big"] = "little" if header[:2] == b"II" else "big"
        big = 43 in (header[2], header[3])  # BigTIFF
        count_bytes, entry_bytes, offset_bytes = (8, 20, 8) if big else (2, 12, 4)
        offset = int.from_bytes(header[8:16] if big else header[4:8], order)
        seen: set[int] = set()
        while offset and offset not in seen and len(seen) <= MAX_FRAMES:
            stream.seek(offset)
            entries = stream.read(count_bytes)
            stream.seek(int.from_bytes(entries, order) * entry_bytes, os.SEEK_CUR)
            after = stream.read(offset_bytes)
            if len(after) < offset_bytes:
                warn_of(path, f"the list of pages is cut off; {max(1, len(seen))} page(s) are read")
                break
            seen.add(offset)
            offset = int.from_bytes(after, order)
    return max(1, len(seen))


def _check_png(path: Path) -> None:
    """Compare the checksums of the chunks that hold pixels, which Pillow does not do; it checks the other chunks."""
    with open_file(path) as stream:
        stream.seek(8)
        while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
            length = int.from_bytes(head[:4], "big")
            if head[4:] not in (b"IDAT", b"fdAT", b"PLTE"):
                stream.seek(length + 4, os.SEEK_CUR)
                continue
            data, check = stream.read(length), stream.read(4)
            if len(data) < length or len(check) < 4:
                return
            if zlib.crc32(data, zlib.crc32(head[4:])) != int.from_bytes(check, "big"):
                msg = f"the checksum of its {head[4:].decode('ascii')} chunk is wrong"
                raise ValueError(msg)


def to_rgb8(picture: Image.Image, *, name: object) -> NDArray[np.uint8]:
    """Convert any Pillow mode to 8-bit RGB, independent of the picture's own minimum and maximum.

    - 16-bit grey: see :func:`scale_grey`.
    - 16-bit colour: the upper byte. Float: 0..1 is scaled to 0..255, other values are refused. 1 bit: 0 and 255.
    - White-is-zero TIFF of any depth: inverted.
    - Transparency: over black, the background of ultrasound.

    Args:
        picture: A decoded image.
        name: What a message calls the picture.

    Returns:
        uint8 (h w 3).

    Raises:
        DataError: If the pixels have no defined brightness.
    """
    white_is_zero = isinstance(picture, _TiffFile) and picture.white_is_zero
    if picture.mode == "F":
        grey = unit_to_byte(np.asarray(picture), name=name)
        return grey_to_rgb(255 - grey if white_is_zero else grey)
    if picture.mode.startswith("I"):
        return grey_to_rgb(scale_grey(np.asarray(picture), name=name, white_is_zero=white_is_zero))
    if picture.has_transparency_data:
        rgba = np.asarray(picture.convert("RGBA"), dtype=np.uint16)
        over_black = (rgba[..., :3] * rgba[..., 3:] + 127) // 255
        return np.asarray(over_black, dtype=np.uint8)
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"), dtype=np.uint8)


def scale_grey(values: NDArray[Any], *, name: object, white_is_zero: bool = False) -> NDArray[np.uint8]:
    """Integer grey of unknown depth to 8 bits.

    Scanners store 10, 12 or 14 bits in 16, and most formats do not say so. The depth is the smallest of
    :data:`GREY_DEPTHS` that can represent the brightest pixel; its full range is scaled to 0..255. Up to three
    defective pixels, each more than twice as bright as all others, do not count. A depth below 16 bits is a warning.

    Args:
        values: Integers (h w).
        name: What a message calls the picture.
        white_is_zero: Whether 0 is the brightest value.

    Raises:
        DataError: If a value is negative or needs more than 16 bits.
    """
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 2**16:
        msg = f"{name} has grey values {low}..{high}, wanted 0..65535. Export it as 8- or 16-bit grey"
        raise DataError(msg)
    if white_is_zero and high >= 2**15:  # counted down from 65535; else from the top of its own depth
        return scale_grey(2**16 - 1 - values.astype(np.int64), name=name)
    depth = grey_depth(values)
    note_depth(depth, name, said=16)
    grey = np.asarray(np.rint(np.minimum(values * (255.0 / (2**depth - 1)), 255.0)), dtype=np.uint8)
    return 255 - grey if white_is_zero else grey


_depths: dict[int, object] = {}  # each depth found in 16 bits, with the first file of it


def note_depth(depth: int, name: object, *, said: int) -> None:
    """Warn if pixels use fewer bits than their file says, and if files of different depth are read in one process."""
    if depth < said:
        text = f"its {said}-bit pixels use {depth} bits, and are scaled as such"
        warn_of(name, text, kind=f"depth {depth} of {said}")
    _depths.setdefault(depth, name)
    if len(_depths) > 1:
        first = ", ".join(f"{bits} bits in {file}" for bits, file in sorted(_depths.items()))
        text = f"pictures use different depths ({first}), so that equal values differ in brightness; check the export"
        warn_of(name, text, kind=f"{len(_depths)} depths")


def grey_depth(values: NDArray[Any]) -> int:
    """The smallest of :data:`GREY_DEPTHS` for values in 0..65535, without defective pixels; see :func:`scale_grey`."""
    high = int(values.max())
    if high >= 2 ** GREY_DEPTHS[0] and values.size > _HOT_PIXELS:
        rest = int(np.partition(values, -_HOT_PIXELS - 1, axis=None)[-_HOT_PIXELS - 1])
        brightest = values[values > 2 * max(rest, 1)]
        if brightest.size and rest:
            high = max(rest, int(values[values <= 2 * rest].max()))
    return next((bits for bits in GREY_DEPTHS if high < 2**bits), 16)


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


class _TiffFile(TiffImageFile):
    """A TIFF whose pixels of more than 8 bits are given as stored, with the fact that 0 is white kept aside.

    Pillow inverts white-is-zero pixels of up to 8 bits only, and refuses some deeper ones.
    """

    white_is_zero = False

    def _setup(self) -> None:
        bits = self.tag_v2.get(_BITS_TAG, (1,))
        self.white_is_zero = self.tag_v2.get(_PHOTOMETRIC_TAG) == 0 and bits[0] > 8
        if self.white_is_zero:
            self.tag_v2[_PHOTOMETRIC_TAG] = 1
        super()._setup()


def _format_of(header: bytes) -> type[ImageFile] | None:
    if header.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if header.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if header.startswith(b"BM"):
        return BmpImageFile
    if header.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):  # +: BigTIFF
        return _TiffFile
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
        what = f"{path} begins like a {format_.format} file but cannot be decoded"
        with Faults(what, about=path, advice="It may be truncated; copy it again"):
            if format_ is WebPImageFile:
                _check_canvas(stream, path)
            yield format_(stream, str(path))


def _check_canvas(stream: BufferedReader, path: Path) -> None:
    """Refuse a WebP with a canvas that is too large before the decoder allocates it."""
    header = stream.read(30)
    stream.seek(0)
    if header[12:16] == b"VP8X":
        w, h = (1 + int.from_bytes(header[at : at + 3], "little") for at in (24, 27))
        check_size((h, w), path)
