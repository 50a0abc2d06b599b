"""A folder of results that grows image by image, survives an interruption, and is picked up where it stopped.

    run.json            what was run, on what, with which model; "status" says whether it came to its end
    predictions.jsonl   one line per image, in the order of processing
    predictions.csv     the same as a table, written at the end
    errors.jsonl        one line per image that could not be used
    overlays/  maps/    pictures, and maps as 16-bit PNG (value * 65535)

A line is written after its pictures, so whatever ``predictions.jsonl`` names is there. Pictures are drawn and written
by threads while the next images are predicted; lines follow in the order of :meth:`RunFolder.add`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from ultraad.errors import DataError
from ultraad.io.files import append_line, ensure_writable, write_image, write_json, write_map, write_text
from ultraad.io.overlay import overlay

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ultraad.model.calibration import Calibration
    from ultraad.types import Result

RUN, PREDICTIONS, ERRORS, TABLE = "run.json", "predictions.jsonl", "errors.jsonl", "predictions.csv"
METRICS, REPORT = "metrics.json", "report.html"
_PICTURES = ("overlays", "maps")
_WRITERS = 2  # ours: threads; drawing and PNG compression run outside the interpreter's lock
_AHEAD = 16  # ours: most images whose line is not written yet, two batches of the usual size; bounds the memory


class RunFolder:
    """The folder of one run.

    Args:
        folder: Made if needed.
        run: Facts about the run, JSON types; ``run["model"]["digest"]`` and ``run["command"]`` identify it.
        resume: Keep what an earlier run of the same command with the same model left here; otherwise it is removed.
        overlays: Write overlays.
        maps: Write maps.

    Raises:
        DataError: If the folder cannot be written to, or holds results of another model or command.

    Attributes:
        done: Ids that have a line in ``predictions.jsonl``.
        failed: {id: reason} of this run.
    """

    def __init__(
        self, folder: str | Path, run: Mapping[str, Any], *, resume: bool, overlays: bool = True, maps: bool = True
    ) -> None:
        self.folder = ensure_writable(folder)
        self._run = dict(run)
        self._overlays, self._maps = overlays, maps
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        earlier = _read_run(self.folder)
        if earlier is not None and not resume:
            _clear(self.folder)
        elif earlier is not None:
            self._check_same(earlier)
            self.done = {row["id"] for row in read_predictions(self.folder)}
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="ultraad-writer")
        self._unwritten: deque[tuple[str, str, Future[None]]] = deque()  # (id, line, pictures)
        (self.folder / ERRORS).unlink(missing_ok=True)  # what failed is tried again
        for name in _PICTURES:
            (self.folder / name).mkdir(exist_ok=True)
        self._write_run("running")

    def add(self, result: Result, calibration: Calibration) -> None:
        """Write one prediction, sooner or later: at most 16 wait for their pictures at any time.

        Args:
            result: What was predicted.
            calibration: Thresholds.

        Raises:
            DataError: If this or an earlier prediction cannot be written; that one gets no line.
        """
        s, p = result.sample, result.prediction
        name = f"{_file_name(s.id)}.png"
        map_path = f"maps/{name}" if p.map is not None and self._maps else None
        overlay_path = f"overlays/{name}" if p.map is not None and self._overlays else None
        row = {
            "id": s.id,
            "image": s.image.as_posix(),
            "frame": s.frame,
            "score": p.score,
            "abnormal": p.score >= calibration.image_threshold,
            "probs": p.probs,
            "label": s.label,
            "anomalous": s.anomalous,
            "group": s.group,
            "tags": sorted(s.tags),
            "map": map_path,
            "overlay": overlay_path,
            "mask_known": result.mask is not None,
        }
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        pictures = self._writers.submit(
            self._draw, result, map_path, overlay_path, threshold=calibration.pixel_threshold
        )
        self._unwritten.append((s.id, line, pictures))
        self._write_lines(_AHEAD)

    def fail(self, id_: str, reason: str) -> None:
        """Write one image that could not be used."""
        self.failed[id_] = reason
        append_line(self.folder / ERRORS, json.dumps({"id": id_, "error": reason}, ensure_ascii=False))

    def flush(self) -> None:
        """Wait until every prediction that was added is in the folder.

        Raises:
            DataError: If one cannot be written; it gets no line, and another call goes on with the next.
        """
        self._write_lines(0)

    def finish(self, status: str, **facts: Any) -> None:  # noqa: ANN401
        """Flush, and write the table and the final ``run.json``.

        Args:
            status: ``"complete"``, ``"interrupted"`` or ``"failed"``.
            facts: More for ``run.json``.

        Raises:
            DataError: If something cannot be written.
        """
        try:
            self.flush()
        finally:
            self._writers.shutdown(cancel_futures=True)
            write_text(self.folder / TABLE, _table(self.folder))
            self._write_run(status, images=len(self.done), failed=len(self.failed), **facts)

    def _draw(
        self,
        result: Result,
        map_path: str | None,
        overlay_path: str | None,
        *,
        threshold: float | None,
    ) -> None:
        """Draw and write the pictures of one prediction, in a thread."""
        found = result.prediction.map
        if found is None:
            return
        if map_path is not None:
            write_map(self.folder / map_path, np.clip(found, 0.0, 1.0))
        if overlay_path is not None:
            write_image(self.folder / overlay_path, overlay(result.image, found, mask=result.mask, threshold=threshold))

    def _write_lines(self, ahead: int) -> None:
        """Append the lines of the oldest predictions until at most ``ahead`` are left, each after its pictures."""
        while len(self._unwritten) > ahead:
            id_, line, pictures = self._unwritten[0]
            wait([pictures])  # an interruption here loses nothing: the line is still in the queue
            self._unwritten.popleft()
            pictures.result()
            append_line(self.folder / PREDICTIONS, line)
            self.done.add(id_)

    def _write_run(self, status: str, **facts: Any) -> None:  # noqa: ANN401
        write_json(self.folder / RUN, {**self._run, "status": status, **facts})

    def _check_same(self, earlier: Mapping[str, Any]) -> None:
        for what, there, here in (
            ("command", earlier.get("command"), self._run["command"]),
            ("model", earlier.get("model", {}).get("digest"), self._run["model"]["digest"]),
        ):
            if there != here:
                msg = (
                    f"{self.folder} holds results of another {what} ({str(there)[:16]}, now {str(here)[:16]}); "
                    "choose another output folder, or delete this one"
                )
                raise DataError(msg)


def read_predictions(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of ``predictions.jsonl``; a line cut off by a kill is passed over."""
    path = folder / PREDICTIONS
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and "id" in row:
                yield row


