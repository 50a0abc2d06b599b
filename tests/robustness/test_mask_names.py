"""Masks under the usual names and folders are masks, whatever else has such a name is an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.robustness.test_finding import BINARY, PICTURE, names, save, words
from ultraad import scan
from ultraad.data.audit import audit
from ultraad.io import find_images

BESIDE = [
    *("{}_mask.png", "{}_mask_1.png", "{}-mask.png", "{} mask.png", "mask_{}.png", "{}_GT.png", "gt_{}.png"),
    *("{}_segmentation.png", "{}_seg.png", "{}.seg.png", "{}_label.png", "{}_ground_truth.png", "{}_annotation.tif"),
    *("{}_tumor.png", "{}_lesion.png", "{}_other1.png", "{}_roi.png", "{}_Mask (2).png"),
]
FOLDERS = [
    *("{c}/annotations/{s}.png", "{c}/labels/{s}.png", "{c}/ground_truth/{s}.png", "{c}/segmentation/{s}.png"),
    *("{c}/GT/{s}_GT.png", "{c}_gt/{s}.png", "masks/{c}/{s}.png", "annotations/{c}/mask_{s}.png", "{c}_labels/{s}.png"),
]


@pytest.mark.parametrize("pattern", [*(f"{{c}}/{name.format('{s}')}" for name in BESIDE), *FOLDERS])
def test_usual_masks(pattern, tmp_path):
    for label in ("normal", "benign"):
        save(tmp_path / label / f"{label}1.png")
        save(tmp_path / label / f"{label}12.png")
    mask = save(tmp_path / pattern.format(c="benign", s="benign1"), BINARY)
    samples = {s.id: s for s in scan(tmp_path)}
    assert sorted(samples) == ["benign/benign1.png", "benign/benign12.png", "normal/normal1.png", "normal/normal12.png"]
    assert samples["benign/benign1.png"].masks == (mask,)
    assert not samples["benign/benign12.png"].masks
    assert names(find_images(tmp_path), tmp_path) == sorted(samples)


def test_masks_by_number(tmp_path):
    for n in (1, 2, 11):
        save(tmp_path / "benign" / f"Test_Image_{n}.png")
        save(tmp_path / "benign" / f"mask_{n}.png", BINARY)
    save(tmp_path / "normal" / "Test_Image_3.png")
    got = {s.image.name: [m.name for m in s.masks if isinstance(m, Path)] for s in scan(tmp_path)}
    assert got == {
        "Test_Image_1.png": ["mask_1.png"],
        "Test_Image_2.png": ["mask_2.png"],
        "Test_Image_11.png": ["mask_11.png"],
        "Test_Image_3.png": [],
    }
    assert len(find_images(tmp_path)) == 4


def test_a_name_that_merely_contains_a_word_is_an_image(tmp_path, caplog):
    found = ["face_mask.png", "unmasked_1.png", "patient_lesion.png", "label 3.png", "gt.png", "x_tumor.png", "x.png"]
    for name in found:
        save(tmp_path / name)
    assert names(find_images(tmp_path), tmp_path) == sorted(found)  # x_tumor.png has the grey values of an image
    assert "2 file(s) named like masks have no image beside them and are used as images" in words(caplog)


def test_a_mask_whose_image_is_gone_is_left_out_by_name(tmp_path, caplog):
    save(tmp_path / "normal" / "a.png")
    save(tmp_path / "benign" / "b.png")
    save(tmp_path / "benign" / "gone_mask.png", BINARY)
    assert names(find_images(tmp_path), tmp_path) == ["benign/b.png", "normal/a.png"]
    assert "1 mask without an image" in words(caplog)
    assert len(scan(tmp_path)) == 2
    assert next(f for f in audit(tmp_path).findings if f.kind == "orphan_mask").items == ("benign/gone_mask.png",)


def test_the_data_check_finds_masks_of_unknown_name(tmp_path):
    save(tmp_path / "normal" / "a.png")
    save(tmp_path / "benign" / "b.png", PICTURE[::-1])
    save(tmp_path / "benign" / "b_drawn.png", BINARY)
    finding = next(f for f in audit(tmp_path).findings if f.kind == "mask_as_image")
    assert finding.items == ("benign/b_drawn.png: carries the stem of b",)
