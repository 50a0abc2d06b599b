"""Names of open_clip, folders, files; and what a user reads when weights are missing."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from safetensors.torch import save_file

from ultraad.backbones import _weights as weights
from ultraad.backbones import load_backbone
from ultraad.errors import ConfigError, WeightsError

CFG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PRE = {"mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2], "interpolation": "bicubic"}


@pytest.fixture
def folder(tmp_path):
    from ultraad.backbones._torchvision import ensure_torchvision

    ensure_torchvision()
    import open_clip

    torch.manual_seed(3)
    model = open_clip.CLIP(**CFG)
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CFG, "preprocess_cfg": PRE}))
    return tmp_path


@pytest.fixture
def empty_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_folder_file_and_local_dir_are_the_same_model(folder):
    by_folder = load_backbone(str(folder))
    by_file = load_backbone(str(folder / "open_clip_model.safetensors"))
    by_name = load_backbone(f"open_clip:local-dir:{folder}")
    assert by_folder.fingerprint == by_file.fingerprint == by_name.fingerprint
    assert by_folder.preprocess.mean == (0.4, 0.4, 0.4)
    assert by_folder.size == 32
    found = weights.verify(str(folder))
    assert (found.path, len(found.sha256), found.known_from) == (folder / "open_clip_model.safetensors", 64, None)


def test_folder_without_normalisation_is_refused(folder):
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CFG}))
    with pytest.raises(WeightsError, match="mean and std"):
        load_backbone(str(folder))
    (folder / "open_clip_config.json").write_text(json.dumps(CFG))
    with pytest.raises(WeightsError, match="model_cfg is missing"):
        load_backbone(str(folder))
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(WeightsError, match="no model configuration found"):
        load_backbone(str(folder))


def test_weights_of_another_model_are_refused(folder):
    other = json.loads(json.dumps(CFG))
    other["vision_cfg"]["width"] = 64
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": other, "preprocess_cfg": PRE}))
    with pytest.raises(WeightsError, match="does not hold the weights"):
        load_backbone(str(folder))


def test_another_size_must_fit_the_patches(folder):
    assert load_backbone(str(folder), size=48).grid == (6, 6)
    with pytest.raises(ConfigError, match="not a multiple of the patch size 8"):
        load_backbone(str(folder), size=50)


def test_missing_weights_say_what_where_and_how(empty_caches):
    with pytest.raises(WeightsError) as e:
        load_backbone(weights.PAPER)
    text = str(e.value)
    assert "ultraad backbones fetch open_clip:ViT-L-14-336-quickgelu/openai" in text
    assert "looked in" in text
    assert "local-dir" in text
    with pytest.raises(WeightsError, match="hub cache"):
        load_backbone("open_clip:hf-hub:nobody/nothing")


def test_quick_gelu_mismatch_is_an_error():
    with pytest.raises(ConfigError, match="Use open_clip:ViT-L-14-336-quickgelu/openai"):
        load_backbone("open_clip:ViT-L-14-336/openai")


def test_unknown_model_and_tag():
    with pytest.raises(ConfigError, match="open_clip has no model 'ViT-Q-99'"):
        load_backbone("open_clip:ViT-Q-99")
    with pytest.raises(ConfigError, match=r"tags: .*openai"):
        load_backbone("open_clip:ViT-B-32-quickgelu/nonsense")


def test_towers_without_patch_tokens_are_refused():
    with pytest.raises(ConfigError, match="ultraad needs"):
        load_backbone("open_clip:convnext_base")


def test_no_tag_means_random_and_says_so(caplog, monkeypatch):
    from ultraad.backbones._torchvision import ensure_torchvision

    ensure_torchvision()
    import open_clip

    monkeypatch.setattr(open_clip, "get_model_config", lambda _name: json.loads(json.dumps(CFG)))
    with caplog.at_level(logging.WARNING, logger="ultraad"):
        a = load_backbone("open_clip:ViT-B-32-quickgelu")
    assert "random" in caplog.text
    assert a.preprocess.mean == open_clip.OPENAI_DATASET_MEAN
    assert a.fingerprint == load_backbone("open_clip:ViT-B-32-quickgelu").fingerprint


def test_damaged_file_is_noticed(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"weights")
    path.with_suffix(".sha256").write_text(weights.sha256(path) + "  w.safetensors\n")
    assert weights.verify_file(path) == (path, weights.sha256(path), "w.sha256")
    path.write_bytes(b"weightz")
    with pytest.raises(WeightsError, match="damaged"):
        weights.verify_file(path)


def test_what_cannot_be_compared_is_not_called_checked(folder, tmp_path):
    whole = (folder / "open_clip_model.safetensors").read_bytes()
    torch.save({"w": torch.zeros(3)}, tmp_path / "new.pt")
    torch.save({"w": torch.zeros(3)}, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    (tmp_path / "other.safetensors").write_bytes(whole)
    for name in ("new.pt", "old.bin", "other.safetensors"):
        assert weights.verify_file(tmp_path / name).known_from is None
    for name, content in (("a.json", b'{"a": 1}'), ("empty.pt", b""), ("cut.safetensors", whole[:-9])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match="holds no weights, or only a part of them"):
            weights.verify_file(tmp_path / name)


def test_fetch_refuses_what_it_cannot_fetch():
    for name in ("tiny", "open_clip:local-dir:here", "open_clip:ViT-B-32"):
        with pytest.raises(ConfigError, match="can be fetched"):
            weights.fetch(name)
    with pytest.raises(ConfigError, match="tags:"):
        weights.fetch("open_clip:ViT-B-32-quickgelu/nonsense")


def test_listing_names_the_papers_backbone(empty_caches):
    rows = {r.name: r for r in weights.listing()}
    assert rows[weights.PAPER].path is None
    assert "embedded" in rows
