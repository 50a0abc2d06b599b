"""The report of a benchmark: one file that needs nothing else, says what the folder says, and escapes everything."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.bench.fake import Spec, change, write_bench
from tests.report.page import Page, check_page
from ultraad.bench.pictures import SmallMaps
from ultraad.bench.recipe import Recipe
from ultraad.bench.results import BenchFolder
from ultraad.bench.run.driver import run
from ultraad.bench.study import breakdown, charts, gallery, words
from ultraad.bench.study.page import render
from ultraad.bench.study.statistics import Study
from ultraad.bench.study.view import Scope, View, percent
from ultraad.errors import DataError
from ultraad.metrics.curves import points
from ultraad.metrics.ranking import Ranks
from ultraad.report.kit.charts import PR, ROC
from ultraad.report.kit.tables import Table

SPEC = Spec(shots=(4, 8), seeds=(0, 1), images=24, failing=(("mvfa", 8, 1),), protocols=("honest", "published"))
SMALL = Spec(
    tests=("busi",), private=(), methods=("ultraad", "patch_core"), shots=(4,), seeds=(0,), images=9, failing=()
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bench(tmp_path_factory.mktemp("report") / "r", SPEC)


@pytest.fixture(scope="module")
def view(folder: Path) -> View:
    return View(Study(BenchFolder.open(folder), resamples=100), "embedded", "honest")


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(render(folder, resamples=100))


def small(folder: Path, **changes: Any) -> Path:
    return write_bench(folder, replace(SMALL, **changes))


def check(page: Page, folder: Path) -> None:
    check_page(page, folder, side=gallery.SIDE, shortest_alt=8, script=True)


def test_the_page_is_self_contained(page: Page, folder: Path) -> None:
    check(page, folder)


def test_the_page_says_what_was_compared_and_what_limits_it(page: Page) -> None:
    assert (
        "5 methods on the frozen backbone embedded, adapted on 4 and 8 images of each class from BUS-UCLM" in page.words
    )
    assert "4 results are missing because of errors (mvfa)" in page.words  # two test sets, two protocols
    assert "BUSZS is not public" in page.words
    assert "1 file of BUSI is also among the adaptation images" in page.words
    assert "Patients are not known in BUSI" in page.words
    assert "Only 2 seeds" in page.words
    assert "No thresholds were fitted" in page.words


def test_text_of_the_folder_is_escaped(page: Page) -> None:
    assert "3 GB <wanted>" in page.words
    assert "<wanted>" not in page.source
    assert "Zeta <9>" in page.words


def test_the_headline_is_the_number_of_the_reference_method(page: Page, view: View) -> None:
    cell = view.study.cell(view.key("ultraad", "busi", 8), "pixel_ap")
    assert f"{percent(cell.mean, 'pixel_ap')} ± {percent(cell.sd, 'pixel_ap')}" in page.words
    assert f"95 %: {percent(cell.low, 'pixel_ap')} to {percent(cell.high, 'pixel_ap')}" in page.words


def test_every_section_is_there(page: Page) -> None:
    wanted = {
        "ultraad on BUSI, 8 shots", "The paper's tables", "Table 1: detection and grading", "Table 2: localisation",
        "More images per class", "BUSI in detail", "ROC and precision-recall curves", "Which class is it?",
        "Maps side by side", "Where ultraad fails", "How optimistic are published numbers?", "Ranks over data sets",
        "Learned values and time", "Protocol", "How to read the numbers", "Not measured", "Leakage",
        "By patient on UDIAT",
    }  # fmt: skip
    headings = set(page.headings) | set(re.findall(r"<summary>([^<:]*)", page.source))
    assert wanted <= headings, wanted - headings


def test_protocol_names_fingerprints_and_duplicates(page: Page, view: View) -> None:
    bench = view.study.folder.bench
    for test in bench.tests:
        if test.public:
            assert test.digest[:12] in page.words
    for support in bench.supports:
        assert support.digest[:12] in page.words
    assert view.study.rows[0].backbone.fingerprint[:12] in page.words


def test_rendering_again_gives_the_same_page(page: Page, folder: Path) -> None:
    assert render(folder, resamples=100).read_text(encoding="utf-8") == page.source


def test_tables_are_written_beside_the_page(page: Page, folder: Path, view: View) -> None:
    text = (folder / "tables" / "tables.md").read_text(encoding="utf-8")
    cell = view.study.cell(view.key("ultraad", "busi", 8), "pixel_ap")
    assert f"{percent(cell.mean, 'pixel_ap')}** ± {percent(cell.sd, 'pixel_ap')}" in text
    tex = (folder / "tables" / "tables.tex").read_text(encoding="utf-8")
    assert tex.count(r"\begin{tabular}") == text.count("\n| --- ")
    with (folder / "tables" / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wanted = {"test": "busi", "method": "ultraad", "shots": "8", "metric": "pixel_ap", "protocol": "honest"}
    (found,) = (r for r in rows if wanted.items() <= r.items())
    assert float(found["mean"]) == pytest.approx(cell.mean)
    assert (folder / "tables" / "table1.csv").read_text().startswith("Method,")


def test_an_unfinished_folder_says_so(tmp_path: Path) -> None:
    folder = small(tmp_path / "r", seeds=(0, 1))
    path = folder / "results.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]) + '{"id": "cut')
    bench = json.loads((folder / "bench.json").read_text())
    (folder / "bench.json").write_text(json.dumps({**bench, "status": "interrupted"}))
    page = Page(render(folder, resamples=50))
    check(page, folder)
    assert "The benchmark is interrupted: 1 row of the recipe is missing." in page.words


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="bench run"):
        render(tmp_path)
    folder = small(tmp_path / "r")
    (folder / "results.jsonl").write_text("")
    with pytest.raises(DataError, match="no row yet"):
        render(folder)


def test_a_folder_where_everything_failed(tmp_path: Path) -> None:
    folder = small(tmp_path / "r", failing=(("ultraad", 4, 0), ("patch_core", 4, 0)))
    page = Page(render(folder, resamples=50))
    check(page, folder)
    assert "tested on nothing yet" in page.words


def test_a_reference_without_map_or_classes(tmp_path: Path) -> None:
    for method in ("tip_adapter", "winclip"):
        folder = small(tmp_path / method, methods=(method, "ultraad"))
        page = Page(render(folder, resamples=50))
        check(page, folder)
        assert ("the method has no map" if method == "tip_adapter" else "the method does not grade") in page.words


def test_several_backbones_are_parts(tmp_path: Path) -> None:
    folder = small(tmp_path / "r", backbones=("embedded", "open_clip:<x>"))
    page = Page(render(folder, resamples=50))
    check(page, folder)
    assert {"Backbone embedded", "Backbone open_clip:<x>"} <= set(page.headings)
    assert (folder / "tables" / "table1-2.csv").is_file()


def test_a_folder_with_images_without_truth_or_maps(tmp_path: Path) -> None:
    folder = small(tmp_path / "r")
    change(folder, lambda row: row["files"].update(maps=None))
    for path in (folder / "predictions").iterdir():
        rows = [json.loads(x) for x in path.read_text().splitlines()]
        rows[0] |= {"label": None, "anomalous": None, "pixels": None}
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    page = Page(render(folder, resamples=50))
    check(page, folder)
    assert "No maps are shown" in page.words


def test_a_real_run_can_be_reported(tmp_path: Path, data: Path, recipe: Callable[..., Recipe]) -> None:
    chosen = recipe(shots=[0, 1], seeds=[0, 1], methods=["linear_probe", "winclip", "ultraad"], bootstrap=0)
    run(chosen, tmp_path / "r", base=data, jobs=1)
    page = Page(render(tmp_path / "r", resamples=50))
    check(page, tmp_path / "r")
    assert "zero-shot" in page.words
    assert "images of each class from uclm, drawn" in page.words  # a set without a title goes by its name


def test_shown_cases_follow_the_rule(view: View) -> None:
    grid = gallery.grid(Scope(view, "busi", 8))
    assert grid.heads == ("image", "lesion", "ultraad", "patch_core", "winclip", "mvfa")
    assert [c.kind for c in grid.cases] == ["best"] * 2 + ["median"] * 2 + ["worst"] * 2
    own: dict[str, list[float]] = {}
    for label in grid.heads[2:]:
        for x in view.study.folder.predictions(view.study.ok(view.key(label, "busi", 8))[0]):
            if x.anomalous:
                own.setdefault(x.id, []).append(x.pixels.ap)
    means = sorted(own, key=lambda i: -np.mean(own[i]))
    assert [c.name for c in grid.cases] == [*means[:2], *means[7:9], *means[-2:]]
    assert grid.cases[0].tiles[2][1] == f"AP {100 * own[means[0]][0]:.0f}"


def test_the_scale_of_maps_is_the_share_of_lower_pixels() -> None:
    maps = np.arange(2 * 4, dtype=np.float32).reshape(2, 2, 2)
    maps[1, 1, 1] = 0  # equal values share the middle of their places
    levels = gallery.Levels(SmallMaps(("a", "b"), maps))
    np.testing.assert_allclose(levels.of("a"), [[1 / 8, 2.5 / 8], [3.5 / 8, 4.5 / 8]])
    assert levels.of("b")[0, 0] == 5.5 / 8
    stretched = gallery.Levels(SmallMaps(("a", "b"), 7 * maps**3 + 1))  # any rising scale gives the same picture
    np.testing.assert_allclose(levels.of("b"), stretched.of("b"))
    assert levels.of("c") is None


def test_failures_are_the_worst_images(view: View) -> None:
    name, kinds = gallery.mistakes(Scope(view, "busi", 8))
    assert name == "ultraad, seed 0"
    lines = view.study.folder.predictions(view.study.ok(view.key("ultraad", "busi", 8))[0])
    missed = sorted((x for x in lines if x.anomalous), key=lambda x: x.score)
    assert [m.name for m in kinds[0].examples] == [x.id for x in missed[:4]]
    normal = np.array([x.score for x in lines if not x.anomalous])
    assert (
        f"above {100 * (normal < missed[0].score).mean():.0f} % of the normal images" in kinds[0].examples[0].lines[1]
    )
    assert [k.title for k in kinds][1] == "Normal images with the highest scores"


def test_tables_by_scanner_and_by_patient(view: View) -> None:
    table = breakdown.devices(Scope(view, "udiat", 8))
    assert isinstance(table, Table)
    assert table.heads[0] == ("Acme 3 (12 images)", "image AUROC")
    rows = view.study.ok(view.key("patch_core", "udiat", 8))
    parts = [[x for x in view.study.folder.predictions(r) if x.device == "Acme 3"] for r in rows.values()]
    expected = np.mean([roc_auc_score([x.anomalous for x in p], [x.score for x in p]) for p in parts])
    (line,) = (x for x in table.rows if x.name == "patch_core")
    assert line.cells[0].value == pytest.approx(expected)
    assert "which scanner" in breakdown.devices(Scope(view, "busi", 8))
    patients = breakdown.patients(Scope(view, "udiat", 8))
    assert isinstance(patients, Table)
    assert len(patients.rows) == 6
    ap = [x.cells[4].value for x in patients.rows]
    assert ap == sorted(ap)
    assert "too narrow" in breakdown.patients(Scope(view, "busi", 8))


def test_marks_compare_all_images_with_unmarked_ones(view: View) -> None:
    table = breakdown.marks(Scope(view, "busi", 8))
    assert isinstance(table, Table)
    rows = view.study.ok(view.key("ultraad", "busi", 8)).values()
    expected = np.mean([r.value("image_auroc", subset="without_marks") for r in rows])
    assert table.rows[0].cells[2].value == pytest.approx(expected)


def test_confusion_is_the_mean_over_seeds(view: View) -> None:
    found = breakdown.confusion(Scope(view, "busi", 8), "ultraad")
    matrices = [r.confusion.matrix for r in view.study.ok(view.key("ultraad", "busi", 8)).values()]
    np.testing.assert_allclose([[n for n, _, _ in cells] for _, cells, _ in found.rows], np.mean(matrices, axis=0))
    assert all(sum(part for _, part, _ in cells) == pytest.approx(1) for _, cells, _ in found.rows)
    assert breakdown.confusion(Scope(view, "busi", 8), "patch_core") is None


def test_headlines_count_better_and_worse_methods(view: View) -> None:
    (image, *_) = words.headlines(Scope(view, "busi", 8))
    found = view.study.against_reference(view.key("ultraad", "busi", 8), "image_auroc")
    verdicts = [t.verdict for t in found.values()]
    assert image.verdicts == {v: verdicts.count(v) for v in ("worse", "better", "undecided") if v in verdicts}
    assert image.verdicts.total() == 4


def curve(scores: list[float], positive: list[bool]) -> dict[str, Any]:
    order = np.argsort(scores)[::-1]
    pos = np.array(positive, float)[order]
    return points(1 - pos, pos, np.array(scores)[order])


def test_curves_are_averaged_over_seeds() -> None:
    one = curve([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
    two = curve([0.9, 0.8, 0.7, 0.6], [True, True, False, False])
    band = charts.average(ROC, [one["roc"], two["roc"]])
    assert (band.low <= band.mean).all()
    assert (band.mean <= band.high).all()
    assert band.mean[25] == pytest.approx((0.5 + 1.0) / 2)  # at a false positive rate of 0.25
    assert band.mean[-1] == 1
    recall = charts.average(PR, [one["pr"], two["pr"]])
    assert recall.mean[50] == 1.0  # the first positive is right in both
    assert recall.mean[-1] == pytest.approx((2 / 3 + 1) / 2)


def test_critical_difference_diagram_joins_close_methods() -> None:
    ranks = Ranks({"a": 1.0, "b": 1.5, "c": 3.5, "d": 4.0}, 9.0, 0.03, critical=1.0, sets=5)
    drawn = str(charts.critical_difference("Ranks", ranks))
    assert drawn.count('class="tie"') == 2
    assert "Mean ranks: a 1.00; b 1.50" in drawn
    ElementTree.fromstring(drawn)


def test_charts_of_one_point_or_no_point() -> None:
    assert charts.over_shots("x", [charts.Series("a", "s0", [(4, 0.5, None)])]) is None
    assert charts.intervals("x", []) is None
    equal = charts.intervals("x", [charts.Bar("a", 0.5, None, None), charts.Bar("b", 0.5, 0.5, 0.5)])
    assert "nan" not in str(equal)
