"""PNG, JPEG, BMP, TIFF and WebP through Pillow; every fault of a file becomes a DataError (see faults.py).

The first bytes of a file decide its format, never its name. Pillow's format classes are called directly: ``Image.open``
warns about large images, and a library must not change the warning filters or ``Image.MAX_IMAGE_PIXELS`` of its host.
:func:`check_size` refuses large images before any pixel is decoded.
"""

from __future__ import annotations

import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ultraad.errors import DataError
from ultraad.io.brightness import deep_to_rgb8, grey_depth, parts_of, stored_grey, to_rgb8
from ultraad.io.containers import container_of
from ultraad.io.faults import Faults, warn_of
from ultraad.io.libtiff import TiffFile, quiet_libtiff
from ultraad.io.png import SIGNATURE
from ultraad.io.png_reader import MOST_BYTES, read_plain

MIN_SIDE = 8  # pixels; anything smaller is no ultrasound image
MAX_PIXELS = 64_000_000  # 8000 x 8000: far more than any scanner writes, and still fits a laptop's memory
MAX_FRAMES = 10_000  # more than five minutes of video; counting and listing them stays fast

_MOST_WEBP = 48_000_000  # pixels, so that decoding stays below 1 GB
_MOST_CANVAS = 16_000_000  # pixels of a moving picture, likewise
_MOST_MOVING = 256_000_000  # pixels of all its frames, so that the last one takes some five seconds
_BYTES_PER_FRAME = 40  # of an animated PNG, at least: the control chunk alone takes 38
_HEADER_BYTES = 400  # contains the signature of every format here, DICOM's at byte 128, and two packets of a video
_ORIENTATION_TAG = 0x0112  # EXIF
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


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


def read_raster(path: Path, *, frame: int = 0, depth: Callable[[], int]) -> NDArray[np.uint8]:
    """One picture as 8-bit RGB; see :func:`to_rgb8` for brightness.

    Args:
        path: The file.
        frame: 0-based page of a multi-page TIFF or animated WebP.
        depth: Gives the bits that the set of this picture uses; asked only for pictures of 16 bits.

    Returns:
        uint8 (h w 3), EXIF orientation applied.

    Raises:
        DataError: If the file is damaged, too small, too large, or has no such frame.
    """
    if (plain := _plain(path) if frame == 0 else None) is not None:
        check_size((plain.shape[0], plain.shape[1]), path)
        return plain
    with _open_frame(path, frame) as file:
        colour = _is_deep_colour(file)
        least = depth() if colour or file.mode.startswith("I") else 0  # decodes others, so before this one is in memory
        _load(file)
        if colour:
            return deep_to_rgb8(_both_bytes(file, path, frame), name=path, least_depth=least)
        return to_rgb8(file, name=path, least_depth=least)


def _plain(path: Path) -> NDArray[np.uint8] | None:
    """The picture of a plain PNG file (:mod:`ultraad.io.png_reader`); None for any other."""
    with open_file(path) as file:
        return read_plain(file.read(MOST_BYTES)) if file.peek(8).startswith(SIGNATURE) else None


def raster_depth(path: Path, *, frame: int = 0) -> int:
    """The bits that a picture of 16 bits uses, see :func:`grey_depth`; 0 for one of 8 bits.

    Raises:
        DataError: As :func:`read_raster`.
    """
    with _open_frame(path, frame) as file:
        colour = _is_deep_colour(file)
        if not colour and not file.mode.startswith("I"):
            return 0
        _load(file)
        values = _both_bytes(file, path, frame)[..., :3] if colour else stored_grey(file)
        return grey_depth(values)


def _is_deep_colour(file: ImageFile) -> bool:
    """Whether an undecoded picture has colours of 16 bits, of which Pillow gives the upper byte."""
    return file.mode in {"RGB", "RGBA"} and bool(file.tile) and all(";16" in _raw_mode(t.args) for t in file.tile)


def _raw_mode(args: Any) -> str:  # noqa: ANN401 - a mode, or a tuple that begins with it
    return str(args[0] if isinstance(args, tuple) and args else args)


