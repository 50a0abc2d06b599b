from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from tests.adapted import adapted
from ultraad.backbones import load_backbone
from ultraad.backbones._towers import TOWERS
from ultraad.data.sources import scan
from ultraad.data.support import check_leakage, draw_support
from ultraad.errors import BundleError, DataError, LeakageError
from ultraad.model import bundle
from ultraad.model.adapt import adapt, zero_shot
from ultraad.model.model import Model, load


@pytest.fixture(scope="module")
def model(folder_dir: Path) -> Model:
    return adapted(folder_dir)


@pytest.fixture(scope="module")
def original(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.save(tmp_path_factory.mktemp("models") / "modèle one")


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def change(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def test_round_trip_is_exact(model: Model, saved: Path, busi_dir: Path) -> None:
    found = load(saved)
    assert found.digest == model.digest
    assert found.calibration == model.calibration
    assert found.origin == model.origin
    assert found.support == model.support
    for path in sorted(busi_dir.rglob("*).png")):
        a, b = model.predict(path), found.predict(path)
        assert (a.score, a.probs) == (b.score, b.probs)
        np.testing.assert_array_equal(a.map, b.map)


def test_another_number_type_than_it_was_adapted_in(model: Model, saved: Path, tmp_path: Path, busi_dir: Path) -> None:
    path = busi_dir / "benign" / "benign (1).png"
    half = load(saved, dtype="bfloat16")
    assert half.describe().backbone.dtype == "bfloat16"
    assert half.calibration == model.calibration
    assert half.digest != model.digest
    assert half.predict(path).score == pytest.approx(model.predict(path).score, abs=0.05)
    again = load(half.save(tmp_path / "half"))  # what it was saved in
    assert again.digest == half.digest
    assert load(tmp_path / "half", dtype="float32").digest == model.digest


def test_zero_shot_round_trip(tmp_path: Path, busi_dir: Path) -> None:
    model = zero_shot(backbone="tiny")
    found = load(model.save(tmp_path / "zero"))
    path = busi_dir / "benign" / "benign (1).png"
    assert found.predict(path).score == model.predict(path).score
    card = (tmp_path / "zero" / "README.md").read_text(encoding="utf-8")
    assert "the model uses text alone" in card
    assert "fixed at 0.5" in card


def test_what_is_in_the_folder(saved: Path, model: Model) -> None:
    assert {p.name for p in saved.iterdir()} == {"config.json", "adapter.safetensors", "support.csv", "README.md"}
    rows = (saved / "support.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "id,label,group,sha256"
    assert len(rows) == 1 + 6
    content = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    assert content["backbone"]["fingerprint"] == model.backbone.fingerprint
    assert content["classes"] == ["normal", "benign", "malignant"]
    assert content["options"]["train"]["epochs"] == 1
    assert set(content["versions"]) >= {"ultraad", "torch", "open_clip_torch"}


def test_the_card_says_what_the_model_is_and_its_limits(saved: Path, model: Model) -> None:
    card = (saved / "README.md").read_text(encoding="utf-8")
    for text in ("2 images per class", "For research only", "tiny", "| Image AUROC |", model.digest[:16]):
        assert text in card
    assert f"{model.calibration.image_threshold:.4f}" in card


def test_saving_again_replaces_a_model_and_nothing_else(model: Model, saved: Path, tmp_path: Path) -> None:
    (saved / "README.md").write_text("an older card")
    model.save(saved)
    assert "an older card" not in (saved / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in saved.parent.iterdir()] == [saved.name], "no temporary folder is left"
    other = tmp_path / "photos"
    other.mkdir()
    (other / "holiday.txt").write_text("keep me")
    with pytest.raises(BundleError, match="not an ultraad model; choose another name"):
        model.save(other)
    assert (other / "holiday.txt").read_text() == "keep me"
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="not an ultraad model; choose another name"):
        model.save(tmp_path / "file")
    with pytest.raises(DataError, match="a file is in its place"):
        model.save(tmp_path / "file" / "model")


@pytest.mark.parametrize("step", ["write", "rename"])
def test_a_failed_save_leaves_the_old_model(
    model: Model, saved: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = (saved / "config.json").read_bytes()
    rename = Path.rename

    def full(*_: object) -> None:
        msg = "disk full"
        raise DataError(msg)

    def refuse_new(path: Path, target: Path) -> Path:
        if path.name == "new":
            full()
        return rename(path, target)

    if step == "write":
        monkeypatch.setattr(bundle, "write_json", full)
    else:
        monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(DataError, match="disk full"):
        model.save(saved)
    assert (saved / "config.json").read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("name", ["config.json", "adapter.safetensors", "support.csv"])
def test_missing_files_are_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(BundleError, match=name):
        load(saved)


@pytest.mark.parametrize("name", ["adapter.safetensors", "support.csv"])
def test_one_changed_byte_is_noticed(saved: Path, name: str) -> None:
    data = bytearray((saved / name).read_bytes())
    data[-1] ^= 1
    (saved / name).write_bytes(data)
    with pytest.raises(BundleError, match="damaged: sha256"):
        load(saved)


def test_a_broken_config_is_explained(saved: Path) -> None:
    path = saved / "config.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: len(text) // 2], encoding="utf-8")
    with pytest.raises(BundleError, match="is damaged"):
        load(saved)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(BundleError, match="has format None"):
        load(saved)
    path.write_text(text, encoding="utf-8")
    change(saved, format="ultraad.model/9")
    with pytest.raises(BundleError, match=r"'ultraad\.model/9'"):
        load(saved)
    path.write_text(text, encoding="utf-8")
    change(saved, surprise=1)
    with pytest.raises(BundleError, match="surprise"):
        load(saved)


def test_options_of_another_version_are_named_with_what_to_do(saved: Path) -> None:
    options = json.loads((saved / "config.json").read_text())["options"]
    change(saved, options={**options, "post": {**options["post"], "refine": "auto"}})
    with pytest.raises(BundleError, match=r"post\.refine.* found 'auto'.*wrote the model, adapt again"):
        load(saved)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"it has no config\.json"):
        load(tmp_path)


def newer(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of a shipped tower takes its name."""
    tensors = load_file(TOWERS[name].weights)
    tensors["logit_scale"] = tensors["logit_scale"] + 0.1
    tower = replace(TOWERS[name], stem=str(folder / name))
    save_file(tensors, tower.weights)
    monkeypatch.setitem(TOWERS, name, tower)


def test_a_model_of_an_earlier_tower_finds_it_under_its_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(TOWERS, "embedded", TOWERS["embedded-simulated"])  # as in version 2
    model = zero_shot(backbone="embedded", size=64)
    folder = model.save(tmp_path / "model")
    newer("embedded", tmp_path, monkeypatch)
    with caplog.at_level(logging.WARNING):
        found = load(folder)
    assert "adapted on an earlier embedded, which is now called embedded-simulated" in caplog.text
    assert found.backbone.name == "embedded-simulated"
    assert found.backbone.fingerprint == model.backbone.fingerprint != load_backbone("embedded", size=64).fingerprint
    picture = np.random.default_rng(0).integers(0, 255, (80, 60), np.uint8)
    assert found.predict(picture).probs == model.predict(picture).probs
    with pytest.raises(BundleError, match="adapted on embedded with weights"):
        load(folder, backbone="embedded")
    newer("embedded-simulated", tmp_path, monkeypatch)
    with pytest.raises(BundleError, match="adapted on embedded with weights"):
        load(folder)


def test_another_backbone_is_refused_by_its_weights(saved: Path, model: Model) -> None:
    other = load_backbone("tiny:uneven")
    with pytest.raises(BundleError) as e:
        load(saved, backbone=other)
    assert model.backbone.fingerprint[:16] in str(e.value)
    assert other.fingerprint[:16] in str(e.value)
    assert load(saved, backbone=load_backbone("tiny")).digest == model.digest
    stored = json.loads((saved / "config.json").read_text(encoding="utf-8"))["backbone"]
    change(saved, backbone={**stored, "preprocess": {**stored["preprocess"], "mode": "pad"}})
    with pytest.raises(BundleError, match="prepared as"):
        load(saved)


def test_values_that_do_not_fit_the_options_are_refused(saved: Path) -> None:
    options = json.loads((saved / "config.json").read_text(encoding="utf-8"))["options"]
    change(saved, options={**options, "prompt": {**options["prompt"], "n_global": 3}})
    with pytest.raises(BundleError, match="does not hold the values"):
        load(saved)


def test_other_versions_are_a_warning(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(saved)
    assert not caplog.records
    made = json.loads((saved / "config.json").read_text(encoding="utf-8"))["versions"]
    change(saved, versions={**made, "torch": "0.0.1", "gone": "2"})
    with caplog.at_level(logging.WARNING, logger="ultraad"):
        load(saved)
    assert "torch 0.0.1 (here " in caplog.text
    assert "gone 2 (here not installed)" in caplog.text


@pytest.fixture(scope="module")
def trained(busi_dir: Path, folder_dir: Path) -> Model:
    """A detector with both kinds of images."""
    support = draw_support(folder_dir, shots=1)
    return adapt(support, auxiliary=busi_dir, method="april_gan", backbone="tiny", options={"epochs": 1})


def test_a_loaded_model_still_knows_its_auxiliary_set(trained: Model, busi_dir: Path, tmp_path: Path) -> None:
    folder = trained.save(tmp_path / "model")
    rows = (folder / "auxiliary.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "id,label,group,sha256"
    assert len(rows) == 1 + 12
    found = load(folder)
    assert (found.origin, found.support, found.auxiliary) == (trained.origin, trained.support, trained.auxiliary)
    assert found.auxiliary[0][0].source == f"busi:{busi_dir.resolve()}"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "An auxiliary set of 12 images" in card
    assert "layout: busi" in card
    assert "grades" not in card, "this method gives no classes"
    data = (folder / "auxiliary.csv").read_bytes()
    (folder / "auxiliary.csv").write_bytes(data[:-1])
    with pytest.raises(BundleError, match=r"auxiliary\.csv is damaged"):
        load(folder)


def test_models_of_before_auxiliary_sets_are_still_read(saved: Path, model: Model) -> None:
    stored = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    origin = {key: value for key, value in stored["origin"].items() if key != "auxiliary"}
    change(saved, origin=origin)
    found = load(saved)
    assert found.digest == model.digest
    assert found.auxiliary == ()


def test_a_loaded_model_still_knows_its_support(saved: Path, folder_dir: Path, busi_dir: Path) -> None:
    prints = [p for p, _ in load(saved).support]
    check_leakage(prints, scan(busi_dir))
    with pytest.raises(LeakageError, match="6 support image"):
        check_leakage(prints, scan(folder_dir))
