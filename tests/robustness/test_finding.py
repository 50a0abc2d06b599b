"""No file is left out of a run, and none taken in, without a word."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ultraad import scan
from ultraad.data.audit import audit
from ultraad.errors import DataError
from ultraad.io import find_images, read_image

PICTURE = np.random.default_rng(0).integers(0, 255, (32, 40)).astype(np.uint8)
BINARY = np.zeros((32, 40), np.uint8)
BINARY[8:20, 10:30] = 255


def save(path: Path, pixels: np.ndarray = PICTURE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def dicom_header(class_uid: str) -> bytes:
    """Preamble and the SOP class of the meta header."""
    uid = class_uid.encode() + b"\0" * (len(class_uid) % 2)
    return b"\0" * 128 + b"DICM" + b"\x02\x00\x02\x00UI" + len(uid).to_bytes(2, "little") + uid


def write(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(found: list[Path], root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in found)


def words(caplog) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)


@pytest.mark.parametrize("name", ["1.2.840.113619.2.55", "US.1.3.12.2", "a.IMA", "a.dicom", "IM0001", "a.dcm", "x.v2"])
def test_dicom_is_recognised_by_its_bytes(name, tmp_path):
    write(tmp_path / name, dicom_header("1.2.840.10008.5.1.4.1.1.6.1"))
    assert names(find_images(tmp_path), tmp_path) == [name]


@pytest.mark.parametrize(
    ("class_", "kind"),
    [
        ("1.2.840.10008.5.1.4.1.1.66.4", "1 DICOM segmentation"),
        ("1.2.840.10008.5.1.4.1.1.481.2", "1 DICOM radiotherapy dose"),
        ("1.2.840.10008.5.1.4.1.1.88.33", "1 DICOM report"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "1 DICOM presentation state"),
        ("1.2.840.10008.1.3.10", "1 DICOMDIR"),
    ],
)
def test_dicom_without_a_picture_is_left_out_by_name(class_, kind, tmp_path, caplog):
    save(tmp_path / "a.png")
    write(tmp_path / "odd.dcm", dicom_header(class_))
    assert names(find_images(tmp_path), tmp_path) == ["a.png"]
    assert kind in words(caplog)
    assert "odd.dcm" in words(caplog)


def test_links_to_folders_are_followed_once(tmp_path):
    root = tmp_path / "set"
    save(root / "p1" / "a.png")
    save(tmp_path / "elsewhere" / "b.png")
    save(tmp_path / "sibling.png")
    (root / "p2").symlink_to(tmp_path / "elsewhere")
    (root / "p3").symlink_to(tmp_path / "elsewhere")
    (root / "p1" / "cycle").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (root / "again").symlink_to(root / "p1")
    assert names(find_images(root), root) == ["p1/a.png", "p2/b.png"]
    assert names(find_images(f"{root}/**/*.png"), root) == ["p1/a.png", "p2/b.png"]


def test_links_upwards_are_no_classes_and_no_patients(tmp_path):
    root = tmp_path / "set"
    for name in ("img/a.png", "x/b.png", "y/c.png"):
        save(root / name)
    (root / "img" / "loop").symlink_to("..")  # "img" could hold the folders of the classes
    with pytest.raises(DataError, match="layout"):
        scan(root)
    (root / "img" / "loop").unlink()
    (root / "img").rename(root / "normal")
    for name, target in (("normal/loop", ".."), ("x/self", "."), ("y/above", "../..")):
        (root / name).symlink_to(target)
    found = scan(root)
    assert [(s.id, s.label, s.group) for s in found] == [
        (f"{label}/{name}.png", label, None) for label, name in (("normal", "a"), ("x", "b"), ("y", "c"))
    ]


def test_jpeg_and_gif_by_their_other_names(tmp_path):
    for name in ("a.jfif", "b.jpe"):
        Image.fromarray(PICTURE).save(tmp_path / name, "JPEG")
    frames = [Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)]
    frames[0].save(tmp_path / "c.gif", save_all=True, append_images=frames[1:])
    assert names(find_images(tmp_path), tmp_path) == ["a.jfif", "b.jpe", "c.gif"]
    assert np.array_equal(read_image(tmp_path / "c.gif")[..., 0], PICTURE)


def test_unused_files_are_counted_by_kind(tmp_path, caplog):
    save(tmp_path / "a.png")
    for name in ("readme.txt", "notes.md", "clip.mp4", ".DS_Store", ".hidden.png"):
        write(tmp_path / name)
    find_images(tmp_path)
    assert "4 files were not used: " in words(caplog)
    assert all(part in words(caplog) for part in ("2 text", "1 video", "1 hidden file", "clip.mp4"))


def test_a_licence_beside_the_images_is_not_missed(tmp_path, caplog):
    save(tmp_path / "a.png")
    for name in ("LICENSE", "Licence.txt", "NOTICE.md", "citation.bib", "licences.png"):
        save(tmp_path / name) if name.endswith("png") else write(tmp_path / name)
    assert names(find_images(tmp_path), tmp_path) == ["a.png", "licences.png"]
    assert not words(caplog)


def test_a_named_file_is_always_taken(tmp_path, caplog):
    save(tmp_path / "a.png")
    mask = save(tmp_path / "a_mask.png", BINARY)
    assert find_images([tmp_path, mask]) == [tmp_path / "a.png", mask]
    assert not words(caplog)


def test_no_images_names_what_is_there(tmp_path):
    write(tmp_path / "clip.mp4")
    with pytest.raises(DataError, match="1 file was not used: 1 video"):
        find_images(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", {"command": "predict"}),
        ("bench.json", {"format": "ultraad.bench/1"}),
        ("config.json", {"format": "ultraad.model/1"}),
    ],
)
def test_folders_that_ultraad_wrote_are_left_out(name, content, tmp_path, caplog):
    save(tmp_path / "benign" / "a.png")
    save(tmp_path / "results" / "overlays" / "a.png")
    write(tmp_path / "results" / name, json.dumps(content, indent=2).encode())
    assert names(find_images(tmp_path), tmp_path) == ["benign/a.png"]
    assert "1 folder was not used: 1 results folder" in words(caplog)
    assert names(find_images(f"{tmp_path}/**/*.png"), tmp_path) == ["benign/a.png"]
    assert [s.id for s in scan(tmp_path)] == ["benign/a.png"]
    assert names(find_images(tmp_path / "results" / "overlays"), tmp_path) == ["results/overlays/a.png"]


def test_results_written_beside_the_images_are_left_out(tmp_path):
    save(tmp_path / "a.png")
    write(tmp_path / "run.json", b'{"command": "predict"}')
    for name in ("overlays", "maps"):
        save(tmp_path / name / "a.png")
    assert names(find_images(tmp_path), tmp_path) == ["a.png"]


def test_a_run_json_of_another_program_hides_nothing(tmp_path):
    save(tmp_path / "study" / "a.png")
    write(tmp_path / "study" / "run.json", b'{"scanner": "x"}')
    assert names(find_images(tmp_path), tmp_path) == ["study/a.png"]


def test_files_that_are_not_regular_are_left_out(tmp_path, caplog):
    save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    assert names(find_images(tmp_path), tmp_path) == ["a.png"]
    assert "1 special file" in words(caplog)


def test_a_dangling_link_fails_by_name(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    assert names(find_images(tmp_path), tmp_path) == ["a.png", "b.png"]
    with pytest.raises(DataError, match="does not exist"):
        read_image(tmp_path / "b.png")


def test_the_data_check_lists_unused_files(tmp_path, caplog):
    save(tmp_path / "normal" / "a.png")
    save(tmp_path / "benign" / "b.png")
    save(tmp_path / "benign" / "x" / "y" / "deep.png")
    save(tmp_path / "benign" / "masks" / "gone.png", BINARY)
    write(tmp_path / "readme.txt")
    report = {f.kind: f for f in audit(tmp_path).findings}
    assert report["unused_files"].message.startswith("3 files were not used: ")
    assert report["unused_image"].items == ("benign/x/y/deep.png",)
    assert report["orphan_mask"].items == ("benign/masks/gone.png",)
    assert not words(caplog)  # said once
    scan(tmp_path)
    assert "3 files were not used" in words(caplog)


def test_a_file_that_is_named_in_several_ways_is_one_image(tmp_path, monkeypatch):
    for name in "ab":
        save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "link").symlink_to("in")
    (tmp_path / "in" / "c.png").symlink_to("a.png")  # a name of its own
    monkeypatch.chdir(tmp_path)
    named = ["in/b.png", "./in/b.png", "in/../in/b.png", tmp_path / "in", "link", "in/*.png"]
    assert find_images(named) == [Path("in/b.png"), tmp_path / "in" / "a.png", tmp_path / "in" / "c.png"]