def _both_bytes(upper: ImageFile, path: Path, frame: int) -> NDArray[np.uint16]:
    """All 16 bits of a decoded colour picture, which is closed: in the other byte order, Pillow gives the lower one."""
    swapped = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    values = np.empty((upper.height, upper.width, len(upper.getbands())), dtype=np.uint16)
    for rows, part in _rows_of(upper):
        values[rows] = part
        values[rows] <<= 8
    upper.close()  # two decoded pictures and the values would be too much
    with _open_frame(path, frame) as lower:
        for i, tile in enumerate(lower.tile):
            mode = _raw_mode(tile.args)
            other = mode[:-1] + swapped[mode[-1]]
            lower.tile[i] = tile._replace(args=(other, *tile.args[1:]) if isinstance(tile.args, tuple) else other)
        _load(lower)
        for rows, part in _rows_of(lower):
            values[rows] |= part
    return values


def _rows_of(picture: Image.Image) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """Some rows of a colour picture at a time, uint8 (h w c)."""
    for rows in parts_of((picture.height, picture.width, len(picture.getbands()))):
        yield rows, np.asarray(picture.crop((0, rows.start, picture.width, min(rows.stop, picture.height))))


@contextmanager
def open_raster(path: Path, *, frame: int = 0) -> Iterator[ImageFile]:
    """A decoded, upright Pillow image in the mode of the file.

    Raises:
        DataError: As :func:`read_raster`.
    """
    with _open_frame(path, frame) as file:
        _load(file)
        yield file


@contextmanager
def _open_frame(path: Path, frame: int) -> Iterator[ImageFile]:
    """One frame before it is decoded, its size and checksums checked."""
    with _open_undecoded(path) as file:
        frames = _frames(file, path)
        if not 0 <= frame < frames:
            msg = f"{path} has {frames} frame(s), but frame {frame} was requested; frames count from 0"
            raise DataError(msg)
        if frame:
            file.seek(frame)
        check_size((file.height, file.width), path)
        if isinstance(file, PngImageFile) and file.fp is not None and not frame:
            _check_png(file.fp)
        yield file


def _load(file: ImageFile) -> None:
    file.load()
    ImageOps.exif_transpose(file, in_place=True)


def raster_size(path: Path) -> tuple[int, int]:
    """(height, width) of the upright picture, from the header only."""
    with _open_undecoded(path) as file:
        w, h = file.size
        return (w, h) if _turn_of(file) in SIDEWAYS else (h, w)


def raster_turn(path: Path) -> int:
    """The EXIF orientation, from the header only: 1 for an upright picture, 2 to 8 for others."""
    with _open_undecoded(path) as file:
        return _turn_of(file)


def _turn_of(file: ImageFile) -> int:
    found = Image.Image.getexif(file).get(_ORIENTATION_TAG)  # the method of the PNG class would decode the picture
    return next((turn for turn in range(1, 9) if turn == found), 1)


def raster_frames(path: Path) -> int:
    """Pages of a TIFF or frames of a WebP; 1 for everything else, also for a GIF."""
    with _open_undecoded(path) as file:
        return _frames(file, path)


def _frames(file: ImageFile, path: Path) -> int:
    """Pages or frames, counted without decoding or allocating.

    Raises:
        DataError: If there are more than MAX_FRAMES, or more than the file can hold.
    """
    if isinstance(file, GifImageFile):
        return 1  # the first frame is the picture
    if isinstance(file, TiffImageFile) and file.fp is not None:
        frames = _count_pages(file.fp, path)
    else:
        frames = max(1, int(getattr(file, "n_frames", 1)))
        held = path.stat().st_size // _BYTES_PER_FRAME
        if isinstance(file, PngImageFile) and frames > max(1, held):
            msg = f"{path} says that it has {frames} frames, but it is too small for them; export it again"
            raise DataError(msg)
    check_frames(frames, path)
    if isinstance(file, (WebPImageFile, PngImageFile)):
        _check_canvases(file, frames, path)
    return frames


