"""The tables of a benchmark report, and the paper's numbers beside them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.bench.fake import Spec, change, facts, write_bench
from ultraad.bench.results import BenchFolder
from ultraad.bench.row import Row
from ultraad.bench.study import published, tables
from ultraad.bench.study.statistics import Key, Study
from ultraad.bench.study.view import Scope, View, percent, shots_text, signed
from ultraad.report.kit.tables import Table, TableRow

MINUS = "\N{MINUS SIGN}"


def test_how_numbers_are_written() -> None:
    assert (percent(0.8765, "image_auroc"), percent(0.1234, "ece")) == ("87.6", "0.123")
    assert (signed(-0.0213, "pixel_ap"), signed(0.0, "pixel_ap"), signed(-0.0001, "ece")) == (
        f"{MINUS}2.1",
        "+0.0",
        "+0.000",
    )
    assert (shots_text(0), shots_text(1), shots_text(4)) == ("zero-shot", "1 shot", "4 shots")


def row(**changes: Any) -> Row:
    """A row of ultraad with its defaults, adapted on 8 images of each class of BUS-UCLM, tested on BUSI."""
    plain = facts(Spec(), "embedded", "honest", 8, 0, "ultraad", "busi")
    together = {k: {**plain[k], **v} if isinstance(plain[k], dict) and k != "given" else v for k, v in changes.items()}
    return Row.model_validate({**plain, **together})


def test_printed_numbers_are_shown_for_the_same_experiment_only() -> None:
    assert published.value(row(), "image_auroc") == 0.907
    assert published.value(row(given={"preset": "paper"}), "pixel_ap") == 0.589
    private = {"set": "BUSZS", "layout": None}
    assert published.value(row(test=private, shots=16), "class_auroc_macro") == 0.841
    others: tuple[dict[str, Any], ...] = (
        {"method": "winclip"}, {"given": {"pif.enabled": False}}, {"shots": 2}, {"adapt": {"layouts": ["busi"]}},
        {"test": {"exclude_tags": ["marks"]}}, {"test": {"transform": "paint_overlays"}},
        {"adapt": {"layouts": ["bus_uclm", "udiat"]}},
    )  # fmt: skip
    for other in others:
        assert published.value(row(**other), "image_auroc") is None
    assert published.value(row(), "ece") is None


def test_the_printed_numbers_are_those_of_the_method_page() -> None:
    page = (Path(__file__).parents[3] / "docs" / "ultraad.md").read_text(encoding="utf-8")
    values = published.paper().rows[0].values["BUSI"]
    for by_shots in values.values():
        assert " / ".join(f"{by_shots[k]:.1f}" for k in (4, 8, 16)) in re.sub(r"\s+", " ", page)


def test_why_the_numbers_differ_names_the_backbone() -> None:
    assert "these rows use embedded" in published.why_different("embedded")
    assert "the paper uses" not in published.why_different("open_clip:ViT-L-14-336-quickgelu/openai")


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    spec = Spec(
        methods=("ultraad", "tip_adapter", "mvfa"), shots=(4, 8), seeds=(0, 1), images=18,
        failing=(("mvfa", 8, 1),), protocols=("honest", "published"),
    )  # fmt: skip
    folder = write_bench(tmp_path_factory.mktemp("tables") / "r", spec)
    return View(Study(BenchFolder.open(folder), resamples=200), "embedded", "honest")


def line(table: Table, name: str) -> TableRow:
    (found,) = (x for x in table.rows if x.name == name)
    return found


def test_tables_of_the_paper_with_its_numbers_below_ours(view: View) -> None:
    first, second = tables.paper_tables(view)
    assert first.heads[0] == ("BUSI", "4 shots", "binary")
    assert second.heads[3] == ("BUSI", "8 shots", "AP")
    assert [h[0] for h in first.heads] == ["BUSI"] * 4 + ["UDIAT"] * 4 + ["BUSZS"] * 4
    ours = line(first, "ultraad").cells
    cell = view.study.cell(Key("embedded", "busi", "honest", "ultraad", 8), "class_auroc_macro")
    assert ours[3].text == percent(cell.mean, "class_auroc_macro")
    assert ours[3].spread == percent(cell.sd, "class_auroc_macro")
    assert [e.text for e in line(first, "ultraad (paper)").cells[:4]] == ["87.0", "68.6", "90.7", "72.0"]
    assert [e.text for e in line(second, "ultraad (paper)").cells[-2:]] == ["96.5", "70.5"]
    assert {e.reason for e in ours[-4:]} == {"the data set is not public"}
    assert any("these rows use embedded" in note for note in first.notes)
    assert not any(x.name == "tip_adapter (paper)" for x in first.rows)
    assert all(not e.best for e in line(first, "ultraad (paper)").cells)


def test_optimism_is_published_minus_honest(view: View) -> None:
    busi, _ = tables.optimism(view)
    assert [x.name for x in busi.rows] == ["mvfa, 4 shots", "mvfa, 8 shots"]
    assert [h[0] for h in busi.heads[::3]] == ["Image AUROC", "Pixel AUROC", "Pixel AP"]  # it does not grade
    key = Key("embedded", "busi", "honest", "mvfa", 4)
    honest, looked = (view.study.cell(replace(key, protocol=p), "pixel_ap").mean for p in ("honest", "published"))
    entry = line(busi, "mvfa, 4 shots").cells[8]
    assert entry.value == pytest.approx(looked - honest)
    assert re.fullmatch(r"S\d+\.\d \(S\d+\.\d to S\d+\.\d\)".replace("S", rf"[+{MINUS}]"), entry.text)


def test_metrics_at_a_threshold_are_flagged_unless_it_was_fitted(view: View, tmp_path: Path) -> None:
    assert any("None was fitted" in note for note in tables.everything(Scope(view, "busi", 4)).notes)
    spec = Spec(tests=("busi",), private=(), methods=("ultraad",), shots=(4,), seeds=(0,), images=6, calibrated=True)
    study = Study(BenchFolder.open(write_bench(tmp_path / "r", spec)), resamples=50)
    assert not any(
        "None was fitted" in n for n in tables.everything(Scope(View(study, "embedded", "honest"), "busi", 4)).notes
    )


def test_differences_to_the_reference(view: View) -> None:
    table = tables.differences(Scope(view, "busi", 8))
    assert [x.name for x in table.rows] == ["tip_adapter", "mvfa"]
    found = view.study.against_reference(view.key("ultraad", "busi", 8), "image_auroc")["mvfa"]
    difference, interval, p = line(table, "mvfa").cells[:3]
    assert difference.value == found.difference.value
    assert interval.value == found.difference.low
    assert p.value == found.adjusted
    assert "DeLong" in table.notes[0]


def test_costs_and_ablation(view: View) -> None:
    table = tables.costs(Scope(view, "busi", 8))
    assert [e.text for e in line(table, "ultraad").cells] == ["1,536", "12.0", "40.0", "31.0", "812"]
    assert tables.ablation(view.study) is None
    bench = view.study.folder.bench
    view.study.folder.bench = bench.model_copy(
        update={"recipe": bench.recipe.model_copy(update={"name": "paper_ablation"})}
    )
    printed = tables.ablation(view.study)
    view.study.folder.bench = bench
    assert [e.text for e in line(printed, "full model").cells] == ["82.3", "93.4"]


def test_every_number_is_in_the_long_table(view: View) -> None:
    rows = tables.long_rows(view.study)
    wanted = {"test": "udiat", "protocol": "honest", "method": "mvfa", "shots": 8, "metric": "pixel_ap"}
    (found,) = (r for r in rows if wanted.items() <= r.items())
    cell = view.study.cell(Key("embedded", "udiat", "honest", "mvfa", 8), "pixel_ap")
    assert (found["mean"], found["low"], found["seeds"]) == (cell.mean, cell.low, "0")
    assert found["how"] == "bootstrap of patients"
    private = [r for r in rows if r["test"] == "buszs"]
    assert {r["mean"] for r in private} == {None}
    assert {r["remark"] for r in private} == {"the data set is not public"}


def test_a_gpu_gets_a_column(tmp_path: Path) -> None:
    spec = Spec(tests=("busi",), private=(), methods=("ultraad",), shots=(4,), seeds=(0,), images=6, failing=())
    folder = write_bench(tmp_path / "r", spec)
    change(folder, lambda row: row.update(peak_device_mb=2048.0))
    table = tables.costs(Scope(View(Study(BenchFolder.open(folder), resamples=50), "embedded", "honest"), "busi", 4))
    assert table.heads[-1] == ("GPU memory, MB",)
    assert table.rows[0].cells[-1].text == "2,048"
