"""Interrupted trainings of minutes: they go on, with the same bits, or say why not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ultraad
from tests.helpers import write_folder
from ultraad.cli.__main__ import main
from ultraad.data.support import save_support
from ultraad.model import checkpoint as checkpoints
from ultraad.model.checkpoint import Checkpoints, remove
from ultraad.types import SupportSet

QUICK = {"steps": 3, "side": 32, "width": 4}


@pytest.fixture
def support(tmp_path: Path) -> SupportSet:
    return ultraad.draw_support(write_folder(tmp_path / "data", classes=("normal",)), shots=4)


def adapt(support: SupportSet, **more: object) -> ultraad.Model:
    return ultraad.adapt(support, method="latent_dissimilarity", backbone="tiny", options=QUICK, **more)


@pytest.mark.parametrize("step", ["adapt", "cross-validate"])
def test_an_interrupted_run_goes_on_and_gives_the_same_model(
    step: str, support: SupportSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    whole, folder = adapt(support), tmp_path / "kept"
    said: list[str] = []

    def stop(what: str, done: int, total: int) -> None:
        if what == step and done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(support, checkpoint=folder, progress=stop, announce=said.append)
    there = {path.stem for path in folder.iterdir()}
    assert there == ({"fit"} if step == "adapt" else {"fit", "fold-1", "fold-2"})
    (sentence,) = said
    assert "values are trained on 4 images, 3 steps: about" in sentence
    assert sentence.endswith("(--no-calibrate leaves them out)")
    steps: list[tuple[str, int, int]] = []
    again = adapt(support, checkpoint=folder, progress=lambda *step: steps.append(step))
    assert again.digest == whole.digest
    assert again.calibration == whole.calibration
    assert again.calibration.folds == 2, "fewer than for methods that train for seconds"
    first = next(done for what, done, _ in steps if what == "adapt")
    assert first == (2 if step == "adapt" else 3)


def test_another_run_or_a_damaged_file_starts_at_the_beginning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {"history": torch.tensor([1.0], dtype=torch.float64), "0": torch.ones(2)}
    one = Checkpoints(tmp_path, {"seed": 0})
    assert one.of("fit").load() is None
    one.of("fit").save(state)
    found = Checkpoints(tmp_path, {"seed": 0}).of("fit").load()
    assert found is not None
    assert all(torch.equal(found[key], state[key]) for key in state)
    assert not caplog.messages
    assert Checkpoints(tmp_path, {"seed": 1}).of("fit").load() is None
    assert "is of a run with other options, images or versions; this training starts at the" in caplog.messages[0]
    (tmp_path / "fit.safetensors").write_bytes(b"x" * 20)
    assert one.of("fit").load() is None
    assert "cannot be read; this training starts at the beginning" in caplog.messages[1]
    other = tmp_path / "notes.txt"
    other.touch()
    remove(tmp_path)
    assert list(tmp_path.iterdir()) == [other], "what is not a checkpoint stays"
    other.unlink()
    remove(tmp_path)
    assert not tmp_path.exists()
    remove(tmp_path)


def test_files_are_written_at_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    file = Checkpoints(tmp_path, {}).of("fit")
    assert not file.due()
    clock[0] += checkpoints.EVERY
    assert file.due()
    file.save({"history": torch.zeros(1)})
    assert not file.due()


def test_the_command_says_how_long_and_leaves_no_checkpoint(
    support: SupportSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "support.json"
    save_support(support, file)
    words = [
        "adapt",
        str(file),
        "-o",
        str(tmp_path / "model"),
        "--backbone",
        "tiny",
        "--method",
        "latent_dissimilarity",
    ]
    with pytest.raises(SystemExit) as end:
        main([*words, *(f"--set={key}={value}" for key, value in QUICK.items())])
    assert end.value.code in (0, None)
    assert "values are trained on 4 images" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"data", "model", "support.json"}
