"""One small data folder and one small recipe for all tests of the benchmark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import helpers
from ultraad.bench.recipe import Recipe
from ultraad.config import resolve

TOY = "tests.bench.toys:Swinging"


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BUS-UCLM in ``uclm`` and BUSI in ``busi``."""
    folder = tmp_path_factory.mktemp("data")
    helpers.write_bus_uclm(folder / "uclm")
    helpers.write_busi(folder / "busi", per_class=3)
    return folder


@pytest.fixture(scope="session")
def recipe() -> Callable[..., Recipe]:
    """A recipe from BUS-UCLM to BUSI with toy methods; keys can be replaced."""

    def make(**changes: Any) -> Recipe:
        plain = {
            "name": "trial",
            "data": {"uclm": {"root": "uclm"}, "busi": {"root": "busi"}},
            "adapt": {"on": "uclm"},
            "test": ["busi"],
            "backbones": ["tiny"],
            "methods": [{"name": TOY, "label": "toy"}],
            "shots": [1],
            "seeds": [0],
            "bootstrap": 0,
        }
        return resolve(Recipe, {**plain, **changes}, where="test")

    return make
