"""Models of one-sided support sets, exported: they predict, decide and say what the models do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ultraad
from tests.export.conftest import traced
from tests.helpers import write_bus_bra, write_busi, write_folder
from ultraad.export import write
from ultraad.model import exported
from ultraad.model.adapt import adapt
from ultraad.model.model import Model
from ultraad.model.predictor import Predictor
from ultraad.results.folder import read_rows, read_run
from ultraad.runs.evaluate import evaluate

ULTRAAD = {"train.epochs": 1, "train.views": 1, "calibration.folds": 2}


def lesions_only(root: Path) -> Model:
    support = ultraad.draw_support(write_bus_bra(root / "support"), shots=2)
    return adapt(support, backbone="tiny", options=ULTRAAD)


def normals_only(root: Path) -> Model:
    support = ultraad.draw_support(write_folder(root / "support", classes=("normal",)), shots=3)
    return adapt(support, method="patch_core", backbone="tiny")


def saying_the_same(found: Predictor, wanted: Predictor, data: Path, root: Path) -> None:
    """Compare all that a user sees of two evaluations."""
    assert (found.classes, found.normal_class) == (wanted.classes, wanted.normal_class)
    assert found.calibration == wanted.calibration
    assert found.origin == wanted.origin
    assert found.origin.notes or found.calibration.notes
    one, other = (evaluate(m, data, output=root / name, bootstrap=0) for m, name in ((wanted, "one"), (found, "other")))
    assert one["notes"] == other["notes"]
    for key, metric in one["metrics"].items():
        assert other["metrics"][key]["reason"] == metric["reason"], key
        if metric["value"] is not None:
            assert other["metrics"][key]["value"] == pytest.approx(metric["value"], abs=1e-3), key
    rows = [{r.id: r for r in read_rows(root / name)} for name in ("one", "other")]
    assert rows[0].keys() == rows[1].keys()
    for id_, row in rows[0].items():
        assert rows[1][id_].score == pytest.approx(row.score, abs=1e-5)
        assert rows[1][id_].abnormal == row.abnormal
        if row.probs is None:
            assert rows[1][id_].probs is None
        else:
            assert rows[1][id_].probs == pytest.approx(row.probs, abs=1e-5)
    facts = [read_run(root / name) for name in ("one", "other")]
    assert facts[0] is not None
    assert facts[1] is not None
    assert facts[0].thresholds == facts[1].thresholds
    pages = [(root / name / "report.html").read_text(encoding="utf-8") for name in ("one", "other")]
    for note in (*wanted.origin.notes, *wanted.calibration.notes):
        words = note.replace("'", "&#39;")
        assert (note in pages[0] or words in pages[0]) == (note in pages[1] or words in pages[1])


@pytest.mark.slow  # tracing takes seconds
@pytest.mark.parametrize("made", [lesions_only, normals_only])
def test_an_exported_model_of_one_side_says_what_the_model_says(
    made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = made(tmp_path)
    data = write_busi(tmp_path / "data", per_class=2)
    write.export(model, tmp_path / "onnx")
    saying_the_same(exported.load(tmp_path / "onnx"), model, data, tmp_path / "o")
    if made is lesions_only:
        notes = exported.load(tmp_path / "onnx").origin.notes
        assert any("detection (normal against lesion) stays zero-shot" in note for note in notes)
        probs = exported.load(tmp_path / "onnx").predict(np.zeros((40, 50), np.uint8)).probs
        assert probs is not None
        assert set(probs) == {"normal", "benign", "malignant"}
        pytest.importorskip("openvino")
        traced(monkeypatch, tmp_path / "onnx")
        write.export(model, tmp_path / "openvino", runtime="openvino")
        saying_the_same(exported.load(tmp_path / "openvino"), model, data, tmp_path / "v")
