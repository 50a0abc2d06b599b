"""Exit codes: 0 all done, 3 some inputs failed, 1 nothing could be done, 2 a wrong command, 130 interrupted."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import picture, save, write_busi
from ultraad.cli import main
from ultraad.errors import DataError
from ultraad.export.write import export
from ultraad.metrics.summary import Evaluation
from ultraad.model.adapt import zero_shot
from ultraad.model.model import Model
from ultraad.results import folder as results
from ultraad.results import saving
from ultraad.results.folder import read_errors, read_rows
from ultraad.runs.evaluate import evaluate
from ultraad.runs.predict import predict
from ultraad.simulate.dataset import MOST_IMAGES
from ultraad.simulate.phantom import MAXIMUM_SIZE

ZERO_SHOT = ("zero-shot", "--backbone", "tiny", "--device", "cpu")


@pytest.fixture(scope="module")
def model() -> Model:
    return zero_shot(backbone="tiny")


@pytest.fixture
def five(tmp_path: Path) -> Path:
    for i in range(5):
        save(tmp_path / "in" / f"{i}.png", picture(i, lesion=bool(i % 2))[0])
    return tmp_path / "in"


def code(command: str, *words: object) -> int:
    name, *options = ZERO_SHOT
    with pytest.raises(SystemExit) as end:
        main([command, name, *map(str, words), *options])
    return end.value.code if isinstance(end.value.code, int) else 0


def test_predict_says_whether_all_some_or_none_failed(five: Path, tmp_path: Path) -> None:
    assert code("predict", five, "-o", tmp_path / "all") == 0
    (five / "2.png").write_bytes(b"no picture")
    assert code("predict", five, "-o", tmp_path / "some") == 3
    assert code("predict", five, "-o", tmp_path / "some") == 3, "what failed is tried again, and fails again"
    assert code("predict", five, "-o", tmp_path / "strict", "--strict") == 1
    assert code("predict", five / "2.png", "-o", tmp_path / "none") == 1
    assert code("predict", tmp_path / "nowhere", "-o", tmp_path / "none") == 1
    assert code("predict", five, "-o", tmp_path / "none", "--frame", "x") == 2


def test_evaluate_says_whether_some_images_failed(tmp_path: Path) -> None:
    root = write_busi(tmp_path / "busi")
    words = ("-o", tmp_path / "out", "--bootstrap", 0)
    assert code("evaluate", root, *words) == 0
    (root / "benign" / "benign (2).png").write_bytes(b"no picture")
    assert code("evaluate", root, *words) == 3
    for path in root.rglob("*).png"):
        path.write_bytes(b"no picture")
    assert code("evaluate", root, *words) == 1


def test_the_help_lists_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "0 all done; 3 done, but some inputs failed; 1 nothing could be done" in told


def test_an_image_that_cannot_be_scored_is_its_own_failure(
    model: Model, five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Model._predict

    def fussy(self, inputs, ids):
        if any(id_.endswith("3.png") for id_ in ids):
            raise RuntimeError("expected a tensor\nwith a second line")
        return whole(self, inputs, ids)

    monkeypatch.setattr(Model, "_predict", fussy)
    done = predict(model, five, tmp_path / "out")
    assert (done.predicted, [Path(id_).name for id_ in done.failed]) == (4, ["3.png"])
    ((id_, reason),) = read_errors(tmp_path / "out")
    assert id_.endswith("3.png")
    assert reason.endswith("3.png could not be scored: RuntimeError: expected a tensor")
    monkeypatch.undo()
    assert predict(model, five, tmp_path / "out").predicted == 1


@pytest.mark.parametrize(
    "what", ["a map with NaN", "a score that is NaN", "an encoder that fails", "a folder in its way"]
)
def test_an_image_that_cannot_be_written_is_its_own_failure(
    model: Model, five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    whole = Model._predict
    write = saving.write_image

    in_its_way = tmp_path / "out" / "overlays" / f"{saving.file_name((five / '3.png').as_posix())}.png" / "x"

    def spoiled(self, inputs, ids):
        if "folder" in what:  # while the run goes on: before it, the folder for results would be refused
            in_its_way.mkdir(parents=True, exist_ok=True)
        found = whole(self, inputs, ids)
        for p in found:
            if p.id.endswith("3.png"):
                if "map" in what:
                    p.map[:] = np.nan
                if "score" in what:
                    object.__setattr__(p, "score", float("nan"))
        return found

    def failing(path, image):
        if "encoder" in what and path.name.startswith("3-"):
            raise MemoryError
        write(path, image)

    monkeypatch.setattr(Model, "_predict", spoiled)
    monkeypatch.setattr(saving, "write_image", failing)
    done = predict(model, five, tmp_path / "out")
    assert (done.predicted, [Path(id_).name for id_ in done.failed]) == (4, ["3.png"])
    assert "could not be written" in read_errors(tmp_path / "out")[0][1]
    assert [Path(row.id).name for row in read_rows(tmp_path / "out")] == ["0.png", "1.png", "2.png", "4.png"]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["failed"] == 1


def test_what_cannot_be_written_or_measured_is_in_no_row_and_no_metric(
    model: Model, busi_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, add = saving.write_image, Evaluation.add

    def failing(path, image):
        if "benign_(2)" in path.name:
            raise MemoryError
        write(path, image)

    def fussy(self, **facts):
        if "benign (3)" in facts["id"]:
            raise DataError("cannot be measured")
        return add(self, **facts)

    whole = evaluate(model, busi_dir, bootstrap=0)
    monkeypatch.setattr(saving, "write_image", failing)
    monkeypatch.setattr(Evaluation, "add", fussy)
    found = evaluate(model, busi_dir, output=tmp_path, bootstrap=0)
    failed = {"benign/benign (2).png", "benign/benign (3).png"}
    assert set(found["failed"]) == failed == {id_ for id_, _ in read_errors(tmp_path)}
    rows = [row.id for row in read_rows(tmp_path)]
    assert len(rows) == found["n"]["images"] == whole["n"]["images"] - 2
    assert failed.isdisjoint(rows)
    assert len(list((tmp_path / "overlays").iterdir())) == len(rows)
    assert json.loads((tmp_path / "metrics.json").read_text())["n"] == found["n"]
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["images"], run["failed"]) == (len(rows), 2)


def test_an_evaluation_into_a_full_disk_has_no_metrics(
    model: Model, busi_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path, line):
        raise DataError(f"{path} cannot be appended to: No space left on device") from OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(results, "append_line", full)
    with pytest.raises(DataError, match="No space left"):
        evaluate(model, busi_dir, output=tmp_path, bootstrap=0)
    assert not (tmp_path / "metrics.json").exists()
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "failed"


def test_an_error_of_the_program_itself_is_not_taken_for_an_image(model: Model, five: Path, monkeypatch) -> None:
    monkeypatch.setattr(Model, "_predict", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(model.predict_many([five]))
    with pytest.raises(DataError):
        list(model.predict_many([five / "none.png"]))


@pytest.mark.parametrize("late", [False, True])
def test_ctrl_c_while_a_row_is_written_neither_loses_nor_doubles_it(
    model: Model, five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    append, calls = results.append_line, []

    def interrupted(path, line):
        calls.append(line)
        if len(calls) == 3 and not late:
            signal.raise_signal(signal.SIGINT)
        append(path, line)
        if len(calls) == 3 and late:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(results, "append_line", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(model, five, tmp_path / "out", batch_size=1)
    monkeypatch.undo()
    names = [Path(row.id).name for row in read_rows(tmp_path / "out")]
    assert names == [f"{n}.png" for n in range(len(names))]
    assert len(names) >= 3
    assert predict(model, five, tmp_path / "out").predicted == 5 - len(names)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")
def test_sigterm_ends_a_run_like_ctrl_c(onnx_dir: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    first = save(folder / "0.png", picture(1, lesion=False, size=(256, 256))[0])
    for n in range(1, 300):
        os.link(first, folder / f"{n}.png")
    words = [sys.executable, "-m", "ultraad.cli", "predict", str(onnx_dir), str(folder), "-o", str(out)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    lines, deadline = out / "predictions.jsonl", time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and not (lines.exists() and lines.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Run the same command again to resume" in err
    assert "Traceback" not in err
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    assert 0 < len(list(read_rows(out))) < 300


@pytest.mark.parametrize("engine", [(), ("--engine", "local", "--jobs", 1)])
def test_an_interruption_before_the_first_row_says_that_nothing_is_there(
    five: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    engine: tuple[object, ...],
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ultraad.runs.predict.predict", interrupted)
    monkeypatch.setattr("ultraad.runs.shards.predict_shards", interrupted)
    assert code("predict", five, "-o", tmp_path / "out", *engine) == 130
    told = capsys.readouterr().err
    assert f"interrupted before any {'shards' if engine else 'images and frames'} were finished" in told
    assert "finished images" not in told
    assert not (tmp_path / "out").exists()


def test_ctrl_c_while_the_command_line_is_loaded_is_one_line() -> None:
    code = """
