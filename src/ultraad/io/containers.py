"""Video files by their first bytes, and what OpenCV does not tell about them."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from ultraad.errors import DataError

MP4 = "MP4"
"""MP4, MOV and 3GP."""
COUNTED = "AVI"
"""The container whose header says how many frames are shown; of others, an editor may have left some out."""

_NO_VIDEO = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis", b"crx ", b"M4A ", b"M4B ", b"jp2 ")
"""Brands of the container of MP4 that are pictures or sound."""
_MOV_ATOMS = (b"moov", b"mdat", b"wide", b"pnot")
_HEADERS = 16 << 20  # bytes of the index that are searched
_TKHD = re.compile(rb"tkhd(?:\x00.{3}.{36}|\x01.{3}.{48})(.{20})", re.DOTALL)  # ISO 14496-12, 8.3.2: up to the matrix
_STARTS = (
    (b"\x1aE\xdf\xa3", "Matroska or WebM"),
    (b"0&\xb2u\x8ef\xcf\x11", "WMV"),
    (b"\x00\x00\x01\xba", "MPEG"),
    (b"\x00\x00\x01\xb3", "MPEG"),
    (b"FLV\x01", "FLV"),
)


def container_of(header: bytes) -> str | None:
    """What kind of video begins with these bytes (at least 400, or the whole file); None if it is none."""
    if header[4:8] == b"ftyp":
        return None if header[8:12] in _NO_VIDEO else MP4
    if header[4:8] in _MOV_ATOMS:
        return MP4
    if header.startswith(b"RIFF") and header[8:12] == b"AVI ":
        return COUNTED
    for at, packet in ((0, 188), (4, 192)):  # packets of a transport stream
        if len(header) > 2 * packet and all(header[at + i * packet] == 0x47 for i in range(2)):
            return "MPEG transport stream"
    if header.startswith(b"OggS") and b"\x80theora" in header:
        return "Ogg"
    return next((kind for start, kind in _STARTS if header.startswith(start)), None)


def is_mirrored(path: Path) -> bool:
    """Whether a track of an MP4 or MOV file is to be mirrored; OpenCV takes this for a turn.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            while len(head := file.read(8)) == 8:
                size, kind = int.from_bytes(head[:4], "big"), head[4:]
                size, head_size = (int.from_bytes(file.read(8), "big"), 16) if size == 1 else (size, 8)
                if kind == b"moov":
                    matrices = (
                        struct.unpack(">5i", m) for m in _TKHD.findall(file.read(min(size or _HEADERS, _HEADERS)))
                    )
                    return any(a * d < b * c for a, b, _, c, d in matrices)
                if size < head_size:
                    break  # the last one, or damaged
                file.seek(size - head_size, 1)
    except OSError as e:
        msg = f"{path} cannot be read: {e}"
        raise DataError(msg) from e
    return False
