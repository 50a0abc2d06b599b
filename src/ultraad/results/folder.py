"""A folder of results that grows image by image and, after an interruption, is continued where it stopped.

    run.json            what was run, on which images, with which model; "status" says how it ended
    predictions.jsonl   one line per image, in the order of processing
    predictions.csv     the same as a table, written at the end; a text that begins like a formula gets an apostrophe
    errors.jsonl        one line per image that could not be used
    overlays/  maps/    pictures, and maps as 16-bit PNG (value * 65535) or as grids (:mod:`ultraad.io.maps`)
    masks/  contours/   masks of 0 and 255, and pictures with their outlines
    coco.json           the lesions, written at the end (:mod:`.coco`)
    dicom/              DICOM objects, written at the end (:mod:`ultraad.dicom.saving`)

Each frame of a video or camera is a prediction of its own; their overlays are one video, ``overlays/NAME.mp4``.

The files of the last four lines are written if they are asked for (:data:`.saving.SAVES`). A line of
``predictions.jsonl`` is written after its pictures, so every file that it names exists. Threads draw and write the
pictures while the next images are predicted; the lines keep the order of :meth:`RunFolder.add`.

An image has either a line in ``predictions.jsonl``, and then it counts in the metrics, or one in ``errors.jsonl``.
"""

from __future__ import annotations

import errno
import json
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ultraad.config import explain
from ultraad.errors import DataError, UltraadError, brief, first_names, printable
from ultraad.fan import Fan
from ultraad.io.files import append_line, ensure_writable, json_lines, remove_leftovers, write_json, write_text
from ultraad.io.find import check_output
from ultraad.io.lock import lock_folder
from ultraad.io.overlay import overlay
from ultraad.model.abstain import is_unsure
from ultraad.model.reasons import Why
from ultraad.results.coco import coco
from ultraad.results.inputs import input_file
from ultraad.results.others import keep_failures, of_all_runs
from ultraad.results.outdated import outdated
from ultraad.results.overlay_video import Drawn, OverlayVideo
from ultraad.results.row import ImageRow, Run, ScopeRow, Status, VideoFacts
from ultraad.results.same import check_same
from ultraad.results.saving import DICOM, FOLDERS, USUAL, Saving, lesions_of, paths_of, remove_saved, write_pictures
from ultraad.results.table import csv_of
from ultraad.results.top import Top, gets_overlay, highest, remove_overlays
from ultraad.types import Result, Sample

_log = logging.getLogger(__name__)

RUN, PREDICTIONS, ERRORS, TABLE = "run.json", "predictions.jsonl", "errors.jsonl", "predictions.csv"
METRICS, REPORT, COCO = "metrics.json", "report.html", "coco.json"
_FILES = (TABLE, ERRORS, METRICS, REPORT, COCO)
_ONE_FILE = {errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}
"""Errors of the operating system that concern one file, not the whole folder."""
_WRITERS = 2  # threads; drawing and PNG compression run outside the interpreter's lock
_WAITING = 16  # most images whose line is not written yet: two batches of the usual size; bounds the memory


