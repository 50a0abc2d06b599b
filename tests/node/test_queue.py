"""The queue: what is acknowledged is there after a kill between any two steps, and nothing is sent without need."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import pydicom
import pytest

from tests.dicom.made import write_us
from tests.node.pacs import Pacs, free_port
from ultraad.errors import DataError
from ultraad.node import queue as queues
from ultraad.node.peers import Peer
from ultraad.node.queue import LONGEST_PAUSE, MOST_TRIES, Queue, Waiting
from ultraad.node.send import Sender, send_due

US = "1.2.840.10008.5.1.4.1.1.6.1"


class Killed(BaseException):
    """As kill -9: nothing catches it."""


def reopen(queue: Queue) -> Queue:
    """What the next process finds: the connection is gone, its open transaction undone, its lock free."""
    queue._rows.close()
    queue._lock.release()
    return Queue(queue.folder)


def object_of(queue: Queue, image: Waiting, uid: str = "2.25.1") -> tuple[str, str, Path]:
    path = image.job / "dicom" / f"{uid}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"object")
    return uid, "1.2.3", path


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "node")


def test_an_image_goes_through(queue: Queue) -> None:
    assert queue.add("1.2", US, b"image", origin="A") == "new"
    image = queue.next_image()
    assert image is not None
    assert (image.uid, image.file.read_bytes(), image.tries) == ("1.2", b"image", 0)
    queue.finish(image, [object_of(queue, image)], ["P", "Q"])
    assert queue.next_image() is None
    for peer in ("P", "Q"):
        due = queue.next_object(peer)
        assert (due.uid, due.file.read_bytes(), due.unsure) == ("2.25.1", b"object", False)
        assert image.file.exists()
        queue.sent(peer, due.uid, keep=False)
        assert queue.next_object(peer) is None
    assert not image.file.exists()  # every peer has everything
    assert not image.job.exists()
    assert queue.counts() == {"images done": 1, "objects sent": 2}
    assert queue.has("1.2", US) is True


def test_again_is_nothing_new_and_another_content_is_refused(queue: Queue) -> None:
    assert [queue.add("1.2", US, content, origin="A") for content in (b"a", b"a", b"b")] == ["new", "same", "other"]
    assert queue.file_of("1.2").read_bytes() == b"a"
    assert queue.counts() == {"images received": 1}


def test_after_a_kill_before_the_acknowledgement_the_image_is_not_there(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = queues._write_durably

    def killed(path: Path, content: bytes) -> None:
        real(path, content)
        raise Killed

    monkeypatch.setattr(queues, "_write_durably", killed)
    with pytest.raises(Killed):
        queue.add("1.2", US, b"image", origin="A")
    monkeypatch.undo()
    again = reopen(queue)
    assert list(again.images.glob("*")) == []
    assert again.add("1.2", US, b"image", origin="A") == "new"


def test_after_a_kill_before_the_rename_nothing_is_left(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: Path, target: Path) -> Path:
        raise Killed

    monkeypatch.setattr(Path, "replace", killed)
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)  # nothing is tidied up after kill -9
    with pytest.raises(Killed):
        queue.add("1.2", US, b"image", origin="A")
    monkeypatch.undo()
    assert list(reopen(queue).images.glob(".*")) == []


def test_after_a_kill_while_it_is_predicted_an_image_waits_again_after_the_others(queue: Queue) -> None:
    for uid in ("1.1", "1.2"):
        queue.add(uid, US, uid.encode(), origin="A")
    assert queue.next_image().uid == "1.1"
    again = reopen(queue)
    assert [again.next_image().uid for _ in range(3)] == ["1.2", "1.1", "1.2"]
    tries = [again.next_image().tries for _ in range(2 * MOST_TRIES)]
    assert tries[-1] >= MOST_TRIES


def test_after_a_kill_in_the_transaction_the_image_is_not_done(queue: Queue) -> None:
    queue.add("1.2", US, b"image", origin="A")
    image = queue.next_image()
    queue._rows.execute("BEGIN IMMEDIATE")
    queue._rows.execute("UPDATE images SET state = 'done'")
    again = reopen(queue)  # before COMMIT
    assert again.counts() == {"images received": 1}
    again.finish(image, [object_of(again, image)], ["P"])
    again.finish(image, [object_of(again, image)], ["P"])  # predicted twice gives the same UIDs
    assert again.counts() == {"images done": 1, "objects waiting": 1}


def test_after_a_kill_while_it_was_sent_an_object_is_unsure(queue: Queue) -> None:
    queue.add("1.2", US, b"image", origin="A")
    image = queue.next_image()
    queue.finish(image, [object_of(queue, image)], ["P"])
    assert not queue.next_object("P").unsure
    assert reopen(queue).next_object("P").unsure


def test_what_is_put_off_waits_for_its_time_and_what_is_given_up_is_told(queue: Queue) -> None:
    queue.add("1.2", US, b"image", origin="A")
    image = queue.next_image()
    queue.finish(image, [object_of(queue, image)], ["P"])
    due = queue.next_object("P")
    queue.put_off("P", due.uid, "away", until=time.time() + 300)
    assert queue.next_object("P") is None
    queue.put_off("P", due.uid, "away", until=0.0)
    assert queue.next_object("P").tries == 1
    queue.put_off("P", due.uid, "away for too long", until=None)
    assert queue.next_object("P") is None
    assert queue.reasons() == {"2.25.1 to P": "away for too long"}


@pytest.mark.parametrize("later", [-1e9, -3600.0, 3600.0, 1e9])
def test_a_clock_that_jumps_holds_nothing_back(queue: Queue, later: float, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.add("1.2", US, b"image", origin="A")
    image = queue.next_image()
    queue.finish(image, [object_of(queue, image)], ["P"])
    queue.put_off("P", queue.next_object("P").uid, "away", until=time.time() + LONGEST_PAUSE)
    assert queue.next_object("P") is None
    now = time.time()
    monkeypatch.setattr(queues.time, "time", lambda: now + later)
    assert queue.next_object("P").tries == 1


def test_what_is_ignored_is_noted_but_not_kept(queue: Queue) -> None:
    assert queue.add("1.2", US, b"ours", origin="A", ignore="written by ultraad") == "new"
    assert queue.next_image() is None
    assert not queue.file_of("1.2").exists()
    assert queue.counts() == {"images ignored": 1}


def test_a_second_node_in_one_folder_is_refused(queue: Queue) -> None:
    with pytest.raises(DataError, match="another run is writing to"):
        Queue(queue.folder)


def test_images_that_lie_where_a_queue_has_its_own_are_never_removed(queue: Queue, tmp_path: Path) -> None:
    scan = tmp_path / "study" / "images" / "scan.dcm"
    scan.parent.mkdir(parents=True)
    scan.write_bytes(b"somebody's")
    with pytest.raises(DataError, match=r"holds images/scan\.dcm and no queue of a node; give a new or empty folder"):
        Queue(tmp_path / "study")
    assert [p.name for p in (tmp_path / "study").iterdir()] == ["images"]
    folder = queue.folder
    queue.close()
    ours, left = folder / "images" / "scan.dcm", folder / "images" / f"{'0' * 32}.dcm"
    for path in (ours, left):
        path.write_bytes(b"x")
    Queue(folder).close()
    assert (ours.exists(), left.exists()) == (True, False)
    assert scan.exists()


def test_a_damaged_queue_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "queue.sqlite").write_bytes(b"no database" * 100)
    for _ in range(2):  # the lock is free again
        with pytest.raises(DataError, match=r"queue\.sqlite is damaged"):
            Queue(tmp_path)


def test_a_full_disk_is_an_error_and_nothing_is_acknowledged(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise DataError("no space left")

    monkeypatch.setattr(queues, "_write_durably", full)
    with pytest.raises(DataError, match="no space left"):
        queue.add("1.2", US, b"image", origin="A")
    assert queue.counts() == {}


def test_the_audit_log_has_a_line_for_every_step(queue: Queue) -> None:
    queue.add("1.2", US, b"image", origin="A")
    image = queue.next_image()
    queue.finish(image, [object_of(queue, image)], ["P"], model="abc")
    queue.next_object("P")
    queue.sent("P", "2.25.1", keep=True)
    lines = [json.loads(line) for line in (queue.folder / "audit.jsonl").read_text().splitlines()]
    assert [line["what"] for line in lines] == ["received", "predicted", "sent"]
    assert lines[1]["model"] == "abc"
    assert lines[1]["objects"] == ["2.25.1"]


def test_a_uid_is_never_a_path(queue: Queue) -> None:
    queue.add("../../etc/passwd", US, b"image", origin="A")
    assert [p.parent for p in queue.images.iterdir()] == [queue.images]
    with sqlite3.connect(queue.folder / "queue.sqlite") as rows:
        assert rows.execute("SELECT uid FROM images").fetchall() == [("../../etc/passwd",)]
    rows.close()


@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_a_peer_that_is_away_for_an_hour_gets_everything(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    past, real = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: real() + past[0])
    port = free_port()
    away, sender = Peer("PACS", "127.0.0.1", port), Sender("ULTRAAD", 2, None)
    queue.add("1.2", US, b"image", origin="A")
    image = queue.next_image()
    folder = image.job / "dicom"
    folder.mkdir(parents=True)
    made = []
    for n in (1, 2):
        path = write_us(folder / f"{n}.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
        made.append((str(pydicom.dcmread(path).SOPInstanceUID), "1.2.840.10008.5.1.4.1.1.7", path))
    queue.finish(image, made, [away.name])
    while past[0] < 3600:
        assert send_due(queue, away, sender, stopped=lambda: False) == 0
        past[0] += 60
    tries = [line for line in (queue.folder / "audit.jsonl").read_text().splitlines() if '"put off"' in line]
    assert 2 * 6 <= len(tries) <= 2 * 12  # after 10, 20, 40 ... 600 s, each object for itself
    assert queue.counts() == {"images done": 1, "objects waiting": 2}
    with Pacs(port=port) as pacs:
        past[0] += LONGEST_PAUSE
        assert send_due(queue, away, sender, stopped=lambda: False) == 2
    assert {uid: len(came) for uid, came in pacs.got.items()} == {uid: 1 for uid, _, _ in made}


def test_patients_are_named_in_the_log_only_if_they_are_asked_for(tmp_path: Path) -> None:
    content = write_us(tmp_path / "a.dcm").read_bytes()
    for folder, asked in (("silent", False), ("telling", True)):
        queue = Queue(tmp_path / folder, name_patients=asked)
        queue.add("1.2.3", US, content, origin="SCANNER")
        queue.add("1.2.4", US, b"no DICOM", origin="SCANNER")
        queue.close()
        first, second = map(json.loads, (tmp_path / folder / "audit.jsonl").read_text().splitlines())
        named = {"patient_id": "P-1", "patient_name": "Müller^Åsa"}
        assert {key: value for key, value in first.items() if key.startswith("patient")} == (named if asked else {})
        assert not any(key.startswith("patient") for key in second)
