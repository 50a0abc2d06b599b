"""A results folder fits its images, belongs to one process at a time, and is clean after a kill."""

from __future__ import annotations

import csv
import html
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import picture, save
from ultraad.errors import DataError
from ultraad.model import exported
from ultraad.model.adapt import zero_shot
from ultraad.model.model import Model
from ultraad.model.model_card import model_card
from ultraad.report.run.page import render
from ultraad.results.folder import RunFolder, read_rows
from ultraad.results.others import keep_failures
from ultraad.runs.evaluate import evaluate
from ultraad.runs.job import facts
from ultraad.runs.predict import predict


@pytest.fixture(scope="module")
def model() -> Model:
    return zero_shot(backbone="tiny")


@pytest.fixture
def five(tmp_path: Path) -> Path:
    for i in range(5):
        save(tmp_path / "in" / f"{i}.png", picture(i, lesion=bool(i % 2))[0])
    return tmp_path / "in"


@pytest.mark.parametrize("time_stays", [False, True])
def test_a_replaced_file_is_predicted_again_and_named(
    model: Model, five: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, time_stays: bool
) -> None:
    out = tmp_path / "out"
    predict(model, five, out)
    before = {Path(r.id).name: r.score for r in read_rows(out)}
    times = (five / "2.png").stat()
    save(five / "2.png", picture(77, lesion=True, size=(60, 60))[0])
    if time_stays:
        os.utime(five / "2.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    with caplog.at_level(logging.WARNING, logger="ultraad"):
        done = predict(model, five, out)
    assert (done.predicted, done.skipped) == (1, 4)
    assert "1 file(s) were replaced since they were predicted" in caplog.text
    assert "2.png" in caplog.text
    after = {Path(r.id).name: r.score for r in read_rows(out)}
    assert len(list(read_rows(out))) == 5
    assert after["2.png"] == pytest.approx(model.predict(five / "2.png").score, abs=1e-5)
    assert {k: v for k, v in after.items() if k != "2.png"} == {k: v for k, v in before.items() if k != "2.png"}
    assert predict(model, five, out).predicted == 0


def test_a_file_that_was_only_touched_or_is_gone_keeps_its_result(model: Model, five: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(model, five, out)
    os.utime(five / "1.png", (1, 1))
    (five / "3.png").unlink()
    done = predict(model, five, out)
    assert (done.predicted, done.skipped) == (0, 4)
    assert len(list(read_rows(out))) == 5


def test_results_that_were_damaged_later_are_missed(
    model: Model, five: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    predict(model, five, out)
    lines = (out / "predictions.jsonl").read_text().splitlines(keepends=True)
    (out / "predictions.jsonl").write_text("".join((lines[0], lines[1].replace('"score"', '"sco'), *lines[2:])))
    said = "1 result cannot be read any more: predictions.jsonl was damaged after the run."
    assert said in html.unescape(render(out).read_text())
    with caplog.at_level(logging.WARNING, logger="ultraad"):
        assert predict(model, five, out).predicted == 1
    assert "1 line(s) of predictions.jsonl are damaged or gone" in caplog.text
    assert said not in html.unescape((out / "report.html").read_text())
    caplog.clear()
    assert predict(model, five, out).predicted == 0
    assert "damaged" not in caplog.text


def test_rows_of_earlier_versions_count_as_done(model: Model, five: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(model, five, out)
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    for row in rows:
        assert set(row.pop("file")) == {"size", "sha256"}
    (out / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert predict(model, five, out).skipped == 5


HOLD = """
import sys, time
from ultraad.model.exported import load
from ultraad.runs.predict import predict
predict(load(sys.argv[1]), sys.argv[2], sys.argv[3], batch_size=1, progress=lambda *_: time.sleep(60))
"""


def test_a_second_process_is_refused_and_a_killed_one_leaves_nothing(
    onnx_dir: Path, five: Path, tmp_path: Path
) -> None:
    model, out = exported.load(onnx_dir), tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(onnx_dir), str(five), str(out)])
    try:
        deadline = time.monotonic() + 120
        while not (out / "run.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(DataError, match="another run is writing to"):
            predict(model, five, out)
        with pytest.raises(DataError, match="another run is writing to"):
            predict(model, five, out, resume=False)
    finally:
        process.kill()
        process.wait()
    (out / "maps" / ".0-12345678.png.0a1b2c3d.tmp").write_bytes(b"half")
    (out / ".run.json.0a1b2c3d.tmp").write_bytes(b"half")
    (out / "maps" / ".mine.tmp").write_bytes(b"not ours")
    assert len(list(read_rows(out))) + predict(model, five, out).predicted >= 5
    assert [p.name for p in out.rglob("*.tmp")] == [".mine.tmp"]


def test_one_folder_at_a_time_within_a_process_too(model: Model, busi_dir: Path, tmp_path: Path) -> None:
    held = RunFolder(tmp_path, facts(model, "evaluate"), resume=False)
    with pytest.raises(DataError, match="another run is writing to"):
        evaluate(model, busi_dir, output=tmp_path, bootstrap=0)
    held.finish("complete")
    assert evaluate(model, busi_dir, output=tmp_path, bootstrap=0)["failed"] == {}


def test_a_refused_folder_is_not_left_locked(model: Model, five: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("{}")
    for _ in range(2):
        with pytest.raises(DataError, match="was not written by ultraad"):
            predict(model, five, tmp_path / "out")


def test_a_table_holds_no_formula(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["=HYPERLINK(1).png", "+1.png", "-1.png", "@SUM(1).png", "plain.png"]
    for i, name in enumerate(names):
        save(Path(name), picture(i, lesion=False)[0])
    predict(model, ["./" + n for n in names], "out")
    with Path("out/predictions.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 5
    for row in table:
        assert not any(str(cell).startswith(("=", "+", "-", "@")) for cell in row.values())
        assert 0 <= float(row["score"]) <= 1
    assert {r.id for r in read_rows(Path("out"))} == set(names), "the JSON keeps the names"
    assert {row["id"].lstrip("'") for row in table} == set(names)


def test_a_model_card_holds_no_html(model: Model) -> None:
    evil = "<script>alert(1)</script>"
    described = model.describe()
    origin = described.origin.model_copy(update={"notes": (evil,), "selection": evil})
    described = described.model_copy(update={"classes": ("normal", evil), "normal_class": evil, "origin": origin})
    card = model_card(described, digest="0" * 64, versions={evil: evil})
    assert "<script" not in card
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in card


def test_failures_of_other_inputs_are_kept_and_counted(model: Model, tmp_path: Path, caplog) -> None:
    good, bad, cine, more = (tmp_path / name for name in ("good.png", "bad.png", "clip.mp4", "more.png"))
    for path in (good, more):
        save(path, picture(1, lesion=False)[0])
    for path in (bad, cine):
        path.write_bytes(b"no picture")
    out = tmp_path / "out"

    def record() -> tuple[dict[str, Any], set[str]]:
        lines = (out / "errors.jsonl").read_text(encoding="utf-8").splitlines()
        return json.loads((out / "run.json").read_text()), {json.loads(line)["id"] for line in lines}

    first = predict(model, [good, bad, cine], out, save=())
    assert set(first.failed) == {bad.as_posix(), cine.as_posix()}
    assert "not among the inputs" not in caplog.text
    second = predict(model, [more], out, save=())
    assert (second.predicted, second.failed) == (1, {})
    run, failed = record()
    assert failed == {bad.as_posix(), cine.as_posix()}
    assert (run["images"], run["failed"]) == (2, 2)
    assert run["data"]["paths"] == [str(p) for p in (good, bad, cine, more)]
    assert (run["data"]["images"], run["data"]["videos"]) == (3, 1)
    assert "2 image(s) of an earlier run could not be used and are not among the inputs now" in caplog.text
    assert bad.name in (out / "report.html").read_text(encoding="utf-8")
    predict(model, [good, bad, cine], out, save=())  # tried again: one line each
    run, failed = record()
    assert (len(failed), run["images"], run["failed"]) == (2, 2, 2)
    assert (run["data"]["images"], run["data"]["videos"]) == (3, 1)
    save(bad, picture(2, lesion=False)[0])
    predict(model, [bad], out, save=())
    run, failed = record()
    assert (failed, run["images"], run["failed"]) == ({cine.as_posix()}, 3, 1)


def test_a_failure_belongs_to_its_file_whatever_its_frames(tmp_path: Path) -> None:
    errors = tmp_path / "errors.jsonl"
    ids = ["a.dcm", "b.dcm#2", "b.dcm#4", "c.mp4#7", "d.png"]
    errors.write_text("".join(json.dumps({"id": id_, "error": "why"}) + "\n" for id_ in ids), encoding="utf-8")
    assert [*keep_failures(errors, {"a.dcm#0", "a.dcm#1", "b.dcm#2", "c.mp4"})] == ["b.dcm#4", "d.png"]
    assert [*keep_failures(errors, {"b.dcm", "d.png"})] == []
    assert not errors.exists()
