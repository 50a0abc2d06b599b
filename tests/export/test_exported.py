"""An exported model predicts what its model does, and needs no torch."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import ultraad
from ultraad.cli import main
from ultraad.errors import BundleError, ConfigError, DataError, MissingExtraError
from ultraad.io import read_image
from ultraad.model.exported import ExportedModel, load
from ultraad.model.model import Model
from ultraad.simulate import simulate
from ultraad.types import Sample

ROOT = Path(__file__).parents[2]
NEEDS_TORCH = {
    "torch",
    "torchvision",
    "open_clip_torch",
    "timm",
    "safetensors",
    "huggingface-hub",
    "scikit-learn",
}


@pytest.fixture(params=["onnx", "openvino"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture
def exported(folder: Path) -> ExportedModel:
    return load(folder, threads=1)


def run(words: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


def test_predictions_are_the_models(exported: ExportedModel, model: Model, busi_dir: Path) -> None:
    samples = ultraad.scan(busi_dir)
    for batch_size in (1, 5):
        pairs = list(
            zip(model.predict_many(samples), exported.predict_many(samples, batch_size=batch_size), strict=True)
        )
        assert len(pairs) == len(samples) == 12
        for wanted, found in pairs:
            assert wanted.sample == found.sample
            np.testing.assert_array_equal(wanted.mask, found.mask)
            np.testing.assert_array_equal(wanted.image, found.image)
            a, b = wanted.prediction, found.prediction
            assert (a.id, a.method) == (b.id, b.method)
            assert b.map.dtype == np.float32
            np.testing.assert_allclose(b.map, a.map, atol=1e-5)
            assert b.score == pytest.approx(a.score, abs=1e-5)
            assert list(b.probs) == list(a.probs)
            assert list(b.probs.values()) == pytest.approx(list(a.probs.values()), abs=1e-5)
            assert exported.is_abnormal(b) == model.is_abnormal(a)


def test_openvino_runs_a_graph_for_onnx_runtime(onnx: Path, busi_dir: Path) -> None:
    for_onnx, by_openvino = load(onnx, threads=1), load(onnx, threads=1, runtime="openvino")
    assert by_openvino.digest == for_onnx.digest
    samples = ultraad.scan(busi_dir)
    for a, b in zip(for_onnx.predict_many(samples), by_openvino.predict_many(samples), strict=True):
        assert b.prediction.score == pytest.approx(a.prediction.score, abs=1e-5)
        np.testing.assert_allclose(b.prediction.map, a.prediction.map, atol=1e-5)


def test_bfloat16_is_another_model_with_nearly_the_same_numbers(onnx: Path, busi_dir: Path) -> None:
    from openvino import Core

    if "BF16" not in Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(ConfigError, match="this processor does not compute in bfloat16"):
            load(onnx, runtime="openvino", dtype="bfloat16")
        return
    exact, rough = load(onnx, threads=2), load(onnx, threads=2, runtime="openvino", dtype="bfloat16")
    assert rough.digest != exact.digest
    assert rough.describe().backbone.dtype == "bfloat16"
    samples = ultraad.scan(busi_dir)
    pairs = list(zip(exact.predict_many(samples), rough.predict_many(samples), strict=True))
    off = [abs(a.prediction.score - b.prediction.score) for a, b in pairs]
    assert 0 < max(off) < 0.1


def test_what_a_graph_does_not_run_on_is_refused(onnx: Path, openvino: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ONNX Runtime computes in float32 here, not in bfloat16; take OpenVINO"):
        load(onnx, dtype="bfloat16")
    with pytest.raises(ConfigError, match="is for openvino and does not run on onnx; export the model again"):
        load(openvino, runtime="onnx")
    assert run(["predict", str(onnx), str(tmp_path), "-o", str(tmp_path / "o"), "--dtype", "float16"]) == 1
    assert run(["predict", str(onnx), str(tmp_path), "-o", str(tmp_path / "o"), "--runtime", "torch"]) == 1


def test_one_image_of_any_kind(exported: ExportedModel, model: Model, busi_dir: Path) -> None:
    path = busi_dir / "benign" / "benign (1).png"
    sample = Sample(id="mine", image=path)
    image = next(iter(model.predict_many([sample]))).image
    for x, id_ in ((path, str(path)), (sample, "mine"), (image, "array"), (image / 255.0, "array")):
        found = exported.predict(x)
        assert found.id == id_
        assert found.score == pytest.approx(model.predict(path).score, abs=1e-5)
        assert found.map.shape == image.shape[:2]
    with pytest.raises(DataError, match=r"array \(8, 8\) float64 has float pixels in 2\.\.2, wanted 0\.\.1"):
        exported.predict(np.full((8, 8), 2.0))


def test_a_stream(exported: ExportedModel, busi_dir: Path) -> None:
    frames = [read_image(p) for p in sorted((busi_dir / "benign").glob("benign (?).png"))[:3]]
    seen = list(exported.stream((image, 0.04 * i) for i, image in enumerate(frames)))
    assert [(one.number, one.stamp) for one in seen] == [(0, 0.0), (1, 0.04), (2, 0.08)]
    for one, image in zip(seen, frames, strict=True):
        assert one.prediction.score == exported.predict(image).score


def test_files_that_cannot_be_read(exported: ExportedModel, busi_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    shutil.copy(busi_dir / "benign" / "benign (1).png", tmp_path / "good.png")
    with pytest.raises(DataError, match=r"bad\.png"):
        list(exported.predict_many([tmp_path]))
    failed: list[str] = []
    results = list(exported.predict_many([tmp_path], on_error=lambda sample, _: failed.append(sample.id)))
    assert [Path(r.sample.id).name for r in results] == ["good.png"]
    assert [Path(id_).name for id_ in failed] == ["bad.png"]


def test_what_it_says_of_itself(exported: ExportedModel, model: Model) -> None:
    assert (exported.classes, exported.normal_class) == (model.classes, model.normal_class)
    assert (exported.calibration, exported.origin) == (model.calibration, model.origin)
    assert (exported.support, exported.auxiliary) == (model.support, model.auxiliary)
    told = exported.describe()
    assert told.exported.source == model.digest
    about = model.describe()
    assert {key: getattr(told, key) for key in type(about).model_fields} == dict(about)
    assert re.fullmatch(r"ExportedModel\('ultraad', (onnx|openvino), classes=.*\)", repr(exported))


def test_an_evaluation_is_the_models(exported: ExportedModel, model: Model, bus_uclm_dir: Path) -> None:
    from ultraad.runs.evaluate import evaluate

    a, b = (evaluate(m, bus_uclm_dir, bootstrap=0)["metrics"] for m in (model, exported))
    assert a["pixel_auroc"]["value"] == pytest.approx(b["pixel_auroc"]["value"], abs=1e-3)
    assert a["image_auroc"]["n"] == b["image_auroc"]["n"]


def test_images_it_has_learned_from_are_refused(onnx: Path, busi_dir: Path, tmp_path: Path, capsys) -> None:
    assert run(["evaluate", str(onnx), str(busi_dir), "-o", str(tmp_path / "out")]) == 1
    assert "support image(s)" in capsys.readouterr().err


def test_damage_is_noticed(folder: Path, tmp_path: Path) -> None:
    def copied(name: str) -> Path:
        return Path(shutil.copytree(folder, tmp_path / name))

    graph = next(p.name for p in folder.iterdir() if p.suffix in (".onnx", ".bin"))
    bad = copied("flipped") / graph
    bad.write_bytes(bad.read_bytes()[:-1] + b"\x00\x01")
    with pytest.raises(BundleError, match=rf"{graph} is damaged: sha256"):
        load(bad.parent)
    (copied("missing") / graph).unlink()
    with pytest.raises(BundleError, match=rf"incomplete: {graph} is missing"):
        load(tmp_path / "missing")
    facts = json.loads((folder / "exported.json").read_text())
    for content, complaint in (
        ("{", "is damaged"),
        ("[]", "has format None"),
        (json.dumps(facts | {"format": "ultraad.exported/9"}), "this version of ultraad reads 'ultraad.exported/1'"),
        (json.dumps(facts | {"more": 1}), "export the model again"),
    ):
        (tmp_path / "missing" / "exported.json").write_text(content)
        with pytest.raises(BundleError, match=complaint):
            load(tmp_path / "missing")
    with pytest.raises(BundleError, match="is not an exported model"):
        load(tmp_path)


def test_a_graph_that_its_runtime_cannot_read(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    name = "model.onnx" if (copy / "model.onnx").exists() else "model.xml"
    (copy / name).write_text("no graph")
    with pytest.raises(BundleError, match="Export the model again"):
        ExportedModel(copy, load(folder).config)


def test_a_missing_runtime_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = "onnxruntime" if (folder / "model.onnx").exists() else "openvino"
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package} is not installed; .*install {package} \(or 'ultraad\["):
        load(folder)


def test_the_wrong_loader_names_the_right_one(onnx: Path) -> None:
    with pytest.raises(BundleError, match=r"load it with ultraad\.model\.exported\.load\. Wanted"):
        ultraad.load(onnx)


# --- the command line ------------------------------------------------------------------------------------------------


def test_export_and_predict(model: Model, onnx: Path, busi_dir: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    from tests.export.conftest import traced

    traced(monkeypatch, onnx)
    model.save(tmp_path / "model")
    out = tmp_path / "exported"
    assert run(["export", str(tmp_path / "model"), "-o", str(out), "--format", "openvino"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"openvino, \d+\.\d MB", said)
    assert re.search(r"score \d\.\de-\d\d, map \d\.\de-\d\d, probs \d\.\de-\d\d", said)
    assert re.search(r"batch 8: [\d.]+ ms/image, PyTorch [\d.]+", said)
    assert run(["predict", str(out), str(busi_dir / "normal"), "-o", str(tmp_path / "results")]) == 0
    facts = json.loads((tmp_path / "results" / "run.json").read_text())
    assert facts["model"]["exported"]["runtime"] == "openvino"
    assert facts["status"] == "complete"
    assert (tmp_path / "results" / "report.html").is_file()


def test_mistakes_on_the_command_line(onnx: Path, busi_dir: Path, tmp_path: Path, capsys) -> None:
    images, out = str(busi_dir / "normal"), str(tmp_path / "out")
    for more, complaint in (
        (["--device", "cuda"], "runs on the CPU only"),
        (["--backbone", "tiny"], "Leave out --backbone"),
        (["--set", "train.epochs=1"], "brings its own"),
    ):
        assert run(["predict", str(onnx), images, "-o", out, *more]) == 1
        assert complaint in capsys.readouterr().err
    assert run(["export", str(busi_dir), "-o", out]) == 1
    assert "is not an ultraad model" in capsys.readouterr().err
    assert run(["export", str(onnx), "-o", out, "--format", "tensorrt"]) == 2
    assert "openvino" in capsys.readouterr().err
    assert not Path(out).exists()


# --- without torch ---------------------------------------------------------------------------------------------------

WITHOUT = """
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Nowhere())
from ultraad.cli import main
main({words!r})
"""


def without_torch(words: list[str]) -> subprocess.CompletedProcess[str]:
    """The command line in a process that has nothing but what an edge device has."""
    names = {name.replace("-", "_") for name in NEEDS_TORCH} | {"open_clip", "sklearn", "onnx", "onnxscript"}
    code = WITHOUT.format(names=names, words=words)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "predictions.csv").read_text(encoding="utf-8").splitlines()))


def test_it_predicts_without_torch(folder: Path, model: Model, busi_dir: Path, tmp_path: Path) -> None:
    images = str(busi_dir / "malignant")
    done = without_torch(["predict", str(folder), images, "-o", str(tmp_path / "a")])
    assert done.returncode == 0, done.stderr
    model.save(tmp_path / "model")
    assert run(["predict", str(tmp_path / "model"), images, "-o", str(tmp_path / "b")]) == 0
    for a, b in zip(table(tmp_path / "a"), table(tmp_path / "b"), strict=True):
        assert (a["id"], a["abnormal"]) == (b["id"], b["abnormal"])
        assert float(a["score"]) == pytest.approx(float(b["score"]), abs=1e-5)
    assert (tmp_path / "a" / "report.html").is_file()
    assert len(list((tmp_path / "a" / "overlays").iterdir())) == 4


def test_it_evaluates_without_torch(onnx: Path, bus_uclm_dir: Path, tmp_path: Path) -> None:
    done = without_torch(["evaluate", str(onnx), str(bus_uclm_dir), "-o", str(tmp_path / "a"), "--bootstrap", "0"])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["predict", "zero-shot", "x.png", "-o", "y", "--method", "winclip"], ["demo"]])
def test_what_needs_torch_says_so(words: list[str]) -> None:
    done = without_torch(words)
    assert done.returncode == 1
    assert "torch is not installed here" in done.stderr
    assert "pip install ultraad" in done.stderr
    assert "Traceback" not in done.stderr


def test_zero_shot_runs_without_torch_and_predicts_the_same(tmp_path: Path) -> None:
    """The graph that ships is the embedded backbone's; if this fails after a change: pretraining/zero_shot_graph.py."""
    images = sorted((ultraad.samples() / "Images").glob("*.png"))[::16]
    done = without_torch(["predict", "zero-shot", *map(str, images), "-o", str(tmp_path / "a")])
    assert done.returncode == 0, done.stderr
    model = ultraad.zero_shot()
    for row, image in zip(table(tmp_path / "a"), images, strict=True):
        p = model.predict(image)
        assert p.probs is not None
        assert [float(row["score"]), *(float(row[f"p_{name}"]) for name in p.probs)] == pytest.approx(
            [p.score, *p.probs.values()], abs=1e-3
        )


def test_doctor_says_what_works_without_torch() -> None:
    done = without_torch(["doctor"])
    assert done.returncode == 0, done.stderr
    assert "zero-shot on ONNX Runtime predicted an image" in done.stdout
    assert "devices" not in done.stdout


def test_the_edge_list_is_the_package_without_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "requirements-edge.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if not line.startswith("#")]

    def name(line: str) -> str:
        return re.split(r"[<>=]", line)[0]

    assert listed == [line for line in project["dependencies"] if name(line) not in NEEDS_TORCH]
    assert {name(line) for line in project["dependencies"]} >= NEEDS_TORCH


def test_the_record_of_what_it_can_judge_is_the_models(model: Model, onnx: Path) -> None:
    image = simulate(3, size=120).image
    ours, theirs = (m.predict(image).in_scope for m in (model, load(onnx)))
    assert ours is not None
    assert theirs is not None
    assert (theirs.ok, theirs.reference) == (ours.ok, ours.reference)
    assert theirs.support == pytest.approx(ours.support, abs=1e-3)
