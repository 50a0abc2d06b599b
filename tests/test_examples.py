"""Every example runs to its end, offline, on random towers, and says what it should."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

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
