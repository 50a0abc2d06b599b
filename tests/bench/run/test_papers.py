"""The recipes of other papers' tables, on simulated folders of the layouts that the papers use."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import helpers
from tests.bench.conftest import TOY
from ultraad.bench.recipe import Recipe, read_recipe
from ultraad.bench.results import BenchFolder
from ultraad.bench.run.data import Data
from ultraad.bench.run.driver import run
from ultraad.bench.run.jobs import Plan
from ultraad.bench.study import published
from ultraad.bench.study.statistics import Study
from ultraad.bench.study.tables import paper_tables
from ultraad.bench.study.view import View
from ultraad.errors import DataError

SMALL = {"backbones": ["tiny"], "bootstrap": 0, "protocols": ["honest"], "maps": "none"}


@pytest.fixture(scope="module")
def bmad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the six sets as MVFA arranges them: validation and test images only; Chest_AD has no masks."""
    folder = tmp_path_factory.mktemp("bmad")
    for name in ("Brain_AD", "Liver_AD", "Chest_AD"):
        helpers.write_bmad(folder / name)
        shutil.rmtree(folder / name / "train")
    for truth in ("valid/Ungood/label", "test/Ungood/anomaly_mask"):
        shutil.rmtree(folder / "Chest_AD" / truth)
    return folder


def planned(r: Recipe, base: Path, work: Path, **roots: Path) -> Plan:
    return Plan(r, Data(r, base=base, roots=roots, work=work), device="cpu")


def test_mvfas_table_uses_each_sets_validation_images_and_zero_shot_the_other_sets(
    bmad: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = planned(read_recipe("mvfa_bmad", changes={**SMALL, "shots": [0, 2], "seeds": [0]}), bmad, tmp_path)
    assert {name for name in ("resc", "oct17", "histopathology") if f"{name} is not in" in caplog.text} == {
        "resc", "oct17", "histopathology"
    }  # fmt: skip
    found = {(j.about.label, j.about.shots, j.about.adapt.name): j for j in plan.jobs}
    assert {key[2] for key in found} == {"brain", "liver", "chest"}
    few = found["MVFA", 2, "brain"]
    assert few.auxiliary is None
    assert few.support is not None
    assert all(s.image.is_relative_to(bmad / "Brain_AD" / "valid") for s in few.support.samples)
    assert [(r.test.facts.name, r.test.facts.split) for r in few.rows] == [("brain", "test")]
    zero = found["MVFA", 0, "brain"]
    assert zero.support is None
    assert zero.auxiliary is not None
    assert {s.id.split("/")[0] for s in zero.auxiliary.samples} == {"liver", "chest"}
    few_sets = read_recipe("mvfa_bmad", changes={**SMALL, "shots": [0]})
    for name in ("Chest_AD", "Brain_AD"):
        shutil.copytree(bmad / name, tmp_path / "two" / name)
    with pytest.raises(DataError, match="chest cannot be the auxiliary set: no abnormal image has a mask"):
        planned(few_sets, tmp_path / "two", tmp_path)


def test_mediclips_table_draws_normal_images_of_each_set_and_has_the_papers_number(tmp_path: Path) -> None:
    helpers.write_busi(tmp_path / "Dataset_BUSI_with_GT", per_class=3)
    own = helpers.write_folder(tmp_path / "own", classes=("normal", "abnormal"))
    changes = {**SMALL, "shots": [2], "seeds": [0], "methods": [{"name": "patch_core", "label": "PatchCore"}]}
    r = read_recipe("mediclip", changes={**changes, "reference": "PatchCore"})
    plan = planned(r, tmp_path, tmp_path, chexpert=own)
    for job in plan.jobs:
        assert job.support is not None
        assert [s.label for s in job.support.samples] == ["normal"] * 2
    run(r, tmp_path / "out", base=tmp_path, roots={"chexpert": own}, jobs=1)
    rows = BenchFolder.open(tmp_path / "out").rows()
    assert {(row.test.name, row.status) for row in rows} == {("busi", "ok"), ("chexpert", "ok")}
    busi, chexpert = sorted(rows, key=lambda row: row.test.name)
    assert busi.metrics is not None
    assert busi.n is not None
    row = chexpert.model_copy(update={"method": "medi_clip", "shots": 16})
    assert published.value(row, "image_auroc") == 0.725
    assert published.value(row, "pixel_auroc") is None
    assert published.value(row.model_copy(update={"given": {"epochs": 1}}), "image_auroc") is None
    table, _ = paper_tables(View(Study(BenchFolder.open(tmp_path / "out"), resamples=50), "tiny", "honest"))
    assert [h[0] for h in table.heads] == ["BUSI", "BUSI", "CheXpert", "CheXpert"]


def test_numbers_of_other_papers_are_recognised_by_recipe_test_set_and_method(bmad: Path, tmp_path: Path) -> None:
    plan = planned(read_recipe("mvfa_bmad", changes={**SMALL, "shots": [2], "seeds": [0]}), bmad, tmp_path)
    row = next(j.about for j in plan.jobs if (j.about.label, j.about.adapt.name) == ("MVFA", "liver"))
    for shots, metric, percent in ((0, "image_auroc", 76.24), (4, "image_auroc", 81.18), (4, "pixel_auroc", 99.73)):
        assert published.value(row.model_copy(update={"shots": shots}), metric) == percent / 100
    assert published.value(row, "image_auroc") is None
    assert published.value(row.model_copy(update={"shots": 4, "method": "mad_clip"}), "image_auroc") is None
    assert "240 pixels" in published.why_different("tiny", "mvfa_bmad")
    assert "MVFA-AD" in published.reading("mvfa_bmad")[0]
    assert published.reading("mine") == published.reading("paper_table1")


def test_each_needs_at_least_one_set(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    r = recipe(adapt={"on": "each"}, test=["busi"], methods=[{"name": TOY, "label": "toy"}])
    with pytest.raises(DataError, match="none of uclm, busi is available"):
        Data(r, base=tmp_path, roots={}, work=tmp_path)
