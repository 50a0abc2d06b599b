"""Damaged files of ours give one short error of ours: never a traceback, whatever bytes are wrong."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.bench.fake import Spec, write_bench
from tests.export.conftest import traced
from tests.robustness.mutations import Damage, attack, damaged_bytes, damaged_text
from ultraad.backbones import load_backbone
from ultraad.backbones._door import Backbone
from ultraad.backbones._torchvision import ensure_torchvision
from ultraad.bench.recipe import read_recipe, shipped
from ultraad.bench.results import BenchFolder
from ultraad.cli.options import method_options
from ultraad.config import resolve
from ultraad.data.preprocess import Preprocess
from ultraad.data.support import draw_support, load_support, save_support
from ultraad.errors import DataError, WeightsError
from ultraad.export import write
from ultraad.io.maps import read_map, write_grid, write_map
from ultraad.methods.ultraad import UltraAD
from ultraad.model import bundle, exported
from ultraad.model.adapt import zero_shot
from ultraad.model.model import load
from ultraad.model.record import facts_of
from ultraad.report.run.page import render
from ultraad.results.folder import RunFolder, read_errors, read_rows, read_run
from ultraad.runs.evaluate import evaluate
from ultraad.runs.job import facts
from ultraad.texts.bank import load_texts
from ultraad.types import MapGrid, PreprocessConfig

CASES = 30  # mutations of each file
DRAWN = 20  # of these, drawn as a report page, which takes longer
PART = 700  # cases of one test under -m slow


@pytest.fixture(scope="module")
def good(folder_dir: Path, folder_bundle: Path, busi_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("good")
    model = load(shutil.copytree(folder_bundle, root / "model"))
    evaluate(model, busi_dir, output=root / "results", bootstrap=5)
    write_bench(root / "bench", Spec(tests=("busi",), methods=("ultraad", "mvfa"), shots=(4,), seeds=(0,), images=6))
    save_support(draw_support(folder_dir, shots=1), root / "support.json")
    (root / "texts.yaml").write_bytes(Path(bundle.__file__).parents[1].joinpath("texts", "breast.yaml").read_bytes())
    (root / "recipe.yaml").write_bytes(shipped()["quick"].read_bytes())
    (root / "options.yaml").write_text("train:\n  epochs: 3\nscore:\n  tau: backbone\npost.sigma: 4\n")
    write_map(root / "map.png", np.random.default_rng(0).random((30, 40)))
    geometry = Preprocess(PreprocessConfig(8, (0.5,) * 3, (0.5,) * 3)).geometry((30, 40), (2, 3, 20, 20))
    write_grid(root / "map.npz", MapGrid(np.random.default_rng(0).random((8, 8), np.float32), geometry))
    write_weights(root / "weights")
    write_weights(root / "pickled", pickled=True)
    load_backbone("tiny").new_cache(root / "features").encode(torch.rand(1, 3, 64, 64), layers=(2,))
    (entry,) = (root / "features").iterdir()
    entry.rename(entry.with_name("entry.safetensors"))
    return root


def write_weights(folder: Path, *, pickled: bool = False) -> None:
    """A small CLIP of random weights as open_clip saves one."""
    ensure_torchvision()
    from open_clip import CLIP

    cfg = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
    }
    half = [0.5, 0.5, 0.5]
    torch.manual_seed(0)
    state = CLIP(**cfg).state_dict()
    folder.mkdir()
    if pickled:
        torch.save(state, folder / "open_clip_pytorch_model.bin")
    else:
        save_file(state, folder / "open_clip_model.safetensors")
    record = {"model_cfg": cfg, "preprocess_cfg": {"mean": half, "std": half, "interpolation": "bicubic"}}
    (folder / "open_clip_config.json").write_text(json.dumps(record))


def read_results(folder: Path) -> None:
    read_run(folder)
    list(read_rows(folder))
    read_errors(folder)


def read_model(path: Path) -> None:
    """Load a model whose record names the damaged file's new hash."""
    record = path.with_name("config.json")
    if path != record:
        content = json.loads(record.read_bytes())
        content["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        record.write_text(json.dumps(content))
    load(path.parent, backbone=_tiny())


@cache
def _tiny() -> Backbone:
    return load_backbone("tiny")


def read_bench(folder: Path) -> None:
    results = BenchFolder.open(folder)
    for row in results.rows(all=True):
        results.predictions(row)
        results.pixels(row)
        results.maps(row)
        results.pictures(row)


def read_weights(path: Path) -> None:
    backbone = load_backbone(str(path.parent))
    backbone.encode_image(torch.zeros(1, 3, backbone.size, backbone.size))


def read_features(path: Path) -> None:
    """A damaged entry of the cache is made again."""
    cache = _tiny().new_cache(path.parent)
    cache._key = lambda image: path.stem
    assert cache.encode(torch.rand(1, 3, 64, 64), layers=(2,)).image.shape == (1, 32)


def read_export(path: Path) -> None:
    """Load an export whose record names the damaged file's new hash, and predict with it."""
    record = path.with_name("exported.json")
    if path != record:
        content = json.loads(record.read_bytes())
        content["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        content["digest"] = exported.digest_of(content["exported"]["source"], content["files"], facts_of(content))
        record.write_text(json.dumps(content))
    exported.load(path.parent, threads=1).predict(np.zeros((40, 50), np.uint8))


READERS: dict[str, tuple[Callable[[Path], object], Damage]] = {
    "results/run.json": (lambda p: read_results(p.parent), damaged_text),
    "results/predictions.jsonl": (lambda p: read_results(p.parent), damaged_text),
    "map.png": (read_map, damaged_bytes),
    "map.npz": (read_map, damaged_bytes),
    "model/config.json": (read_model, damaged_text),
    "model/adapter.safetensors": (read_model, damaged_bytes),
    "model/support.csv": (read_model, damaged_text),
    "support.json": (load_support, damaged_text),
    "bench/bench.json": (lambda p: read_bench(p.parent), damaged_text),
    "bench/results.jsonl": (lambda p: read_bench(p.parent), damaged_text),
    "bench/predictions/": (lambda p: read_bench(p.parents[1]), damaged_text),
    "bench/pixels/": (lambda p: read_bench(p.parents[1]), damaged_bytes),
    "bench/maps/": (lambda p: read_bench(p.parents[1]), damaged_bytes),
    "bench/pictures/": (lambda p: read_bench(p.parents[1]), damaged_bytes),
    "texts.yaml": (load_texts, damaged_text),
    "recipe.yaml": (read_recipe, damaged_text),
    "options.yaml": (lambda p: resolve(UltraAD.Config, method_options(p, None, None), where="options"), damaged_text),
    "features/entry.safetensors": (read_features, damaged_bytes),
    "weights/open_clip_config.json": (read_weights, damaged_text),
    "weights/open_clip_model.safetensors": (read_weights, damaged_bytes),
    "pickled/open_clip_pytorch_model.bin": (read_weights, damaged_bytes),
}
EXPORTS: dict[str, tuple[Callable[[Path], object], Damage]] = {
    "exported.json": (read_export, damaged_text),
    "model.onnx": (read_export, damaged_bytes),
    "support.csv": (read_export, damaged_text),
}


@pytest.fixture
def copied(good: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a good file with the folder that it belongs to; a name that ends in / is the first file there."""

    def copy(name: str) -> Path:
        top = name.partition("/")[0]
        if (good / top).is_dir():
            shutil.copytree(good / top, tmp_path / top)
        else:
            shutil.copy(good / top, tmp_path / top)
        return sorted((tmp_path / name).iterdir())[0] if name.endswith("/") else tmp_path / name

    return copy


LINES = {"support.json": 8}  # each image that does not fit has a line of its own


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_gives_one_error_of_ours(copied, name, record) -> None:
    read, damage = READERS[name]
    attack(copied(name), read, range(CASES), damage=damage, lines=LINES.get(name, 1)).check(record)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_files_give_one_error_of_ours(copied, name, part, record) -> None:
    read, damage = READERS[name]
    seeds = range(1000 + PART * part, 1000 + PART * (part + 1))
    attack(copied(name), read, seeds, damage=damage, lines=LINES.get(name, 1)).check(record)


@pytest.mark.parametrize(
    ("tower", "key", "value"),
    [
        ("vision_cfg", "layers", 10**9),
        ("text_cfg", "layers", 10**9),
        ("vision_cfg", "width", 10**6),
        ("vision_cfg", "image_size", 8 * 10**6),
        ("text_cfg", "context_length", 10**6),
        ("text_cfg", "vocab_size", 10**10),
    ],
)
def test_a_configuration_that_is_larger_than_its_weights_takes_no_memory(copied, tower, key, value, record) -> None:
    path = copied("weights/open_clip_config.json")
    config = json.loads(path.read_text())
    config["model_cfg"][tower][key] = value
    tally = attack(path, read_weights, range(1), damage=lambda *_: json.dumps(config).encode(), wanted=WeightsError)
    tally.check(record)
    assert tally.refused


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(copied, value) -> None:
    path = copied("weights/open_clip_model.safetensors")
    state = load_file(path)
    state["visual.proj"][0, 0] = value
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"visual\.proj holds values that are no numbers"):
        read_weights(path)


@pytest.mark.parametrize(
    ("kind", "array"),
    [
        *(("pixels", a) for a in ("groups", "mass", "wide", "sums")),
        *(("maps", a) for a in ("ids", "maps", "low", "high")),
        *(("pictures", a) for a in ("ids", "images", "masks", "known", "sizes")),
    ],
)
def test_arrays_of_another_shape_are_one_error_of_ours(copied, kind, array) -> None:
    path = copied(f"bench/{kind}/")
    with np.load(path) as found:
        whole = dict(found)
    for other in (whole[array][:-1], whole[array][..., None], np.array(["x"], dtype=object), np.array("x")):
        np.savez(path, **{**whole, array: other})
        with pytest.raises(DataError, match=re.escape(f"{path} is damaged")):
            read_bench(path.parents[1])


@pytest.mark.parametrize("name", EXPORTS)
def test_a_damaged_export_gives_one_error_of_ours(onnx_dir, tmp_path, name, record) -> None:
    folder = Path(shutil.copytree(onnx_dir, tmp_path / "onnx"))
    read, damage = EXPORTS[name]
    attack(folder / name, [read], range(CASES), damage=damage).check(record)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EXPORTS)
def test_many_damaged_exports_give_one_error_of_ours(onnx_dir, tmp_path, name, record) -> None:
    folder = Path(shutil.copytree(onnx_dir, tmp_path / "onnx"))
    read, damage = EXPORTS[name]
    attack(folder / name, [read], range(1000, 1000 + PART), damage=damage).check(record)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["exported.json", "model.xml", "model.bin"])
def test_many_damaged_exports_for_openvino_give_one_error_of_ours(
    busi_model, onnx_dir, tmp_path, name, monkeypatch, record
) -> None:
    traced(monkeypatch, onnx_dir)
    write.export(busi_model, tmp_path / "openvino", runtime="openvino")
    damage = damaged_bytes if name == "model.bin" else damaged_text
    attack(tmp_path / "openvino" / name, [read_export], range(1000, 1100), damage=damage).check(record)


@pytest.mark.parametrize("name", ["run.json", "metrics.json", "predictions.jsonl"])
def test_a_report_of_damaged_results_gives_one_error_of_ours(copied, name, record) -> None:
    path = copied(f"results/{name}")
    attack(path, lambda p: render(p.parent), range(DRAWN), damage=damaged_text).check(record)


@pytest.mark.parametrize("name", ["run.json", "predictions.jsonl"])
def test_a_damaged_folder_is_continued_or_refused(copied, name, record) -> None:
    run = facts(zero_shot(backbone="tiny"), "evaluate")
    attack(
        copied(f"results/{name}"),
        lambda p: RunFolder(p.parent, run, resume=True).finish("complete"),
        range(DRAWN),
        damage=damaged_text,
    ).check(record)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("support.json", '"id": "', '"id": "\\ud800'),
        ("support.json", '"id": "', f'"{"[" * 100_000}": 1, "id": "'),
        ("support.json", '"ultraad.support/1"', f'"{"x" * 100_000}"'),
        ("bench/bench.json", '"recipe": {', f'"recipe": {{"{"<a>" * 5000}": 1, '),
    ],
    ids=["letter", "key", "format", "option"],
)
def test_what_is_wrong_is_quoted_in_short(copied, name, old, new, record) -> None:
    path = copied(name)
    whole = path.read_text(encoding="utf-8")
    assert old in whole
    tally = attack(path, READERS[name][0], range(1), damage=lambda *_: whole.replace(old, new, 1).encode())
    tally.check(record)
    assert tally.refused
