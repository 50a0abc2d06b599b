"""Damaged tables and annotations: a layout is read, without what is unreadable, or refused with one error of ours."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import helpers
from tests.robustness.mutations import Tally, attack, damaged_bytes, damaged_text
from tests.robustness.test_images import only_ours
from ultraad.data import sources
from ultraad.errors import DataError

CASES = 25  # of each file
PART = 700  # of each file under -m slow
KINDS = {".csv", ".xlsx", ".json", ".xml", ".txt"}
LAYOUTS = ("bus_bra", "bus_uclm", "brest", "coco", "csv", "cvat", "ddti", "label_studio", "labelme", "liver", "mmotu")
LAYOUTS += ("synthetic", "udiat", "via")
_OPEN = Path("/proc/self/fd")


def attacked(root: Path, layout: str, seeds: range) -> Tally:
    """Damage the layout's table or annotation file, and scan the layout each time."""
    getattr(helpers, f"write_{layout}")(root)
    file = min((p for p in root.rglob("*") if p.suffix in KINDS), key=lambda p: (-p.stat().st_size, p))

    def scan(_: Path) -> None:
        for sample in sources.scan(root, layout=layout):
            assert sample.id

    damage: Callable[[bytes, int], bytes] = damaged_bytes if file.suffix == ".xlsx" else damaged_text
    return attack(file, scan, seeds, damage=damage, lines=40)  # a layout that is not recognised is shown as a tree


def test_every_layout_with_a_table_is_tried(layouts, tmp_path):
    with_table = [
        name for name, write in layouts.items() if any(p.suffix in KINDS for p in write(tmp_path / name).rglob("*"))
    ]
    assert sorted(LAYOUTS) == sorted(with_table)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_damaged_table(tmp_path, layout, capfd, record):
    attacked(tmp_path / "set", layout, range(CASES)).check(record)
    assert only_ours("".join(capfd.readouterr()))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_damaged_tables(tmp_path, layout, part, record):
    attacked(tmp_path / "set", layout, range(1000 + PART * part, 1000 + PART * (part + 1))).check(record)


@pytest.mark.parametrize("part", ["xl/workbook.xml", "xl/styles.xml", "[Content_Types].xml"])
def test_a_damaged_sheet_is_closed(tmp_path, part):
    file = helpers.write_udiat(tmp_path / "set") / "DatasetB.xlsx"
    with zipfile.ZipFile(file) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    with zipfile.ZipFile(file, "w") as book:
        for name, content in parts.items():
            book.writestr(name, content[:-20] if name == part else content)
    with pytest.raises(DataError, match=r"cannot read the sheet .*DatasetB\.xlsx") as error:
        sources.scan(file.parent, layout="udiat")
    if not _OPEN.is_dir():
        pytest.skip("no list of open files")
    assert file not in [path.resolve() for path in _OPEN.iterdir()], f"still open in the traceback of {error.value}"
