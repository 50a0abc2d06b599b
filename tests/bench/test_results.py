"""A results folder is read as it was written, and a folder of another version says so in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.bench.fake import Spec, change, write_bench
from ultraad.bench.results import BenchFolder, npz
from ultraad.bench.row import Bench, ImageLine, MeasuredRow, parse_row
from ultraad.errors import DataError

SPEC = Spec(tests=("busi",), methods=("ultraad", "mvfa"), shots=(4,), seeds=(0,), images=6, failing=(("mvfa", 4, 0),))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bench(tmp_path / "r", SPEC)


def test_lines_keep_their_bytes(folder: Path) -> None:
    lines = (folder / "results.jsonl").read_text().splitlines()
    assert [parse_row(json.loads(line)).to_json() for line in lines] == lines
    for path in (folder / "predictions").iterdir():
        lines = path.read_text().splitlines()
        assert [ImageLine.model_validate_json(line).to_json() for line in lines] == lines
    text = (folder / "bench.json").read_text()
    assert json.loads(Bench.model_validate_json(text).to_json()) == json.loads(text)


def test_a_row_with_a_result_has_everything_that_was_measured(folder: Path) -> None:
    rows = {row.status: row for row in BenchFolder.open(folder).rows()}
    assert rows.keys() == {"ok", "error", "not_public"}
    assert {status: isinstance(row, MeasuredRow) for status, row in rows.items()} == {
        "ok": True,
        "error": False,
        "not_public": False,
    }
    assert rows["error"].value("image_auroc") is None
    assert rows["ok"].value("image_auroc") == rows["ok"].metrics["image_auroc"].value
    assert rows["ok"].value("image_auroc", subset="without_nothing") is None


def test_keys_of_a_later_version_are_ignored(folder: Path) -> None:
    change(folder, lambda row: row.update(novelty=1) or row["test"].update(novelty=2))
    assert len(BenchFolder.open(folder).rows()) == 4


def test_a_row_of_another_version_says_what_to_do(folder: Path) -> None:
    change(folder, lambda row: row["backbone"].pop("fingerprint"))
    with pytest.raises(
        DataError, match=r"results\.jsonl does not fit .*backbone\.fingerprint: Field required.*run the"
    ):
        BenchFolder.open(folder).rows()


def test_a_folder_of_another_version_says_what_to_do(folder: Path) -> None:
    bench = json.loads((folder / "bench.json").read_text())
    (folder / "bench.json").write_text(json.dumps({**bench, "recipe": {**bench["recipe"], "novelty": 1}}))
    with pytest.raises(DataError, match=r"bench\.json does not fit .*recipe\.novelty.*run the recipe again"):
        BenchFolder.open(folder)
    (folder / "bench.json").write_text(json.dumps({**bench, "format": "ultraad.bench/0"}))
    with pytest.raises(DataError, match=r"not of the format ultraad\.bench/1, .*run the recipe again"):
        BenchFolder.open(folder)


def test_the_pixels_of_an_older_folder_lack_only_the_newer_metrics(folder: Path) -> None:
    results = BenchFolder.open(folder)
    row = next(row for row in results.rows() if row.status == "ok")
    file = folder / row.files.pixels
    with np.load(file) as found:
        arrays = dict(found)
    weights = np.ones((1, len(arrays["groups"])))
    now = results.pixels(row).compute(weights)
    file.write_bytes(npz({**arrays, "sums": arrays["sums"][:, :6]}))
    older = results.pixels(row).compute(weights)
    assert now["peak_in_lesion"][0] > 0
    assert np.isnan(older["peak_in_lesion"][0])
    assert now["lesion_sensitivity"][0] > 0
    assert np.isnan(older["lesion_sensitivity"][0])
    assert older["dice"] == now["dice"] > 0
    assert older["pixel_ap"] == now["pixel_ap"]
