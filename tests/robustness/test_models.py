"""A model folder is what it says: an edited, emptied or damaged one is refused with one message."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ultraad.data.support import draw_support
from ultraad.errors import BundleError
from ultraad.model import exported
from ultraad.model.adapt import adapt, zero_shot
from ultraad.model.model import load


@pytest.fixture
def saved(folder_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder_bundle, tmp_path / "model"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object], name: str = "config.json") -> None:
    """Change the record, and make the hashes of the files right again, as a careful editor would."""
    path = folder / name
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    for file in content["files"]:
        if (folder / file).is_file():
            content["files"][file] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    path.write_text(json.dumps(content), encoding="utf-8")


def halved(folder: Path, name: str = "support.csv") -> None:
    lines = (folder / name).read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / name).write_text("".join(lines[: len(lines) // 2]), encoding="utf-8")


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "an option": lambda c: c["options"]["post"].update(sigma=1.0),
    "the image threshold": lambda c: c["calibration"].update(image_threshold=0.123),
    "the pixel threshold": lambda c: c["calibration"].update(pixel_threshold=0.123),
    "the order of the classes": lambda c: c.update(classes=["normal", "malignant", "benign"]),
    "a class's name": lambda c: c.update(classes=["normal", "benign", "cancer"]),
    "the number type": lambda c: c["backbone"].update(dtype="bfloat16"),
    "a held-out score": lambda c: c["calibration"]["held_out"][0].update(score=0.123),
    "the held-out scores left out": lambda c: c["calibration"].pop("held_out"),
    "a note left out": lambda c: c["calibration"].pop("notes"),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_model_is_refused(saved: Path, what: str) -> None:
    before = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    edit(saved, EDITS[what])
    assert json.loads((saved / "config.json").read_text(encoding="utf-8")) != before
    with pytest.raises(BundleError, match="was changed after it was saved"):
        load(saved)


def test_other_learned_values_are_refused(saved: Path) -> None:
    data = bytearray((saved / "adapter.safetensors").read_bytes())
    data[-1] ^= 1
    (saved / "adapter.safetensors").write_bytes(data)
    edit(saved, lambda _: None)
    with pytest.raises(BundleError, match="was changed after it was saved"):
        load(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1, 50])
@pytest.mark.parametrize("name", ["image_threshold", "pixel_threshold"])
def test_a_threshold_that_no_score_can_reach_is_refused(saved: Path, name: str, value: float) -> None:
    edit(saved, lambda c: c["calibration"].update({name: value}))
    with pytest.raises(BundleError, match=rf"{name} is .*wanted a number in \[0, 1\]"):
        load(saved)


@pytest.mark.parametrize("name", ["adapter.safetensors", "support.csv"])
def test_a_record_that_names_no_files_is_refused(saved: Path, name: str) -> None:
    edit(saved, lambda c: c["files"].pop(name))
    with pytest.raises(BundleError, match=f"does not name {name}"):
        load(saved)
    edit(saved, lambda c: c.update(files={}))
    with pytest.raises(BundleError, match="does not name"):
        load(saved)


@pytest.mark.parametrize("name", ["../other.txt", "/etc/hostname", "sub/x", "..", "", "a\\..\\b", "C:x"])
def test_a_name_that_leaves_the_folder_is_refused(saved: Path, name: str) -> None:
    (saved.parent / "other.txt").write_text("x")
    edit(saved, lambda c: c["files"].update({name: "0" * 64}))
    with pytest.raises(BundleError, match="wanted a file in this folder"):
        load(saved)


SUPPORT_EDITS: dict[str, Callable[[Path], object]] = {
    "halved": halved,
    "only the header": lambda f: (f / "support.csv").write_text("id,label,group,sha256\n"),
    "empty": lambda f: (f / "support.csv").write_bytes(b""),
    "another column": lambda f: (f / "support.csv").write_text("id,label\nx,y\n"),
    "not text": lambda f: (f / "support.csv").write_bytes(b"id,label,group,sha256\n\xff\xfe,x,,0\n"),
}


@pytest.mark.parametrize("how", SUPPORT_EDITS)
def test_the_support_list_cannot_be_emptied_unnoticed(saved: Path, how: str) -> None:
    SUPPORT_EDITS[how](saved)
    edit(saved, lambda _: None)
    with pytest.raises(BundleError, match=r"support\.csv (lists|is damaged)"):
        load(saved)
    edit(saved, lambda c: c["origin"].update(support_digest=None))
    with pytest.raises(BundleError, match=r"support digest|support\.csv"):
        load(saved)


def test_the_auxiliary_list_cannot_be_emptied_unnoticed(busi_dir: Path, folder_dir: Path, tmp_path: Path) -> None:
    support = draw_support(folder_dir, shots=1)
    model = adapt(support, auxiliary=busi_dir, method="april_gan", backbone="tiny", options={"epochs": 1})
    folder = model.save(tmp_path / "model")
    assert load(folder).auxiliary == model.auxiliary
    whole = (folder / "auxiliary.csv").read_text(encoding="utf-8")
    halved(folder, "auxiliary.csv")
    edit(folder, lambda _: None)
    with pytest.raises(BundleError, match=r"auxiliary\.csv lists"):
        load(folder)
    (folder / "auxiliary.csv").write_text(whole, encoding="utf-8")
    edit(folder, lambda c: c["origin"].update(auxiliary=None))
    with pytest.raises(BundleError, match=r"auxiliary\.csv lists"):
        load(folder)


def test_an_honest_model_loads_with_its_digest(saved: Path, tmp_path: Path) -> None:
    recorded = json.loads((saved / "config.json").read_text(encoding="utf-8"))["digest"]
    assert load(saved).digest == recorded
    zero = zero_shot(backbone="tiny")
    assert load(zero.save(tmp_path / "zero")).digest == zero.digest


def test_an_edited_export_is_refused_and_one_of_an_earlier_version_is_named(
    onnx_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(onnx_dir, tmp_path / "onnx"))
    whole = (folder / "exported.json").read_text(encoding="utf-8")

    def edited(change: Callable[[dict[str, Any]], object]) -> Path:
        (folder / "exported.json").write_text(whole, encoding="utf-8")
        edit(folder, change, "exported.json")
        return folder

    def refused(change: Callable[[dict[str, Any]], object], match: str) -> None:
        with pytest.raises(BundleError, match=match):
            exported.load(edited(change))

    refused(lambda c: c["calibration"].update(image_threshold=0.123), "was changed after it was made")
    refused(lambda c: c.update(classes=["normal", "malignant", "benign"]), "was changed after it was made")
    refused(lambda c: c["calibration"].update(image_threshold=float("nan")), "wanted a number")
    refused(lambda c: c["files"].pop("model.onnx"), r"does not name model\.onnx")
    refused(lambda c: c["files"].update({"../x": "0"}), "wanted a file in this folder")
    listed = (folder / "support.csv").read_text(encoding="utf-8")
    halved(folder)
    refused(lambda _: None, "was changed after it was made")
    (folder / "support.csv").write_text(listed, encoding="utf-8")
    assert exported.load(edited(lambda _: None)).classes == ("normal", "benign", "malignant")
    assert not caplog.records
    edited(lambda c: c.update(digest=exported.digest_of(c["exported"]["source"], c["files"])))
    assert exported.load(folder).classes == ("normal", "benign", "malignant")
    (record,) = caplog.records
    assert f"{folder} is of an earlier version, which does not notice changed thresholds" in record.getMessage()
