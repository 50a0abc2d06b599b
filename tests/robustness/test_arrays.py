"""Pictures in memory: every form of one picture gives the same bits, and what is no picture is refused by name."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import picture, save, write_dicom
from ultraad.data.loader import read_any
from ultraad.errors import ConfigError, DataError
from ultraad.io import read_image
from ultraad.io.arrays import as_rgb8
from ultraad.io.overlay import overlay
from ultraad.model.adapt import zero_shot
from ultraad.model.model import Model
from ultraad.types import Sample

RGB = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
GREY = np.ascontiguousarray(RGB[..., 0])
GREY3 = np.stack([GREY] * 3, axis=-1)
OPAQUE = np.full(GREY.shape, 255, np.uint8)


@pytest.fixture(scope="module")
def model() -> Model:
    return zero_shot(backbone="tiny")


COLOUR: dict[str, Any] = {
    "float64": RGB / 255,
    "float32": (RGB / 255).astype(np.float32),
    "float16": (RGB / 255).astype(np.float16),
    "big-endian float": (RGB / 255).astype(">f4"),
    "fortran order": np.asfortranarray(RGB),
    "negative strides": np.ascontiguousarray(RGB[::-1, ::-1])[::-1, ::-1],
    "every second column": np.repeat(RGB, 2, axis=1)[:, ::2],
    "opaque alpha": np.dstack([RGB, OPAQUE]),
    "opaque float alpha": np.dstack([RGB / 255, OPAQUE / 255]),
    "16 bits": RGB.astype(np.uint16) * 257,
    "16 bits, opaque alpha": np.dstack([RGB, OPAQUE]).astype(np.uint16) * 257,
    "int64": RGB.astype(np.int64),
    "tensor (h w 3)": torch.tensor(RGB),
    "tensor (3 h w)": torch.tensor(RGB).permute(2, 0, 1),
    "contiguous tensor (3 h w)": torch.tensor(RGB).permute(2, 0, 1).contiguous(),
    "float tensor (3 h w)": torch.tensor(RGB).permute(2, 0, 1) / 255,
    "tensor (4 h w)": torch.tensor(np.dstack([RGB, OPAQUE])).permute(2, 0, 1),
    "tensor with a gradient": (torch.tensor(RGB) / 255).requires_grad_(),
    "Pillow RGB": Image.fromarray(RGB),
    "Pillow RGBA": Image.fromarray(RGB).convert("RGBA"),
}
MONOCHROME: dict[str, Any] = {
    "(h w)": GREY,
    "(h w 1)": GREY[..., None],
    "(h w 3)": GREY3,
    "blue first": GREY3[..., ::-1],
    "float": GREY / 255,
    "float (h w 1)": GREY[..., None] / 255,
    "uint16": GREY.astype(np.uint16) * 257,
    "big-endian uint16": (GREY.astype(np.uint16) * 257).astype(">u2"),
    "read-only": np.frombuffer(GREY.tobytes(), np.uint8).reshape(GREY.shape),
    "memory view": memoryview(GREY),
    "tensor (h w)": torch.tensor(GREY),
    "tensor (1 h w)": torch.tensor(GREY)[None],
    "uint16 tensor (1 h w)": torch.tensor(GREY.astype(np.uint16) * 257)[None],
    "Pillow L": Image.fromarray(GREY),
    "Pillow LA": Image.fromarray(GREY).convert("LA"),
    "Pillow I": Image.fromarray(GREY.astype(np.int32)),
    "Pillow I;16": Image.fromarray(GREY.astype(np.uint16) * 257),
    "Pillow I;16B": Image.frombytes("I;16B", GREY.shape[::-1], (GREY.astype(">u2") * 257).tobytes()),
    "Pillow F": Image.fromarray((GREY / 255).astype(np.float32)),
    "Pillow P": Image.fromarray(GREY).convert("P"),
}


@pytest.mark.parametrize("form", COLOUR)
def test_every_form_of_a_colour_picture_gives_the_same_bits(form: str) -> None:
    np.testing.assert_array_equal(as_rgb8(COLOUR[form]), RGB)


@pytest.mark.parametrize("form", MONOCHROME)
def test_every_form_of_a_grey_picture_gives_the_same_bits(form: str) -> None:
    found = as_rgb8(MONOCHROME[form])
    assert (found.dtype, found.shape) == (np.uint8, (*GREY.shape, 3))
    np.testing.assert_array_equal(found, GREY3)


def test_bfloat16_is_as_near_as_its_eight_bits_allow() -> None:
    found = as_rgb8(torch.tensor(GREY / 255, dtype=torch.bfloat16)).astype(int)
    assert np.abs(found - GREY3).max() <= 1


@pytest.mark.parametrize("kind", ["png", "jpg", "16 bits", "transparent", "palette", "dicom"])
def test_the_bytes_of_a_file_are_read_like_the_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if kind == "dicom":
        write_dicom(path, frames=3)
    elif kind == "16 bits":
        Image.fromarray(GREY.astype(np.uint16) * 16).save(path, format="PNG")
    elif kind == "transparent":
        Image.fromarray(np.dstack([RGB, GREY])).save(path, format="PNG")
    elif kind == "palette":
        Image.fromarray(RGB).quantize(8).save(path, format="PNG")
    else:
        Image.fromarray(RGB).save(path, format={"png": "PNG", "jpg": "JPEG"}[kind])
    frame = 2 if kind == "dicom" else 0
    wanted = read_image(path, frame=frame)
    at_its_end = io.BytesIO(path.read_bytes())
    at_its_end.seek(0, io.SEEK_END)  # where writing leaves it
    with path.open("rb") as file:
        forms: list[Any] = [path, str(path), path.read_bytes(), bytearray(path.read_bytes()), at_its_end, file]
        for form in forms:
            np.testing.assert_array_equal(read_any(form, frame=frame)[0], wanted)
    if kind != "dicom":
        with Image.open(path, formats=["PNG", "JPEG"]) as opened:
            np.testing.assert_array_equal(read_any(opened)[0], wanted)


def test_a_pillow_image_is_turned_by_its_exif_like_its_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        found = as_rgb8(opened)
        assert opened.size == (40, 24), "the caller's picture is not changed"
    np.testing.assert_array_equal(found, np.rot90(RGB, -1))
    np.testing.assert_array_equal(found, read_image(tmp_path / "turned.png"))


@pytest.mark.parametrize(
    "mode",
    [
        *("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "LA", "PA", "RGBX", "RGBa"),
        *("I;16", "I;16L", "I;16B", "I;16N"),
    ],
)
def test_every_mode_of_pillow_is_read_or_named(mode: str) -> None:
    found = as_rgb8(Image.new(mode, (16, 16)))
    assert (found.dtype, found.shape) == (np.uint8, (16, 16, 3))
    with pytest.raises(DataError, match=r"the picture \(16 x 16, mode La\) cannot be converted to RGB"):
        as_rgb8(Image.new("La", (16, 16)))


def test_alpha_lies_over_black_as_in_files(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, GREY])
    Image.fromarray(rgba).save(tmp_path / "x.png")
    wanted = read_image(tmp_path / "x.png")
    for form in (rgba, rgba.astype(np.uint16) * 257, torch.tensor(rgba), torch.tensor(rgba).permute(2, 0, 1)):
        np.testing.assert_array_equal(as_rgb8(form), wanted)
    with pytest.raises(DataError, match=r"fully transparent.*give x\[\.\.\., :3\]"):
        as_rgb8(np.dstack([RGB, np.zeros_like(GREY)]))


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_the_depth_is_that_of_the_pixels_unless_it_is_given(bits: int) -> None:
    top = 2**bits - 1
    bright = np.linspace(0, top, 24 * 40).astype(np.uint16).reshape(24, 40)
    wanted = np.rint(bright * (255 / top)).astype(np.uint8)
    np.testing.assert_array_equal(as_rgb8(bright)[..., 0], wanted)
    np.testing.assert_array_equal(as_rgb8(bright, depth=bits)[..., 0], wanted)
    np.testing.assert_array_equal(as_rgb8(bright[..., None].repeat(3, -1), depth=bits)[..., 2], wanted)
    dark = bright // 8  # of the same camera: one frame cannot know
    assert as_rgb8(dark).max() > 100
    assert as_rgb8(dark, depth=bits).max() == round(top // 8 * 255 / top)
    with pytest.raises(DataError, match=rf"has values 0\.\.{top}, wanted 0\.\.{top // 2}, as {bits - 1} bits hold"):
        as_rgb8(bright, depth=bits - 1)


@pytest.mark.parametrize("depth", [0, 7, 17, -12, 12.5])
def test_a_depth_that_no_camera_has_is_refused(depth: Any) -> None:
    with pytest.raises(ConfigError, match="wanted a whole number of bits, 8 to 16"):
        as_rgb8(GREY.astype(np.uint16), depth=depth)


REFUSED: dict[str, tuple[Any, str]] = {
    "a mask": (np.zeros((24, 40), bool), r"array \(24, 40\) bool is a mask; wanted .*astype\(numpy\.uint8\) \* 255"),
    "a mask as a tensor": (torch.zeros(24, 40, dtype=torch.bool), r"\(24, 40\) bool is a mask"),
    "one row": (np.zeros(40, np.uint8), r"array \(40,\) uint8 is no picture; wanted \(h, w\)"),
    "a number": (np.uint8(3), r"array \(\) uint8 is no picture"),
    "two channels": (np.zeros((24, 40, 2), np.uint8), r"\(24, 40, 2\) uint8 is no picture"),
    "channels first": (np.zeros((3, 24, 40), np.uint8), r"\(3, 24, 40\) uint8.*channels come first: numpy\.moveaxis"),
    "several frames": (np.zeros((7, 24, 40, 3), np.uint8), r"looks like 7 pictures; give them one by one"),
    "a batch": (torch.zeros(1, 3, 24, 40), r"\(1, 3, 24, 40\) float32.*1 pictures"),
    "nothing": (np.zeros((0, 40), np.uint8), r"\(0, 40\) uint8 is empty"),
    "no channels": (np.zeros((24, 40, 0)), r"\(24, 40, 0\) float64 is empty"),
    "too small": (np.zeros((7, 40), np.uint8), r"\(7, 40\) uint8 is 40 x 7 pixels; at least 8 x 8"),
    "too large": (np.broadcast_to(np.uint8(0), (9000, 9000)), "the limit is 64 megapixels"),
    "floats to 255": (np.full((24, 40), 255.0), r"float64 has float pixels in 255\.\.255, wanted 0\.\.1.*Divide by"),
    "negative floats": (np.full((24, 40), -0.5, np.float32), r"float32 has float pixels in -0\.5\.\.-0\.5"),
    "NaN": (np.where(np.eye(24, 40) > 0, np.nan, 0.5), r"\(24, 40\) float64 has 24 values that are NaN or infinite"),
    "infinity": (np.full((24, 40), np.inf), "960 values that are NaN or infinite"),
    "NaN in alpha": (np.dstack([RGB / 255, np.full(GREY.shape, np.nan)]), "960 values that are NaN or infinite"),
    "objects": (np.full((24, 40), None), r"\(24, 40\) object holds no plain numbers"),
    "complex numbers": (np.zeros((24, 40), complex), "complex128 holds no plain numbers"),
    "texts": (np.full((24, 40), "x"), "<U1 holds no plain numbers"),
    "dates": (np.zeros((24, 40), "M8[s]"), "holds no plain numbers"),
    "a record": (np.zeros((24, 40), [("r", "u1"), ("g", "u1")]), "holds no plain numbers"),
    "a masked array": (np.ma.masked_less(GREY, 5), r"\(24, 40\) uint8 is a masked array.*x\.filled\(0\)"),
    "negative integers": (np.full((24, 40), -1, np.int16), r"int16 has values -1\.\.-1, wanted 0\.\.65535"),
    "more than 16 bits": (np.full((24, 40), 2**16, np.uint32), r"uint32 has values 65536\.\.65536"),
    "None": (None, r"got NoneType, wanted one picture: .*imread"),
    "a list": ([RGB, RGB], "got list, wanted one picture"),
    "rows of different lengths": ([[1, 2], [3]], "got list, wanted one picture"),
    "a tuple": ((RGB, 0.04), "got tuple, wanted one picture"),
    "a dictionary": ({"image": RGB}, "got dict, wanted one picture"),
    "any object": (object(), "object holds no plain numbers"),
    "a sparse tensor": (
        torch.zeros(24, 40).to_sparse(),
        r"the tensor \(24, 40\) torch\.float32 has no pixels for numpy",
    ),
    "Pillow floats to 255": (
        Image.fromarray(GREY.astype(np.float32)),
        r"the picture \(24, 40\) float32 has float pixels",
    ),
    "a small Pillow image": (Image.new("L", (7, 40)), r"\(7 x 40, mode L\) is 7 x 40 pixels; at least"),
    "bytes of a text": (b"no picture", "the file in memory is not an image"),
    "no bytes": (b"", "the file in memory is empty"),
    "an empty stream": (io.BytesIO(), "the file in memory is empty"),
    "a text file": (io.StringIO("x"), "open as text"),
    "a folder": (Path(__file__).parent, "is a folder"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_picture_is_refused_by_name(model: Model, what: str) -> None:
    x, match = REFUSED[what]
    with pytest.raises(DataError, match=match):
        model.predict(x)


def test_a_damaged_pillow_image_and_a_white_is_zero_tiff_are_named(tmp_path: Path) -> None:
    save(tmp_path / "x.png", RGB)
    cut = io.BytesIO((tmp_path / "x.png").read_bytes()[:600])
    with pytest.raises(DataError, match=r"\(40 x 24, mode RGB\) cannot be converted to RGB: "):
        as_rgb8(Image.open(cut))
    Image.fromarray(GREY.astype(np.uint16)).save(tmp_path / "x.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "x.tif") as opened, pytest.raises(DataError, match=r"0 is white.*give the path"):
        as_rgb8(opened)


def test_every_entry_takes_every_form(model: Model, tmp_path: Path) -> None:
    grey = np.ascontiguousarray(picture(3, lesion=True)[0][..., 0])
    path = save(tmp_path / "x.png", np.stack([grey] * 3, axis=-1))
    pixels: list[Any] = [
        grey,
        grey[..., None],
        grey.astype(np.uint16) * 257,
        grey / 255,
        torch.tensor(grey)[None],
        Image.fromarray(grey),
    ]
    files: list[Any] = [path.read_bytes(), io.BytesIO(path.read_bytes()), path, Sample(id="x", image=path)]
    wanted = model.predict(grey)
    streamed = [live.prediction for live in model.stream([*pixels, *files])]
    for found in (*map(model.predict, [*pixels, *files]), *streamed):
        assert found.score == wanted.score
        np.testing.assert_array_equal(found.map, wanted.map)
    assert [model.predict(x).id for x in (grey, pixels[-1], *files)] == [
        *("array", "picture", "bytes", "bytes", str(path), "x")
    ]
    drawn = overlay(np.stack([grey] * 3, axis=-1), wanted.map)
    for form in pixels:
        np.testing.assert_array_equal(overlay(form, wanted.map), drawn)


def test_the_depth_of_a_camera_holds_for_its_stream(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    dark = np.linspace(0, 1000, 24 * 40).astype(np.uint16).reshape(24, 40)
    bright = dark * 4
    wanted = [model.predict(np.rint(f * (255 / 4095)).astype(np.uint8)).score for f in (dark, bright)]
    with caplog.at_level(logging.WARNING, logger="ultraad"):
        assert [live.prediction.score for live in model.stream([dark, bright], depth=12)] == wanted
    assert not caplog.records
    with caplog.at_level(logging.WARNING, logger="ultraad"):
        guessed = [live.prediction.score for live in model.stream([dark, bright] * 3)]
    assert guessed == [model.predict(dark).score, wanted[1]] * 3 != wanted * 3
    said = [r.getMessage() for r in caplog.records]
    assert sum("16-bit pixels use 10 bits" in line for line in said[:3]) == 1
    assert sum("pictures use different depths" in line for line in said) == 1, "once in a stream"


def test_a_frame_that_cannot_be_used_is_named(model: Model) -> None:
    def camera() -> Iterator[Any]:
        yield GREY
        yield None

    with pytest.raises(DataError, match="frame 1: got NoneType"):
        list(model.stream(camera()))


def test_a_depth_is_for_pixels_in_memory(model: Model, tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", RGB)
    forms: list[Any] = [path, str(path), path.read_bytes(), Sample(id="x", image=path)]
    for form in forms:
        with pytest.raises(ConfigError, match="depth=12 is for pixels in memory; a file says its own"):
            model.predict(form, depth=12)


def test_functions_for_files_say_so_when_they_get_pixels(model: Model) -> None:
    given: list[Any] = [[RGB], RGB, [Image.fromarray(RGB)], [b"x"], [None]]
    for items in given:
        with pytest.raises(DataError, match="wanted files, folders, patterns or samples; give one picture to predict"):
            list(model.predict_many(items))


def test_pictures_in_memory_need_no_torch() -> None:
    code = (
        "import sys, numpy as np; sys.modules['torch'] = None\n"
        "from ultraad.data.loader import read_any\n"
        "print(read_any(np.zeros((9, 9), np.uint8))[0].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "(9, 9, 3)", done.stderr
