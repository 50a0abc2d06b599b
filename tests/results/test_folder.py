"""A results folder is consistent at every moment, and never holds more than a few images back."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import picture, save
from ultraad.errors import DataError
from ultraad.io.image import read_image
from ultraad.io.maps import read_map
from ultraad.model.adapt import zero_shot
from ultraad.model.model import Model
from ultraad.results import folder as results
from ultraad.results import saving
from ultraad.results.folder import RunFolder, read_rows
from ultraad.results.row import Run
from ultraad.runs.evaluate import evaluate
from ultraad.runs.job import facts
from ultraad.runs.predict import predict
from ultraad.types import Prediction, Result, Sample


def result(number: int) -> Result:
    image, _ = picture(number, lesion=True)
    found = np.full(image.shape[:2], number / 100, np.float32)
    prediction = Prediction(id=f"{number}", score=0.5, map=found, probs=None, method="none")
    return Result(Sample(id=f"{number}", image=Path(f"{number}.png")), image, prediction, mask=None)


def check(folder: Path) -> list[str]:
    """Ids of the lines, whose pictures are all there and whole."""
    rows = list(read_rows(folder))
    for row in rows:
        assert read_image(folder / row.overlay).shape[:2] == read_map(folder / row.map).shape
    return [row.id for row in rows]


def writers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("ultraad-writer")]


@pytest.fixture(scope="module")
def model() -> Model:
    return zero_shot(backbone="tiny")


@pytest.fixture(scope="module")
def run(model: Model) -> Run:
    return facts(model, "predict")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for i in range(30):
        save(root / f"{i:02d}.png", picture(i, lesion=bool(i % 2))[0])
    return root


def test_lines_keep_the_order_and_come_after_their_pictures(run, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    write, append = saving.write_image, results.append_line

    def late(path, image) -> None:
        time.sleep(rng.uniform(0, 0.02))
        write(path, image)

    def checked(path, line) -> None:
        row = json.loads(line)
        assert (tmp_path / row["overlay"]).is_file()
        assert (tmp_path / row["map"]).is_file()
        append(path, line)

    monkeypatch.setattr(saving, "write_image", late)
    monkeypatch.setattr(results, "append_line", checked)
    folder = RunFolder(tmp_path, run, resume=True)
    for i in range(40):
        folder.add(result(i))
    folder.finish("complete")
    assert check(tmp_path) == [f"{i}" for i in range(40)]
    for i, row in enumerate(read_rows(tmp_path)):
        np.testing.assert_allclose(read_map(tmp_path / row.map), i / 100, atol=1e-4)
    assert not writers()


def test_few_images_are_held_back_while_the_disk_is_slow(run, tmp_path, monkeypatch):
    go, added = threading.Event(), []
    write = saving.write_map
    monkeypatch.setattr(saving, "write_map", lambda *a: (go.wait(20), write(*a))[1])
    folder = RunFolder(tmp_path, run, resume=True)

    def fill() -> None:
        for i in range(40):
            folder.add(result(i))
            added.append(i)

    filling = threading.Thread(target=fill)
    filling.start()
    deadline = time.monotonic() + 10
    while len(added) < 16 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    held, written = len(added), check(tmp_path)
    go.set()
    filling.join()
    assert (held, written) == (16, [])
    folder.flush()
    assert check(tmp_path) == [f"{i}" for i in range(40)]
    folder.finish("complete")


@pytest.mark.parametrize("bad", [3, 29])
def test_an_error_of_the_writers_ends_the_run_and_a_second_run_completes_it(
    model: Model, pictures: Path, tmp_path: Path, monkeypatch, bad: int
) -> None:
    write = saving.write_image

    def full_disk(path, image) -> None:
        if path.name.startswith(f"{bad:02d}"):
            msg = f"{path} cannot be written: No space left on device"
            raise DataError(msg)
        write(path, image)

    monkeypatch.setattr(saving, "write_image", full_disk)
    with pytest.raises(DataError, match="No space left"):
        predict(model, [pictures], tmp_path)
    run = json.loads((tmp_path / "run.json").read_text())
    done = check(tmp_path)
    assert (run["status"], run["images"]) == ("failed", len(done))
    assert not any(id_.endswith(f"{bad:02d}.png") for id_ in done)
    assert not writers()
    monkeypatch.undo()
    again = predict(model, [pictures], tmp_path)
    assert (again.predicted, again.skipped) == (30 - len(done), len(done))
    assert len(check(tmp_path)) == 30
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "complete"


def test_an_error_of_the_writers_ends_an_evaluation(model: Model, busi_dir: Path, tmp_path: Path, monkeypatch) -> None:
    def full_disk(path, image) -> None:
        msg = "No space left on device"
        raise DataError(msg)

    monkeypatch.setattr(saving, "write_image", full_disk)
    with pytest.raises(DataError, match="No space left"):
        evaluate(model, busi_dir, output=tmp_path, bootstrap=0)
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "failed"
    assert check(tmp_path) == []


def test_without_pictures_only_lines_are_written(model: Model, pictures: Path, tmp_path: Path) -> None:
    predict(model, [pictures], tmp_path, save=())
    rows = list(read_rows(tmp_path))
    assert [Path(r.id).stem for r in rows] == [f"{i:02d}" for i in range(30)]
    assert {r.map for r in rows} == {r.overlay for r in rows} == {None}
    assert not [p.name for p in tmp_path.iterdir() if p.is_dir()]


KILLED = """
import itertools, sys, time
from ultraad.model.adapt import zero_shot
from ultraad.runs.predict import predict
predict(zero_shot(backbone="tiny"), [sys.argv[1]], sys.argv[2], batch_size=4, progress=lambda *_: time.sleep(0.05))
"""


def test_a_kill_leaves_nothing_half_done(model: Model, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(pictures), str(out)])
    try:
        deadline = time.monotonic() + 120
        lines = out / "predictions.jsonl"
        while not (lines.is_file() and lines.read_bytes().count(b"\n") >= 5):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    done = check(out)
    assert 5 <= len(done) < 30
    assert [Path(id_).stem for id_ in done] == [f"{i:02d}" for i in range(len(done))]
    for image in [*(out / "maps").glob("[!.]*"), *(out / "overlays").glob("[!.]*")]:
        read_image(image)  # whole, whether there is a line for it or not
    again = predict(model, [pictures], out)
    assert (again.predicted, again.skipped) == (30 - len(done), len(done))
    assert [Path(id_).stem for id_ in check(out)] == [f"{i:02d}" for i in range(30)]
