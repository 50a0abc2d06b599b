"""``fan`` of a data set in a recipe: its images are read with it, and its rows are others than without."""

from __future__ import annotations

from pathlib import Path

from tests.fans import sector, shown
from tests.helpers import save
from ultraad.bench.recipe import Recipe
from ultraad.bench.run.data import Data


def data_of(root: Path, work: Path, **about: str) -> Data:
    recipe = {
        "name": "fan",
        "data": {"here": {"root": str(root), **about}},
        "adapt": {"on": "here", "split": None},
        "test": ["here"],
        "methods": ["ultraad"],
    }
    return Data(Recipe.model_validate(recipe), base=None, roots={}, work=work)


def test_the_fan_of_a_data_set_is_looked_for_if_the_recipe_says_so(tmp_path: Path) -> None:
    for n, kind in enumerate(("normal", "benign")):
        save(tmp_path / "set" / kind / "a.png", shown(sector(), seed=n))
    keys = set()
    for about, fan in (({}, None), ({"fan": "auto"}, "auto")):
        ((pool, (test,)),) = data_of(tmp_path / "set", tmp_path / "work", **about).splits
        assert {s.fan for s in test.samples} == {fan}
        assert {s.fan for s in pool.draw(1, 0, per_patient=False).samples} == {fan}
        keys.add(test.facts.digest)
    assert len(keys) == 2
