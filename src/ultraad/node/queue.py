"""What came and what has to go, in one folder that survives a kill and a power cut.

    queue.sqlite    images: received -> done, failed or ignored;  objects: waiting -> sending -> sent or failed
    images/         what was received, one file for each image
    jobs/           the run of each image, with its objects
    audit.jsonl     what came, what went, which model; UIDs, but no names unless they are asked for

An image is acknowledged when its file and its row are on the disk. Its prediction is a run that can be repeated, with
objects that have the same UIDs each time; its objects get their rows in the transaction that makes it done. An object
is *sending* from before it is sent until the peer has answered: after a kill, the peer is asked whether it has it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import pydicom

from ultraad.errors import Caught, DataError, printable
from ultraad.io.dicom_header import text_of
from ultraad.io.faults import Faults, keeping_remarks
from ultraad.io.files import append_line, ensure_writable, remove_leftovers
from ultraad.io.lock import lock_folder

Arrival = Literal["new", "same", "other"]
"""How an image came: for the first time, again, or another one under its UID."""
MOST_TRIES = 20
"""Predictions of one image: one that ends the process so often, of memory for instance, is given up."""
LONGEST_PAUSE = 600.0
"""Seconds to the next try of an object (ours: a peer that is away is not hurried). If more are left, a clock jumped."""
RESERVE = 256 * 2**20
"""Bytes of the disk that are left free."""
_TABLES = """
CREATE TABLE IF NOT EXISTS images (
    uid TEXT PRIMARY KEY, sop_class TEXT NOT NULL, sha256 TEXT NOT NULL, origin TEXT NOT NULL, received REAL NOT NULL,
    state TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0, reason TEXT);
CREATE TABLE IF NOT EXISTS objects (
    uid TEXT NOT NULL, peer TEXT NOT NULL, image TEXT NOT NULL, sop_class TEXT NOT NULL, file TEXT NOT NULL,
    state TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0, reason TEXT,
    PRIMARY KEY (uid, peer));
