"""Raster files as they really are: damaged, hostile or odd, each is read right or fails alone, at once and by name."""

from __future__ import annotations

import io
import logging
import os
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.robustness.mutations import attack, damaged_bytes
from ultraad.errors import DataError
from ultraad.io import count_frames, image_size, raster, read_image, read_mask
from ultraad.io.faults import in_this_run, one_run
from ultraad.io.find import no_picture
from ultraad.io.names import is_two_valued

H, W = 24, 37


@pytest.fixture
def grey() -> np.ndarray:
    picture = np.random.default_rng(0).integers(0, 256, (H, W), dtype=np.uint8)
    picture[0, :2] = 0, 255
    return picture


def encoded(format_: str, *, deep: bool = False, frames: int = 1, **options) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (frames, H, W, 3), dtype=np.uint8)
    first, *rest = (Image.fromarray(p[..., 0].astype(np.uint16) * 16 if deep else p) for p in pixels)
    more = {"save_all": True, "append_images": rest} if rest else {}
    first.save(buffer, format_, **more, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff(values: np.ndarray, *, photometric: int, order: str = "<") -> bytes:
    """An uncompressed grey TIFF of one strip."""
    h, w = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags = [(256, w), (257, h), (258, 8 * values.itemsize), (259, 1), (262, photometric)]
    tags += [(273, 8), (277, 1), (278, h), (279, len(data))]
    if values.dtype.kind == "f":
        tags.append((339, 3))
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    return start + data + struct.pack(f"{order}H", len(tags)) + entries + b"\0" * 4


def fails_at_once(function: Callable[[Path], object], path: Path, match: str) -> None:
    started = time.process_time()
    with pytest.raises(DataError, match=match) as caught:
        function(path)
    assert time.process_time() - started < 1.0
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- any fault is a DataError of this file --------------------------------------------------------------------------

FORMATS = {
    "png": encoded("PNG"),
    "jpg": encoded("JPEG"),
    "bmp": encoded("BMP"),
    "tif": encoded("TIFF"),
    "lzw.tif": encoded("TIFF", compression="tiff_lzw"),
    "webp": encoded("WEBP"),
    "gif": encoded("GIF", frames=3),
    "deep.png": encoded("PNG", deep=True),
    "deep.tif": encoded("TIFF", deep=True, compression="tiff_adobe_deflate"),
    "jpeg.tif": encoded("TIFF", compression="jpeg"),
    "pages.tif": encoded("TIFF", frames=3, compression="packbits"),
    "moving.png": encoded("PNG", frames=3),
    "moving.webp": encoded("WEBP", frames=3),
}
READERS = (
    read_image,
    image_size,
    count_frames,
    no_picture,
    is_two_valued,
    lambda path: read_mask([path], shape=(H, W)),
    lambda path: read_image(path, frame=1),
)
PART = 1500  # cases of one test under -m slow


def only_ours(printed: str) -> bool:
    """Whether a screen shows nothing but our warnings, which are on it after a test of the commands."""
    return all(line.startswith("warning: ") for line in printed.splitlines())


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_mutated_pictures(tmp_path, suffix, capfd, record):
    tally = attack(
        tmp_path / f"a.{suffix}", READERS, range(80), damage=damaged_bytes, whole=FORMATS[suffix], wanted=DataError
    )
    tally.check(record)
    assert tally.read
    assert tally.refused
    assert only_ours("".join(capfd.readouterr()))


@pytest.mark.parametrize(
    ("format_", "frames", "name", "limit"),
    [
        *((f, 2, "_MOST_CANVAS", "0.001") for f in ("WEBP", "PNG")),
        *((f, 20, "_MOST_MOVING", "5e-05") for f in ("WEBP", "PNG")),
        ("WEBP", 1, "_MOST_WEBP", "0.001"),
    ],
)
def test_moving_pictures_that_take_too_long_are_refused_before_they_are_decoded(
    tmp_path, format_, frames, name, limit, monkeypatch
):
    monkeypatch.setattr(raster, name, 1000)
    size = (40, 30)
    path = tmp_path / "a"
    pages = [Image.new("L", size, grey) for grey in range(frames)]
    pages[0].save(path, format_, save_all=frames > 1, append_images=pages[1:], lossless=True)
    monkeypatch.setattr(raster, "_load", lambda _: pytest.fail("decoded"))
    readers = (read_image, count_frames, lambda p: read_image(p, frame=frames - 1))
    for read in readers:
        fails_at_once(read, path, f"the limit is {limit} megapixels")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_many_mutated_pictures(tmp_path, suffix, part, capfd, record):
    seeds = range(1000 + PART * part, 1000 + PART * (part + 1))
    path = tmp_path / f"a.{suffix}"
    attack(path, READERS, seeds, damage=damaged_bytes, whole=FORMATS[suffix], wanted=DataError).check(record)
    assert only_ours("".join(capfd.readouterr()))


@pytest.mark.parametrize("error", [zlib.error("bad"), ZeroDivisionError(), MemoryError(), RecursionError("deep")])
def test_any_exception_names_the_file(tmp_path, monkeypatch, error):
    path = tmp_path / "a.png"
    path.write_bytes(FORMATS["deep.png"])  # not one that the fast reader takes

    def broken(*_, **__) -> None:
        raise error

    monkeypatch.setattr(raster, "to_rgb8", broken)
    fails_at_once(read_image, path, "cannot be decoded")
    monkeypatch.setattr(raster, "read_raster", broken)
    fails_at_once(read_image, path, "cannot be read")


@pytest.mark.parametrize("wrong", [np.zeros((H, W), np.uint8), np.zeros((H, W, 3)), np.zeros((2, 2, 3), np.uint8)])
def test_the_result_of_every_reader_is_checked(tmp_path, monkeypatch, wrong):
    path = tmp_path / "a.png"
    path.write_bytes(FORMATS["png"])
    monkeypatch.setattr(raster, "read_raster", lambda *_, **__: wrong)
    with pytest.raises(DataError, match=r"wanted uint8 \(h, w, 3\)|at least 8 x 8"):
        read_image(path)


def test_a_wrong_checksum_of_the_pixels_is_an_error(tmp_path):
    at = FORMATS["png"].index(b"IDAT") - 4
    length = int.from_bytes(FORMATS["png"][at : at + 4], "big")
    damaged = bytearray(FORMATS["png"])
    damaged[at + 8 + length] ^= 1
    path = tmp_path / "a.png"
    path.write_bytes(damaged)
    fails_at_once(read_image, path, "checksum of its IDAT chunk is wrong")


# ---- work is bounded before it is done ------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [read_image, count_frames, image_size, lambda p: read_mask([p], shape=(H, W))])
def test_only_regular_files_are_opened(tmp_path, function):
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    fails_at_once(function, path, "not a regular file")


def test_dangling_links_and_names_that_no_file_can_have(tmp_path):
    link = tmp_path / "a.png"
    link.symlink_to(tmp_path / "nowhere.png")
    fails_at_once(read_image, link, "does not exist")
    with pytest.raises(DataError, match="cannot be read"):
        read_image("a\0b.png")
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    fails_at_once(read_image, loop, "cannot be read")


@pytest.mark.parametrize("frames", [1000, 20_000, 999_999_999])
def test_an_animated_png_that_is_too_small_for_its_frames(tmp_path, frames):
    end_of_header = 8 + 25
    whole = FORMATS["png"]
    path = tmp_path / "a.png"
    path.write_bytes(whole[:end_of_header] + chunk(b"acTL", struct.pack(">II", frames, 0)) + whole[end_of_header:])
    fails_at_once(count_frames, path, "too small|cannot be decoded|limit is")


def test_a_tiff_of_thirty_thousand_pages(tmp_path):
    page = struct.pack("<H", 9) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 8), (279, 64)]
    )
    starts = [8 + 64 + k * (len(page) + 4) for k in range(30_000)]
    pages = b"".join(page + struct.pack("<I", after) for after in [*starts[1:], 0])
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", starts[0]) + b"\x40" * 64 + pages)
    for function in (count_frames, read_image):
        fails_at_once(function, path, "limit is 10000")


