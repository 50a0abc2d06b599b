"""What differs between two results folders is named, and nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.bench.fake import Spec, change, write_bench
from tests.report.page import Page
from ultraad.bench.results import BenchFolder
from ultraad.bench.study.compare import Change, compare
from ultraad.errors import DataError

SPEC = Spec(tests=("busi",), methods=("ultraad", "patch_core"), shots=(4,), seeds=(0, 1), images=9, failing=())


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write_bench(tmp_path / "a", SPEC), write_bench(tmp_path / "b", SPEC)


def test_two_equal_runs_are_identical(folders: tuple[Path, Path]) -> None:
    change(folders[1], lambda row: row["timings"] and row["timings"].update(predict_ms=1.0))  # time does not count
    found = compare(*folders)
    assert found.identical
    assert (found.facts, found.beyond) == ((), ())
    assert re.search(r"all \d+ numbers the same to the last bit", str(found))


def test_only_changes_beyond_the_spread_over_seeds_are_listed(folders: tuple[Path, Path]) -> None:
    rows = [r for r in BenchFolder.open(folders[0]).rows() if r.label == "ultraad" and r.metrics]
    before = {m: [r.value(m) for r in rows] for m in ("image_auroc", "pixel_ap")}
    sd = {m: np.std(v, ddof=1) for m, v in before.items()}

    def move(row: dict) -> None:
        if row["label"] == "ultraad" and row["metrics"]:
            row["metrics"]["image_auroc"]["value"] -= 1.1 * sd["image_auroc"] + 0.01
            row["metrics"]["pixel_ap"]["value"] -= 0.9 * sd["pixel_ap"]

    change(folders[1], move)
    found = compare(*folders)
    moved = [c for c in found.changes if not c.identical]
    assert [c.metric for c in moved] == ["image_auroc", "pixel_ap"]
    assert [c.sd for c in moved] == pytest.approx([sd["image_auroc"], sd["pixel_ap"]])
    assert [c.metric for c in found.beyond] == ["image_auroc"]
    assert "ultraad, busi, 4 shots, embedded: Image AUROC" in str(found)


def test_with_one_seed_any_change_counts() -> None:
    assert Change("x", "image_auroc", 0.5, 0.5001, None, identical=False).beyond
    assert not Change("x", "image_auroc", 0.5, 0.5001, 0.01, identical=False).beyond
    assert not Change("x", "image_auroc", 0.5, 0.5, None, identical=True).beyond
    assert Change("x", "image_auroc", 0.5, None, None, identical=False).beyond


def test_rows_options_data_and_versions_that_differ_are_listed(folders: tuple[Path, Path], tmp_path: Path) -> None:
    first = folders[0]
    second = write_bench(tmp_path / "c", replace(SPEC, seeds=(0, 1, 2), methods=("ultraad", "mvfa")))

    def edit(row: dict) -> None:
        row["options"]["depth"]["layers"] = [12]
        row["versions"]["torch"] = "3.0"
        row["adapt"]["support"] = "f" * 64
        row["backbone"]["fingerprint"] = "e" * 64

    change(second, edit)
    found = compare(first, second)
    facts = {f.what: (f.first, f.second) for f in found.facts}
    assert facts["option depth.layers of ultraad"] == ("[6, 12]", "[12]")
    assert facts["version of torch"] == ("2.9.0", "3.0")
    assert facts["weights of embedded"][1] == "e" * 12
    assert facts["adaptation images, 4 shots, seed 0"][1] == "f" * 12
    assert {name.split(",")[0] for name in found.only_first} == {"patch_core"}
    assert "ultraad, busi, 4 shots, embedded, seed 2" in found.only_second
    assert not found.identical


def test_a_row_that_failed_in_one_folder(folders: tuple[Path, Path]) -> None:
    def fail(row: dict) -> None:
        if row["label"] == "ultraad" and row["seed"] == 1 and row["test"]["name"] == "busi":
            row.update(status="error", reason="MemoryError", metrics=None)

    change(folders[1], fail)
    found = compare(*folders)
    assert not found.identical
    assert ("ok", "error (MemoryError)") in [(f.first, f.second) for f in found.facts]
    image = next(c for c in found.changes if c.metric == "image_auroc" and c.fits.startswith("ultraad"))
    assert image.sd is None  # one seed is left to compare
    assert not image.beyond


def test_published_rows_are_compared_with_published_ones(tmp_path: Path) -> None:
    spec = replace(SPEC, methods=("mvfa",), protocols=("honest", "published"))
    found = compare(
        write_bench(tmp_path / "a", spec), write_bench(tmp_path / "b", replace(spec, protocols=("honest",)))
    )
    assert all(name.endswith(("published, seed 0", "published, seed 1")) for name in found.only_first)
    assert found.only_second == ()
    assert {f.what for f in found.facts} == set()


def test_the_page_escapes_the_folders_text(folders: tuple[Path, Path], tmp_path: Path) -> None:
    def move(row: dict) -> None:
        row["reason"] = row["reason"] and "<private>"
        if row["metrics"]:
            row["metrics"]["ece"] and row["metrics"]["ece"].update(value=0.9)
            row["options"]["lr"] = "<big>"

    change(folders[1], move)
    path = tmp_path / "compare.html"
    path.write_text(compare(*folders).html(), encoding="utf-8")
    page = Page(path)
    assert "<big>" in page.words
    assert "<big>" not in page.source
    assert "Expected calibration error" in page.words
    assert not page.attributes("script")


def test_a_folder_without_results_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not the results folder of a benchmark"):
        compare(folders[0], tmp_path)


def test_recipes_are_compared_too(folders: tuple[Path, Path]) -> None:
    path = folders[1] / "bench.json"
    bench = json.loads(path.read_text())
    bench["recipe"]["bootstrap"] = 7
    path.write_text(json.dumps(bench))
    assert [(f.what, f.second) for f in compare(*folders).facts] == [("recipe bootstrap", "7")]
