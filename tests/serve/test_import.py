"""Images come in by reference or by upload; names are labels, files have limits, and bad ones fail visibly."""

from __future__ import annotations

import io
import json
import os
import struct
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import helpers
from tests.serve.conftest import Client, Running, wait_for
from ultraad.errors import DataError
from ultraad.serve import decode
from ultraad.serve.child import Child, Message
from ultraad.serve.decode import Decoder, without_path
from ultraad.serve.desk import Desk
from ultraad.serve.uploads import label_name


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    """An empty project for each test."""
    desk = Desk(tmp_path / "project", backbone="tiny")
    running = Running(desk)
    yield running
    running.end()
    desk.close()


@pytest.fixture
def client(server: Running) -> Client:
    return Client(server.address).enter()


def imported(client: Client, **what: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(import, items) when it is done."""
    number = client.post("/api/imports", what)["number"]
    found = wait_for(
        lambda: [i for i in client.get("/api/imports") if i["number"] == number and i["state"] != "running"]
    )[0]
    return found, client.get("/api/images?limit=1000&sort=name")["items"]


def png(seed: int = 0, *, lesion: bool = False) -> bytes:
    return encoded(helpers.picture(seed, lesion=lesion)[0])


def encoded(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array.astype(np.uint8) * 255 if array.dtype == bool else array).save(file, "PNG")
    return file.getvalue()


def test_a_folder_is_imported_where_it_is_with_its_marks(client: Client, server: Running, scans: Path) -> None:
    progress, items = imported(client, path=str(scans))
    assert (progress["state"], progress["done"], progress["failed"]) == ("done", 12, 0)
    assert [i["name"] for i in items][:2] == ["benign/0.png", "benign/1.png"]
    assert {i["label"] for i in items} == {"normal", "benign", "malignant"}
    assert [i["lesions"] for i in items if i["label"] == "benign"] == [1] * 4
    shown = client.get(f"/api/images/{items[0]['id']}/frames/0/marks")
    assert (shown["label_from"], shown["lesions"][0]["origin"], shown["undo"]) == ("import", "imported", None)
    _, mask = helpers.picture(helpers.FIRST_SEED["folder"] + 100, lesion=True)
    (found,) = server.desk.marking.masks((items[0]["id"], 0)).values()
    assert (found == mask).all()
    assert not list((server.desk.project.folder / "files").iterdir())


def test_a_folder_that_is_imported_again_adds_nothing(client: Client, scans: Path) -> None:
    imported(client, path=str(scans))
    progress, items = imported(client, path=str(scans))
    assert len(items) == 12
    assert progress["notes"] == ["12 image(s) were in the project already"]


def test_marks_of_the_data_can_be_left_out(client: Client, scans: Path) -> None:
    _, items = imported(client, path=str(scans), use_marks=False)
    assert {i["label"] for i in items} == {None}


def test_a_path_that_is_not_there_is_refused(client: Client) -> None:
    for path in ("/nowhere/at/all", "relative"):
        answer = client.ask("POST", "/api/imports", {"path": path})
        assert answer.status == 422
        assert "nowhere" not in answer.message


def test_paths_are_refused_when_other_machines_can_connect(client: Client, server: Running, scans: Path) -> None:
    server.desk.references = False
    assert client.ask("POST", "/api/imports", {"path": str(scans)}).status == 403


def test_uploaded_files_live_under_ids_of_the_server(client: Client, server: Running) -> None:
    batch, name = str(uuid.uuid4()), "../../../../etc/Doe^Jane.png"
    assert client.upload(batch, {name: png()}).json == {"received": 1, "refused": []}
    _, (item,) = imported(client, batch=batch)
    assert item["name"] == "etc/Doe^Jane.png"
    files = [f for f in server.desk.project.folder.rglob("*") if f.is_file()]
    assert not [f for f in files if "Doe" in f.name or "etc" in f.name]
    assert (server.desk.project.folder / f"files/{item['id'][:2]}/{item['id']}").read_bytes() == png()
    assert not list((server.desk.project.folder / "incoming").iterdir())


def test_an_uploaded_folder_brings_its_classes_and_masks(client: Client, server: Running) -> None:
    batch, files = str(uuid.uuid4()), {}
    for n, label in enumerate(("normal", "benign", "malignant")):
        image, mask = helpers.picture(n, lesion=n > 0)
        files[f"study/{label}/a.png"] = encoded(image)
        if n:
            files[f"study/{label}/a_mask.png"] = encoded(mask)
    client.upload(batch, files)
    progress, items = imported(client, batch=batch)
    assert progress["title"] == "study"
    assert [(i["name"], i["label"], i["lesions"]) for i in items] == [
        ("study/benign/a.png", "benign", 1),
        ("study/malignant/a.png", "malignant", 1),
        ("study/normal/a.png", "normal", 0),
    ]
    (found,) = server.desk.marking.masks((items[0]["id"], 0)).values()
    assert (found == helpers.picture(1, lesion=True)[1]).all()


def test_the_same_file_is_uploaded_once(client: Client) -> None:
    for name in ("a.png", "b.png"):
        batch = str(uuid.uuid4())
        client.upload(batch, {name: png()})
        imported(client, batch=batch)
    assert client.get("/api/images")["total"] == 1


def test_a_list_by_ids_and_the_order_of_the_whole_list(client: Client) -> None:
    batch = str(uuid.uuid4())
    client.upload(batch, {f"{n}.png": png(n) for n in range(3)})
    _, items = imported(client, batch=batch)
    ids = [item["id"] for item in items]
    assert client.get("/api/images?sort=name&limit=1&with_order=true")["order"] == ids
    found = client.get(f"/api/images?ids={ids[2]},{ids[0]}")
    assert [item["name"] for item in found["items"]] == ["2.png", "0.png"]
    assert client.ask("GET", "/api/images?ids=../x").status == 422


def test_an_archive_is_refused_and_never_unpacked(client: Client, server: Running) -> None:
    answer = client.upload(str(uuid.uuid4()), {"a.zip": b"PK\x03\x04" + b"x" * 100, "b.png": png()}).json
    assert answer["received"] == 1
    assert answer["refused"] == [
        {"name": "a.zip", "reason": "an archive is not unpacked here; unpack it, then drop the folder"}
    ]


def bomb() -> bytes:
    """A PNG of a gigapixel in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
        + chunk(b"IEND", b"")
    )


