"""Every raster kind against the array it was made from; every bad file against its message."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ultraad.errors import DataError
from ultraad.io import count_frames, image_size, read_image
from ultraad.io.raster import MAX_PIXELS

H, W = 24, 37


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)


def save(path: Path, array: np.ndarray | Image.Image, **options) -> Path:
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.tiff", "ä b (1).png", "PNG.PNG"])
def test_lossless_colour(tmp_path, rgb, name):
    path = save(tmp_path / name, rgb)
    got = read_image(path)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, rgb)
    assert image_size(path) == (H, W)
    assert count_frames(str(path)) == 1


def test_lossless_webp(tmp_path, rgb):
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.webp", rgb, lossless=True)), rgb)


def test_jpeg_and_cmyk_jpeg(tmp_path):
    flat = np.full((H, W, 3), (200, 100, 50), dtype=np.uint8)
    for mode in ("RGB", "CMYK"):
        path = save(tmp_path / f"{mode}.jpg", Image.fromarray(flat).convert(mode), quality=95)
        assert np.abs(read_image(path).astype(int) - flat).max() <= 3


def test_grey_palette_and_one_bit(tmp_path, rgb):
    grey = rgb[..., 0]
    np.testing.assert_array_equal(read_image(save(tmp_path / "l.png", grey)), np.dstack([grey] * 3))
    indexed = Image.fromarray(rgb).quantize(16)
    np.testing.assert_array_equal(read_image(save(tmp_path / "p.png", indexed)), np.asarray(indexed.convert("RGB")))
    bits = grey > 127
    np.testing.assert_array_equal(read_image(save(tmp_path / "1.png", bits)), np.dstack([bits * np.uint8(255)] * 3))


def test_alpha_is_blended_over_black(tmp_path):
    rgba = np.zeros((H, W, 4), dtype=np.uint8)
    rgba[...] = (200, 100, 50, 255)
    rgba[:, :10, 3] = 0
    rgba[:, 10:20, 3] = 128
    got = read_image(save(tmp_path / "a.png", rgba))
    assert got[0, 0].tolist() == [0, 0, 0]
    assert got[0, 12].tolist() == [100, 50, 25]
    assert got[0, -1].tolist() == [200, 100, 50]
    opaque = Image.new("L", (W, H), 255)
    opaque.putpixel((0, 0), 0)
    got = read_image(save(tmp_path / "la.png", Image.merge("LA", [Image.new("L", (W, H), 90), opaque])))
    assert got[0, 0, 0] == 0
    assert (got[1:] == 90).all()


def test_palette_with_transparent_entries(tmp_path):
    indexed = Image.fromarray(np.tile(np.uint8([0, 1]), (H, W // 2))).convert("P")
    indexed.putpalette([250, 0, 0, 0, 250, 0])
    got = read_image(save(tmp_path / "p.png", indexed, transparency=bytes([0, 255])))
    assert got[0, 0].tolist() == [0, 0, 0]
    assert got[0, 1].tolist() == [0, 250, 0]


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(
    ("top", "full"),
    [
        *[(65535, 65535), (16384, 65535), (16383, 16383), (4096, 16383), (4095, 4095), (3000, 4095), (1023, 1023)],
        *[(256, 1023), (255, 255), (0, 255)],
    ],
)
def test_sixteen_bit_uses_the_depth_not_the_maximum(tmp_path, suffix, top, full):
    grey = np.linspace(0, top, H * W).round().astype(np.uint16).reshape(H, W)
    got = read_image(save(tmp_path / f"a.{suffix}", grey))
    np.testing.assert_array_equal(got[..., 1], np.rint(grey.astype(np.float64) / full * 255))


def test_sixteen_bit_colour_is_scaled(tmp_path):
    cv2 = pytest.importorskip("cv2")
    deep = np.random.default_rng(1).integers(0, 65536, (H, W, 3), dtype=np.uint16)
    for suffix in ("png", "tif"):
        path = tmp_path / f"deep.{suffix}"
        assert cv2.imwrite(str(path), deep[..., ::-1])
        np.testing.assert_array_equal(read_image(path), np.rint(deep * (255 / 65535)).astype(np.uint8))


def test_float_tiff(tmp_path):
    unit = np.linspace(0, 1, H * W, dtype=np.float32).reshape(H, W)
    got = read_image(save(tmp_path / "f.tif", unit))
    np.testing.assert_array_equal(got[..., 0], np.rint(unit * 255))
    for bad in (unit * 255, unit - 0.5, np.where(unit > 0.5, np.nan, unit)):
        with pytest.raises(DataError, match=r"only 0\.\.1 has a defined brightness"):
            read_image(save(tmp_path / "bad.tif", bad.astype(np.float32)))


def test_wide_integers_are_refused(tmp_path):
    with pytest.raises(DataError, match="8- or 16-bit grey"):
        read_image(save(tmp_path / "i.tif", np.full((H, W), 70000, np.int32)))
    with pytest.raises(DataError, match=r"-5\.\.-5"):
        read_image(save(tmp_path / "n.tif", np.full((H, W), -5, np.int32)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, rgb, orientation):
    # What the eight values mean: how stored (row, col) becomes shown
    upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", rgb, exif=exif)
    wanted = upright[orientation](rgb)
    np.testing.assert_array_equal(read_image(path), wanted)
    assert image_size(path) == wanted.shape[:2]


def test_pages_of_a_tiff(tmp_path):
    pages = [Image.fromarray(np.full((H, W), 40 * i, np.uint8)) for i in range(3)]
    path = save(tmp_path / "pages.tif", pages[0], save_all=True, append_images=pages[1:])
    assert count_frames(path) == 3
    assert [int(read_image(path, frame=i)[0, 0, 0]) for i in range(3)] == [0, 40, 80]
    for frame in (3, -1):
        with pytest.raises(DataError, match=rf"3 frame\(s\), but frame {frame} was requested"):
            read_image(path, frame=frame)


def test_the_content_decides_the_format_not_the_name(tmp_path, rgb):
    for name in ("png-named.jpg", "png-named.dcm", "no-suffix"):
        path = tmp_path / name
        Image.fromarray(rgb).save(path, format="PNG")
        np.testing.assert_array_equal(read_image(path), rgb)


def png_header(width: int, height: int) -> bytes:
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = b"IDAT" + zlib.compress(b"")
    chunks = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (ihdr, idat))
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("side", [8001, 10_000, 20_000])
def test_huge_images_are_refused_by_header_without_pillow_warnings(tmp_path, side):
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(side, side))
    assert side * side > MAX_PIXELS
    with pytest.raises(DataError, match="limit is 64 megapixels"):  # a warning would be an error of another type
        read_image(path)
    assert image_size(path) == (side, side)


def test_size_is_read_without_decoding(tmp_path, rgb):
    whole = save(tmp_path / "a.png", rgb).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert image_size(tmp_path / "cut.png") == (H, W)


def test_small_images_are_refused(tmp_path):
    assert read_image(save(tmp_path / "8.png", np.zeros((8, 8), np.uint8))).shape == (8, 8, 3)
    for hw in ((1, 1), (7, 100), (100, 7)):
        with pytest.raises(DataError, match=f"{hw[1]} x {hw[0]} pixels; at least 8 x 8"):
            read_image(save(tmp_path / "small.png", np.zeros(hw, np.uint8)))


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_truncated_files(tmp_path, rgb, suffix):
    whole = save(tmp_path / f"whole.{suffix}", rgb).read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    for keep in (20, len(whole) // 2):
        cut.write_bytes(whole[:keep])
        with pytest.raises(DataError, match="cannot be decoded"):
            read_image(cut)


def test_files_that_are_not_images(tmp_path):
    cases = {
        "empty.png": (b"", "is empty"),
        "text.png": (b"patient,label\n1,benign\n", "is not an image"),
        "x.gif": (b"GIF89a" + b"\0" * 200, "begins like a GIF file but cannot be decoded"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        for function in (read_image, image_size, count_frames):
            with pytest.raises(DataError, match=message):
                function(tmp_path / name)
    with pytest.raises(DataError, match="does not exist"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(DataError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), "permission denied"),
        (OSError(5, "Input/output error"), "Input/output error"),
    ],
)
def test_unreadable_files(tmp_path, rgb, monkeypatch, error, message):
    path = save(tmp_path / "a.png", rgb)

    def refuse(self, *args, **kwargs) -> io.BytesIO:
        raise error

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=message):
        read_image(path)
