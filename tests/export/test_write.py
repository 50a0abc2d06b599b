"""Exporting: any method that can be traced, held to PyTorch, all or nothing."""

from __future__ import annotations

import json
import re
import sys
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import torch

import ultraad
from tests.export.conftest import traced
from tests.fans import SIZE, sector, shown, with_text
from tests.methods.conftest import CLASSES, make_batch, model_around, quick
from ultraad import methods
from ultraad.backbones import load_backbone
from ultraad.data.fans import find_in
from ultraad.data.support import draw_support
from ultraad.errors import BundleError, ConfigError, DataError, ExportError, MissingExtraError
from ultraad.export import write
from ultraad.export.write import export
from ultraad.methods.linear_probe import LinearProbe
from ultraad.model.adapt import adapt, zero_shot
from ultraad.model.exported import is_exported, load
from ultraad.model.model import Model
from ultraad.types import Scores

UNTRACEABLE = {"ada_clip", "anodode", "winclip"}


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.available())
def test_every_method_exports_or_says_why_not(name: str, tmp_path: Path) -> None:
    tower = load_backbone("tiny:uneven")
    kind = methods.get(name)
    method = kind(tower, quick(kind.Config), classes=CLASSES, normal_class="normal")
    method.fit(make_batch(tower), seed=0)
    assert bool(kind.untraceable) == (name in UNTRACEABLE)
    if kind.untraceable:
        with pytest.raises(ConfigError, match=rf"{name} cannot be exported: .+"):
            export(model_around(method), tmp_path / "exported")
        assert not any(tmp_path.iterdir())
        return
    made = export(model_around(method), tmp_path / "exported")
    parity = made.config.exported.parity
    assert max(parity[key] for key in ("score", "map", "probs") if key in parity) < 1e-4  # must: 1e-3
    outputs = {"score", "map", "probs"} if kind.info.outputs == {"score", "map", "classes"} else None
    if outputs:
        assert outputs <= parity.keys()
    images = make_batch(tower, per_class=1, seed=9).images
    pictures = ((images.permute(0, 2, 3, 1) * 0.5 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    whole = made.run(pictures)
    for i in range(len(pictures)):
        for key, value in made.run(pictures[i : i + 1]).items():
            np.testing.assert_allclose(value[0], whole[key][i], atol=1e-5)


def test_the_page_says_which_methods_cannot() -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    reasons = {name: methods.get(name).untraceable for name in methods.available()}
    assert {name for name, reason in reasons.items() if reason} == UNTRACEABLE
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page, flags=re.M)) == {n: r for n, r in reasons.items() if r}


def test_what_is_written(model: Model, onnx: Path, openvino: Path) -> None:
    for folder, graph in ((onnx, {"model.onnx"}), (openvino, {"model.xml", "model.bin"})):
        assert {p.name for p in folder.iterdir()} == {"exported.json", "support.csv", "scope.npz", *graph}
        assert is_exported(folder)
        facts = json.loads((folder / "exported.json").read_text())
        assert facts["exported"]["source"] == model.digest
        assert facts["digest"] != model.digest
        parity = facts["exported"]["parity"]
        assert parity["images"] == 16
        assert parity["tolerance"] == 1e-3
        assert all(0 <= parity[key] <= 1e-4 for key in ("score", "map", "probs", "gist"))
        assert facts["exported"]["speed"]["1"].keys() == {facts["exported"]["runtime"], "torch"}
        wanted = model.describe().model_dump(mode="json")
        assert {key: facts[key] for key in wanted} == wanted
        assert "research" in facts["note"]
    assert not is_exported(onnx.parent)


