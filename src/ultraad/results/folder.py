"""A folder of results that grows image by image and, after an interruption, is continued where it stopped.

    run.json            what was run, on which images, with which model; "status" says how it ended
    predictions.jsonl   one line per image, in the order of processing
    predictions.csv     the same as a table, written at the end
    errors.jsonl        one line per image that could not be used
    overlays/  maps/    pictures, and maps as 16-bit PNG (value * 65535)

A line is written after its pictures, so every file that ``predictions.jsonl`` names exists. Threads draw and write the
pictures while the next images are predicted; the lines keep the order of :meth:`RunFolder.add`.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import re
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import ValidationError

from ultraad.config import explain
from ultraad.errors import DataError, brief
from ultraad.io.files import append_line, ensure_writable, write_image, write_json, write_map, write_text
from ultraad.io.overlay import overlay
from ultraad.model.calibration import Calibration
from ultraad.results.row import ImageRow, Run, Status
from ultraad.types import Result

RUN, PREDICTIONS, ERRORS, TABLE = "run.json", "predictions.jsonl", "errors.jsonl", "predictions.csv"
METRICS, REPORT = "metrics.json", "report.html"
_PICTURES = ("overlays", "maps")
_ONE_FILE = {errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}
"""Errors of the operating system that concern one file, not the whole folder."""
_WRITERS = 2  # threads; drawing and PNG compression run outside the interpreter's lock
_WAITING = 16  # most images whose line is not written yet: two batches of the usual size; bounds the memory


class RunFolder:
    """The folder of one run.

    Args:
        folder: Made if needed.
        run: The facts about the run; its command and the digest of its model identify it.
        resume: Keep the results of an earlier run of the same command with the same model; otherwise they are removed.
        overlays: Write overlays.
        maps: Write maps.

    Raises:
        DataError: If the folder cannot be written to, or holds results of another model or command.

    Attributes:
        done: Ids that have a line in ``predictions.jsonl``.
        failed: {id: reason} of this run.
    """

    def __init__(self, folder: str | Path, run: Run, *, resume: bool, overlays: bool = True, maps: bool = True) -> None:
        self.folder = ensure_writable(folder)
        self._run = run
        self._overlays, self._maps = overlays, maps
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        earlier = read_run(self.folder)
        if earlier is not None and not resume:
            _clear(self.folder)
        elif earlier is not None:
            self._check_same(earlier)
            self.done = {row.id for row in read_rows(self.folder)}
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="ultraad-writer")
        self._unwritten: deque[tuple[str, str, Future[None]]] = deque()  # (id, line, pictures)
        (self.folder / ERRORS).unlink(missing_ok=True)  # failed images are tried again
        for name in _PICTURES:
            (self.folder / name).mkdir(exist_ok=True)
        self._write_run("running")

    def add(self, result: Result, calibration: Calibration) -> None:
        """Write one prediction, now or a little later: at most 16 wait for their pictures at any time.

        Args:
            result: The predicted sample.
            calibration: Thresholds.

        Raises:
            DataError: If the folder cannot be written to. A prediction that cannot be written although the folder can
                is recorded by :meth:`fail` instead. In both cases it gets no line.
        """
        s = result.sample
        try:
            line, maps, overlays = self._line(result, calibration)
        except ValueError as e:  # a value that JSON does not have, such as NaN; pydantic's error is a ValueError
            self.fail(s.id, f"{s.id} could not be written: {brief(e)}")
            return
        pictures = self._writers.submit(self._draw, result, maps, overlays, threshold=calibration.pixel_threshold)
        self._unwritten.append((s.id, line, pictures))
        self._write_lines(_WAITING)

    def _line(self, result: Result, calibration: Calibration) -> tuple[str, str | None, str | None]:
        """The line of a prediction, and the paths of its map and overlay."""
        s, p = result.sample, result.prediction
        name = f"{_file_name(s.id)}.png"
        map_path = f"maps/{name}" if p.map is not None and self._maps else None
        overlay_path = f"overlays/{name}" if p.map is not None and self._overlays else None
        row = ImageRow(
            id=s.id,
            image=s.image.as_posix(),
            frame=s.frame,
            score=p.score,
            abnormal=p.score >= calibration.image_threshold,
            probs=p.probs,
            label=s.label,
            anomalous=s.anomalous,
            group=s.group,
            tags=tuple(sorted(s.tags)),
            map=map_path,
            overlay=overlay_path,
            mask_known=result.mask is not None,
        )
        return row.to_json(), map_path, overlay_path

    def fail(self, id_: str, reason: str) -> None:
        """Record an image that could not be used."""
        self.failed[id_] = reason
        id_, reason = (text.encode(errors="backslashreplace").decode() for text in (id_, reason))  # odd file names
        append_line(self.folder / ERRORS, json.dumps({"id": id_, "error": reason}, ensure_ascii=False))

    def flush(self) -> None:
        """Wait until every added prediction is in the folder.

        Raises:
            DataError: If the folder cannot be written to. Another call continues with the next prediction.
        """
        self._write_lines(0)

    def finish(self, status: Status, **times: float | None) -> None:
        """Flush, and write the table and the final ``run.json``.

        Args:
            status: How the run ended.
            times: ``seconds`` and ``images_per_second``, for ``run.json``.

        Raises:
            DataError: If something cannot be written.
        """
        try:
            self.flush()
        finally:
            self._writers.shutdown(cancel_futures=True)
            write_text(self.folder / TABLE, _table(self.folder))
            self._write_run(status, images=len(self.done), failed=len(self.failed), **times)

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

    def _write_lines(self, most: int) -> None:
        """Append the lines of the oldest predictions, each after its pictures, until at most ``most`` wait."""
        while len(self._unwritten) > most:
            id_, line, pictures = self._unwritten[0]
            wait([pictures])  # if this is interrupted, the line is still in the queue
            self._unwritten.popleft()
            e = pictures.exception()
            if isinstance(e, DataError) and getattr(e.__cause__, "errno", None) not in _ONE_FILE:
                raise e  # a full disk or a missing folder: no other image can be written either
            if e is not None:
                self.fail(id_, f"{id_} could not be written: {brief(e)}")
                continue
            append_line(self.folder / PREDICTIONS, line)
            self.done.add(id_)

    def _write_run(self, status: Status, **facts: float | None) -> None:
        write_json(self.folder / RUN, self._run.model_copy(update={"status": status, **facts}).to_dict())

    def _check_same(self, earlier: Run) -> None:
        digests = [run.model.digest if run.model else None for run in (earlier, self._run)]
        for what, there, here in (("command", earlier.command, self._run.command), ("model", *digests)):
            if there != here:
                msg = (
                    f"{self.folder} holds results of another {what} ({str(there)[:16]}, now {str(here)[:16]}); "
                    "choose another output folder, or delete this one"
                )
                raise DataError(msg)


def read_rows(folder: Path) -> Iterator[ImageRow]:
    """The rows of ``predictions.jsonl``, in order; none if there is no such file. A cut-off line is skipped.

    Raises:
        DataError: If a line is whole but not a row.
    """
    for number, found in _lines(folder / PREDICTIONS):
        try:
            yield ImageRow.model_validate(found)
        except ValidationError as e:
            where = f"{folder / PREDICTIONS}, line {number}"
            msg = f"{explain(e, where=where)}. The file is damaged or from another version; run the command again"
            raise DataError(msg) from e


def read_errors(folder: Path) -> tuple[tuple[str, str], ...]:
    """(id, reason) of every image in ``errors.jsonl``, in order. A cut-off line is skipped."""
    found = (row for _, row in _lines(folder / ERRORS))
    return tuple((str(row.get("id", "?")), str(row.get("error", "no reason given"))) for row in found)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(1-based number, object) of every whole line."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:  # a kill may cut a character in two
        for number, line in enumerate(lines, start=1):
            try:
                found = json.loads(line)
            except ValueError:
                continue  # cut off by a kill
            if isinstance(found, dict):
                yield number, found


def read_run(folder: Path) -> Run | None:
    """``run.json``; None if there is neither this file nor a prediction.

    Raises:
        DataError: If it is damaged or from another version, or if there are predictions without it.
    """
    path = folder / RUN
    if not path.is_file():
        if (folder / PREDICTIONS).exists():
            msg = f"{folder} holds {PREDICTIONS} but no {RUN}, so its model is unknown; choose another folder"
            raise DataError(msg)
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        msg = f"{path} is damaged: {e}; choose another output folder, or delete this one"
        raise DataError(msg) from e
    if not isinstance(found, dict) or "command" not in found:
        msg = f"{path} was not written by ultraad; choose another output folder"
        raise DataError(msg)
    try:
        return Run.model_validate(found)
    except ValidationError as e:
        msg = (
            f"{explain(e, where=str(path))}. Another version wrote it; choose another output folder, or delete this one"
        )
        raise DataError(msg) from e


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
    return f"{readable}-{hashlib.sha256(id_.encode(errors='surrogateescape')).hexdigest()[:8]}"


def _table(folder: Path) -> str:
    """The rows as CSV, with one column of probabilities for each class."""
    classes = list(dict.fromkeys(c for row in read_rows(folder) for c in row.probs or ()))
    plain = ("id", "image", "frame", "score", "abnormal", "label", "group", "map", "overlay")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*plain, *(f"p_{c}" for c in classes)])
    for row in read_rows(folder):
        values = [getattr(row, key) for key in plain]
        probs = row.probs or {}
        table.writerow([*("" if v is None else v for v in values), *(probs.get(c, "") for c in classes)])
    return text.getvalue()