def test_the_pages_of_a_tiff_in_a_circle_end(tmp_path):
    whole = bytearray(FORMATS["tif"])
    start = int.from_bytes(whole[4:8], "little")
    entries = int.from_bytes(whole[start : start + 2], "little")
    whole[start + 2 + 12 * entries :][:4] = b""
    whole[start + 2 + 12 * entries : start + 6 + 12 * entries] = start.to_bytes(4, "little")
    path = tmp_path / "a.tif"
    path.write_bytes(whole)
    assert count_frames(path) == 1


def test_a_huge_webp_canvas_is_refused_before_it_is_allocated(tmp_path):
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + (16382).to_bytes(3, "little") * 2
    path = tmp_path / "a.webp"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    tracemalloc.start()
    fails_at_once(read_image, path, "64 megapixels")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


# ---- brightness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_the_depth_of_sixteen_bit_pictures(tmp_path, grey, bits, suffix, caplog):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(grey.astype(np.uint16) << (bits - 8)).save(path)
    with caplog.at_level(logging.WARNING):
        got = read_image(path)[..., 0]
    assert np.abs(got.astype(int) - grey).max() <= 1
    assert f"use {bits} bits" in caplog.text


def test_a_dark_picture_has_the_depth_of_its_set(tmp_path, grey):
    for name, picture in (("bright", grey), ("dark", grey // 8)):
        Image.fromarray(picture.astype(np.uint16) * 16).save(tmp_path / f"{name}.png")
    assert np.abs(read_image(tmp_path / "dark.png")[..., 0].astype(int) - grey // 8).max() <= 1


def test_a_hot_pixel_does_not_darken_the_picture(tmp_path, grey):
    deep = grey.astype(np.uint16) * 16
    deep[5, 5] = 65535
    Image.fromarray(deep).save(tmp_path / "a.png")
    got = read_image(tmp_path / "a.png")[..., 0]
    assert got[5, 5] == 255
    got[5, 5] = grey[5, 5]
    assert np.abs(got.astype(int) - grey).max() <= 1


def test_two_depths_in_one_set_are_a_warning(tmp_path, grey, caplog):
    with one_run():
        for bits in (12, 16):
            path = tmp_path / f"{bits}" / "a.png"
            path.parent.mkdir()
            Image.fromarray(grey.astype(np.uint16) << (bits - 8)).save(path)
            read_image(path)
    assert "different depths (12 bits in" in caplog.text


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_white_is_zero_at_every_depth(tmp_path, grey, kind, order):
    top = {"u1": 255, "u2": 65535, "f4": 1.0}[kind]
    values = (grey.astype(np.float64) * top / 255).astype(kind)
    for photometric, stored in ((1, values), (0, (top - values).astype(kind))):
        path = tmp_path / f"{photometric}.tif"
        path.write_bytes(tiff(stored, photometric=photometric, order=order))
        np.testing.assert_array_equal(read_image(path)[..., 0], grey)


@pytest.mark.parametrize("top", [4095, 65535])
def test_white_is_zero_with_twelve_of_sixteen_bits(tmp_path, grey, top):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff((top - grey.astype(np.int64) * 16).astype(np.uint16), photometric=0))
    assert np.abs(read_image(path)[..., 0].astype(int) - grey).max() <= 1


# ---- warnings -------------------------------------------------------------------------------------------------------


def test_warnings_of_pillow_become_one_line_of_ours(tmp_path, caplog, recwarn):
    path = tmp_path / "a.tif"
    whole = FORMATS["tif"]
    start = int.from_bytes(whole[4:8], "little")
    entries = int.from_bytes(whole[start : start + 2], "little")
    odd = struct.pack("<HHII", 65000, 7, 1000, 2**31)  # a private tag beyond the end of the file
    directory = struct.pack("<H", entries + 1) + whole[start + 2 : start + 2 + 12 * entries] + odd + b"\0" * 4
    path.write_bytes(whole[:4] + len(whole).to_bytes(4, "little") + whole[8:] + directory)
    with one_run():
        for _ in range(3):
            assert read_image(path).shape == (H, W, 3)
    assert len(caplog.records) == 1
    assert caplog.records[0].name == "ultraad.io.faults"
    assert str(path) in caplog.text
    assert not recwarn.list


def test_every_run_is_told_once_whatever_an_earlier_run_said(tmp_path, grey, caplog):
    first, second = (tmp_path / f"{n}.png" for n in "ab")
    for path in (first, second):
        Image.fromarray(grey.astype(np.uint16) * 16).save(path)

    @one_run()
    def run() -> None:
        with ThreadPoolExecutor(1) as pool:
            for path in (first, second):
                pool.submit(in_this_run(read_image), path).result()
                read_image(path)

    for _ in range(2):
        run()
    assert [record.args[0] for record in caplog.records] == [first, str(second)] * 2, "at its end, of the other files"
    caplog.clear()
    read_image(first)
    read_image(first)
    assert len(caplog.records) == 2, "a call outside of a run is a run of its own"