def _check_canvases(file: ImageFile, frames: int, path: Path) -> None:
    """Refuse a WebP or a moving PNG that takes too much memory or time.

    Their frames are drawn one over the other: the last one costs as much as all. The decoder of WebP keeps four copies
    of a picture.

    Raises:
        DataError: If it is too large.
    """
    pixels, size = file.width * file.height, f"{file.width} x {file.height} pixels"
    if frames > 1:
        what = f"{frames} frames of {size}, each drawn over the one before"
        most = _MOST_CANVAS if pixels > _MOST_CANVAS else _MOST_MOVING // frames
    else:
        what, most = f"a picture of {size}", _MOST_WEBP if isinstance(file, WebPImageFile) else MAX_PIXELS
    if pixels > most:
        msg = f"{path} holds {what}; the limit is {most / 1e6:.3g} megapixels each. Split it, or export PNG instead"
        raise DataError(msg)


def check_frames(frames: int, name: object) -> None:
    """Refuse files with more than MAX_FRAMES frames.

    Raises:
        DataError: If there are more.
    """
    if frames > MAX_FRAMES:
        many = f"at least {frames}" if frames == MAX_FRAMES + 1 else f"{frames}"
        msg = f"{name} has {many} frames; the limit is {MAX_FRAMES}. Split the file, or check its header"
        raise DataError(msg)


def _count_pages(stream: IO[bytes], path: Path) -> int:
    """Pages of a TIFF, from the chain of its directories; stops at MAX_FRAMES + 1, and where the chain is broken."""
    before = stream.tell()
    stream.seek(0)
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
    stream.seek(before)
    return max(1, len(seen))


def _check_png(stream: IO[bytes]) -> None:
    """Compare the checksums of the chunks that hold pixels, which Pillow does not do; it checks the other chunks."""
    before = stream.tell()
    stream.seek(8)
    while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
        length = int.from_bytes(head[:4], "big")
        if head[4:] not in (b"IDAT", b"fdAT", b"PLTE"):
            stream.seek(length + 4, os.SEEK_CUR)
            continue
        data, check = stream.read(length), stream.read(4)
        if len(data) < length or len(check) < 4:
            break
        if zlib.crc32(data, zlib.crc32(head[4:])) != int.from_bytes(check, "big"):
            msg = f"the checksum of its {head[4:].decode('ascii')} chunk is wrong"
            raise ValueError(msg)
    stream.seek(before)


def _format_of(header: bytes) -> type[ImageFile] | None:
    if header.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if header.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if header.startswith(b"BM"):
        return BmpImageFile
    if header.startswith((b"GIF87a", b"GIF89a")):
        return GifImageFile
    if header.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):  # +: BigTIFF
        return TiffFile
    if header.startswith(b"RIFF") and header[8:12] == b"WEBP":
        return WebPImageFile
    return None


@contextmanager
def _open_undecoded(path: Path) -> Iterator[ImageFile]:
    with open_file(path) as stream:
        header = _header(stream, path)
        format_ = _format_of(header)
        if format_ is None and (kind := container_of(header)) is not None:
            msg = f"{path} is a video ({kind}), wanted an image; 'ultraad predict' takes it under a name like clip.mp4"
            raise DataError(msg)
        if format_ is None:
            msg = f"{path} is not an image: it does not begin like a PNG, JPEG, BMP, TIFF, WebP or DICOM file"
            raise DataError(msg)
        stream.seek(0)
        what = f"{path} begins like a {format_.format} file but cannot be decoded"
        with Faults(what, about=path, advice="It may be truncated; copy it again"):
            if format_ is WebPImageFile:
                _check_canvas(stream, path)
            with quiet_libtiff if format_ is TiffFile else nullcontext():
                yield format_(stream, str(path))


def _check_canvas(stream: BufferedReader, path: Path) -> None:
    """Refuse a WebP with a canvas that is too large before the decoder allocates it."""
    header = stream.read(30)
    stream.seek(0)
    if header[12:16] == b"VP8X":
        w, h = (1 + int.from_bytes(header[at : at + 3], "little") for at in (24, 27))
        check_size((h, w), path)
