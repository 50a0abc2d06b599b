"""The encodings of the extra dicom-codecs: each gives the pixels that were encoded, or the command that installs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import MPEG2MPHL, UID, JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless

from tests.io.test_dicom import COLOUR_BARS, SHIPPED, H, W, make, save, ybr_to_rgb
from tests.robustness.mutations import attack, damaged_bytes
from tests.robustness.test_dicom import READERS
from tests.robustness.test_images import fails_at_once, only_ours
from ultraad.errors import DataError
from ultraad.io import count_frames, dicom, dicom_codecs, read_image
from ultraad.io.dicom_frames import coded_size

imagecodecs = pytest.importorskip("imagecodecs")

JPEGXLLossless, JPEGXLRecompression, JPEGXL = (UID(f"1.2.840.10008.1.2.4.11{n}") for n in range(3))


def jpeg(pixels: np.ndarray, **options) -> bytes:
    return imagecodecs.jpeg8_encode(pixels, **options)


def lossless_jpeg(pixels: np.ndarray) -> bytes:
    return jpeg(pixels, lossless=True, bitspersample=16 if pixels.dtype == np.uint16 else 8)


def jpeg_ls(pixels: np.ndarray) -> bytes:
    return imagecodecs.jpegls_encode(pixels)


def jpeg_xl(pixels: np.ndarray) -> bytes:
    return imagecodecs.jpegxl_encode(pixels, lossless=True)


LOSSLESS = {JPEGLosslessSV1: lossless_jpeg, JPEGLSLossless: jpeg_ls, JPEGXLLossless: jpeg_xl}


def write(path: Path, pixels: np.ndarray, codes: list[bytes], syntax: UID, photometric: str, **tags) -> Path:
    """A file of compressed frames; pydicom refuses to write what it does not know, so JPEG XL is named afterwards."""
    known = syntax if syntax.is_transfer_syntax else MPEG2MPHL
    ds = make(pixels, photometric, syntax=known, **tags)
    ds.PixelData = encapsulate(codes)
    ds["PixelData"].is_undefined_length = True
    whole = save(path, ds).read_bytes()
    path.write_bytes(whole.replace(known.encode().ljust(24, b"\0"), syntax.encode().ljust(24, b"\0"), 1))
    return path


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "a.dcm"


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_a_lossless_cine_has_the_pixels_that_were_encoded(path, rgb, syntax):
    for cine, photometric in (
        (np.stack([rgb, 255 - rgb, rgb // 2]), "RGB"),
        (np.stack([rgb[..., 0]] * 2), "MONOCHROME2"),
    ):
        write(path, cine, [LOSSLESS[syntax](frame) for frame in cine], syntax, photometric)
        assert count_frames(path) == len(cine)
        for number, frame in enumerate(cine):
            np.testing.assert_array_equal(
                read_image(path, frame=number), frame if frame.ndim == 3 else np.dstack([frame] * 3)
            )


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_twelve_bits_and_signed_pixels(path, rgb, syntax):
    grey = rgb[..., 0]
    deep = grey.astype(np.uint16) * 16
    write(path, deep, [LOSSLESS[syntax](deep)], syntax, "MONOCHROME2", bits=12)
    np.testing.assert_array_equal(read_image(path)[..., 0], np.rint(deep * (255 / 4095)).astype(np.uint8))
    signed = grey.astype(np.int16) * 16 - 2048
    stored = (signed & 0xFFF).astype(np.uint16)
    write(path, signed, [LOSSLESS[syntax](stored)], syntax, "MONOCHROME2", bits=12)
    np.testing.assert_array_equal(read_image(path)[..., 0], np.rint(deep * (255 / 4095)).astype(np.uint8))


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_ybr_pixels_become_rgb(path, rgb, syntax):
    write(path, rgb, [LOSSLESS[syntax](rgb)], syntax, "YBR_FULL")
    assert np.abs(read_image(path) - ybr_to_rgb(rgb)).max() <= 1


def test_twelve_bit_jpeg(path):
    y, x = np.mgrid[:H, :W]
    smooth = (40 * x + 50 * y).astype(np.uint16)
    write(path, smooth, [jpeg(smooth, level=98, bitspersample=12)], JPEGExtended12Bit, "MONOCHROME2", bits=12)
    assert np.abs(read_image(path)[..., 0] - smooth * (255 / 4095)).max() <= 2


def test_a_jpeg_recompressed_as_jpeg_xl_is_the_jpeg(path):
    flat = np.full((H, W, 3), (220, 60, 20), dtype=np.uint8)
    code = imagecodecs.jpegxl_encode_jpeg(jpeg(flat, level=95))
    write(path, flat, [code], JPEGXLRecompression, "YBR_FULL_422")
    assert np.abs(read_image(path).astype(int) - flat).max() <= 3
    assert dicom.metadata(path)["transfer_syntax"] == "JPEG XL JPEG Recompression"


@pytest.mark.parametrize("name", ["SC_rgb_jls_lossy_line", "SC_rgb_jls_lossy_sample", "SC_rgb_jpeg_gdcm"])
def test_shipped_colour_bars(name):
    rows = read_image(SHIPPED / f"{name}.dcm").astype(int)[5::10]
    assert np.abs(rows - COLOUR_BARS[::10, None]).max() <= 5


def test_shipped_jpeg_ls_is_the_uncompressed_picture():
    np.testing.assert_array_equal(
        read_image(SHIPPED / "MR_small_jpeg_ls_lossless.dcm"), read_image(SHIPPED / "MR_small.dcm")
    )


def test_a_real_cine_in_jpeg_ls_is_the_same_in_rle(real_data):
    for frame in (0, 9):
        np.testing.assert_array_equal(
            read_image(real_data / "dicom" / "jpegls_palette.dcm", frame=frame),
            read_image(real_data / "dicom" / "pal8_10frames.dcm", frame=frame),
        )


def test_the_real_files_in_ten_encodings_are_read(real_data):
    frames = {path.name: count_frames(path) for path in sorted((real_data / "dicom").glob("*.dcm"))}
    assert (len(frames), sum(frames.values())) == (10, 29)
    for name, count in frames.items():
        for frame in {0, count - 1}:
            assert read_image(real_data / "dicom" / name, frame=frame).max() > 200


@pytest.mark.parametrize("syntax", [*LOSSLESS, JPEGExtended12Bit, JPEGXL])
def test_without_the_extra_the_message_is_the_command(path, rgb, syntax, monkeypatch):
    deep = rgb[..., 0].astype(np.uint16)
    write(path, deep, [jpeg_ls(deep)], syntax, "MONOCHROME2", bits=12)
    monkeypatch.setattr(dicom_codecs, "installed", lambda: False)
    if syntax == JPEGLSLossless:
        monkeypatch.delitem(get_decoder(syntax)._available, "pyjpegls", raising=False)  # of the extra dicom
    with pytest.raises(DataError, match=r"cannot be decoded here; pip install 'ultraad\[dicom-codecs\]'") as caught:
        read_image(path)
    assert (dicom_codecs.name_of(syntax) or syntax.name) in str(caught.value)


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_a_frame_that_is_cut_off_is_an_error(path, rgb, syntax):
    code = LOSSLESS[syntax](rgb)
    for kept in (len(code) // 2, len(code) - 20):
        write(path, rgb, [code[:kept]], syntax, "RGB")
        fails_at_once(read_image, path, "pixel data")


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_a_frame_of_another_size_or_kind_is_an_error(path, rgb, syntax):
    for other in (rgb[:10], np.tile(rgb, (3, 3, 1)), rgb[..., 0]):
        write(path, rgb, [LOSSLESS[syntax](np.ascontiguousarray(other // 8))], syntax, "RGB")
        with pytest.raises(DataError, match="pixel data"):
            read_image(path)


@pytest.mark.parametrize("size", [(8, 8), (9, 17), (240, 320), (256, 256), (430, 600), (100, 200), (90, 160)])
def test_the_size_is_known_before_decoding(size):
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    codes = [*(encode(pixels) for encode in LOSSLESS.values()), imagecodecs.jpegxl_encode(pixels, usecontainer=False)]
    assert [coded_size(code) for code in codes] == [size] * len(codes)


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_mutated_frames(path, rgb, syntax, capfd, record):
    whole = write(path, rgb, [LOSSLESS[syntax](rgb)], syntax, "RGB").read_bytes()
    tally = attack(path, READERS, range(60), damage=damaged_bytes, whole=whole, wanted=DataError)
    tally.check(record)
    assert tally.read
    assert tally.refused
    assert only_ours("".join(capfd.readouterr()))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_many_mutated_frames(path, rgb, syntax, capfd, record):
    whole = write(path, rgb, [LOSSLESS[syntax](rgb)], syntax, "RGB").read_bytes()
    attack(path, READERS, range(1000, 2500), damage=damaged_bytes, whole=whole, wanted=DataError).check(record)
    assert only_ours("".join(capfd.readouterr()))
