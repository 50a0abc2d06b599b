"""Thresholds that are chosen for a run: what is done with them is written down, and what cannot work is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ultraad.cli import main
from ultraad.data.support import draw_support
from ultraad.errors import ConfigError, DataError
from ultraad.model import bundle, exported
from ultraad.model.adapt import adapt, zero_shot
from ultraad.model.model import Model, load
from ultraad.model.record import facts_of
from ultraad.model.scope import NO_RECORD
from ultraad.results.folder import read_rows
from ultraad.runs.engines.local import Serial
from ultraad.runs.evaluate import evaluate
from ultraad.runs.evaluate_shards import evaluate_shards
from ultraad.runs.predict import predict
from ultraad.runs.shards import predict_shards


@pytest.fixture(scope="module")
def model(folder_bundle: Path) -> Model:
    return load(folder_bundle)


@pytest.fixture(scope="module")
def saved(folder_bundle: Path) -> Path:
    return folder_bundle


def run_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return found


def test_an_operating_point_decides_and_is_written_down(model: Model, busi_dir: Path, tmp_path: Path) -> None:
    point = model.operating_point("sens=0.95")
    predict(model, busi_dir, tmp_path, operating_point="sens=0.95", pixel_threshold=0.25)
    rows = list(read_rows(tmp_path))
    assert [r.abnormal for r in rows] == [r.score >= point.threshold for r in rows]
    run = run_of(tmp_path)
    assert run["thresholds"] == {
        "image": point.threshold,
        "pixel": 0.25,
        "image_rule": "sensitivity>=0.95 on 6 held-out support images",
        "pixel_rule": "given",
        "prevalence": None,
        "abstain": None,
        "sets": None,
        "sensitivity": {"value": 1.0, "low": point.sensitivity.low, "high": 1.0, "n": 4},
        "specificity": point.specificity.model_dump(),
        "notes": list(point.notes),
    }
    assert "4 lesion images cannot resolve 0.95" in point.notes[0]
    assert run["model"]["digest"] == model.digest, "the model is the same one"
    assert "held_out" not in run["model"]["calibration"], "the ids of the support images stay with the model"
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "4 lesion images cannot resolve 0.95: one image is 0.250 of the rate." in page
    assert "sensitivity&gt;=0.95 on 6 held-out support images" in page
    assert f"1.000 ({point.sensitivity.low:.3f} to 1.000) on 4 held-out lesion images" in page
    assert "not known: a threshold was given by hand" in page, "of the pixel threshold"


def test_an_evaluation_measures_at_the_chosen_thresholds(model: Model, busi_dir: Path, tmp_path: Path) -> None:
    scores = sorted(model.predict(p).score for p in busi_dir.rglob("*).png"))
    cut = (scores[5] + scores[6]) / 2
    found = evaluate(model, busi_dir, threshold=cut, output=tmp_path, bootstrap=0)
    rows = list(read_rows(tmp_path))
    assert sum(r.abnormal for r in rows) == 6
    lesions = [r for r in rows if r.anomalous]
    assert found["metrics"]["image_sensitivity"]["value"] == sum(r.score >= cut for r in lesions) / len(lesions)
    assert found["thresholds"] == {"image": cut, "pixel": model.calibration.pixel_threshold}
    whole = evaluate(model, busi_dir, pixel_threshold=0.0, bootstrap=0)["metrics"]
    assert whole["dice"]["value"] < 0.6, "every pixel is called lesion"
    assert whole["iou"]["value"] == pytest.approx(whole["dice"]["value"] / (2 - whole["dice"]["value"]), abs=0.05)
    assert evaluate(model, busi_dir, bootstrap=0)["thresholds"]["image"] == model.calibration.image_threshold


@pytest.mark.parametrize(
    ("chosen", "match"),
    [
        ({"threshold": float("nan")}, "threshold nan: wanted a number in"),
        ({"threshold": 1.5}, "threshold 1.5"),
        ({"pixel_threshold": -0.1}, "pixel threshold -0.1"),
        ({"pixel_threshold": float("inf")}, "pixel threshold inf"),
        ({"threshold": 0.5, "operating_point": "youden"}, "give one of them"),
        ({"operating_point": "sens=95"}, "wanted sens=RATE"),
    ],
)
def test_thresholds_that_mean_nothing_are_refused(
    model: Model, busi_dir: Path, tmp_path: Path, chosen: dict[str, Any], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        predict(model, busi_dir, tmp_path / "out", **chosen)
    with pytest.raises(ConfigError, match=match):
        evaluate(model, busi_dir, output=tmp_path / "out", **chosen)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--threshold", "nan"),
        ("--threshold", "1.5"),
        ("--pixel-threshold", "-1"),
        ("--operating-point", "sens=95"),
        ("--threshold", "0.5", "--operating-point", "youden"),
        ("--operating-point", "youden", "--threshold", "0.5"),
    ],
)
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_wrong_thresholds_are_a_usage_error(command: str, words: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, str(tmp_path / "no model"), str(tmp_path), "-o", str(tmp_path / "out"), *words])
    assert end.value.code == 2


def test_the_screen_says_what_a_chosen_threshold_promises(
    saved: Path, busi_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: str, *words: str) -> tuple[str, str]:
        with pytest.raises(SystemExit) as end:
            main([command, str(saved), str(busi_dir), "--device", "cpu", *words])
        assert not end.value.code
        text = capsys.readouterr()
        return text.out, text.err

    out, err = run("predict", "-o", str(tmp_path / "point"), "--operating-point", "sens=0.95")
    assert ": sensitivity>=0.95 on 6 held-out support images" in out
    assert "  sensitivity 1.000 [0.398, 1.000] on 4 held-out lesion support images" in out
    assert "note: 4 lesion images cannot resolve 0.95" in err
    out, _ = run("evaluate", "-o", str(tmp_path / "given"), "--bootstrap", "0", "--threshold", "0.25")
    assert "image threshold 0.2500: given" in out
    out, err = run("predict", "-o", str(tmp_path / "stored"))
    assert "image threshold" not in out + err


def test_results_at_other_thresholds_are_not_continued(model: Model, busi_dir: Path, tmp_path: Path) -> None:
    predict(model, busi_dir / "benign", tmp_path, threshold=0.4)
    with pytest.raises(DataError, match=r"results at other thresholds \(0\.4, .*; now 0\.6, "):
        predict(model, busi_dir, tmp_path, threshold=0.6)
    with pytest.raises(DataError, match="at other thresholds"):
        predict(model, busi_dir, tmp_path)
    assert predict(model, busi_dir, tmp_path, threshold=0.4).skipped == 4
    assert predict(model, busi_dir, tmp_path, threshold=0.6, resume=False).predicted == 12


def test_a_model_of_an_earlier_version_says_adapt_again_for_an_operating_point_alone(
    saved: Path, busi_dir: Path, tmp_path: Path
) -> None:
    now = load(saved)
    plain = now.calibration.model_copy(update={"held_out": ()})  # and without statistics of what it can judge
    folder = Model(now.method, calibration=plain, origin=now.origin, support=now.support).save(tmp_path / "model")
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del content["calibration"]["held_out"]
    content["digest"] = bundle.digest_of(facts_of(content), now.method.state_dict())  # as it was written then
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    earlier = load(folder)
    assert earlier.digest == content["digest"] != load(saved).digest
    with pytest.raises(ConfigError, match="Adapt again"):
        predict(earlier, busi_dir, tmp_path / "no", operating_point="youden")
    predict(earlier, busi_dir, tmp_path / "out", threshold=0.4)
    assert run_of(tmp_path / "out")["thresholds"]["image_rule"] == "given"
    assert {row.in_scope.words for row in read_rows(tmp_path / "out") if row.in_scope} == {NO_RECORD}
    assert earlier.save(tmp_path / "again").is_dir()
    assert load(tmp_path / "again").digest == content["digest"]


def test_models_without_held_out_images_or_maps_say_so(folder_dir: Path, busi_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no held-out scores to fit it on \(zero-shot: no images to fit"):
        predict(zero_shot(backbone="tiny"), busi_dir, tmp_path / "out", operating_point="sens=0.95")
    classifier = adapt(draw_support(folder_dir, shots=1), method="linear_probe", backbone="tiny")
    with pytest.raises(ConfigError, match="linear_probe draws no maps"):
        predict(classifier, busi_dir, tmp_path / "out", pixel_threshold=0.5)
    for asked in ({"save": ["maps"]}, {"save": ["overlays"]}, {"maps": "grid"}, {"overlays": "top:3"}):
        (name,) = asked.get("save", asked)
        with pytest.raises(ConfigError, match=f"linear_probe draws no maps, so it has no {name} to save"):
            predict(classifier, busi_dir, tmp_path / "out", **asked)
        with pytest.raises(ConfigError, match=f"linear_probe draws no maps, so it has no {name} to save"):
            predict_shards(lambda: classifier, busi_dir, tmp_path / "out", engine=Serial(), **asked)
    assert not (tmp_path / "out").exists()
    for number, fine in enumerate(({}, {"save": []}, {"overlays": "none", "maps": "none"})):
        assert predict(classifier, busi_dir, tmp_path / str(number), **fine).predicted > 0
    found = evaluate_shards(lambda: classifier, busi_dir, tmp_path / "all", engine=Serial(), bootstrap=0)
    assert found["failed"] == {}


@pytest.mark.parametrize("asked", [{"prevalence": 0.1}, {"abstain": "cost=0.2"}])
def test_what_acts_on_class_probabilities_needs_some(asked: dict[str, Any], busi_dir: Path, tmp_path: Path) -> None:
    detector = zero_shot(backbone="tiny", method="winclip")
    (name,) = asked
    for work in (predict, evaluate):
        with pytest.raises(ConfigError, match=f"winclip gives no class probabilities, so {name} has none to act on"):
            work(detector, busi_dir, output=tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_an_exported_model_grades_if_its_model_does(onnx_dir: Path, busi_dir: Path, tmp_path: Path) -> None:
    twin = exported.load(onnx_dir)
    assert predict(twin, busi_dir, tmp_path / "out", save=[], prevalence=0.1, abstain="cost=0.2").predicted > 0
    parity = {key: value for key, value in twin.config.exported.parity.items() if key != "probs"}
    facts = twin.config.exported.model_copy(update={"parity": parity})
    twin.config = twin.config.model_copy(update={"exported": facts})
    with pytest.raises(ConfigError, match="no class probabilities, so prevalence has none"):
        predict(twin, busi_dir, tmp_path / "other", prevalence=0.1)


def test_an_exported_model_has_the_same_operating_points(
    busi_model: Model, onnx_dir: Path, folder_dir: Path, tmp_path: Path
) -> None:
    point = busi_model.operating_point("spec=0.90")
    twin = exported.load(onnx_dir)
    assert twin.operating_point("spec=0.90") == point
    predict(twin, folder_dir / "normal", tmp_path / "out", operating_point="spec=0.90")
    assert run_of(tmp_path / "out")["thresholds"]["image"] == point.threshold != busi_model.calibration.image_threshold
