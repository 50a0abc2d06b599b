"""How many frames a DICOM file really holds, where they are, and how large a compressed one is; bytes only."""

from __future__ import annotations

import zlib
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from ultraad.errors import DataError
from ultraad.io.raster import MAX_FRAMES, MAX_PIXELS

_UNDEFINED = 0xFFFFFFFF  # length of encapsulated pixel data, PS3.5 A.4
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"UN")  # whose length has 4 bytes after 2 reserved ones, PS3.5 7.1.2
_MAX_INFLATED = 4 * MAX_PIXELS  # bytes
_CHUNK = 1 << 20
_PICTURE_STARTS = (  # JPEG, JPEG 2000, JP2, JPEG XL bare and in boxes
    *(b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP", b"\xff\x0a", b"\0\0\0\x0cJX"),
)
_JPEG_LS_FRAME = 0xF7  # marker of the frame header, ISO 14495-1 C.1.1


class Fragments(NamedTuple):
    """Encapsulated pixel data.

    Attributes:
        table: Entries of the basic offset table.
        starts: Positions of the fragments' items in the file.
        lengths: Their lengths in bytes.
        pictures: How many of them begin like a JPEG or JPEG 2000 picture.
        ended: Whether the end of the sequence was reached.
    """

    table: int
    starts: list[int]
    lengths: list[int]
    pictures: int
    ended: bool


def pixel_bytes(file: BufferedReader, size: int, *, little: bool) -> int | None:
    """Bytes of native pixel data in the file.

    Args:
        file: Positioned at the element; afterwards at its value.
        size: Of the file in bytes.
        little: Byte order.

    Returns:
        None if the pixel data are encapsulated; 0 if there are none.
    """
    head = file.read(8)
    if head[4:6] in _LONG_VRS:
        head = file.read(4)
    length = int.from_bytes(head[-4:], "little" if little else "big")
    return None if length == _UNDEFINED else max(0, min(length, size - file.tell()))


def fragments(file: BufferedReader, size: int, *, at_most: int) -> Fragments:
    """Walk over the items of encapsulated pixel data without reading them.

    Args:
        file: Positioned at the basic offset table.
        size: Of the file in bytes.
        at_most: Stop after this many fragments.
    """
    starts: list[int] = []
    lengths: list[int] = []
    table = pictures = 0
    first, ended = True, False
    while len(starts) < at_most:
        start = file.tell()
        head = file.read(8)
        if len(head) < 8 or head[:4] != _ITEM:
            ended = head[:4] == _END
            break
        length = int.from_bytes(head[4:], "little")
        if first:
            table, first = length // 4, False
        else:
            starts.append(start)
            lengths.append(length)
            pictures += file.read(min(length, 6)).startswith(_PICTURE_STARTS)
        if start + 8 + length > size:
            break
        file.seek(start + 8 + length)
    return Fragments(table, starts, lengths, pictures, ended)


def check_inflated(file: BufferedReader, start: int, path: Path) -> int:
    """Inflate deflated DICOM without keeping it, and stop at the limit.

    Returns:
        Number of inflated bytes.

    Raises:
        DataError: If they exceed the limit.
    """
    file.seek(start)
    inflate, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    data = file.read(_CHUNK)
    while data:
        total += len(inflate.decompress(data, _CHUNK))
        if total > _MAX_INFLATED:
            msg = f"{path} inflates to more than {_MAX_INFLATED // 10**6} MB; export it uncompressed"
            raise DataError(msg)
        data = inflate.unconsumed_tail or (b"" if inflate.eof else file.read(_CHUNK))
    return total


def plausible(declared: int, held: int, path: Path) -> tuple[int, str | None]:
    """The number of frames to read, and a remark if it is not the declared one.

    Args:
        declared: NumberOfFrames; 0 if the element is missing.
        held: Complete frames in the file.
        path: For messages.

    Raises:
        DataError: If the declared number is beyond every limit, or no frame is held.
    """
    frames = declared or held
    if frames > MAX_FRAMES:
        msg = f"{path} says that it has {frames} frames; the limit is {MAX_FRAMES}. Split it, or correct its header"
        raise DataError(msg)
    if declared == 0:
        return max(1, held), (f"NumberOfFrames is missing; the file holds {held} frames" if held > 1 else None)
    if 0 < held < declared:
        return held, f"it says {declared} frames but holds {held}, which are read; copy or export it again"
    return declared, None


def check_coded(code: bytes, hw: tuple[int, int], *, pixel_bits: int | None) -> None:
    """Refuse a compressed frame that is larger than its header says, before a codec allocates it.

    Args:
        code: The frame.
        hw: (height, width) in the header.
        pixel_bits: Of one decoded pixel if the frame is run-length encoded, which adds less than 1 %; else None.

    Raises:
        ValueError: If it is larger.
    """
    coded = coded_size(code)
    h, w = hw
    if coded is not None and (coded[0] * coded[1] > MAX_PIXELS or coded[0] > h or coded[1] > w):
        msg = f"the compressed picture is {coded[1]} x {coded[0]} pixels, but the header says {w} x {h}"
        raise ValueError(msg)
    if pixel_bits is not None and len(code) > (most := 2 * h * w * pixel_bits // 8 + 4096):
        msg = f"the compressed picture has {len(code)} bytes, but {w} x {h} pixels need less than {most}"
        raise ValueError(msg)


def coded_size(code: bytes) -> tuple[int, int] | None:
    """(height, width) that a JPEG, JPEG-LS, JPEG 2000 or JPEG XL picture states in itself; None if not found."""
    at = code.find(b"\xff\x4f\xff\x51", 0, 4096)
    if at >= 0 and len(code) >= at + 24:  # SIZ marker: ISO 15444-1 A.5.1
        right, bottom, left, top = (int.from_bytes(code[at + k : at + k + 4], "big") for k in (8, 12, 16, 20))
        return bottom - top, right - left
    if code.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return _jpeg_xl_size(code)
    at = 2
    while code[:2] == b"\xff\xd8" and at + 9 <= len(code) and code[at] == 0xFF:
        marker = code[at + 1]
        if (
            0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        ) or marker == _JPEG_LS_FRAME:  # ITU-T T.81 B.2.2
            return int.from_bytes(code[at + 5 : at + 7], "big"), int.from_bytes(code[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(code[at + 2 : at + 4], "big") if marker != 0xFF else 1
    return None


def _jpeg_xl_size(code: bytes) -> tuple[int, int] | None:
    """The SizeHeader of a codestream, ISO 18181-1 D.2, bare or in a file with boxes."""
    at = code.find(b"\xff\x0a", 0, 4096)
    if at < 0:
        return None
    bits, used = int.from_bytes(code[at + 2 : at + 18], "little"), 0

    def take(count: int) -> int:
        nonlocal used
        used += count
        return (bits >> (used - count)) & ((1 << count) - 1)

    def side() -> int:
        return 8 * (1 + take(5)) if small else 1 + take((9, 13, 18, 30)[take(2)])

    small = take(1)
    height = side()
    ratio = take(3)
    up, down = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio]
    return height, height * up // down if ratio else side()
