"""Files, folders and patterns, in the order people expect."""

from __future__ import annotations

from pathlib import Path

import pytest

from ultraad.errors import DataError
from ultraad.io import find_images

DICOM = b"\0" * 128 + b"DICM"


@pytest.fixture
def tree(tmp_path) -> Path:
    files = {
        "benign (10).png": b"x",
        "benign (2).png": b"x",
        "benign (2)_mask.png": b"x",
        "benign (2)_mask_1.png": b"x",
        "Ünïcode folder/ä b.JPG": b"x",
        "sub/IM0001": DICOM,
        "sub/README": b"text",
        "sub/empty": b"",
        "sub/cine.dcm": b"x",
        "notes.txt": b"x",
        ".hidden.png": b"x",
        ".thumbs/a.png": b"x",
        "[odd] name.tif": b"x",
    }
    for name, data in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return tmp_path


def names(found: list[Path], root: Path) -> list[str]:
    return [p.relative_to(root).as_posix() for p in found]


def test_folder(tree):
    wanted = [
        "benign (2).png",
        "benign (10).png",
        "sub/cine.dcm",
        "sub/IM0001",
        "Ünïcode folder/ä b.JPG",
        "[odd] name.tif",
    ]
    got = names(find_images(tree), tree)
    assert sorted(got) == sorted(wanted)
    assert [n for n in got if n.startswith(("benign", "sub"))] == wanted[:4]
    assert names(find_images([str(tree)]), tree) == got


def test_pattern(tree):
    assert names(find_images(f"{tree}/benign*.png"), tree) == ["benign (2).png", "benign (10).png"]
    assert names(find_images(f"{tree}/**/*.JPG"), tree) == ["Ünïcode folder/ä b.JPG"]


def test_files_are_taken_as_named_even_with_pattern_letters(tree):
    asked = [tree / "[odd] name.tif", tree / "benign (2)_mask.png", tree / "notes.txt"]
    assert find_images(asked) == asked


def test_each_file_once_in_the_given_order(tree):
    got = names(find_images([tree / "sub", tree / "benign (10).png", tree]), tree)
    assert got[:3] == ["sub/cine.dcm", "sub/IM0001", "benign (10).png"]
    assert len(got) == len(set(got)) == 6


def test_nothing_found(tree, tmp_path):
    (tmp_path / "void").mkdir()
    for asked in ([tmp_path / "void"], [], [f"{tree}/*.webp"]):
        with pytest.raises(DataError, match="no images in"):
            find_images(asked)
    with pytest.raises(DataError, match="does not exist"):
        find_images([tree / "gone.png"])
