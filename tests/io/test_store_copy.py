"""Copies of what is on a store: whole, up to date, and where they belong."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.store import KEY, SECRET, Store, serving
from ultraad.errors import DataError
from ultraad.io import store_copy
from ultraad.io.lock import lock_folder
from ultraad.io.store import Entry, NoRoomError
from ultraad.io.store_copy import on_disk

pytest.importorskip("pyarrow")

FILES = {
    "labels.csv": b"image,label",
    "a/1.png": b"one",
    "a/ü & (2).png": b"two",
    "b/c/d/3.dcm": b"three",
    ".hidden": b"",
}


@pytest.fixture
def buckets(tmp_path: Path) -> Path:
    """A bucket with FILES below ``set``, and one object beside."""
    for name, content in FILES.items():
        path = tmp_path / "buckets" / "scans" / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (1_700_000_000.25, 1_700_000_000.25))
    (tmp_path / "buckets" / "scans" / "beside.png").write_bytes(b"beside")
    return tmp_path / "buckets"


@pytest.fixture
def store(buckets: Path) -> Iterator[Store]:
    with serving(buckets) as running:
        yield running


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(store_copy.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_path_is_itself(tmp_path: Path, cache: Path) -> None:
    assert on_disk("some/folder") == Path("some/folder")
    assert on_disk((tmp_path / "a folder").as_uri()) == tmp_path / "a folder"
    assert not cache.exists()


def test_a_folder_is_copied_once(store: Store) -> None:
    copy = on_disk(f"s3://scans/set{store.query}")
    assert content(copy) == FILES
    assert sorted(store.read) == sorted(f"scans/set/{name}" for name in FILES if FILES[name])
    store.read.clear()
    assert on_disk(f"s3://scans/set/{store.query}") == copy
    assert on_disk(f"s3://scans/set/a{store.query}") == copy / "a"
    assert not store.read


def test_a_copy_follows_its_store(store: Store, buckets: Path) -> None:
    url = f"s3://scans/set{store.query}"
    copy = on_disk(url)
    store.read.clear()
    there = buckets / "scans" / "set"
    os.utime(there / "a" / "1.png", (1_700_000_009, 1_700_000_009))
    (there / "labels.csv").write_bytes(b"longer than before")
    (there / "b" / "c" / "d" / "3.dcm").unlink()
    (there / "b" / "c" / "d").rmdir()
    (there / "b" / "c" / "d").write_bytes(b"now an object")
    assert content(on_disk(url)) == content(there)
    assert sorted(store.read) == ["scans/set/a/1.png", "scans/set/b/c/d", "scans/set/labels.csv"]
    (there / "b" / "c" / "d").unlink()
    on_disk(url)
    assert not (copy / "b").exists()


def test_a_table_brings_its_folder_unless_it_is_alone(store: Store) -> None:
    alone = on_disk(f"s3://scans/set/labels.csv{store.query}", alone=True)
    assert content(alone.parent) == {"labels.csv": FILES["labels.csv"]}
    assert on_disk(f"s3://scans/set/labels.csv{store.query}") == alone
    assert content(alone.parent) == FILES
    picture = on_disk(f"s3://scans/beside.png{store.query}")
    assert picture.read_bytes() == b"beside"
    assert content(alone.parent) == FILES, "copies of other objects stay"


def test_a_copy_that_was_stopped_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    url, fetch = f"s3://scans/set{store.query}", store_copy.fetch

    def fails(name: str, target: Path) -> None:
        if "3.dcm" in name:
            raise DataError("3.dcm cannot be read")
        fetch(name, target)

    with monkeypatch.context() as patch:
        patch.setattr(store_copy, "fetch", fails)
        with pytest.raises(DataError, match=r"3\.dcm cannot be read"):
            on_disk(url)
    store.read.clear()
    (left,) = cache.glob("s3/*/objects")
    (left.parent / "copying-of-a-killed-process").mkdir()
    assert content(on_disk(url)) == FILES
    assert "scans/set/a/1.png" not in store.read
    assert not list(left.parent.glob("copying-*"))


def test_no_room_is_said_before_anything_is_copied(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_copy.shutil, "disk_usage", lambda place: SimpleNamespace(free=5))
    with pytest.raises(
        NoRoomError, match=r"5 object\(s\) of s3://scans/set, .* Set ULTRAAD_CACHE to a folder on another"
    ):
        on_disk(f"s3://scans/set{store.query}")
    assert not store.read


def test_no_copy_is_written_elsewhere(store: Store, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    for name in ("s3://scans/set/..", "s3://scans/%2e%2e/set", "s3://../set"):
        with pytest.raises(DataError, match="is no name of a file or folder here"):
            on_disk(name + store.query)
    monkeypatch.setattr(store_copy, "entries", lambda url: [Entry("..", is_folder=True)])
    with pytest.raises(DataError, match=r"s3://scans/set cannot be copied: '\.\.' is no name"):
        on_disk(f"s3://scans/set{store.query}")


def test_an_object_that_changes_meanwhile_is_no_copy(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_copy, "fetch", lambda url, target: target.write_bytes(b"half"))
    with pytest.raises(DataError, match=r"s3://scans/beside\.png was replaced while it was copied"):
        on_disk(f"s3://scans/beside.png{store.query}")


def test_two_processes_do_not_copy_at_once(store: Store) -> None:
    copy = on_disk(f"s3://scans/set{store.query}")
    lock = lock_folder(copy.parents[1])
    store.pages = 0
    with ThreadPoolExecutor() as pool:
        second = pool.submit(on_disk, f"s3://scans/set{store.query}")
        with pytest.raises(TimeoutError):
            second.result(timeout=0.5)
        assert not store.pages, "nothing is listed as long as the first is at work"
        lock.release()
        assert second.result(timeout=60) == copy


def test_nothing_of_a_connection_is_written(store: Store, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        on_disk(f"s3://{KEY}:{SECRET}@scans/set{store.query}")
    written = " ".join([*map(str, cache.rglob("*")), caplog.text])
    assert "copying 5 object(s) of s3://scans/set, 0.0 MB, to" in caplog.text
    assert not [word for word in (KEY, SECRET, "endpoint_override") if word in written]


def test_what_is_not_there_is_named(store: Store, cache: Path) -> None:
    with pytest.raises(DataError, match=r"s3://scans/none does not exist; check bucket and key"):
        on_disk(f"s3://scans/none{store.query}")
    with pytest.raises(DataError, match="no images can be read from https://; wanted s3://"):
        on_disk("https://host/folder")