CREATE INDEX IF NOT EXISTS waiting ON images (state, received);
CREATE INDEX IF NOT EXISTS due ON objects (peer, state, due);
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An image that waits for its prediction.

    Attributes:
        uid: Its SOP instance UID.
        file: Its file.
        job: The folder of its run.
        tries: Predictions of it that were begun before.
    """

    uid: str
    file: Path
    job: Path
    tries: int


@dataclass(frozen=True, slots=True)
class Due:
    """An object that has to be sent.

    Attributes:
        uid: Its SOP instance UID.
        sop_class: Its SOP class UID.
        file: Its file.
        tries: How often it was tried before.
        unsure: Whether an earlier process may have sent it.
    """

    uid: str
    sop_class: str
    file: Path
    tries: int
    unsure: bool


class Queue:
    """The queue of a node; every method can be called by any thread.

    Args:
        folder: Made if needed.
        name_patients: Whether the audit log says of each new image whose it is.

    Raises:
        DataError: If the folder cannot be written to, another node uses it, or it is damaged.
    """

    def __init__(self, folder: Path, *, name_patients: bool = False) -> None:
        self._name_patients = name_patients
        self.folder = ensure_writable(folder)
        _check_own(self.folder)
        self._lock = lock_folder(self.folder)
        self.images, self.jobs = (ensure_writable(self.folder / name) for name in ("images", "jobs"))
        self._audit = self.folder / "audit.jsonl"
        self._turn = threading.RLock()
        self.changed = threading.Event()
        remove_leftovers(self.images)
        try:
            self._rows = sqlite3.connect(self.folder / "queue.sqlite", check_same_thread=False, isolation_level=None)
            self._rows.execute("PRAGMA journal_mode=WAL")
            self._rows.execute("PRAGMA synchronous=FULL")  # a row that is committed survives a power cut
            self._rows.executescript(_TABLES)
        except sqlite3.DatabaseError as e:
            self._lock.release()
            where = self.folder / "queue.sqlite"
            msg = f"{where} is damaged: {e}. Move the folder away; what it acknowledged is in images/"
            raise DataError(msg) from e
        known = {self.file_of(uid).name for (uid,) in self._all("SELECT uid FROM images")}
        for path in self.images.glob("*.dcm"):
            if path.name not in known and _NAME.fullmatch(path.stem):  # written, not acknowledged: it comes again
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the folder."""
        with self._turn:
            self._rows.close()
        self._lock.release()

    def is_full(self, more: int = 0) -> bool:
        """Whether the disk has no room for so many bytes and the reserve."""
        return shutil.disk_usage(self.folder).free < RESERVE + more

    # ---- images

    def file_of(self, uid: str) -> Path:
        """The file of an image."""
        return self.images / f"{_name(uid)}.dcm"

    def add(self, uid: str, sop_class: str, content: bytes, *, origin: str, ignore: str | None = None) -> Arrival:
        """Keep an image. When this returns, it survives a power cut.

        Args:
            uid: Its SOP instance UID.
            sop_class: Its SOP class UID.
            content: The whole file.
            origin: Who sent it.
            ignore: Why it is not to be predicted; then only the fact is kept.

        Returns:
            ``"other"`` if another image with this UID was here before; nothing is changed then.

        Raises:
            DataError: If it cannot be written, e.g. because the disk is full.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        with self._turn:
            earlier = self._all("SELECT sha256 FROM images WHERE uid = ?", uid)
            if earlier:
                arrival: Arrival = "same" if earlier[0][0] == sha256 else "other"
                self.note("received again" if arrival == "same" else "refused", uid=uid, origin=origin)
                return arrival
            if ignore is None:
                _write_durably(self.file_of(uid), content)
            state = "received" if ignore is None else "ignored"
            values = (uid, sop_class, sha256, origin, time.time(), state, ignore)
            with _failing(self.folder):
                columns = "uid, sop_class, sha256, origin, received, state, reason"
                self._rows.execute(f"INSERT INTO images ({columns}) VALUES (?,?,?,?,?,?,?)", values)
            whose = _patient_in(content) if self._name_patients else {}
            self.note(state, uid=uid, sop_class=sop_class, origin=origin, reason=ignore, **whose)
        self.changed.set()
        return "new"

    def knows(self, uid: str) -> bool:
        """Whether an image came before, whatever became of it."""
        return bool(self._all("SELECT 1 FROM images WHERE uid = ?", uid))

    def has(self, uid: str, sop_class: str) -> bool | None:
        """Whether an image is here and not given up; None if one of another SOP class has its UID."""
        found = self._all("SELECT sop_class, state FROM images WHERE uid = ?", uid)
        if not found:
            return False
        return None if found[0][0] != sop_class else found[0][1] in ("received", "done")

    def next_image(self) -> Waiting | None:
        """The image that waits longest; its try is counted at once, so that one that ends the process is given up."""
        with self._turn:
            found = self._all(
                "SELECT uid, tries FROM images WHERE state = 'received' ORDER BY tries, received, uid LIMIT 1"
            )
            if not found:
                return None
            uid, tries = found[0]
            self._rows.execute("UPDATE images SET tries = tries + 1 WHERE uid = ?", (uid,))
        return Waiting(uid, self.file_of(uid), self.jobs / _name(uid), tries)

    def finish(
        self,
        image: Waiting,
        objects: Iterable[tuple[str, str, Path]],
        peers: Iterable[str],
        **facts: Any,  # noqa: ANN401
    ) -> None:
        """An image is done: its objects have to be sent to every peer.

        Args:
            image: The image.
            objects: (UID, SOP class, file) of each object.
            peers: Names of the peers.
            facts: For the audit log.
        """
        made = list(objects)
        rows = [
            (uid, peer, image.uid, sop_class, file.relative_to(self.folder).as_posix(), "waiting")
            for peer in peers
            for uid, sop_class, file in made
        ]
        with self._turn, _failing(self.folder):
            self._rows.execute("BEGIN IMMEDIATE")
            self._rows.executemany(
                "INSERT OR IGNORE INTO objects (uid, peer, image, sop_class, file, state) VALUES (?,?,?,?,?,?)", rows
            )
            self._rows.execute("UPDATE images SET state = 'done' WHERE uid = ?", (image.uid,))
            self._rows.execute("COMMIT")
        self.note("predicted", uid=image.uid, objects=[uid for uid, _, _ in made], **facts)
        self.changed.set()

    def put_back(self, image: Waiting) -> None:
        """A prediction that the full disk ended does not count: the image waits again."""
        with self._turn:
            self._rows.execute("UPDATE images SET tries = tries - 1 WHERE uid = ?", (image.uid,))

    def fail(self, image: Waiting, reason: str) -> None:
        """An image cannot be predicted."""
        with self._turn:
            self._rows.execute("UPDATE images SET state = 'failed', reason = ? WHERE uid = ?", (reason, image.uid))
        self.note("failed", uid=image.uid, reason=reason)

    # ---- objects

    def next_object(self, peer: str) -> Due | None:
        """The next object for a peer whose time has come; it is *sending* from now on."""
        with self._turn:
            found = self._all(
                "SELECT uid, sop_class, file, tries, state FROM objects WHERE peer = ? AND (due <= ? OR due > ?) AND "
                "state IN ('waiting', 'sending') ORDER BY due, rowid LIMIT 1",
                *(peer, time.time(), time.time() + LONGEST_PAUSE),
            )
            if not found:
                return None
            uid, sop_class, file, tries, state = found[0]
            self._rows.execute(
                "UPDATE objects SET state = 'sending', tries = tries + 1 WHERE uid = ? AND peer = ?", (uid, peer)
            )
        return Due(uid, sop_class, self.folder / file, tries, unsure=state == "sending")

    def sent(self, peer: str, uid: str, *, keep: bool) -> None:
        """A peer has an object. If it was the last of its image, image and run are removed, unless they are kept."""
        with self._turn:
            self._rows.execute("UPDATE objects SET state = 'sent' WHERE uid = ? AND peer = ?", (uid, peer))
            image = self._all("SELECT image FROM objects WHERE uid = ? AND peer = ?", uid, peer)[0][0]
            left = self._all("SELECT COUNT(*) FROM objects WHERE image = ? AND state != 'sent'", image)[0][0]
        self.note("sent", uid=uid, peer=peer)
        if not left and not keep:
            shutil.rmtree(self.jobs / _name(image), ignore_errors=True)
            self.file_of(image).unlink(missing_ok=True)

    def put_off(self, peer: str, uid: str, reason: str, *, until: float | None) -> None:
        """An object could not be sent: try again at this time of ``time.time()``; None gives it up.

        A time that is more than :data:`LONGEST_PAUSE` away has come, too: the clock went back since it was written.
        """
        state = "failed" if until is None else "waiting"
        with self._turn:
            self._rows.execute(
                "UPDATE objects SET state = ?, due = ?, reason = ? WHERE uid = ? AND peer = ?",
                (state, until or 0.0, reason, uid, peer),
            )
        self.note("given up" if until is None else "put off", uid=uid, peer=peer, reason=reason)

    # ---- what is here

    def counts(self) -> dict[str, int]:
        """{``"images received"`` and so on: number}, for people."""
        found = {}
        for table in ("images", "objects"):
            for state, number in self._all(f"SELECT state, COUNT(*) FROM {table} GROUP BY state"):
                found[f"{table} {state}"] = number
        return found

    def reasons(self) -> dict[str, str]:
        """{UID: reason} of every image and object that was given up."""
        images = self._all("SELECT uid, reason FROM images WHERE state = 'failed'")
        objects = self._all("SELECT uid || ' to ' || peer, reason FROM objects WHERE state = 'failed'")
        return {uid: reason or "" for uid, reason in [*images, *objects]}

    def note(self, what: str, **facts: Any) -> None:  # noqa: ANN401
        """A line of the audit log."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        known = {key: printable(value) if isinstance(value, str) else value for key, value in facts.items()}
        line = {"time": now, "what": what, **{key: value for key, value in known.items() if value is not None}}
        with self._turn:
            append_line(self._audit, json.dumps(line, ensure_ascii=False), durable=True)

    def _all(self, question: str, *values: object) -> list[tuple[Any, ...]]:
        with self._turn, closing(self._rows.execute(question, values)) as rows:
            return rows.fetchall()


