"""The grid of jobs, and the ids of rows."""

from __future__ import annotations

import shutil
from itertools import permutations

import pytest
from PIL import Image

from tests import helpers
from tests.bench.conftest import TOY
from ultraad.bench.run import jobs as jobs_module
from ultraad.bench.run.data import Data, duplicates
from ultraad.bench.run.jobs import Plan
from ultraad.bench.run.protocol import Habit
from ultraad.errors import ConfigError, DataError


@pytest.fixture
def plan(data, tmp_path, recipe):
    def make(*, base=data, roots=None, **changes):
        r = recipe(**changes)
        return Plan(r, Data(r, base=base, roots=roots or {}, work=tmp_path), device="cpu")

    return make


def ids(plan):
    return [planned.row.id for job in plan.jobs for planned in job.rows]


def test_the_grid_covers_variants_shots_seeds_and_tests(plan):
    p = plan(
        methods=[{"name": TOY, "label": "a"}, {"name": TOY, "label": "b", "options": {"jump": 2}, "shots": [2]}],
        shots=[0, 1],
        seeds=[0, 1],
        test=["busi", {"on": "uclm", "name": "held out", "split": "test"}],
    )
    found = [(j.about.label, j.about.shots, j.about.seed, len(j.rows)) for j in p.jobs]
    assert found == [("a", 0, 0, 2), ("a", 1, 0, 2), ("b", 2, 0, 2), ("a", 1, 1, 2), ("b", 2, 1, 2)]
    assert len(set(ids(p))) == 10


def test_only_zero_shot_methods_run_without_shots(plan):
    labels = [j.about.label for j in plan(methods=["patch_core", "winclip"], shots=[0]).jobs]
    assert labels == ["winclip"]


def test_an_id_depends_only_on_what_affects_the_result(plan, data, tmp_path):
    first = ids(plan())
    assert ids(plan(methods=[{"name": TOY, "label": "another name"}], title="other", maps="none")) == first
    elsewhere = tmp_path / "elsewhere"
    helpers.write_busi(elsewhere, per_class=3)
    assert ids(plan(roots={"busi": elsewhere})) == first
    for changes in (
        {"seeds": [1]},
        {"shots": [2]},
        {"backbones": ["tiny:uneven"]},
        {"backbones": [{"name": "tiny", "size": 96}]},
        {"methods": [{"name": TOY, "label": "toy", "options": {"jump": 2}}]},
        {"calibrate": True},
        {"adapt": {"on": "uclm", "exclude_tags": ["marks"]}},
        {"test": [{"on": "busi", "transform": "paint_overlays"}]},
        {"bootstrap": 5},
    ):
        assert set(ids(plan(**changes))).isdisjoint(first), changes
    (elsewhere / "benign" / "benign (2)_mask.png").unlink()
    assert set(ids(plan(roots={"busi": elsewhere}))).isdisjoint(first)


def test_published_rows_are_only_for_methods_with_a_habit(plan, monkeypatch):
    both = {"protocols": ["honest", "published"]}
    assert [j.about.protocol for j in plan(**both).jobs] == ["honest"]
    monkeypatch.setattr(jobs_module, "HABITS", {TOY: Habit(min_max=True)})
    found = plan(**both).jobs
    assert [j.about.protocol for j in found] == ["honest", "published"]
    assert found[1].about.transductive
    assert "moved to [0, 1]" in found[1].about.habits[0]


def test_all_means_every_method_without_its_own_variant(plan):
    p = plan(methods=[{"name": TOY, "label": "ultraad"}, "all", {"name": "winclip", "label": "W"}])
    labels = [e.label for e in p.variants]
    assert labels[0] == "ultraad"
    assert labels[-1] == "W"
    assert {"winclip", "mvfa", "coop"} <= set(labels)
    assert len(labels) == len(set(labels))


def test_wrong_options_are_reported_before_any_work(plan):
    with pytest.raises(ConfigError, match="jmp"):
        plan(methods=[{"name": TOY, "label": "toy", "options": {"jmp": 2}}])


def test_filters_select_images_and_missing_data_are_reported(plan):
    p = plan(
        test=[
            {"on": "uclm", "name": "unmarked", "split": "train", "exclude_tags": ["marks"]},
            {"on": "uclm", "name": "marked", "include_tags": ["marks"]},
        ]
    )
    unmarked, marked = (r.test for r in p.jobs[0].rows)
    assert unmarked.samples
    assert marked.samples
    assert all("marks" not in s.tags and s.split == "train" for s in unmarked.samples)
    assert all("marks" in s.tags for s in marked.samples)
    with pytest.raises(DataError, match="no image of busi has the tag"):
        plan(test=[{"on": "busi", "include_tags": ["marks"]}])
    with pytest.raises(DataError, match="is empty"):
        plan(test=[{"on": "busi", "split": "test"}])
    with pytest.raises(DataError, match="--root busi=DIR"):
        plan(roots={"busi": marked.samples[0].image.parent / "nowhere"})
    with pytest.raises(ConfigError, match="the recipe has no data set udiat"):
        plan(roots={"udiat": marked.samples[0].image.parent})
    with pytest.raises(ConfigError, match="--data DIR"):
        plan(base=None)


