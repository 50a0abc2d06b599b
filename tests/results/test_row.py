"""The typed files of a run: read as they were written, lenient to other versions, clear about damage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ultraad.errors import DataError
from ultraad.model.adapt import zero_shot
from ultraad.results.folder import read_rows, read_run
from ultraad.results.row import DataFacts, ImageRow, Run
from ultraad.runs.job import facts
from ultraad.runs.predict import predict

ROW = {"id": "set/benign/a.png", "image": "a.png", "score": 0.25, "abnormal": False}


def test_a_row_is_written_as_it_was_read() -> None:
    line = json.dumps({**ROW, "probs": {"normal": 0.75, "lesion": 0.25}, "tags": ["marks"], "map": None})
    assert ImageRow.model_validate_json(line).to_json() == (
        '{"id": "set/benign/a.png", "image": "a.png", "score": 0.25, "abnormal": false, '
        '"probs": {"normal": 0.75, "lesion": 0.25}, "tags": ["marks"], "map": null}'
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        ImageRow(**{**ROW, "score": float("nan")}).to_json()


def test_a_row_knows_its_name_guess_and_verdict() -> None:
    row = ImageRow(**ROW, probs={"normal": 0.75, "lesion": 0.25})
    assert (row.name, row.guess, row.verdict) == ("benign/a.png", "normal", None)
    kinds = {(True, True): "right", (True, False): "missed", (False, True): "false alarm", (False, False): "right"}
    for (anomalous, abnormal), verdict in kinds.items():
        assert ImageRow(**{**ROW, "anomalous": anomalous, "abnormal": abnormal}).verdict == verdict
    assert ImageRow(**ROW).guess is None


def test_rows_are_read_leniently_and_a_cut_off_line_is_skipped(tmp_path: Path) -> None:
    assert list(read_rows(tmp_path)) == []
    lines = [json.dumps({**ROW, "of_another_version": 1}), "", json.dumps(ROW)[:-9], json.dumps({**ROW, "id": "b"})]
    (tmp_path / "predictions.jsonl").write_text("\n".join(lines))
    assert [row.id for row in read_rows(tmp_path)] == [ROW["id"], "b"]
    (tmp_path / "predictions.jsonl").write_text(json.dumps(ROW) + '\n{"id": "b"}\n')
    with pytest.raises(DataError, match=r"line 2: image: field required.*run the command again"):
        list(read_rows(tmp_path))


def test_run_json_is_read_as_it_was_written(tmp_path: Path, busi_dir: Path) -> None:
    assert read_run(tmp_path) is None
    model = zero_shot(backbone="tiny")
    predict(model, busi_dir / "normal", tmp_path)
    run = read_run(tmp_path)
    assert run is not None
    assert run.to_dict() == json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (run.status, run.images, run.data) == ("complete", 4, DataFacts(paths=(str(busi_dir / "normal"),), images=4))
    assert run.model is not None
    assert (run.model.digest, run.model.method) == (model.digest, "ultraad")
    assert list(run.to_dict())[:3] == ["command", "started", "model"]
    assert list(run.to_dict()["model"])[:2] == ["digest", "method"]


def test_a_run_of_another_version_says_what_to_do(tmp_path: Path) -> None:
    run = facts(zero_shot(backbone="tiny"), "predict").to_dict()
    assert Run.model_validate({**run, "of_another_version": 1}).to_dict() == run
    del run["model"]["backbone"]["fingerprint"]
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(DataError, match=r"model.backbone.fingerprint: field required.*choose another output folder"):
        read_run(tmp_path)