def _patient_in(content: bytes) -> dict[str, str | None]:
    """Number and name of the patient of an image; nothing if its header cannot be read."""
    names = {"patient_id": "PatientID", "patient_name": "PatientName"}
    with Caught() as caught, keeping_remarks(), Faults("the header cannot be read", about="an image"):
        header = pydicom.dcmread(BytesIO(content), force=True, specific_tags=["SpecificCharacterSet", *names.values()])
        found = {key: text_of(header, name) for key, name in names.items()}
    return {} if caught.error is not None else found


class _failing:  # noqa: N801  # a block, like contextlib's
    """Errors of SQLite as a DataError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            msg = f"{self._folder} cannot be written: {error}; free space and permissions there"
            raise DataError(msg) from error


_NAME = re.compile(r"[0-9a-f]{32}")


def _name(uid: str) -> str:
    """A file name for a UID, which may hold anything when it comes from a peer."""
    return hashlib.sha256(uid.encode(errors="surrogateescape")).hexdigest()[:32]


def _check_own(folder: Path) -> None:
    """Refuse a folder in which images of somebody would be taken for those of a queue.

    Raises:
        DataError: If it holds no queue, but files in the folders of one.
    """
    if (folder / "queue.sqlite").exists():
        return
    for path in (*folder.glob("images/*"), *folder.glob("jobs/*")):
        msg = f"{folder} holds {path.relative_to(folder)} and no queue of a node; give a new or empty folder"
        raise DataError(msg)


def _write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it survives a power cut: the file, its name, and its folder."""
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        if os.name == "posix":
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as e:
        msg = f"{path} cannot be written: {e.strerror or e}; free space and permissions there"
        raise DataError(msg) from e
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