def test_a_graph_that_predicts_something_else_is_not_kept(
    model: Model, other: Model, onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced(monkeypatch, onnx)
    folder = tmp_path / "exported"
    export(model, folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(ExportError, match=r"differs from PyTorch: .*map by 0\.\d+ \(at most 0\.001\).*Nothing"):
        export(other, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    with pytest.raises(ExportError, match="differs"):
        export(other, tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["exported"]


def test_nan_is_a_difference() -> None:
    with pytest.raises(ExportError, match="score by nan"):
        write._check_within({"score": float("nan")}, {"score": 1.0}, "x")


def test_what_stands_in_the_place(model: Model, onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traced(monkeypatch, onnx)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    for name in ("mine", "file"):
        with pytest.raises(BundleError, match="is not an exported model; choose another folder"):
            export(model, tmp_path / name)
    (tmp_path / "empty").mkdir()
    for _ in range(2):  # the second replaces the first
        export(model, tmp_path / "empty")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file", "mine"]
    with pytest.raises(DataError, match="a file is in its place"):
        export(model, tmp_path / "file" / "deeper")


def test_a_model_or_option_that_does_not_fit_is_refused(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "exported"
    with pytest.raises(ConfigError, match="winclip cannot be exported: it encodes its windows"):
        export(zero_shot(method="winclip", backbone="tiny"), folder)
    with pytest.raises(ConfigError, match=r"bfloat16.* export needs float32 on the CPU"):
        export(zero_shot(backbone=load_backbone("tiny", dtype="bfloat16")), folder)
    with pytest.raises(ConfigError, match="int8 works with ONNX Runtime only, not with openvino"):
        export(model, folder, runtime="openvino", int8=True)
    with pytest.raises(ConfigError, match="ask for int8 too"):
        export(model, folder, check=tmp_path)
    for package, extra in (("onnxscript", "export"), ("onnxruntime", "onnx")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(
                MissingExtraError, match=rf"{package} is not installed; get it with: .*'ultraad\[{extra}\]'"
            ):
                export(model, folder)
    assert not any(tmp_path.iterdir())


class Branching(LinearProbe):
    """Looks at values to decide what to do, which a graph cannot."""

    def score(self, images: torch.Tensor) -> Scores:
        found = super().score(images)
        return Scores(found.score + 1 if found.score.mean() > 0.5 else found.score)


def test_a_method_that_cannot_be_traced_says_so(busi_dir: Path, tmp_path: Path) -> None:
    fitted = adapt(draw_support(busi_dir, shots=2), method="linear_probe", backbone="tiny", calibrate=False)
    fitted.method.__class__ = Branching
    with pytest.raises(ExportError, match=r"torch cannot make a graph of its score \(.+\)"):
        export(fitted, tmp_path / "exported")
    assert not any(tmp_path.iterdir())


def test_a_model_is_not_changed_by_exporting(model: Model, onnx: Path) -> None:
    assert isinstance(model.method.lesion_masks, torch.Tensor)
    assert "lesion_masks" in model.method.state_dict()
    assert model.digest == load(onnx).config.exported.source


# --- int8 ------------------------------------------------------------------------------------------------------------


def test_int8_that_is_not_accurate_is_not_kept(
    model: Model, onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced(monkeypatch, onnx)
    monkeypatch.setattr(write, "INT8_TOLERANCE", dict.fromkeys(("score", "map", "probs", "gist"), 1e-6))
    with pytest.raises(ExportError, match=r"int8 is not accurate enough; .*score by [\d.e-]+ \(at most 1e-06\)"):
        export(model, tmp_path / "exported", int8=True)
    assert not any(tmp_path.iterdir())


def test_accurate_int8_is_kept(model: Model, onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traced(monkeypatch, onnx)
    monkeypatch.setattr(write, "INT8_TOLERANCE", dict.fromkeys(("score", "map", "probs", "gist"), 0.5))
    made = export(model, tmp_path / "exported", int8=True)
    assert made.config.exported.int8
    assert 1e-5 < made.config.exported.parity["map"] < 0.5
    files = {p.name for p in (tmp_path / "exported").iterdir()}
    assert files == {"exported.json", "model.onnx", "support.csv", "scope.npz"}
    assert b"MatMulInteger" in (tmp_path / "exported" / "model.onnx").read_bytes()
    pictures = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    pictures[1] //= 8  # in one batch, the others would decide how finely this one is resolved
    alone = [made.run(p[None]) for p in pictures]
    for key, value in made.run(pictures).items():
        np.testing.assert_array_equal(value, np.concatenate([a[key] for a in alone]))


def test_int8_is_held_to_labelled_images(
    model: Model, onnx: Path, bus_uclm_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced(monkeypatch, onnx)
    monkeypatch.setattr(write, "INT8_TOLERANCE", {})  # not asked where there are images
    monkeypatch.setattr(write, "INT8_POINTS", 100)
    made = export(model, tmp_path / "exported", int8=True, check=bus_uclm_dir)
    values = made.config.exported.check["pixel_auroc"]
    assert values.keys() == {"float32", "int8"}
    wanted = ultraad.evaluate(model, bus_uclm_dir, bootstrap=0)["metrics"]["pixel_auroc"]["value"]
    assert values["float32"] == pytest.approx(100 * wanted, abs=1e-3)
    monkeypatch.setattr(write, "INT8_POINTS", -100)
    with pytest.raises(ExportError, match=r"it loses points of: .*pixel_auroc by -?[\d.e-]+ \(at most -100\)"):
        export(model, tmp_path / "new", int8=True, check=bus_uclm_dir)
    assert [p.name for p in tmp_path.iterdir()] == ["exported"]


def test_an_exported_model_sees_pictures_as_its_record_says(onnx: Path, tmp_path: Path, model: Model) -> None:
    seen = copy(model)
    seen.fan = "auto"
    with pytest.MonkeyPatch.context() as patch:
        traced(patch, onnx)
        exported = export(seen, tmp_path / "graph", runtime="onnx")
    picture = with_text(shown(sector()))
    assert exported.describe().fan == "auto"
    assert load(onnx).describe().fan == "off"
    assert exported.predict(picture).score == exported.predict(picture, fan="auto").score
    assert not exported.predict(picture).map[~find_in(picture, None).mask(SIZE)].any()
    assert load(onnx).predict(picture).map[~sector().mask(SIZE)].any()
