"""The real images in the package: the right ones, whole, small, and with their licence."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from docs.samples import FOLDER, chosen, write

import ultraad
from ultraad import io
from ultraad.data.samples import copy_samples
from ultraad.errors import DataError

MACHINES = {"GE Logiq 5 @10-12MHz", "GE Logiq 7 @10-14MHz", "Toshiba Aplio 300 @12-14 MHz", "U-Systems @10-14MHz"}


def test_two_views_of_24_patients_on_four_machines(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        images = ultraad.scan(ultraad.samples())
    assert not caplog.messages, "the first thing that a user calls has nothing to complain about"
    assert Counter(s.label for s in images) == {"benign": 24, "malignant": 24}
    assert Counter(Counter(s.group for s in images).values()) == {2: 24}
    for label in ("benign", "malignant"):
        assert {s.device for s in images if s.label == label} == MACHINES
    assert all(s.anomalous for s in images)


def test_no_backbone_was_trained_on_these_patients() -> None:
    assert all(int(s.group or 1) % 5 == 0 for s in ultraad.scan(ultraad.samples()))


def test_every_image_has_a_mask_of_its_size_with_a_lesion_inside() -> None:
    for s in ultraad.scan(ultraad.samples()):
        mask = io.read_mask(s.masks, shape=io.read_image(s.image).shape[:2])  # another size raises
        assert 0.001 < mask.mean() < 0.7, s.id


def test_it_is_small_and_has_nothing_else_in_it() -> None:
    files = [p for p in ultraad.samples().rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 3e6
    kinds = Counter(p.relative_to(ultraad.samples()).parts[0] for p in files)
    assert kinds == {"Images": 48, "Masks": 48, "bus_data.csv": 1, "LICENSE.txt": 1, "NOTICE.md": 1}


def test_licence_and_citation_come_along(tmp_path: Path) -> None:
    folder = copy_samples(tmp_path / "mine")
    licence, notice = ((folder / name).read_text(encoding="utf-8") for name in ("LICENSE.txt", "NOTICE.md"))
    assert "The above copyright notice and this permission notice shall be" in licence
    assert "required to cite the following article" in licence
    assert "Medical Physics 51(4):3110" in notice
    assert "10.5281/zenodo.8231412" in notice
    assert [s.id for s in ultraad.scan(folder)] == [s.id for s in ultraad.scan(ultraad.samples())]
    with pytest.raises(DataError, match="is there already"):
        copy_samples(folder)


def test_the_rule_by_hand() -> None:
    cases = {  # case: pathology, machine, views
        5: ("benign", "b", 2), 10: ("benign", "a", 1), 15: ("benign", "a", 2), 16: ("benign", "a", 2),
        20: ("malignant", "b", 2), **{100 + 5 * i: ("benign", "b", 2) for i in range(20)},
    }  # fmt: skip
    rows = [
        {"Case": str(case), "Pathology": pathology, "Device": machine, "ID": f"{case}-{view}"}
        for case, (pathology, machine, views) in cases.items()
        for view in range(views)
    ]
    found = list(dict.fromkeys(int(row["Case"]) for row in chosen(rows)))
    assert found == [5, 15, 20, *range(100, 150, 5)], (
        "one view, a trained case and the thirteenth benign one are not in"
    )


def test_the_shipped_folder_is_what_the_rule_gives(real_data: Path, tmp_path: Path) -> None:
    write(real_data / "BUS-BRA", tmp_path)
    for name in ("bus_data.csv", "LICENSE.txt"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()
    with (FOLDER / "bus_data.csv").open(newline="", encoding="utf-8") as file:
        ids = [row["ID"] for row in csv.DictReader(file)]
    for name in [f"Images/{i}.png" for i in ids] + [f"Masks/{i.replace('bus_', 'mask_')}.png" for i in ids]:
        pixels = [io.read_image(folder / name) for folder in (FOLDER, tmp_path, real_data / "BUS-BRA")]
        assert all(np.array_equal(pixels[0], other) for other in pixels[1:]), name