def _read_run(folder: Path) -> dict[str, Any] | None:
    """The ``run.json`` of an earlier run; None if there was none.

    Raises:
        DataError: If it is damaged, or there are predictions without it.
    """
    path = folder / RUN
    if not path.is_file():
        if (folder / PREDICTIONS).exists():
            msg = f"{folder} holds {PREDICTIONS} but no {RUN}, so nobody knows whose they are; choose another folder"
            raise DataError(msg)
        return None
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        msg = f"{path} is damaged: {e}; choose another output folder, or delete this one"
        raise DataError(msg) from e
    if not isinstance(run, dict) or "command" not in run:
        msg = f"{path} was not written by ultraad; choose another output folder"
        raise DataError(msg)
    return run


def _clear(folder: Path) -> None:
    for name in (PREDICTIONS, TABLE, ERRORS, METRICS, REPORT):
        (folder / name).unlink(missing_ok=True)
    for name in _PICTURES:
        shutil.rmtree(folder / name, ignore_errors=True)


def _file_name(id_: str) -> str:
    """Readable, unique and allowed on every file system: the id's last part and a piece of its hash."""
    last = PurePosixPath(id_).name
    stem, dot, rest = last.rpartition(".")
    frame = rest.partition("#")[2]
    readable = re.sub(r"[^\w.()-]+", "_", stem if dot else last)[:60] + (f"-{frame}" if frame else "")
    return f"{readable}-{hashlib.sha256(id_.encode()).hexdigest()[:8]}"


def _table(folder: Path) -> str:
    """The rows as CSV; one column per class for the probabilities."""
    classes = list(dict.fromkeys(c for row in read_predictions(folder) for c in row["probs"] or ()))
    plain = ("id", "image", "frame", "score", "abnormal", "label", "group", "map", "overlay")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*plain, *(f"p_{c}" for c in classes)])
    for row in read_predictions(folder):
        probs = row["probs"] or {}
        table.writerow([*("" if row[k] is None else row[k] for k in plain), *(probs.get(c, "") for c in classes)])
    return text.getvalue()
