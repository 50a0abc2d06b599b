"""Every example runs to its end, offline, on random towers, and says what it should."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
LINES = 60
SAYS = {
    "embedded_tower": r"0\.\d+  a malignant breast ultrasound image\nlargest difference .* (?:0e\+00|\de-0[6-9])",
    "adapt_and_predict": r"score 0\.\d+, abnormal: (True|False)\nnormal 0\.\d+, benign 0\.\d+, malignant 0\.\d+\n",
    "evaluate": r"image_auroc.*\nzero-shot +\d\.\d\d \[.*\n2 shots +\d\.\d\d \[.*\n4 shots +\d\.\d\d \[",
    "frames": r"frame 1: score \d\.\d\d, most abnormal at x=\d+, y=\d+",
    "own_texts": r"\('normal', 'benign', 'malignant'\), 'normal' means no lesion\np\d+_\d+\.png \{'normal': ",
}
LEAVES = {"adapt_and_predict": {"model/adapter.safetensors", "model/config.json", "overlay.png"}}


def test_every_example_is_listed_and_short() -> None:
    files = {p.stem: p for p in EXAMPLES.glob("*.py")}
    assert files.keys() == SAYS.keys()
    for path in files.values():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES, path.name


@pytest.mark.parametrize("name", sorted(SAYS))
def test_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    more = ["--frames", "2"] if name == "frames" else []
    monkeypatch.setattr(sys, "argv", [name, "--backbone", "tiny", *more])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert re.search(SAYS[name], said), said
    for file in LEAVES.get(name, ()):
        assert (tmp_path / "example-output" / file).stat().st_size, file


NOTEBOOKS = {
    "researcher": r"\n0 .* ± .*\n2 .* ± .*\n4 .* ± ",
    "engineer": r'\{"score": 0\.\d+, "abnormal": (true|false), .*\n0 0\.00 s score (?s:.*)\nfirst\.ultraad: 0\.\d MB',
    "data_scientist": r"image_auroc - no normal image\npixel_ap 0\.\d+ \[.*\n(?s:.*)U-Systems .* of 6 graded right",
}


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_every_notebook_is_listed_and_stored_without_outputs() -> None:
    files = {p.stem: p for p in EXAMPLES.glob("*.ipynb")}
    assert files.keys() == NOTEBOOKS.keys()
    for path in files.values():
        assert not [cell for cell in code_cells(path) if cell["outputs"] or cell["execution_count"]], path.name


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_notebook_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in code_cells(EXAMPLES / f"{name}.ipynb"):
        code = (
            "".join(cell["source"]).replace('"embedded"', '"tiny"').replace('"train.epochs": 10', '"train.epochs": 1')
        )
        exec(code, names)
    assert names["BACKBONE"] == "tiny"
    said = capsys.readouterr().out
    assert re.search(NOTEBOOKS[name], said), said
