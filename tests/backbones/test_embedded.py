"""The weights in the package are the recorded ones, and they know what a lesion is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import ultraad
from ultraad.backbones import _embedded_tower as embedded_tower
from ultraad.backbones import _weights as weights
from ultraad.backbones import load_backbone
from ultraad.backbones._door import _fingerprint
from ultraad.backbones._embedded_tower import SIDE
from ultraad.errors import ConfigError
from ultraad.simulate import simulate


def test_file_is_the_recorded_one_and_small():
    path, digest = weights.verify("embedded")
    assert path.with_suffix(".sha256").read_text().startswith(digest)
    assert path.stat().st_size < 40e6


def test_sizes():
    assert load_backbone("embedded").size == SIDE
    assert load_backbone("embedded", size=224).grid == (14, 14)
    with pytest.raises(ConfigError, match="not a multiple of the patch size 16"):
        load_backbone("embedded", size=100)
    with pytest.raises(ConfigError, match="unknown backbone 'embedded:large'"):
        load_backbone("embedded:large")


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_the_faster_tower_is_the_same_tower(dtype, off):
    plain = embedded_tower.load(weights.embedded_path(), size=96)
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
    assert backbone.fingerprint == _fingerprint(embedded_tower.load(weights.embedded_path(), size=96))


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
