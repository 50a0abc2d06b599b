from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapted import QUICK
from tests.helpers import write_bus_uclm, write_folder
from ultraad.cli import demo
from ultraad.data.samples import samples
from ultraad.data.sources import scan
from ultraad.data.support import content_hash, load_support
from ultraad.errors import ConfigError, DataError
from ultraad.results.folder import read_rows
from ultraad.types import Sample


def tell(output: Path, **options: object) -> demo.Story:
    return demo.run(output, backbone="tiny", options=QUICK, **options)


def check(story: demo.Story, output: Path) -> None:
    """Everything the demo names exists, and no support image was evaluated."""
    assert story.report.is_file()
    assert (story.model / "config.json").is_file()
    assert story.metrics["metrics"]["image_auroc"]["value"] is not None
    support = load_support(output / "support.json")
    hashes = {content_hash(s) for s in support.samples}
    rows = list(read_rows(output / "evaluation"))
    assert rows
    assert hashes.isdisjoint(content_hash(Sample(id="", image=Path(r.image))) for r in rows)
    assert len(list(read_rows(output / "predictions"))) > 0


def test_the_demo_on_the_real_images_in_the_package(tmp_path: Path) -> None:
    story = tell(tmp_path / "out")
    support = load_support(tmp_path / "out" / "support.json")
    assert Counter(s.label for s in support.samples) == {"benign": 4, "malignant": 4}
    rows = list(read_rows(tmp_path / "out" / "evaluation"))
    assert len({s.group for s in support.samples}) == 8, "each from another patient"
    assert {r.group for r in rows} == {s.group for s in scan(samples())} - {s.group for s in support.samples}
    assert story.metrics["n"] | {"images": 32, "lesions": 32, "normals": 0} == story.metrics["n"]
    assert story.metrics["metrics"]["pixel_auroc"]["value"] is not None
    assert story.metrics["metrics"]["image_auroc"]["value"] is None, "nothing to tell lesions from"
    assert any("no normal image, so detection stays zero-shot" in line for line in story.lines)


def test_your_own_folder_and_simulated_images_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data and --simulated"):
        tell(tmp_path / "out", data=tmp_path, simulated=True)


def test_the_demo_on_simulated_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SIMULATED", {"support": 30, "unseen": 12})
    monkeypatch.setattr(demo, "SIZE", 64)
    story = tell(tmp_path / "out", simulated=True)
    check(story, tmp_path / "out")
    assert story.metrics["n"]["images"] == 12
    again = tell(tmp_path / "out", simulated=True)
    assert again.metrics["metrics"] == story.metrics["metrics"], (
        "the same seed gives the same numbers, also in the same folder"
    )


def test_the_demo_on_your_own_folder(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "mine", classes=("healthy", "lump"), per_class=5)
    story = tell(tmp_path / "out", data=root)
    support = load_support(tmp_path / "out" / "support.json")
    assert support.shots == 4, "the most of 4, 2, 1 that leaves something to evaluate"
    evaluated = {r.id for r in read_rows(tmp_path / "out" / "evaluation")}
    assert evaluated == {s.id for s in scan(root)} - {s.id for s in support.samples}
    check(story, tmp_path / "out")


def test_patients_and_published_splits_are_respected(tmp_path: Path) -> None:
    root = write_bus_uclm(tmp_path / "uclm")
    tell(tmp_path / "out", data=root)
    support = load_support(tmp_path / "out" / "support.json")
    rows = list(read_rows(tmp_path / "out" / "evaluation"))
    assert {r.group for r in rows} == {"COPE"}
    assert "COPE" not in {s.group for s in support.samples}
    run = json.loads((tmp_path / "out" / "evaluation" / "run.json").read_text())
    assert run["data"]["layout"] == "bus_uclm"


def test_too_few_images_are_an_error(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "few", per_class=1)
    with pytest.raises(DataError, match="too small for the demo"):
        tell(tmp_path / "out", data=root)


def test_evaluated_images_are_drawn_evenly(folder_dir: Path) -> None:
    samples = scan(folder_dir)
    samples += [replace(s, id=f"again/{s.id}") for s in samples if s.label == "normal"]
    chosen = demo._evenly(samples, 6, seed=0)
    assert Counter(s.label for s in chosen) == {"normal": 2, "benign": 2, "malignant": 2}
    assert len(demo._evenly(samples, 99, seed=0)) == len(samples)
