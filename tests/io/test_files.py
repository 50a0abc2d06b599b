"""Writers leave whole files or the old ones; maps survive the round trip."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ultraad.errors import DataError
from ultraad.io import files, maps, read_image


def test_bytes_text_and_json(tmp_path):
    files.write_bytes(tmp_path / "b", b"\x00\xff")
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"
    files.write_text(str(tmp_path / "t"), "größer\n")
    assert (tmp_path / "t").read_bytes() == "größer\n".encode()
    files.write_json(tmp_path / "j.json", {"b": [1, None], "a": "ü"})
    assert list(json.loads((tmp_path / "j.json").read_text(encoding="utf-8")).items()) == [("b", [1, None]), ("a", "ü")]
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "j.json", {"x": float("nan")})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "j.json", "t"]


def test_the_old_file_survives_a_failed_write(tmp_path, monkeypatch):
    target = tmp_path / "run.json"
    files.write_text(target, "old")

    def full_disk(self, other) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(DataError, match="No space left on device"):
        files.write_text(target, "new")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(self, other) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(tmp_path / "a", "new")
    assert not list(tmp_path.iterdir())


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    files.write_bytes(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        files.write_text(tmp_path / "gone" / "a", "x")
    with pytest.raises(DataError, match="cannot be appended"):
        files.append_line(tmp_path / "gone" / "a", "x")


def test_images(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    files.write_image(tmp_path / "a.png", rgb)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), rgb)
    files.write_image(tmp_path / "g.png", rgb[..., 0])
    np.testing.assert_array_equal(read_image(tmp_path / "g.png")[..., 1], rgb[..., 0])
    with pytest.raises(ValueError, match="float64"):
        files.write_image(tmp_path / "f.png", rgb / 255)


def test_maps(tmp_path):
    values = np.random.default_rng(0).random((33, 21)).astype(np.float32)
    values[0, :2] = 0, 1
    maps.write_map(tmp_path / "m.png", values)
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.mode == "I;16"
        np.testing.assert_array_equal(np.asarray(picture), np.rint(values.astype(np.float64) * 65535))
    got = maps.read_map(tmp_path / "m.png")
    assert got.dtype == np.float32
    assert np.abs(got - values).max() <= 0.5 / 65535 + 1e-7
    assert (got[0, 0], got[0, 1]) == (0, 1)
    for bad in (1.01, -0.01, np.nan):
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            maps.write_map(tmp_path / "m.png", np.full((9, 9), bad))
    files.write_image(tmp_path / "g.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(DataError, match="16-bit grey"):
        maps.read_map(tmp_path / "g.png")


def test_append_line(tmp_path):
    log = tmp_path / "rows.jsonl"
    files.append_line(log, '{"a": 1}')
    files.append_line(log, '{"ü": 2}')
    assert log.read_bytes() == '{"a": 1}\n{"ü": 2}\n'.encode()
    log.write_bytes(log.read_bytes() + b'{"torn": ')  # killed while writing
    files.append_line(log, '{"a": 3}')
    assert log.read_text(encoding="utf-8").splitlines() == ['{"a": 1}', '{"ü": 2}', '{"torn": ', '{"a": 3}']
    with pytest.raises(ValueError, match="got 2"):
        files.append_line(log, "a\nb")


def test_ensure_writable(tmp_path):
    made = files.ensure_writable(tmp_path / "a" / "b")
    assert made.is_dir()
    assert not list(made.iterdir())
    assert files.ensure_writable(str(made)) == made
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        with pytest.raises(DataError, match="a file is in its place"):
            files.ensure_writable(tmp_path / place)


def test_a_read_only_folder_is_refused(tmp_path, monkeypatch):
    if os.geteuid() == 0:  # root may write everywhere

        def refuse(self, *args, **kwargs) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "touch", refuse)
    else:
        tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="Permission denied"):
        files.ensure_writable(tmp_path)
    tmp_path.chmod(0o700)


def test_sha256(tmp_path):
    data = os.urandom(300_000)
    (tmp_path / "a").write_bytes(data)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()
    with pytest.raises(DataError, match="does not exist"):
        files.sha256(tmp_path / "b")