def test_files_that_are_no_images_fail_visibly_and_alone(client: Client) -> None:
    bad = {
        "bomb.png": (bomb(), "megapixels"),
        "cut.png": (png()[: len(png()) // 2], "truncated"),
        "empty.png": (b"", "empty"),
        "script.png": (b"#!/bin/sh\nrm -rf /\n", "the file"),
        "page.html": (b"<html><script>alert(1)</script></html>", "the file"),
        "zip.png": (b"PK\x03\x04" + b"\0" * 200, "the file"),
    }
    batch = str(uuid.uuid4())
    client.upload(batch, {"good.png": png(), **{name: data for name, (data, _) in bad.items()}})
    progress, items = imported(client, batch=batch)
    assert (progress["done"], progress["failed"]) == (7, 6)
    failed = {i["name"]: i for i in items if i["failed"]}
    assert set(failed) == set(bad)
    for name, item in failed.items():
        assert bad[name][1] in item["failed"]
        assert "incoming" not in item["failed"], "no path"
        for path in (f"/api/images/{item['id']}/thumbnail", f"/api/images/{item['id']}/frames/0"):
            answer = client.ask("GET", path)
            assert (answer.status, answer.message) == (422, item["failed"])


def test_a_dicom_file_gives_away_nothing_of_its_header(client: Client, tmp_path: Path) -> None:
    path = helpers.write_dicom(tmp_path / "data" / "x.dcm", frames=3, patient="<script>alert('Doe')</script>")
    _, (item,) = imported(client, path=str(tmp_path / "data"))
    assert (item["name"], item["frames"], item["width"], item["height"]) == ("x.dcm", 3, 64, 48)
    everything = b"".join(
        client.ask("GET", p).body
        for p in (
            "/api/images", f"/api/images/{item['id']}", f"/api/images/{item['id']}/frames/2",
            f"/api/images/{item['id']}/thumbnail?frame=1", "/api/groups", "/api/imports",
        )
    )  # fmt: skip
    assert b"script" not in everything
    assert b"Doe" not in everything
    assert str(path.parent).encode() not in everything
    detail = client.get(f"/api/images/{item['id']}")
    assert (detail["spacing_mm"], detail["spacing_source"]) == ([0.1, 0.2], "DICOM")
    assert item["patient"].startswith("dicom:")


def test_pictures_are_encoded_anew(client: Client) -> None:
    """What is hidden behind the pixels of an upload never comes back."""
    batch = str(uuid.uuid4())
    client.upload(batch, {"a.png": png() + b"<script>hidden</script>"})
    _, (item,) = imported(client, batch=batch)
    answer = client.ask("GET", f"/api/images/{item['id']}/frames/0")
    assert answer.headers["content-type"] == "image/png"
    assert b"script" not in answer.body
    sent = np.asarray(Image.open(io.BytesIO(answer.body)).convert("RGB"))
    assert (sent == helpers.picture(0, lesion=False)[0]).all()
    small = Image.open(io.BytesIO(client.ask("GET", f"/api/images/{item['id']}/frames/0?longest=32").body))
    assert small.size == (32, 24)
    assert Image.open(io.BytesIO(client.ask("GET", f"/api/images/{item['id']}/thumbnail").body)).format == "JPEG"


def test_a_link_is_followed_only_by_the_reader_that_the_user_named(client: Client, tmp_path: Path) -> None:
    """A broken or circular link in an imported folder fails alone."""
    folder = tmp_path / "data"
    helpers.save(folder / "a.png", helpers.picture(0, lesion=False)[0])
    (folder / "b.png").symlink_to(folder / "b.png")
    progress, items = imported(client, path=str(folder))
    assert progress["state"] == "done"
    assert [bool(i["failed"]) for i in items] == [False, True]


def test_a_file_that_takes_too_long_costs_its_decoder_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = helpers.save(tmp_path / "a.png", helpers.picture(0, lesion=False)[0])
    decoder = Decoder()
    try:
        assert decoder.look(path).size == helpers.SIZE
        with monkeypatch.context() as patched:
            patched.setattr(decode, "SECONDS", 0.0)
            with pytest.raises(DataError, match="within 0 s"):
                decoder.look(path)
        assert decoder.look(path).size == helpers.SIZE
    finally:
        decoder.close()


@pytest.mark.parametrize(
    ("wanting", "spent", "turns"),
    [(True, 0.1, decode.BUSY), (True, 6.0, 1), (False, 0.0, 1)],
    ids=["it waits for a processor", "it computes", "it waits for something else"],
)
def test_a_busy_machine_is_no_fault_of_the_file(wanting: bool, spent: float, turns: int) -> None:
    class Slow(Child):
        asked = 0

        def __init__(self) -> None:
            """No process."""

        def processor(self) -> tuple[bool, float]:
            return wanting, spent if self.asked else 0.0

        def receive(self, *, timeout: float | None = None) -> Message | None:
            assert timeout == 10.0
            self.asked += 1
            raise TimeoutError

    slow = Slow()
    with pytest.raises(TimeoutError):
        decode._within(slow, 10.0)
    assert slow.asked == turns


def test_a_child_says_how_long_it_has_computed(tmp_path: Path) -> None:
    child = Child("ultraad.serve.decode")
    try:
        assert child.send(Message({"do": "look", "path": str(tmp_path / "nothing")}))
        assert child.receive(timeout=200) is not None
        if Path("/proc/self/stat").exists():
            assert child.processor()[1] > 0.05, "it imported its libraries"
    finally:
        child.kill()


def test_a_decoder_that_crashes_is_replaced(tmp_path: Path) -> None:
    path = helpers.save(tmp_path / "a.png", helpers.picture(0, lesion=False)[0])
    decoder = Decoder()
    try:
        decoder.look(path)
        assert decoder._child is not None
        os.kill(decoder._child._process.pid, 9)
        assert decoder.look(path).size == helpers.SIZE
    finally:
        decoder.close()


def test_a_child_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    child = Child("ultraad.serve.decode")
    assert child.send(Message({"do": "look", "path": str(tmp_path / "nothing")}))
    answer = child.receive(timeout=60)
    assert answer is not None
    assert answer.what == {"error": "the file does not exist; check the path"}
    assert child._process.stdin is not None
    child._process.stdin.close()
    assert child._process.wait(timeout=10) == 0
    assert child.receive(timeout=10) is None
    child.kill()


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("a.png", "a.png"),
        ("../../x/a.png", "x/a.png"),
        ("C:\\scans\\a.png", "C:/scans/a.png"),
        ("/etc/passwd", "etc/passwd"),
        ("a\x00b\n.png", "a_b_.png"),
        ("", "unnamed"),
        ("x" * 1000, "x" * 300),
        ("‮gnp.exe", "_gnp.exe"),
    ],
)
def test_names_of_clients_are_labels(name: str, label: str) -> None:
    assert label_name(name) == label


def test_a_message_about_a_file_does_not_say_where_it_is() -> None:
    path = Path("/home/jane/Doe.dcm")
    assert without_path(f"{path} is empty; copy Doe.dcm again", path) == "the file is empty; copy the file again"


def test_an_import_that_was_cut_off_says_so(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "p", backbone="tiny")
    running = {"number": 1, "title": "scans", "state": "running", "found": 9, "done": 3}
    desk.project.database.put("import", 1, json.dumps(running))
    desk.close()
    again = Desk(tmp_path / "p", backbone="tiny")
    (found,) = again.importer.all()
    assert (found.state, found.error) == ("failed", "this import was cut off; import the folder again to get the rest")
    again.close()
    time.sleep(0)
