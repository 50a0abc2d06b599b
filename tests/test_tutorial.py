"""The first tutorial runs as it is written, on random towers, and leaves the files it names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.test_docs import ROOT, commands
from ultraad.cli import main

PAGE = ROOT / "docs" / "first-model.md"


@pytest.mark.slow
def test_the_first_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = "--backbone tiny --set train.epochs=1 --set train.views=1 --set calibration.folds=2"
    for words in commands(PAGE):
        more = {"adapt": quick, "evaluate": "--backbone tiny"}.get(words[0], "") if "model" not in words[1:2] else ""
        with pytest.raises(SystemExit) as done:
            main([*words, *shlex.split(more)])
        assert not done.value.code, words
    named = re.findall(r"`((?:samples|model|predictions|results)/[\w/.]+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) >= 5
    assert [path for path in named if not (tmp_path / path).exists()] == []
    same = [(tmp_path / name / "predictions.csv").read_bytes() for name in ("predictions", "predictions-again")]
    assert same[0] == same[1]


def test_the_first_tutorial_takes_a_reader_through_every_step() -> None:
    verbs = [words[0] for words in commands(PAGE)]
    assert verbs == [
        "doctor",
        "data",
        "data",
        "support",
        "adapt",
        "predict",
        "evaluate",
        "evaluate",
        "pack",
        "unpack",
        "predict",
    ]
