"""Recipes are strict, and those that ship are complete."""

from __future__ import annotations

import pytest

from ultraad import methods
from ultraad.bench.recipe import ALL, read_recipe, shipped
from ultraad.bench.run.protocol import HABITS
from ultraad.config import resolve
from ultraad.errors import ConfigError

SHIPPED = list(shipped().values())


def test_a_word_is_short_for_an_entry_with_that_name(recipe):
    r = recipe(methods=["ultraad", {"name": "winclip", "label": "W", "options": {"x": 1}}], test=["busi"])
    assert [e.label for e in r.methods] == ["ultraad", "W"]
    assert (r.test[0].on, r.test[0].name) == ("busi", "busi")
    assert r.backbones[0].name == "tiny"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shotz": [4]}, "did you mean shots"),
        ({"methods": [{"name": "ultraad", "labl": "x"}]}, "labl"),
        ({"methods": ["ultraad", "ultraad"]}, "twice"),
        ({"test": ["busi", {"on": "busi", "exclude_tags": ["marks"]}]}, "busi is given twice"),
        ({"test": ["udiat"]}, "data does not name udiat"),
        ({"test": []}, "adapt.on and test"),
        ({"leave_one_out": True}, "adapt.on and test"),
        ({"leave_one_out": True, "pairs": True}, "or only pairs"),
        ({"seeds": [-1]}, "seeds: wanted list of whole numbers >= 0"),
        ({"protocols": ["dishonest"]}, "honest"),
        ({"data": {"uclm": {"public": False}, "busi": {"root": "b"}}}, "not public"),
        ({"data": {"uclm": {}, "busi": {"root": "b"}}}, "needs a root"),
        ({"auxiliary": "mvtec"}, "mvtec"),
        ({"auxiliary": "others"}, "others needs adapt.on: each"),
    ],
)
def test_mistakes_are_named(recipe, changes, message):
    with pytest.raises(ConfigError, match=message):
        recipe(**changes)


def test_changes_replace_keys_of_the_file(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("name: r\ndata: {d: {root: d}}\nadapt: {on: d}\ntest: [d]\nmethods: [ultraad]\nseeds: [0, 1]\n")
    assert read_recipe(file, changes={"seeds": [5]}).seeds == (5,)
    with pytest.raises(ConfigError, match="seeds"):
        read_recipe(file, changes={"seeds": "many"})


def test_a_file_wins_over_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick").mkdir()  # a results folder of that name is no recipe
    assert read_recipe("quick").name == "quick"
    (tmp_path / "quick").rmdir()
    (tmp_path / "quick").write_text("name: own\ndata: {d: {root: d}}\nadapt: {on: d}\ntest: [d]\nmethods: [ultraad]\n")
    assert read_recipe("quick").name == "own"


def test_an_old_path_of_a_shipped_recipe_works_with_a_warning(caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_recipe("recipes/quick.yaml") == read_recipe("quick")
    assert caplog.messages == ["recipes/quick.yaml is now part of the package; write 'quick' instead"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shortcut", r"there is no recipe 'shortcut'; did you mean 'shortcuts'\? wanted a YAML file or one of ambig"),
        ("mine/quik.yaml", r"there is no recipe 'mine/quik.yaml'; did you mean 'quick'\?"),
        ("elsewhere/quick.yaml", r"there is no recipe 'elsewhere/quick.yaml'; did you mean 'quick'\?"),
        ("zzzz", "there is no recipe 'zzzz'; wanted a YAML file or one of ambiguities"),
    ],
)
def test_a_missing_recipe_is_named_with_the_nearest_one(name, message):
    with pytest.raises(ConfigError, match=message):
        read_recipe(name)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_shipped_recipes_are_complete(path):
    text = path.read_text(encoding="utf-8")
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert f"ultraad bench run {path.stem} --data DATA" in "".join(head), "the header gives the command"
    assert any("unmeasured" in line for line in head) or any("minutes" in line for line in head)
    r = read_recipe(path)
    assert r == read_recipe(path.stem)
    assert r.name == path.stem
    assert r.title
    for entry in r.methods:
        if entry.name != ALL:
            resolve(methods.get(entry.name).Config, entry.options, where=entry.label)
    assert r.reference in {e.label for e in r.methods} | {""}


def test_all_recipes_ship():
    names = (
        "ambiguities another_organ device_shift mediclip methods_16shot mvfa_bmad ordered_pairs paper_ablation "
        "paper_table1 paper_table2 quick shortcuts"
    )
    assert [p.stem for p in SHIPPED] == names.split()


def test_every_ambiguity_has_a_variant():
    import re

    labels = " ".join(e.label for e in read_recipe(SHIPPED[0]).methods)
    assert {f"A{n}" for n in range(1, 23)} <= set(re.findall(r"\bA\d+\b", labels))


def test_habits_name_existing_methods():
    assert set(HABITS) <= set(methods.available())
