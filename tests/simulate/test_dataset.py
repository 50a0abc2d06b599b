from __future__ import annotations

import csv
import json
from collections import Counter

import cv2
import numpy as np
import pytest

from ultraad.errors import ConfigError, DataError
from ultraad.simulate import LABELS, write_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("simulated"), n=24, seed=3, size=64, shares=(2, 1, 1), patients=6)


def rows(folder):
    with (folder / "captions.csv").open(encoding="utf-8") as f:
        return list(csv.DictReader(f))


def test_layout(folder):
    assert {p.name for p in folder.iterdir()} == {*LABELS, "captions.csv", "simulated.json"}
    images = [p for p in folder.glob("*/*.png") if not p.stem.endswith("_mask")]
    assert Counter(p.parent.name for p in images) == {"normal": 12, "benign": 6, "malignant": 6}
    assert {str(p.relative_to(folder)) for p in images} == {r["image"] for r in rows(folder)}
    assert len({p.name for p in images}) == 24
    for path in images:
        image = cv2.imread(str(path))
        mask = cv2.imread(str(path.with_name(path.stem + "_mask.png")), cv2.IMREAD_UNCHANGED)
        assert image.shape == (64, 64, 3)
        assert mask.shape == (64, 64)
        assert set(np.unique(mask)) <= {0, 255}
        assert mask.any() == (path.parent.name != "normal")


def test_a_patient_has_one_machine_and_lesions_of_one_class(folder):
    patients = {r["patient"] for r in rows(folder)}
    assert len(patients) == 6
    for patient in patients:
        own = [r for r in rows(folder) if r["patient"] == patient]
        assert len({r["device"] for r in own}) == 1
        assert len({r["label"] for r in own} - {"normal"}) <= 1
        assert sorted(r["image"].rsplit("_", 1)[1] for r in own) == [f"{i + 1:04d}.png" for i in range(len(own))]
        assert all(r["image"].split("/")[1].startswith(patient + "_") for r in own)


def test_captions_and_marker(folder):
    for row in rows(folder):
        assert row["caption"]
        assert (row["family"] == "") == (row["label"] == "normal")
    marker = json.loads((folder / "simulated.json").read_text())
    assert (marker["generator"], marker["seed"], marker["n"]) == ("ultraad.simulate", 3, 24)


def test_same_seed_same_bytes_and_an_existing_copy_is_kept(folder, tmp_path):
    write_dataset(tmp_path / "again", n=24, seed=3, size=64, shares=(2, 1, 1), patients=6)
    for path in sorted(folder.rglob("*.*")):
        assert (tmp_path / "again" / path.relative_to(folder)).read_bytes() == path.read_bytes(), path
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.png")}
    assert write_dataset(folder, n=24, seed=3, size=64, shares=(2, 1, 1), patients=6) == folder
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*.png")}


def test_other_contents_are_not_overwritten(folder):
    with pytest.raises(DataError, match="does not contain this simulated data set"):
        write_dataset(folder, n=25, seed=3, size=64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be 1 to 1000000, got 0"),
        ({"n": 10**12}, "n must be 1 to 1000000, got 10"),
        ({"n": 4, "size": 31}, "size must be 32 to 4096 pixels, got 31"),
        ({"n": 4, "size": 100_000}, "size must be 32 to 4096 pixels, got 100000"),
        ({"n": 4, "shares": (1, 1)}, "shares must be 3 numbers"),
        ({"n": 4, "shares": (0, 0, 0)}, "shares must be 3 numbers"),
        ({"n": 4, "shares": (1, -1, 1)}, "shares must be 3 numbers"),
        ({"n": 4, "patients": 1}, "patients must be at least 2"),
    ],
)
def test_wrong_numbers_are_refused_with_the_reason(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        write_dataset(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_one_class_only(tmp_path):
    root = write_dataset(tmp_path / "normals", n=3, size=64, shares=(1, 0, 0), patients=1)
    assert sorted(p.name for p in root.iterdir()) == ["captions.csv", "normal", "simulated.json"]
