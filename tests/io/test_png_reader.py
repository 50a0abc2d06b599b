"""The fast reader of plain PNG files gives Pillow's pixels, and leaves everything else to Pillow."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ultraad.io.png import SIGNATURE, chunk
from ultraad.io.png_reader import read_plain

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
TEXT = PngInfo()
TEXT.add_text("a", "b")  # of some kinds, Pillow takes the turn of a picture
STREAM = zlib.compress(bytes(4 * (1 + 3 * 3)))  # of 3 x 4 black pixels


def saved(image: np.ndarray, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).convert(mode).save(stream, "png", **options)
    return stream.getvalue()


def file_of(stream: bytes, *, before: bytes = b"", width: int = 3, height: int = 4) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + before + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


def test_colour_and_grey_have_the_pixels_of_pillow():
    smooth = np.add.outer(np.arange(300), np.arange(500)).astype(np.uint8)
    for image in (PICTURE, PICTURE[:1], np.dstack([smooth, smooth.T[:300, :1] + smooth, smooth // 2])):
        assert np.array_equal(read_plain(saved(image)), image)
        grey = np.asarray(Image.fromarray(image).convert("L"))
        assert np.array_equal(read_plain(saved(image, "L", dpi=(72, 72))), np.dstack([grey] * 3))


@pytest.mark.parametrize("kind", range(5))
def test_every_filter_of_the_format(kind):
    rows = np.random.default_rng(kind).integers(0, 256, (4, 10), dtype=np.uint8)
    rows[:, 0] = kind
    content = file_of(zlib.compress(rows.tobytes()))
    assert np.array_equal(read_plain(content), np.asarray(Image.open(io.BytesIO(content))))


def test_rows_in_many_chunks_and_more_than_one_stored_block():
    image = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    content = saved(image)
    assert content.count(b"IDAT") > 1
    assert np.array_equal(read_plain(content), image)


@pytest.mark.parametrize(
    "content",
    [
        saved(PICTURE, "P"),
        saved(PICTURE, "RGBA"),
        saved(PICTURE, "1"),
        saved(PICTURE, transparency=(1, 2, 3)),
        saved(PICTURE, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
        saved(PICTURE[..., 0].astype(np.uint16), "I;16"),
        saved(PICTURE, pnginfo=TEXT),
        b"\xff\xd8\xff" + saved(PICTURE)[3:],
    ],
)
def test_what_is_not_plain_is_left_to_pillow(content):
    assert read_plain(content) is None


def test_one_wrong_bit_anywhere_is_left_to_pillow():
    content = file_of(STREAM, before=chunk(b"gAMA", bytes(4)))
    assert read_plain(content).shape == (4, 3, 3)
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1
        assert read_plain(bytes(damaged)) is None, at
        assert read_plain(content[:at]) is None, at


@pytest.mark.parametrize(
    "stream",
    [
        zlib.compress(bytes(39)),  # a byte is missing
        zlib.compress(bytes(10**7)),  # far more than the picture
        zlib.compress(b"\5" + bytes(39)),  # no such filter
        STREAM[:-1] + b"x",  # wrong checksum of deflate
        STREAM[:-4],
        b"",
    ],
)
def test_rows_that_are_not_those_of_the_header_are_left_to_pillow(stream):
    assert read_plain(file_of(stream)) is None