import sys
class Stop:
    def find_spec(self, name, *_):
        if name == "ultraad.cli.translate":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
import ultraad.cli
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()) == (130, ["interrupted; to go on, run the same command again"])


def test_ctrl_c_while_a_command_loads_what_it_needs_is_one_line(
    five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ultraad.cli.predict._check_saving", interrupted)
    assert code("predict", five, "-o", tmp_path / "out") == 130
    assert capsys.readouterr().err.splitlines() == ["interrupted; to go on, run the same command again"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--save", "foo"), "'foo' cannot be saved"),
        (("--save", "dicom", "--objects", "foo"), "'foo' is no DICOM object"),
        (("--overlays", "top:0"), "top:N with N at least 1"),
        (("--save", "maps", "--maps", "none"), "choose one of them"),
        (("--engine", "local", "--shard", 10), "shard=10: wanted a multiple of the batch size, 8"),
        (("--frame", 2, "--every", 3), "--frame 2 and --every 3 both choose the frames; give one of them"),
        (("--set", "foo"), "wanted key=value"),
        (("--prevalence", "benign=0.2,malignant=0.9"), "wanted shares in [0, 1]"),
    ],
)
def test_values_that_are_wrong_in_themselves_are_usage_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[object, ...], told: str
) -> None:
    for command in ("predict", *(["evaluate"] if "--shard" in words else [])):
        with pytest.raises(SystemExit) as end:
            main([command, *map(str, (tmp_path / "no model", tmp_path, "-o", tmp_path / "out", *words))])
        assert end.value.code == 2
        assert told in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("option", "value", "most"), [("--size", 100_000, MAXIMUM_SIZE), ("-n", 10**12, MOST_IMAGES)])
def test_a_simulation_that_no_machine_can_make_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: int, most: int
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["simulate", "-o", str(tmp_path / "new"), option, str(value)])
    assert end.value.code == 2
    assert f"got {value}, wanted at most {most}" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("swallowed", [True, False])
def test_ctrl_c_in_the_exporter_of_torch_is_no_fault_of_the_graph(
    number: signal.Signals, swallowed: bool, busi_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        handler = signal.getsignal(number)
        assert callable(handler)
        try:
            handler(number, None)
        except KeyboardInterrupt as e:
            if not swallowed:
                msg = "a frame of C++ was interrupted"
                raise torch.onnx.OnnxExporterError(msg) from e

    monkeypatch.setattr(torch.onnx, "export", interrupted)
    before = signal.signal(number, signal.default_int_handler)  # as the command line does
    try:
        with pytest.raises(KeyboardInterrupt):
            export(busi_model, tmp_path / "exported")
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert not any(tmp_path.iterdir())