class RunFolder:
    """The folder of one run.

    Args:
        folder: Made if needed.
        run: The facts about the run; its command, the digest of its model and its thresholds identify it.
        resume: Keep the results of an earlier run of the same command with the same model and thresholds; otherwise
            they are removed.
        wanted: The images of this run, and its videos by name. If the file of one was replaced since it was predicted,
            the model saw another region of it, or less was saved then, its result is removed, with a warning.
        save: What to save; names are those of :data:`.saving.SAVES`, and :data:`.saving.WHY` if results come with their
            reasons.
        save_of_videos: The same of the frames of videos; None: the same.
        measure: Called with each result when its pictures are written, before its line; a DataError makes the result a
            failure.

    Raises:
        DataError: If the folder cannot be written to, holds images of this run, other files under the names of results,
            or results of another model or command or at other thresholds, or another run is writing to it.

    Attributes:
        done: Ids that have a line in ``predictions.jsonl``.
        failed: {id: reason} of this run.
        untried: The same of earlier runs, of images and videos that are not among those of this run.
        out_of_scope: Number of images and frames of this run that the model cannot judge.
        unsure: Number of those whose class is left open.
        videos: {name: facts} of the videos that were read to their end.
        overlay_video: Gets the overlays of the frames that are added, in their order; None: nothing does.
    """

    def __init__(
        self,
        folder: str | Path,
        run: Run,
        *,
        resume: bool,
        wanted: Collection[Sample] = (),
        save: Saving | Collection[str] = USUAL,
        save_of_videos: Saving | Collection[str] | None = None,
        measure: Callable[[Result], object] | None = None,
    ) -> None:
        self.folder = ensure_writable(folder)
        self._run = run
        self._save = Saving.of(save)
        self._save_of_videos = self._save if save_of_videos is None else Saving.of(save_of_videos)
        self._top = Top(self._save.top)
        self._measure = measure
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self.untried: dict[str, str] = {}
        self.out_of_scope = self.unsure = 0
        self.videos: dict[str, VideoFacts] = {}
        self.overlay_video: OverlayVideo | None = None
        inputs = (path for s in wanted for path in (s.image, *s.masks) if isinstance(path, Path))
        if not (self.folder / PREDICTIONS).exists():  # else the record is missed
            check_output(self.folder, record=RUN, names=(*_FILES, *FOLDERS, DICOM), inputs=inputs)
        self._lock = lock_folder(self.folder)
        try:
            self._continue(resume=resume, wanted={s.id: s for s in wanted})
        except (UltraadError, OSError):
            self._lock.release()
            raise
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="ultraad-writer")
        self._unwritten: deque[tuple[Result, ImageRow, Future[Drawn]]] = deque()
        self._appended: set[str] = set()

    def _continue(self, *, resume: bool, wanted: Mapping[str, Sample]) -> None:
        """Prepare the folder: keep or remove what an earlier run left."""
        earlier = read_run(self.folder)
        if earlier is not None and not resume:
            _clear(self.folder)
        elif earlier is not None:
            check_same(self.folder, earlier, self._run)
            self.done = {row.id for row in read_rows(self.folder)}
            if missing := earlier.lost(len(self.done)):
                _log.warning("%d line(s) of %s are damaged or gone; their images are new", missing, PREDICTIONS)
            self.videos = {video.name: video for video in earlier.videos}
            self._forget(wanted)
            self.untried = keep_failures(self.folder / ERRORS, wanted)  # the others are tried again
            data = of_all_runs(earlier.data, self._run.data, read_rows(self.folder), self.untried, wanted)
            self._run = self._run.model_copy(update={} if data is None else {"data": data})
        remove_leftovers(self.folder)
        self._write_run("running")  # the first file of ours
        for name in (self._save.names | self._save_of_videos.names) & FOLDERS.keys():
            (self.folder / name).mkdir(exist_ok=True)

    def _forget(self, wanted: Mapping[str, Sample]) -> None:
        """Remove the lines of images that must be predicted again, and say why."""
        top = highest(read_rows(self.folder), self._save.top)
        gone = set[str]()
        has_maps = self._run.thresholds.pixel is not None
        for why, ids in outdated(read_rows(self.folder), wanted, self._saved_of, top, maps=has_maps).items():
            _log.warning("%d %s and are predicted again: %s", len(ids), why, first_names(ids))
            gone.update(ids)
        if gone:
            kept = [row.to_json() for row in read_rows(self.folder) if row.id not in gone]
            write_text(self.folder / PREDICTIONS, "".join(f"{line}\n" for line in kept))
            self.done -= gone
        self._top.begin(row for row in read_rows(self.folder) if row.id in top)

    def add(self, result: Result, *, why: Why | None = None) -> None:
        """Write one prediction, now or a little later: at most 16 wait for their pictures at any time.

        Of one that has a line already, only the overlay is drawn, for :attr:`overlay_video`.

        Raises:
            DataError: If the folder cannot be written to. A prediction that cannot be written although the folder can
                is recorded by :meth:`fail` instead. In both cases it gets no line.
        """
        s = result.sample
        try:
            row = self._row(result, why)
            row.to_json()
        except ValueError as e:  # a value that JSON does not have, such as NaN; pydantic's error is a ValueError
            self.fail(s.id, f"{s.id} could not be written: {brief(e)}")
            return
        self.out_of_scope += row.out_of_scope
        self.unsure += bool(row.unsure)
        pictures = self._writers.submit(self._draw, result, row)
        self._unwritten.append((result, row, pictures))
        self._write_lines(_WAITING)

    def _row(self, result: Result, why: Why | None) -> ImageRow:
        """The row of a prediction, without the facts about its file."""
        s, p, cut = result.sample, result.prediction, self._run.thresholds.image
        assert cut is not None  # known to every run that predicts
        save, abnormal = self._saved_of(s.seconds), p.score >= cut
        top = save.overlays == "top" and s.seconds is None and self._top.takes(s.id, p.score)
        drawn = gets_overlay(save, abnormal=abnormal, top=top)
        return ImageRow(
            id=s.id,
            image=_file_of(s),
            frame=s.frame,
            **({} if s.seconds is None else {"seconds": s.seconds}),
            **({} if s.depth is None else {"depth": s.depth}),
            width=result.image.shape[1],
            height=result.image.shape[0],
            score=p.score,
            abnormal=abnormal,
            probs=p.probs,
            unsure=is_unsure(p, self._run.thresholds.abstain),
            **({} if p.prediction_set is None else {"prediction_set": p.prediction_set}),
            **({} if why is None else {"why": why}),
            in_scope=None if p.in_scope is None else ScopeRow(**asdict(p.in_scope)),
            label=s.label,
            anomalous=s.anomalous,
            group=s.group,
            tags=tuple(sorted(s.tags)),
            region=s.region,
            **({"fan": s.fan} if isinstance(s.fan, Fan) else {}),
            mask_known=result.mask is not None,
            **paths_of(result, save, overlay=drawn),
        )

    def fail(self, id_: str, reason: str) -> None:
        """Record an image that could not be used."""
        self.failed[id_] = reason = printable(reason)
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
            try:
                remove_overlays(self.folder, self._top.left, rows=read_rows(self.folder), table=PREDICTIONS)
                self._write_tables()
                failed = len(self.failed.keys() | self.untried.keys())
                self._write_run(status, images=len(self.done), failed=failed, **times)
            finally:
                self._lock.release()

    def _draw(self, result: Result, row: ImageRow) -> Drawn:
        """Draw and write the pictures of one prediction, in a thread."""
        threshold, found = self._run.thresholds.pixel, result.prediction.map
        shown = None
        if self.overlay_video is not None and found is not None:
            shown = overlay(result.image, found, threshold=threshold)
        if row.id in self.done:
            return Drawn({}, shown)
        write_pictures(self.folder, result, row, threshold=threshold)
        rest: dict[str, Any] = {"file": input_file(result.sample.image)}
        if "boxes" in self._saved_of(row.seconds).names and found is not None and threshold is not None:
            rest |= lesions_of(result, threshold)
        return Drawn(rest, shown)

    def _saved_of(self, seconds: float | None) -> Saving:  # only the frame of a video has a time
        return self._save if seconds is None else self._save_of_videos

    def _write_lines(self, most: int) -> None:
        """Append the lines of the oldest predictions, each after its pictures, until at most ``most`` wait.

        Those whose pictures are there do not wait, so that a kill costs as little as possible.
        """
        while self._unwritten and (len(self._unwritten) > most or self._unwritten[0][2].done()):
            result, row, pictures = self._unwritten[0]
            wait([pictures])
            try:
                self._write_line(result, row, pictures)
            except DataError:
                self._unwritten.popleft()
                raise
            self._unwritten.popleft()  # if it was interrupted, the line is still in the queue

    def _write_line(self, result: Result, row: ImageRow, pictures: Future[Drawn]) -> None:
        e = pictures.exception()
        if isinstance(e, DataError) and getattr(e.__cause__, "errno", None) not in _ONE_FILE:
            raise e  # a full disk or a missing folder: no other image can be written either
        if e is not None:
            self._discard(row, f"{row.id} could not be written: {brief(e)}")
            return
        try:
            if self._measure is not None:
                self._measure(result)
        except DataError as unmeasured:
            self._discard(row, str(unmeasured))
            return
        drawn = pictures.result()
        if row.id not in self.done:
            text = row.model_copy(update=drawn.rest).to_json()
            self._writers.submit(self._append, row.id, text).result()  # in a thread, which Ctrl-C does not reach
            self.done.add(row.id)
        if self.overlay_video is not None and drawn.overlay is not None:
            self.overlay_video.add(drawn.overlay, seconds=row.seconds or 0.0, score=row.score)

    def _append(self, id_: str, text: str) -> None:
        """Append a line, once: after an interruption, the same is asked again."""
        if id_ not in self._appended:
            self._appended.add(id_)
            append_line(self.folder / PREDICTIONS, text)

    def _discard(self, row: ImageRow, reason: str) -> None:
        """Record a failure, and remove the pictures of it that were written."""
        if row.id in self.done:  # only its overlay was to be drawn
            self.fail(row.video or row.id, reason)
            return
        for field in FOLDERS.values():
            with suppress(OSError):  # a folder in the picture's place
                (self.folder / (getattr(row, field) or "")).unlink()
        self.fail(row.id, reason)

    def _write_tables(self) -> None:
        write_text(self.folder / TABLE, csv_of(lambda: read_rows(self.folder)))
        lesions = coco(lambda: read_rows(self.folder), self._run, self.folder)
        if lesions is None:
            (self.folder / COCO).unlink(missing_ok=True)  # of a run whose images were all predicted again
        else:
            write_text(self.folder / COCO, lesions)

    def _write_run(self, status: Status, **facts: float | None) -> None:
        videos = {"videos": tuple(self.videos.values())} if self.videos else {}
        write_json(self.folder / RUN, self._run.model_copy(update={"status": status, **facts, **videos}).to_dict())


