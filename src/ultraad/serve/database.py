"""The project's database: SQLite with a write-ahead log. A transaction is on the disk before it counts as done.

One connection, used by one thread at a time. A kill between two transactions loses nothing, one during a transaction
loses that transaction, and a power cut does not change this, because each commit waits for the disk.
"""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

from ultraad.errors import DataError

FILE = "project.sqlite"
FILES = (FILE, f"{FILE}-wal", f"{FILE}-shm")
VERSION = 3
APPLICATION = int.from_bytes(b"ULAD")  # in the header of the file; ultraad.io.find knows a project by it

_SCHEMA = """
CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE import (number INTEGER PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE image (number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, facts TEXT NOT NULL, tiny BLOB);
CREATE TABLE row (
    row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, image TEXT NOT NULL, frame INTEGER NOT NULL,
    kind TEXT NOT NULL, rater TEXT NOT NULL, made TEXT, saved TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX row_of_frame ON row (image, frame, row);
CREATE TABLE frame (
    image TEXT NOT NULL, frame INTEGER NOT NULL, facts TEXT NOT NULL, PRIMARY KEY (image, frame)
) WITHOUT ROWID;
CREATE TABLE model (number INTEGER PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE choice (number INTEGER PRIMARY KEY AUTOINCREMENT, model INTEGER NOT NULL, made TEXT NOT NULL);
CREATE TABLE prediction (
    model INTEGER NOT NULL, image TEXT NOT NULL, frame INTEGER NOT NULL, score REAL NOT NULL, probs TEXT,
    map INTEGER NOT NULL, out_of_scope INTEGER NOT NULL DEFAULT 0, classes TEXT, PRIMARY KEY (model, image, frame)
) WITHOUT ROWID;
CREATE TABLE embedding (
    image TEXT NOT NULL, frame INTEGER NOT NULL, backbone TEXT NOT NULL, vector BLOB NOT NULL,
    PRIMARY KEY (image, frame)
) WITHOUT ROWID;
CREATE TABLE unit (name TEXT PRIMARY KEY, aside INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE offer (image TEXT PRIMARY KEY, made TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE job (number INTEGER PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE export (number INTEGER PRIMARY KEY, facts TEXT NOT NULL);
"""
"""``row`` is append-only; ``frame`` is derived from it. ``unit`` says which patients (images, where patients are
unknown) were set aside when they were added; ``offer`` lists the images of these that the queue has offered."""

_LACKING = {
    1: "ALTER TABLE prediction ADD COLUMN out_of_scope INTEGER NOT NULL DEFAULT 0;",
    2: "ALTER TABLE prediction ADD COLUMN classes TEXT;",
}
"""{version: what a database of it lacks to be of the next}."""


class Database:
    """One open database.

    Args:
        folder: Of the project; the file is made if it is not there.

    Raises:
        DataError: If the file is damaged or from a newer version.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._lock = RLock()
        try:
            self._connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version == 0:  # before the log is switched on, so that it stands in the file itself
                self._connection.execute(f"PRAGMA application_id = {APPLICATION}")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            if version == 0:
                self._connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT")
            elif version < VERSION:
                steps = " ".join(_LACKING[n] for n in range(version, VERSION))
                self._connection.executescript(f"BEGIN; {steps} PRAGMA user_version = {VERSION}; COMMIT")
        except sqlite3.DatabaseError as e:
            msg = f"the project's database {self._path} cannot be used: {e}; restore it from a copy"
            raise DataError(msg) from e
        if version > VERSION:
            self._connection.close()
            msg = f"the project {folder} was made by a newer version of ultraad; update ultraad"
            raise DataError(msg)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: everything in the block, on the disk at its end, or nothing.

        Raises:
            DataError: If the disk is full or cannot be written.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.OperationalError as e:
                msg = "nothing was saved, because the project cannot be written; free space on its disk, then try again"
                raise DataError(msg) from OSError(errno.ENOSPC, str(e))
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def facts(self, table: str) -> dict[int, dict[str, Any]]:
        """{number: facts} of a table whose facts are JSON."""
        return {number: json.loads(facts) for number, facts in self.read(f"SELECT number, facts FROM {table}")}

    def put(self, table: str, number: int, facts: str) -> None:
        """Create or replace the facts (JSON) of one number."""
        with self.write() as db:
            db.execute(f"INSERT OR REPLACE INTO {table} (number, facts) VALUES (?, ?)", (number, facts))

    def setting(self, key: str) -> Any:  # noqa: ANN401
        """A setting; None if it was never set."""
        found = self.read("SELECT value FROM setting WHERE key = ?", (key,))
        return json.loads(found[0][0]) if found else None

    def set(self, **settings: Any) -> None:  # noqa: ANN401
        """Set some settings."""
        with self.write() as db:
            rows = [(key, json.dumps(value)) for key, value in settings.items()]
            db.executemany("INSERT OR REPLACE INTO setting (key, value) VALUES (?, ?)", rows)

    def close(self) -> None:
        """Close the file, with the log written back."""
        with self._lock:
            self._connection.close()
