"""A disk that takes no more: one error that names the place, nothing half-written, and the same command works later.

The limit on the size of a file (RLIMIT_FSIZE) makes the operating system refuse to write, as a full disk does.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests.helpers import picture, save
from ultraad.backbones import load_backbone
from ultraad.cli import main
from ultraad.data.samples import copy_samples
from ultraad.data.support import draw_support, save_support
from ultraad.errors import BundleError, DataError
from ultraad.io import files
from ultraad.io.files import whole_folder, write_text
from ultraad.model import bundle
from ultraad.model.adapt import zero_shot
from ultraad.model.model import Model
from ultraad.runs.predict import predict
from ultraad.simulate import write_dataset

if sys.platform == "win32":
    pytest.skip("no limits on the size of files", allow_module_level=True)

import resource


@contextmanager
def full(size: int) -> Iterator[None]:
    """No file may become larger than so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def model() -> Model:
    return zero_shot(backbone="tiny")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("write", "size"),
    [
        (lambda folder, _: copy_samples(folder), 30_000),
        (lambda folder, _: write_dataset(folder, n=6, size=64), 1000),
        (lambda folder, model: model.save(folder), 200),
    ],
    ids=["samples", "simulated", "model"],
)
def test_a_full_disk_is_one_error_and_the_next_try_writes_all(
    write: Callable[[Path, Model], object], size: int, model: Model, tmp_path: Path
) -> None:
    folder = tmp_path / "there"
    with full(size), pytest.raises(DataError) as error:
        write(folder, model)
    assert str(error.value).startswith(f"{folder}")
    assert "cannot be written: File too large" in str(error.value)
    assert ".new" not in str(error.value)
    assert str(error.value).count("\n") == 0
    write(folder, model)
    write(tmp_path / "reference", model)
    assert contents(folder) == contents(tmp_path / "reference")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["reference", "there"]


def test_a_full_disk_leaves_the_earlier_folder(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "there") as fresh:
        write_text(fresh / "a", "earlier")

    def write_large() -> None:
        with whole_folder(tmp_path / "there") as fresh, (fresh / "a").open("wb") as file:
            file.write(bytes(10_000))

    with full(1000), pytest.raises(DataError, match="there cannot be written: File too large"):
        write_large()
    assert contents(tmp_path) == {"there/a": b"earlier"}


class Space(NamedTuple):
    free: int


def test_a_model_that_could_not_be_saved_is_not_made(
    folder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_support(draw_support(folder_dir, shots=1), tmp_path / "support.json")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    for place, said in (
        ("other", "exists and is not an ultraad model"),
        ("x" * 250, "cannot be written: File name too long"),
        ("support.json/model", "a file is in its place"),
        ("model", "0.0 MB of free space, wanted 33.6"),
    ):
        if place == "model":
            monkeypatch.setattr(files.shutil, "disk_usage", lambda _: Space(5))
        monkeypatch.setattr("ultraad.model.adapt.adapt", lambda *_, **__: pytest.fail("adapted in vain"))
        with pytest.raises(SystemExit) as end:
            main(["adapt", str(tmp_path / "support.json"), "-o", str(tmp_path / place)])
        assert end.value.code == 1
        assert said in capsys.readouterr().err
    assert contents(tmp_path) == before
    monkeypatch.undo()
    with pytest.raises(BundleError, match="is not an ultraad model"):
        bundle.check_place(tmp_path / "other")


def test_a_run_into_a_full_disk_is_resumed_as_if_nothing_had_happened(model: Model, tmp_path: Path) -> None:
    for i in range(5):
        save(tmp_path / "in" / f"{i}.png", picture(i, lesion=True, size=(40, 40 + 160 * (i == 3)))[0])
    saved = ["maps"]
    with full(6000), pytest.raises(DataError, match="cannot be written: File too large"):
        predict(model, tmp_path / "in", tmp_path / "out", save=saved, batch_size=1)
    done = predict(model, tmp_path / "in", tmp_path / "out", save=saved, batch_size=1)
    assert done.predicted + done.skipped == 5
    assert done.skipped >= 3, "what was finished stays; the last picture may have been under way when the run ended"
    predict(model, tmp_path / "in", tmp_path / "reference", save=saved, batch_size=1)
    found, wanted = contents(tmp_path / "out"), contents(tmp_path / "reference")
    assert found.keys() == wanted.keys()
    for name in wanted:
        if name.endswith(".png"):
            assert found[name] == wanted[name]
        elif name.startswith("predictions"):
            assert sorted(found[name].splitlines()) == sorted(wanted[name].splitlines())


def test_features_that_cannot_be_kept_on_disk_are_kept_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backbone = load_backbone("tiny")
    images = torch.rand(3, 3, backbone.size, backbone.size)
    wanted = backbone.new_cache(tmp_path / "whole").encode(images, layers=(2,))
    cache = backbone.new_cache(tmp_path / "full")
    with full(1000), caplog.at_level(logging.WARNING, logger="ultraad"):
        found = cache.encode(images, layers=(2,))
        cache.encode(images, layers=(2,))
    assert torch.equal(found.patches[2], wanted.patches[2])
    assert cache.usage.encoded == 3
    assert caplog.text.count("features are kept in memory") == 1
    assert not any((tmp_path / "full").iterdir())