LEFT_OUT = {"adapt": {"split": "train"}, "test": [], "leave_one_out": True}


def test_leave_one_out_uses_the_available_data_sets(plan, data, tmp_path):
    sets = {name: {"root": name} for name in ("uclm", "busi", "absent")}
    third = helpers.write_folder(tmp_path / "third")
    p = plan(data={**sets, "third": {"root": str(third)}}, shots=[1, 2], **LEFT_OUT)
    found = {j.about.adapt.name: j.rows[0].test.facts.name for j in p.jobs}
    assert found == {"busi+third": "uclm", "uclm+third": "busi", "uclm+busi": "third"}
    one, two = (j.support for j in p.jobs if j.about.adapt.name == "uclm+third")
    assert [len(s.samples) for s in (one, two)] == [3, 6]
    for label in one.classes:  # nested, and two shots come from two data sets
        a, b = ([s for s in x.samples if s.label == label] for x in (one, two))
        assert b[:1] == a
        assert len({s.image.is_relative_to(third) for s in b}) == 2


def test_pairs_are_all_ordered_ones_and_a_set_without_normals_can_be_adapted_on(plan, data, tmp_path):
    lesions = helpers.write_folder(tmp_path / "lesions")
    shutil.rmtree(lesions / "normal")
    named = {"root": str(lesions), "classes": ["normal", "benign", "malignant"], "normal_class": "normal"}
    sets = {"uclm": {"root": "uclm", "exclude_tags": ["marks"]}, "busi": {"root": "busi"}, "lesions": named}
    p = plan(data=sets, shots=[1], **{**LEFT_OUT, "leave_one_out": False}, pairs=True)
    assert {(j.about.adapt.name, r.test.facts.name) for j in p.jobs for r in j.rows} == set(permutations(sets, 2))
    (alone,) = (j.support for j in p.jobs if j.about.adapt.name == "lesions")
    assert [s.label for s in alone.samples] == ["benign", "malignant"]
    assert alone.classes == ("normal", "benign", "malignant")
    unmarked = [r.test for j in p.jobs for r in j.rows if r.test.facts.name == "uclm"]
    assert all("marks" not in s.tags for test in unmarked for s in test.samples)
    assert {test.facts.exclude_tags for test in unmarked} == {("marks",)}
    assert {j.about.adapt.exclude_tags for j in p.jobs if j.about.adapt.name == "uclm"} == {("marks",)}


def test_leave_one_out_needs_two_data_sets(plan):
    with pytest.raises(DataError, match="needs two data sets"):
        plan(data={"uclm": {"root": "uclm"}, "absent": {"root": "absent"}}, **LEFT_OUT)


def test_duplicates_are_images_with_equal_bytes(plan):
    p = plan(test=[{"on": "uclm", "name": "same"}, "busi"])
    job = p.jobs[0]
    found = duplicates(job.support, [r.test for r in job.rows])
    same = tuple((s.id, s.id) for s in sorted(job.support.samples, key=lambda s: s.id))
    assert found == {"same": same, "busi": ()}


def test_masks_of_another_size_are_used_if_the_recipe_says_so(plan, data, tmp_path):
    root = helpers.write_busi(tmp_path / "large_masks", per_class=3)
    for path in root.rglob("*_mask*.png"):
        mask = Image.open(path)
        mask.resize((2 * mask.width, 2 * mask.height)).save(path)

    def made(resize, **more):
        sets = {"uclm": {"root": "uclm"}, "busi": {"root": str(root), "resize_masks": resize}}
        return plan(**{"data": sets, "adapt": {"on": "busi"}, "test": ["uclm", "busi"], **more})

    as_they_are, resized = made(False), made(True)
    assert set(ids(as_they_are)).isdisjoint(ids(resized))
    for found, wanted in ((as_they_are, False), (resized, True)):
        (job,) = found.jobs
        lesions = [s for s in job.rows[1].test.samples if s.anomalous]
        assert {s.mask_aligned for s in lesions} == {wanted}
        assert {s.resize_masks for s in job.support.samples if s.masks} <= {wanted}
    with pytest.raises(DataError, match="no abnormal one has a mask of the same size"):
        made(False, test=["uclm"], auxiliary="busi")
    assert made(True, test=["uclm"], auxiliary="busi").data.auxiliary.samples