def _file_of(sample: Sample) -> str:
    """The file, video or object on a store that a sample is from, as its row has it."""
    if sample.stored is not None:
        return sample.stored.url
    return sample.image.as_posix() if sample.seconds is None else sample.id.rpartition("#")[0]


def read_rows(folder: Path) -> Iterator[ImageRow]:
    """The rows of ``predictions.jsonl``, in order; none if there is no such file. A cut-off line is skipped.

    Raises:
        DataError: If a line is whole but not a row.
    """
    for number, found in json_lines(folder / PREDICTIONS):
        try:
            yield ImageRow.model_validate(found)
        except ValidationError as e:
            where = f"{folder / PREDICTIONS}, line {number}"
            msg = f"{explain(e, where=where)}. The file is damaged or from another version; run the command again"
            raise DataError(msg) from e


def read_errors(folder: Path) -> tuple[tuple[str, str], ...]:
    """(id, reason) of every image in ``errors.jsonl``, in order. A cut-off line is skipped."""
    found = (row for _, row in json_lines(folder / ERRORS))
    return tuple((str(row.get("id", "?")), str(row.get("error", "no reason given"))) for row in found)


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
    except (OSError, ValueError, RecursionError) as e:
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
    """Remove the results of an earlier run, and nothing else."""
    for name in (PREDICTIONS, *_FILES):
        (folder / name).unlink(missing_ok=True)
    remove_saved(folder)
