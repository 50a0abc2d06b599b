from __future__ import annotations

import json
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.adapted import adapted
from ultraad.errors import BundleError
from ultraad.model.model import load
from ultraad.model.pack import pack, unpack


@pytest.fixture(scope="module")
def saved(folder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapted(folder_dir).save(tmp_path_factory.mktemp("pack") / "model")


@pytest.fixture(scope="module")
def packed(saved: Path) -> Path:
    return pack(saved, saved.with_name("model.ultraad"))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_unpacked_model_is_the_model(saved: Path, packed: Path, tmp_path: Path) -> None:
    assert content(unpack(packed, tmp_path / "again")) == content(saved)
    assert load(tmp_path / "again").digest == load(saved).digest


def test_the_same_model_gives_the_same_bytes_and_a_plain_zip(saved: Path, packed: Path, tmp_path: Path) -> None:
    (saved / "notes.txt").write_text("my patient", encoding="utf-8")
    try:
        assert pack(saved, tmp_path / "again.ultraad").read_bytes() == packed.read_bytes()
    finally:
        (saved / "notes.txt").unlink()
    with zipfile.ZipFile(packed) as file:
        assert file.testzip() is None
        assert set(file.namelist()) == set(content(saved))


def test_what_is_no_model_is_not_packed(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"it has no exported.json and no config.json"):
        pack(tmp_path, tmp_path / "x.ultraad")
    with pytest.raises(BundleError, match=r"wanted a name that ends in .ultraad"):
        pack(saved, tmp_path / "x.zip")
    assert not any(tmp_path.iterdir())


def test_a_packed_model_is_named_where_a_folder_is_wanted(packed: Path) -> None:
    with pytest.raises(BundleError, match=r"'ultraad unpack .*' makes it a folder"):
        load(packed)


def test_a_folder_in_use_is_not_touched(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(BundleError, match="exists and is not empty"):
        unpack(packed, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def rewritten(packed: Path, target: Path, change: Callable[[dict[str, bytes], zipfile.ZipFile], None]) -> Path:
    """The same zip after a change of its content, or with more entries."""
    with zipfile.ZipFile(packed) as file:
        files = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        change(files, out)
        for name, data in files.items():
            out.writestr(name, data)
    return target


def entry(name: str, kind: int = stat.S_IFREG) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o644) << 16
    return info


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _, out: out.writestr(entry("../outside.txt"), b"x"), "wanted files of plain names"),
        (lambda _, out: out.writestr(entry("/tmp/outside.txt"), b"x"), "wanted files of plain names"),
        (lambda _, out: out.writestr(entry("a\\b"), b"x"), "wanted files of plain names"),
        (lambda _, out: out.writestr(entry("link", stat.S_IFLNK), b"/etc/passwd"), "wanted files of plain names"),
        (lambda _, out: out.writestr(entry("README.md"), b"x"), "holds a name twice"),
        (lambda _, out: out.writestr(entry("run.py"), b"x"), "holds run.py, which its record does not name"),
        (lambda _, out: out.writestr("zeros", bytes(100_000_000), zipfile.ZIP_DEFLATED), "would grow from"),
        (lambda files, _: files.update({"adapter.safetensors": b"other"}), "is damaged: sha256"),
        (lambda files, _: files.pop("support.csv"), "support.csv is missing"),
        (lambda files, _: files.update({"config.json": b"[]"}), "is damaged"),
        (
            lambda files, _: files.update({"config.json": json.dumps({"files": [1]}).encode()}),
            "does not name its files",
        ),
        (lambda files, _: files.clear(), "is not a model"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_changed_file_is_refused_and_leaves_nothing(
    packed: Path, tmp_path: Path, change: Callable[[dict[str, bytes], zipfile.ZipFile], None], message: str
) -> None:
    changed = rewritten(packed, tmp_path / "changed.ultraad", change)
    with pytest.raises(BundleError, match=message) as caught:
        unpack(changed, tmp_path / "model")
    assert str(changed) in str(caught.value)
    assert ".new" not in str(caught.value)  # the temporary folder
    assert [path.name for path in tmp_path.iterdir()] == ["changed.ultraad"]


def test_damage_is_told_in_one_line(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    cases = {"cut": whole[: len(whole) // 2], "empty": b"", "flipped": whole[:2000] + b"?" * 50 + whole[2050:]}
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BundleError, match="copy") as caught:
            unpack(tmp_path / name, tmp_path / "model")
        assert "\n" not in str(caught.value)
    with pytest.raises(BundleError, match="there is no file"):
        unpack(tmp_path / "nowhere.ultraad", tmp_path / "model")


def test_packing_needs_no_torch(packed: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom ultraad.model.pack import unpack, pack\n"
    code += "pack(unpack(sys.argv[1], sys.argv[2]), sys.argv[3])"
    again = tmp_path / "again.ultraad"
    subprocess.run([sys.executable, "-c", code, packed, tmp_path / "model", again], check=True)
    assert again.read_bytes() == packed.read_bytes()
