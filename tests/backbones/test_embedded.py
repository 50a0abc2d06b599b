"""The towers in the package are the recorded ones, and they know what a lesion is."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import ultraad
from ultraad.backbones import _embedded_tower as embedded_tower
from ultraad.backbones import _weights as weights
from ultraad.backbones import load_backbone
from ultraad.backbones._towers import TOWERS
from ultraad.backbones._vit import fingerprint_of
from ultraad.backbones.embedded import export
from ultraad.errors import BundleError, ConfigError, WeightsError
from ultraad.simulate import simulate

WEIGHTS = TOWERS["embedded"].weights


@pytest.mark.parametrize("name", TOWERS)
def test_its_file_is_the_recorded_one_and_small(name):
    path, digest, known_from = weights.verify(name)
    assert known_from == path.with_suffix(".sha256").name
    assert path.with_suffix(".sha256").read_text() == f"{digest}  {path.name}\n"
    assert path.stat().st_size < 40e6


def test_a_damaged_decoder_is_found(monkeypatch, tmp_path):
    tower = TOWERS["embedded"]
    for path in (
        tower.weights,
        tower.weights.with_suffix(".sha256"),
        tower.decoder,
        tower.decoder.with_suffix(".sha256"),
    ):
        shutil.copyfile(path, tmp_path / path.name)
    with (tmp_path / tower.decoder.name).open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    monkeypatch.setitem(TOWERS, "embedded", replace(tower, stem=str(tmp_path / "embedded")))
    with pytest.raises(WeightsError, match=r"embedded.decoder.safetensors is damaged"):
        weights.verify("embedded")


@pytest.mark.parametrize("name", TOWERS)
def test_its_card_names_data_licence_and_limits(name):
    card = TOWERS[name].card.read_text(encoding="utf-8")
    for part in ("**For research only.**", "trained on", "seeds", "## What it cannot do", "Apache-2.0"):
        assert part in card, part
    if "BUS-BRA" in card:
        assert "10.5281/zenodo.8231412" in card
        assert "Medical Physics" in card


def test_one_tower_has_seen_no_patient():
    assert "| real images | none in training" in TOWERS["embedded-simulated"].card.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TOWERS)
def test_exported_files_hold_the_same_tower(name, tmp_path):
    shipped = load_backbone(name)  # first: it mends a torchvision that does not fit its torch
    written = export(tmp_path, name)
    assert {p.name for p in written} == {"open_clip_model.safetensors", "embedded_tower.py", "README.md"}
    assert (tmp_path / "README.md").read_bytes() == TOWERS[name].card.read_bytes()
    assert weights.verify(str(tmp_path)).known_from == f"the weights of {name}, which ship with ultraad"
    exported = embedded_tower.load(tmp_path / "open_clip_model.safetensors")
    assert fingerprint_of(exported) == shipped.fingerprint
    with pytest.raises(
        ConfigError, match="cannot export 'tiny'; only embedded, embedded-large, embedded-simulated can"
    ):
        export(tmp_path, "tiny")


def test_a_missing_file_says_to_install_again(monkeypatch, tmp_path):
    monkeypatch.setitem(TOWERS, "embedded", replace(TOWERS["embedded"], stem=str(tmp_path / "gone")))
    with pytest.raises(WeightsError, match=r"gone.safetensors are missing from this installation .*; reinstall"):
        load_backbone("embedded")
    assert {w.name: w.path for w in weights.listing()}["embedded"] is None


def test_sizes():
    assert load_backbone("embedded").size == embedded_tower.side_of(WEIGHTS)
    assert load_backbone("embedded", size=224).grid == (14, 14)
    with pytest.raises(ConfigError, match="not a multiple of the patch size 16"):
        load_backbone("embedded", size=100)
    with pytest.raises(ConfigError, match="unknown backbone 'embedded:large'"):
        load_backbone("embedded:large")


def test_a_mirrored_tower_sees_a_picture_and_its_mirror_image_alike():
    plain, both = (load_backbone(name, size=64) for name in ("embedded", "embedded:mirror"))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    f, turned = (both.encode_image(x, layers=(0, 3)) for x in (images, images.flip(-1)))
    one, other = (plain.encode_image(x, layers=(0, 3)) for x in (images, images.flip(-1)))
    assert torch.allclose(f.image, (one.image + other.image) / 2, atol=1e-5)
    assert torch.allclose(f.image, turned.image, atol=1e-5)
    for layer in (0, 3):
        grid, mirrored = (x.patches[layer].unflatten(1, both.grid) for x in (f, turned))
        assert torch.allclose(grid, mirrored.flip(2), atol=1e-4)
        assert not torch.allclose(grid, mirrored, atol=1e-2)
        back = other.patches[layer].unflatten(1, both.grid).flip(2)
        assert torch.allclose(grid, (one.patches[layer].unflatten(1, both.grid) + back) / 2, atol=1e-4)


def test_a_model_of_the_mirrored_tower_is_not_used_on_the_plain_one(tmp_path):
    model = ultraad.zero_shot(backbone="embedded:mirror", size=64)
    model.save(tmp_path)
    image = simulate(0, size=96).image
    assert ultraad.load(tmp_path).predict(image).score == model.predict(image).score
    with pytest.raises(BundleError, match="was adapted on embedded:mirror with weights"):
        ultraad.load(tmp_path, backbone="embedded")


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_the_faster_tower_is_the_same_tower(dtype, off):
    plain = embedded_tower.load(WEIGHTS, size=96)
    images = torch.randn(16, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = plain.encode_image(images)
        ours = load_backbone("embedded", size=96, dtype=str(dtype).removeprefix("torch.")).encode_image(images).image
        far = plain.visual.to(dtype)(images.to(dtype)).float()
    assert (ours - want).norm() < off * want.norm()
    assert (ours - want).norm() < 1.5 * (far - want).norm() + 1e-5 * want.norm()  # not by giving up digits


def test_the_faster_tower_has_no_norm_between_its_convolutions_and_the_same_fingerprint():
    backbone = load_backbone("embedded", size=96)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in backbone.model.modules())
    assert backbone.fingerprint == fingerprint_of(embedded_tower.load(WEIGHTS, size=96))


def test_sentences_alone_find_and_grade_simulated_lesions():
    model = ultraad.zero_shot()
    labels = ["normal", "benign", "malignant"] * 10
    phantoms = [simulate(5_000_000 + i, label=label) for i, label in enumerate(labels)]
    predictions = [model.predict(p.image) for p in phantoms]
    abnormal = np.array(labels) != "normal"
    assert roc_auc_score(abnormal, [p.score for p in predictions]) > 0.8
    pixels = np.concatenate([p.map.ravel()[::7] for p in predictions])
    truth = np.concatenate([p.mask.ravel()[::7] for p in phantoms])
    assert roc_auc_score(truth, pixels) > 0.9
    grade = [p.probs["malignant"] / (p.probs["benign"] + p.probs["malignant"]) for p in predictions]
    malignant = np.array(labels)[abnormal] == "malignant"
    assert roc_auc_score(malignant, np.array(grade)[abnormal]) > 0.7
