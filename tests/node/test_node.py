"""A node between a scanner and a PACS, both real DICOM nodes on loopback."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pydicom
import pytest

from tests.dicom.made import run_of, write_us
from tests.node.pacs import Pacs, Scanner, free_port, images
from ultraad.dicom.saving import write_objects
from ultraad.errors import ConfigError, DataError
from ultraad.model.adapt import zero_shot
from ultraad.model.model import Model
from ultraad.node import intake, send, work
from ultraad.node.intake import Door, Watch
from ultraad.node.node import Node, Setup, peers_by_title
from ultraad.node.peers import Peer, WebPeer, peer_of
from ultraad.node.queue import Queue
from ultraad.node.send import Sender, send_due

# pynetdicom leaves the socket of a refused connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
OBJECTS = {"objects": ["sr", "sc"]}


@pytest.fixture(scope="module")
def model() -> Model:
    logging.getLogger("pynetdicom").addHandler(logging.NullHandler())
    return zero_shot(backbone="tiny")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ultraad.node.node._PAUSE", 0.05)
    monkeypatch.setattr(send, "FIRST_PAUSE", 0.1)


def setup(folder: Path, *peers: Peer, keep: bool = False, tries: int = 60, **door: object) -> Setup:
    known = Door(aet="ULTRAAD", port=0, peers=peers_by_title(peers), timeout=10, **door)
    return Setup(folder, known, Sender("ULTRAAD", 5, None, keep=keep, tries=tries), peers=peers, options=dict(OBJECTS))


def until(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def audit(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]


# ---- the whole way --------------------------------------------------------------------------------------------------


def test_images_come_in_and_results_go_out_once(model: Model, tmp_path: Path) -> None:
    sent = images(tmp_path / "in", 2)
    with Pacs() as pacs, Node(model, setup(tmp_path / "node", pacs.peer)) as node:
        scanner = Scanner(node.port)
        assert scanner.echo() == 0
        assert scanner.send(*reversed(sent), *sent) == [0] * 4  # in any order, and twice
        until(node.idle)
        counts = node.queue.counts()
    assert counts == {"images done": 2, "objects sent": 4}
    assert len(pacs.got) == 4
    assert all(len(came) == 1 for came in pacs.got.values())
    assert list((tmp_path / "node" / "images").iterdir()) == []  # nothing of a patient stays
    assert list((tmp_path / "node" / "jobs").iterdir()) == []
    steps = [line["what"] for line in audit(tmp_path / "node")]
    assert steps.count("received") == 2
    assert steps.count("received again") == 2
    assert steps.count("predicted") == 2
    assert steps.count("sent") == 4
    assert {line.get("model") for line in audit(tmp_path / "node")} - {None} == {model.digest}
    assert "Müller" not in (tmp_path / "node" / "audit.jsonl").read_text()


def test_a_node_that_starts_again_goes_on_and_sends_nothing_twice(model: Model, tmp_path: Path) -> None:
    (image,) = images(tmp_path / "in", 1)
    port = free_port()
    away = Peer("PACS", "127.0.0.1", port)
    with Node(model, setup(tmp_path / "node", away)) as node:
        assert Scanner(node.port).send(image) == [0]
        until(lambda: node.queue.counts().get("objects waiting") == 2 and "put off" in str(audit(tmp_path / "node")))
    with Pacs(port=port) as pacs:
        with Node(model, setup(tmp_path / "node", away)) as node:
            until(node.idle)
        with Node(model, setup(tmp_path / "node", away)) as node:
            until(node.idle)
            assert Scanner(node.port).send(image) == [0]
            assert node.idle()
    assert [len(came) for came in pacs.got.values()] == [1, 1]


def killed(*_: object, **__: object) -> None:
    """Ends its thread, as kill -9 ends the process: the object is at the peer, but the note of it is lost."""
    raise SystemExit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("find", [True, False])
def test_after_a_kill_between_sending_and_noting_the_peer_is_asked(
    model: Model, tmp_path: Path, find: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (image,) = images(tmp_path / "in", 1)
    with Pacs(find=find) as pacs:
        monkeypatch.setattr(Queue, "sent", killed)
        with Node(model, setup(tmp_path / "node", pacs.peer)) as node:
            Scanner(node.port).send(image)
            until(lambda: len(pacs.got) == 1)
        monkeypatch.undo()
        monkeypatch.setattr("ultraad.node.node._PAUSE", 0.05)
        finds = pacs.finds
        with Node(model, setup(tmp_path / "node", pacs.peer)) as node:
            until(node.idle)
            assert node.queue.counts() == {"images done": 1, "objects sent": 2}
        if find:
            assert pacs.finds > finds
        for came in pacs.got.values():
            assert len(set(came)) == 1  # the same bytes, whoever asks
        assert sorted(len(came) for came in pacs.got.values()) == ([1, 1] if find else [1, 2])


# ---- peers that misbehave -------------------------------------------------------------------------------------------


def test_a_peer_that_refuses_is_tried_again_and_then_given_up(model: Model, tmp_path: Path) -> None:
    (image,) = images(tmp_path / "in", 1)
    with Pacs() as pacs, Node(model, setup(tmp_path / "node", pacs.peer, tries=3)) as node:
        pacs.status = 0xA700
        Scanner(node.port).send(image)
        until(lambda: node.queue.counts().get("objects failed") == 2)
        assert all("status 0xA700" in reason for reason in node.queue.reasons().values())
    assert [line["what"] for line in audit(tmp_path / "node")].count("put off") == 4


def test_a_peer_that_does_not_take_a_class_gets_the_others(model: Model, tmp_path: Path) -> None:
    (image,) = images(tmp_path / "in", 1)
    with (
        Pacs(classes=["1.2.840.10008.5.1.4.1.1.88.33"]) as pacs,
        Node(model, setup(tmp_path / "node", pacs.peer, tries=1)) as node,
    ):
        Scanner(node.port).send(image)
        until(lambda: node.queue.counts().get("objects failed") == 1 and len(pacs.got) == 1)
        (reason,) = node.queue.reasons().values()
    assert reason == "it does not take Secondary Capture Image Storage"


def test_a_warning_is_no_failure(model: Model, tmp_path: Path) -> None:
    (image,) = images(tmp_path / "in", 1)
    with Pacs() as pacs, Node(model, setup(tmp_path / "node", pacs.peer)) as node:
        pacs.status = 0xB000
        Scanner(node.port).send(image)
        until(node.idle)
        assert node.queue.counts()["objects sent"] == 2


def test_a_peer_that_is_away_is_named_and_stops_nothing(model: Model, tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    away = Peer("PACS", "127.0.0.1", free_port())
    queue.add("1.2", "1", b"x", origin="A")
    image = queue.next_image()
    path = image.job / "a.dcm"
    path.parent.mkdir()
    path.write_bytes(b"x")
    queue.finish(image, [("2.25.1", "1.2.840.10008.5.1.4.1.1.88.33", path)], [away.name])
    assert send_due(queue, away, Sender("ULTRAAD", 2, None, tries=1), stopped=lambda: False) == 0
    assert "cannot be reached" in queue.reasons()[f"2.25.1 to {away.name}"]
    queue.close()


# ---- callers that misbehave -----------------------------------------------------------------------------------------


def test_strangers_and_wrong_titles_are_rejected_and_noted(model: Model, tmp_path: Path) -> None:
    with Node(model, setup(tmp_path / "node", allowed=("SCANNER",))) as node:
        assert Scanner(node.port).echo() == 0
        assert Scanner(node.port, aet="STRANGER").echo() is None
        assert Scanner(node.port, called="OTHER").echo() is None
        until(lambda: [line["what"] for line in audit(tmp_path / "node")].count("rejected") == 2)


def test_bad_objects_are_answered_and_stop_nothing(model: Model, tmp_path: Path) -> None:
    good, other, damaged = images(tmp_path / "in", 3)
    ds = pydicom.dcmread(other)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = pydicom.dcmread(good).SOPInstanceUID
    ds.save_as(other)  # another image under the same UID
    ds = pydicom.dcmread(damaged)
    ds.PixelData = ds.PixelData[:100]
    ds.save_as(damaged)
    report = pydicom.dcmread(good, stop_before_pixels=True)  # a report that says it is an image
    del report.Rows, report.Columns
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = "1.2.3.7"
    report.save_as(tmp_path / "report.dcm")
    odd = write_us(tmp_path / "odd.dcm", StudyInstanceUID=None)
    with Pacs() as pacs, Node(model, setup(tmp_path / "node", pacs.peer)) as node:
        found = Scanner(node.port).send(good, other, damaged, tmp_path / "report.dcm", odd)
        assert found == [0, 0xC001, 0, 0, 0]
        until(node.idle)
        reasons = list(node.queue.reasons().values())
        assert node.queue.counts()["images done"] == 1
    assert len(reasons) == 3
    assert any("no StudyInstanceUID" in reason for reason in reasons)
    assert any("without pixels" in reason for reason in reasons)
    assert len(pacs.got) == 2


def own_capture(folder: Path) -> Path:
    """A secondary capture that ultraad wrote."""
    run_of(folder / "out", images(folder / "captured", 1))
    write_objects(folder / "out", ["sc"])
    return next((folder / "out" / "dicom").glob("*-sc.dcm"))


def test_own_objects_are_acknowledged_but_never_read(model: Model, tmp_path: Path) -> None:
    capture = pydicom.dcmread(own_capture(tmp_path))
    capture.SOPClassUID = capture.file_meta.MediaStorageSOPClassUID = intake.IMAGES[0]  # as a proxy might say
    capture.save_as(tmp_path / "own.dcm")
    with Node(model, setup(tmp_path / "node")) as node:
        assert Scanner(node.port).send(tmp_path / "own.dcm") == [0]
        assert node.queue.counts() == {"images ignored": 1}


def test_an_image_that_is_too_large_ends_its_association_only(model: Model, tmp_path: Path) -> None:
    large = write_us(tmp_path / "large.dcm", size=(400, 400))
    (small,) = images(tmp_path / "in", 1)
    with Node(model, setup(tmp_path / "node", most_bytes=50_000)) as node:
        assert Scanner(node.port).send(large) == [None]
        assert Scanner(node.port).send(small) == [0]
        until(lambda: "an object of more than 50000 bytes" in str(audit(tmp_path / "node")))
        assert sum(node.queue.counts().values()) == 1


def test_a_full_disk_is_answered_and_nothing_is_acknowledged(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (image,) = images(tmp_path / "in", 1)
    usage = shutil.disk_usage(tmp_path)
    with Node(model, setup(tmp_path / "node")) as node:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        assert Scanner(node.port).send(image) == [0xA700]
        assert node.queue.counts() == {}
        monkeypatch.undo()
        assert Scanner(node.port).send(image) == [0]


def test_a_disk_that_fills_up_stops_predictions_and_loses_nothing(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, usage = images(tmp_path / "in", 2), shutil.disk_usage(tmp_path)
    real, tried = work.predict, []

    def full(*words: object, **options: object) -> object:
        """The disk is full while the first image is predicted."""
        tried.append(words[1])
        if len(tried) == 1:
            monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
            raise DataError("it cannot be written: No space left on device")
        return real(*words, **options)

    monkeypatch.setattr(work, "predict", full)
    with Pacs() as pacs, Node(model, setup(tmp_path / "node", pacs.peer)) as node:
        assert Scanner(node.port).send(sent[0]) == [0]
        until(lambda: tried and node.queue.counts() == {"images received": 1})
        time.sleep(0.7)  # one more look at the full disk
        assert len(tried) == 1
        assert Scanner(node.port).send(sent[1]) == [0xA700]
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        assert Scanner(node.port).send(sent[1]) == [0]
        until(node.idle)
        assert node.queue.counts() == {"images done": 2, "objects sent": 4}
    assert len(pacs.got) == 4


# ---- commitment, folder, settings -----------------------------------------------------------------------------------


def test_commitment_is_answered_at_the_address_of_the_peer(model: Model, tmp_path: Path) -> None:
    (image,) = images(tmp_path / "in", 1)
    ds = pydicom.dcmread(image, stop_before_pixels=True)
    with Pacs(aet="SCANNER") as caller, Node(model, setup(tmp_path / "node", caller.peer, keep=True)) as node:
        scanner = Scanner(node.port)
        scanner.send(image)
        here, missing = (ds.SOPClassUID, ds.SOPInstanceUID), (ds.SOPClassUID, "1.2.3.999")
        assert scanner.commit(here) == 0
        until(lambda: len(caller.reports) == 1)
        assert scanner.commit(here, missing, ("1.2.840.10008.5.1.4.1.1.2", ds.SOPInstanceUID)) == 0
        until(lambda: len(caller.reports) == 2)
        assert Scanner(node.port, aet="STRANGER").commit(here) == 0x0110
    (first, all_here), (second, some) = caller.reports
    assert (first, second) == (1, 2)
    assert [i.ReferencedSOPInstanceUID for i in all_here.ReferencedSOPSequence] == [ds.SOPInstanceUID]
    assert "FailedSOPSequence" not in all_here
    assert [i.FailureReason for i in some.FailedSOPSequence] == [0x0112, 0x0119]


def test_a_watched_folder_gives_its_images_once(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    images(folder, 2)
    (folder / "notes.txt").write_text("no image")
    (folder / "torn.dcm").write_bytes(b"")
    shutil.copy(own_capture(tmp_path), folder / "own.dcm")
    queue = Queue(tmp_path / "node")
    watch = Watch(folder, settled=3600)
    assert watch.look(queue) == 0  # somebody may still be writing
    watch = Watch(folder, settled=0)
    assert watch.look(queue) == 2
    assert watch.look(queue) == 0
    assert Watch(folder, settled=0).look(queue) == 0  # a new process
    queue.close()
    again = Watch(folder, settled=0)
    with Pacs() as pacs:
        mine = Setup(tmp_path / "node", None, Sender("ULTRAAD", 5, None), (pacs.peer,), (again,), dict(OBJECTS))
        with Node(model, mine) as node:
            until(node.idle)
        assert len(pacs.got) == 4


@pytest.mark.parametrize("years", [-50, 50])
def test_a_watched_file_is_whole_when_it_stays_as_it_is_whatever_its_time(
    model: Model, tmp_path: Path, years: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, clock = tmp_path / "in", [100.0]
    images(folder, 1)
    (path,) = folder.iterdir()
    whole, at = path.read_bytes(), time.time() + years * 3e7
    monkeypatch.setattr(intake, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    queue, watch = Queue(tmp_path / "node"), Watch(folder, settled=2)
    for part in (300, 600, len(whole)):
        path.write_bytes(whole[:part])
        os.utime(path, (at, at))
        assert watch.look(queue) == 0
        clock[0] += 1.5
        assert watch.look(queue) == 0
    clock[0] += 1
    assert watch.look(queue) == 1
    assert watch.look(queue) == 0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("PACS@10.0.0.5:104", Peer("PACS", "10.0.0.5", 104)),
        ("tls:A B@pacs.local:11112", Peer("A B", "pacs.local", 11112, tls=True)),
        ("P@[::1]:104", Peer("P", "::1", 104)),
        ("https://pacs.local:8443/dicom-web/", WebPeer("https://pacs.local:8443/dicom-web")),
    ],
)
def test_addresses(text: str, wanted: Peer | WebPeer) -> None:
    assert peer_of(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "PACS",
        "PACS@host",
        "PACS@host:0",
        "PACS@host:99999",
        "@host:104",
        "A" * 17 + "@h:1",
        "http://",
        "http://a:b@host/dicom",
        "https://host:port/",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"no address of a node|no AE title|no usable URL") as found:
        peer_of(text)
    assert "a:b" not in str(found.value)  # a password


def test_settings_that_make_no_node_are_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing can come in"):
        Node(model, Setup(tmp_path / "a", None, Sender("U", 5, None)))
    with pytest.raises(ConfigError, match="every AE title may call; name those that may with --allow"):
        Node(model, Setup(tmp_path / "b", Door("U", host="0.0.0.0", port=0), Sender("U", 5, None))).__enter__()
    with pytest.raises(ConfigError, match="two peers are called P"):
        peers_by_title([Peer("P", "a", 1), Peer("P", "b", 1)])
    with (
        Node(model, setup(tmp_path / "c")) as node,
        pytest.raises(ConfigError, match=f"port {node.port} of 127.0.0.1 cannot be had"),
    ):
        Node(model, Setup(tmp_path / "d", Door("U", port=node.port), Sender("U", 5, None))).__enter__()
    Queue(tmp_path / "d").close()  # its folder is free again
