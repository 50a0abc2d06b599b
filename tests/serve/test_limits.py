"""Limits on what comes in, and that what is refused leaves nothing behind; hidden contents and names never come out."""

from __future__ import annotations

import io
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from tests import helpers
from tests.serve.conftest import Client, Running
from tests.serve.test_import import client, imported, png, server  # noqa: F401
from ultraad.serve import importing
from ultraad.serve.project import LIMITS
from ultraad.serve.routes import project as routes

MEGABYTE = 1 << 20


def upload(client: Client, **files: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:  # noqa: F811
    batch = str(uuid.uuid4())
    assert client.upload(batch, files).json["refused"] == []
    return imported(client, batch=batch)


def test_a_project_takes_no_more_files_than_its_limit(
    client: Client,  # noqa: F811
    scans: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importing, "LIMITS", LIMITS.model_copy(update={"files": 5}))
    progress, items = imported(client, path=str(scans))
    assert (progress["state"], progress["done"], len(items)) == ("done", 5, 5)
    assert progress["notes"] == ["only 5 of 12 images fit; a project has at most 5 files"]


def test_a_file_that_is_too_large_is_refused_and_the_others_are_taken(
    client: Client,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routes, "LIMITS", LIMITS.model_copy(update={"file_bytes": MEGABYTE}))
    answer = client.upload(str(uuid.uuid4()), {"large.png": b"x" * (MEGABYTE + 1), "a.png": png()}).json
    assert answer["received"] == 1
    assert [found["name"] for found in answer["refused"]] == ["large.png"]


def test_a_project_that_takes_too_much_of_the_disk_is_full(
    client: Client,  # noqa: F811
    server: Running,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routes, "LIMITS", LIMITS.model_copy(update={"disk_bytes": MEGABYTE}))
    answer = client.upload(str(uuid.uuid4()), {"a.png": b"x" * (MEGABYTE + 1)})
    assert (answer.status, answer.json["error"]["kind"]) == (507, "full")
    assert not [p for p in server.desk.project.folder.rglob("*") if p.is_file() and p.stat().st_size > MEGABYTE]


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the size of files")
def test_a_disk_that_takes_no_upload_says_so_and_keeps_no_part_of_it(
    client: Client,  # noqa: F811
    server: Running,  # noqa: F811
) -> None:
    from tests.robustness.test_full_disk import full

    with full(200_000):
        answer = client.upload(str(uuid.uuid4()), {"a.png": b"x" * 300_000})
    assert answer.status == 507
    assert answer.message == "the file cannot be stored; free space on the disk of the project"
    assert not [p for p in (server.desk.project.folder / "incoming").rglob("*") if p.is_file()]
    assert [item["failed"] for item in upload(client, a=png())[1]] == [None]


@pytest.mark.parametrize("batch", ["../../x", "..%2F..%2Fetcetera", "a/b/c/d/e/f", "x", "%00%00%00%00%00%00%00%00"])
def test_the_name_of_a_batch_is_no_path(client: Client, server: Running, batch: str) -> None:  # noqa: F811
    before = sorted(server.desk.project.folder.parent.rglob("*"))
    assert client.upload(batch, {"a.png": png()}).status == 422
    assert sorted(server.desk.project.folder.parent.rglob("*")) == before


def test_dicom_that_is_cut_off_fails_alone_and_shows_what_is_whole(client: Client, tmp_path: Path) -> None:  # noqa: F811
    whole = helpers.write_dicom(tmp_path / "x.dcm", frames=3).read_bytes()
    parts = {f"cut{n}.dcm": whole[: len(whole) * n // 4] for n in (1, 2, 3)}
    progress, items = upload(client, **parts, **{"whole.dcm": whole})
    assert (progress["state"], progress["failed"]) == ("done", 1)
    assert {item["name"] for item in items if item["failed"]} == {"cut1.dcm"}
    for item, whole_frames in zip(items[1:], (1, 2, 3), strict=True):
        assert item["frames"] == whole_frames
        answers = [client.ask("GET", f"/api/images/{item['id']}/frames/{n}") for n in (whole_frames - 1, whole_frames)]
        assert [a.status for a in answers] == [200, 404]


def test_a_file_of_two_kinds_comes_back_as_pixels_alone(client: Client, tmp_path: Path) -> None:  # noqa: F811
    """DICOM begins with 128 bytes of anything: here a page with a script."""
    path = helpers.write_dicom(tmp_path / "x.dcm")
    dataset = pydicom.dcmread(path)
    dataset.preamble = b"<html><script>alert('two kinds')</script></html>".ljust(128, b" ")
    dataset.save_as(path)
    _, (item,) = upload(client, **{"x.html.dcm": path.read_bytes()})
    for place, kind in ((f"frames/{0}", "image/png"), ("thumbnail", "image/jpeg")):
        answer = client.ask("GET", f"/api/images/{item['id']}/{place}")
        assert (answer.status, answer.headers["content-type"]) == (200, kind)
        assert b"script" not in answer.body
        pixels = np.asarray(Image.open(io.BytesIO(answer.body)).convert("L"))
        assert pixels.shape == helpers.SIZE
