"""One set has one depth: 10, 12, 14 or 16 bits in 16, whatever single pictures use."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.io.test_dicom import make
from tests.io.test_dicom import save as save_dicom
from tests.robustness.test_finding import save, words
from ultraad import draw_support, load_support, scan
from ultraad.data.loader import decode
from ultraad.data.samples import samples_of
from ultraad.data.support import save_support
from ultraad.io import read_image, set_depth
from ultraad.io.faults import one_run, warn_of
from ultraad.model.adapt import zero_shot
from ultraad.results.folder import read_rows
from ultraad.runs.predict import predict

H, W = 24, 38
GREY = np.random.default_rng(0).integers(0, 256, (H, W), dtype=np.uint8)
GREY[0, :2] = 0, 255
RGB = np.stack([GREY, GREY[::-1], GREY // 2], axis=-1)
DARK = GREY // 8


def deep(picture: np.ndarray, bits: int) -> np.ndarray:
    return picture.astype(np.uint16) << (bits - 8)


def save_deep(path: Path, picture: np.ndarray, bits: int, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = deep(picture, bits)
    if picture.ndim == 3:
        cv2.imwrite(str(path), np.ascontiguousarray(values[..., [2, 1, 0, 3][: picture.shape[-1]]]), **options)
    else:
        Image.fromarray(values).save(path)
    return path


def off(got: np.ndarray, wanted: np.ndarray) -> int:
    return int(np.abs(got.astype(int) - wanted).max())


def pixels(sample) -> np.ndarray:
    return decode(sample, normal_class="normal").image[..., 0]


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.tif", {"params": [cv2.IMWRITE_TIFF_COMPRESSION, 1]}),
        ("a.tif", {"params": [cv2.IMWRITE_TIFF_COMPRESSION, 5]}),
    ],
)
def test_colour_of_sixteen_bits_has_the_depth_that_it_uses(tmp_path, bits, name, options, caplog):
    path = save_deep(tmp_path / name, RGB, bits, **options)
    assert off(read_image(path), RGB) <= 1
    assert (f"use {bits} bits" in words(caplog)) == (bits < 16)


def test_both_bytes_of_colour_count(tmp_path):
    values = np.arange(H * W * 3, dtype=np.uint16).reshape(H, W, 3) * 20
    cv2.imwrite(str(tmp_path / "a.png"), values[..., ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rint(values * (255 / 65535)).astype(np.uint8))


def test_transparent_colour_of_sixteen_bits_is_over_black(tmp_path):
    alpha = np.where(np.arange(W) < W // 2, 255, 0).astype(np.uint8)
    path = save_deep(tmp_path / "a.png", np.dstack([RGB, np.broadcast_to(alpha, (H, W))]), 16)
    assert off(read_image(path), np.where((alpha > 0)[:, None], RGB, 0)) <= 2  # 255 << 8 is not quite opaque


def test_a_hot_pixel_of_colour_does_not_darken_the_picture(tmp_path):
    values = deep(RGB, 12)
    values[5, 5] = 65535
    cv2.imwrite(str(tmp_path / "a.png"), values[..., ::-1])
    got = read_image(tmp_path / "a.png")
    got[5, 5] = RGB[5, 5]
    assert off(got, RGB) <= 1


@pytest.mark.parametrize("suffix", ["png", "tif", "dcm"])
def test_the_depth_is_that_of_the_whole_set(tmp_path, suffix):
    for folder, picture in (("normal", DARK), ("benign", GREY)):
        path = tmp_path / folder / f"a.{suffix}"
        if suffix == "dcm":
            path.parent.mkdir(parents=True)
            save_dicom(path, make(deep(picture, 12), "MONOCHROME2", PatientID=folder))
        else:
            save_deep(path, picture, 12)
    bright, dark = scan(tmp_path)
    assert (bright.depth, dark.depth) == (12, 12)
    assert off(pixels(bright), GREY) <= 1
    assert off(pixels(dark), DARK) <= 1
    assert off(read_image(dark.image)[..., 0], DARK) > 50  # alone, it is all that is known


def test_files_that_are_predicted_together_are_a_set(tmp_path):
    first = save_deep(tmp_path / "x" / "a.png", DARK, 12)
    second = save_deep(tmp_path / "y" / "b.png", GREY, 12)
    dark, bright = samples_of([first, second])
    assert (dark.depth, bright.depth) == (12, 12)
    assert off(pixels(dark), DARK) <= 1


def test_a_dark_frame_of_a_cine_has_the_depth_of_the_cine(tmp_path):
    cine = np.stack([deep(GREY, 12), deep(DARK, 12), deep(GREY, 12)])
    path = save_dicom(tmp_path / "a.dcm", make(cine, "MONOCHROME2"))
    assert off(read_image(path, frame=1)[..., 0], DARK) <= 1


def test_sets_of_eight_bits_have_no_depth(tmp_path):
    save(tmp_path / "normal" / "a.png", GREY)
    Image.fromarray(GREY).save(tmp_path / "normal" / "b.jpg")
    save_dicom(tmp_path / "normal" / "c.dcm", make(GREY, "MONOCHROME2"))
    assert {s.depth for s in scan(tmp_path)} == {None}


def test_one_deep_picture_among_many_counts(tmp_path):
    for n in range(150):
        save(tmp_path / f"{n:03d}.png", GREY)
    deep_one = save_deep(tmp_path / "077.png", GREY, 12)
    assert set_depth([(path, 0) for path in sorted(tmp_path.iterdir())]) == 12
    deep_one.write_bytes(deep_one.read_bytes()[:200])
    assert set_depth([(path, 0) for path in sorted(tmp_path.iterdir())]) is None


def test_two_ranges_in_one_set_are_a_warning_with_names_and_number(tmp_path, caplog):
    save_deep(tmp_path / "normal" / "bright.png", GREY, 16)
    for n in range(6):
        save_deep(tmp_path / "normal" / f"dark{n}.png", GREY, 12)
    assert {s.depth for s in scan(tmp_path)} == {16}
    text = words(caplog)
    assert "dark0.png: its 16-bit pixels use 12 bits, those of other pictures 16" in text
    assert "dark1.png" in text
    assert "and 2 more, like" in text


def test_a_remark_with_other_numbers_is_not_made_about_other_files(tmp_path, caplog):
    save_deep(tmp_path / "normal" / "bright.png", GREY, 16)
    for n, bits in enumerate((12, 10, 12, 10, 10)):
        save_deep(tmp_path / "normal" / f"dark{n}.png", GREY, bits)
    scan(tmp_path)
    told = [r.getMessage() for r in caplog.records if "those of other pictures" in r.getMessage()]
    wanted = (("dark0.png", 12), ("dark2.png, like", 12), ("dark1.png", 10))
    assert len(told) == len(wanted)
    for text, (names, bits) in zip(told, wanted, strict=True):
        assert names in text
        assert f"use {bits} bits" in text
    assert all(f"dark{n}.png" in told[2] for n in (1, 3, 4))
    assert "dark0.png" not in told[2]


def test_remarks_with_many_numbers_are_few(caplog):
    with one_run():
        for n in range(20):
            warn_of(f"{n}.png", f"its height is {n}")
    assert len(caplog.records) == 5
    assert caplog.records[-1].getMessage() == "4.png, 5.png, 6.png and 13 more: like 0.png, but with other values"


def test_the_support_file_keeps_the_depth(tmp_path):
    for n, label in enumerate(("normal", "benign")):
        save_deep(tmp_path / "set" / label / "a.png", GREY[n:], 12)
    support = draw_support(tmp_path / "set", shots=1)
    save_support(support, tmp_path / "support.json")
    assert load_support(tmp_path / "support.json") == support
    assert support.samples[0].depth == 12


def test_a_report_shows_the_pictures_at_the_depth_of_the_run(tmp_path):
    for folder, bits in (("a", 10), ("b", 16)):
        save_deep(tmp_path / folder / f"{folder}.png", GREY, bits)
    predict(zero_shot(backbone="tiny"), [tmp_path / "a", tmp_path / "b"], tmp_path / "out", save=())
    rows = {Path(row.id).stem: row for row in read_rows(tmp_path / "out")}
    assert {row.depth for row in rows.values()} == {16}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for name, wanted in (("a", GREY / 64), ("b", GREY)):
        uri = re.search(rf'<img[^>]*base64,([^"]+)"[^>]*alt="Image [^"]*{name}\.png', page) or re.search(
            rf'alt="Image [^"]*{name}\.png[^>]*base64,([^"]+)"', page
        )
        assert uri is not None
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri[1]))).convert("L"))
        assert shown.mean() == pytest.approx(wanted.mean(), abs=1.5)
