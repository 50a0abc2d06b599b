"""Every public name has an example that runs."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import ultraad
from ultraad import config, rng
from ultraad.model.model import Model

PUBLIC = [name for name in ultraad.__all__ if name != "__version__"]
OTHERS = [Model.predict, Model.stream, config.resolve, rng.torch_forked]
FINDER = doctest.DocTestFinder(recurse=False)


def run(thing: object, name: str) -> int:
    """The number of examples in a docstring; all of them must print what it says."""
    module = importlib.import_module(thing.__module__)
    runner, said = doctest.DocTestRunner(), list[str]()
    for test in FINDER.find(thing, name, module=module, globs={}):
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
    return runner.tries


def test_the_public_api_is_small() -> None:
    assert len(ultraad.__all__) <= 16


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example_that_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(getattr(ultraad, name), name) >= 2


@pytest.mark.parametrize("thing", OTHERS, ids=lambda thing: thing.__qualname__)
def test_other_examples_run(thing: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(thing, "example") >= 2


def test_a_wrong_example_is_noticed() -> None:
    def wrong() -> None:
        """Does nothing.

        >>> 1 + 1
        3
        """

    with pytest.raises(AssertionError, match=r"Expected:\n +3"):
        run(wrong, "wrong")
