"""Predict the frames of one video or camera into a results folder, with a video of their overlays.

    VideoReader.frames -> Predictor.predict_frames (file) or Predictor.stream (camera) -> a line per frame, overlays

A few frames are in memory at any time, whatever the length of the video. Frames that have a line already are predicted
again only if the overlay video was not finished, as it cannot be drawn without their maps, or if frames are smoothed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ultraad.data.fans import FanWatch, tell_unsure
from ultraad.errors import DataError
from ultraad.fan import Fan, FanChoice
from ultraad.io.video import Choice, VideoFrame, VideoReader, is_camera, public_name
from ultraad.metrics.key_frames import key_frames
from ultraad.model.predictor import Predictor
from ultraad.results.folder import RunFolder, read_rows
from ultraad.results.inputs import input_file
from ultraad.results.overlay_video import OverlayVideo, path_of
from ultraad.results.row import ImageRow, InputFile, Peak, VideoFacts
from ultraad.runs.job import failing
from ultraad.runs.smoothing import Smoother, smoothed
from ultraad.types import Result, Sample


def refuse_second_recording(folder: RunFolder, name: str) -> None:
    """Refuse a camera that a folder has frames of already: their numbers begin again.

    Raises:
        DataError: If there are any.
    """
    if any(id_.startswith(f"{public_name(name)}#") for id_ in folder.done):
        msg = f"{folder.folder} holds a recording of {public_name(name)} already; choose another output folder"
        raise DataError(msg)


def predict_video(
    model: Predictor,
    name: str | Path,
    folder: RunFolder,
    *,
    choice: Choice,
    fan: FanChoice,
    smooth: float,
    overlays: bool,
    batch_size: int,
    progress: Callable[[int, int], None],
) -> tuple[int, VideoFacts | None]:
    """Predict one video or camera. What cannot be read is recorded as its failure; the frames around it are kept.

    Args:
        model: Any model.
        name: A file, or a camera as in :func:`ultraad.io.video.is_camera`.
        folder: Gets the lines, and the facts about the video when it has been read to its end.
        choice: Which frames are predicted.
        fan: As in :func:`ultraad.predict`.
        smooth: Likewise.
        overlays: Write the overlay video.
        batch_size: Images per forward pass, of files.
        progress: Called with (frames done, frames; 0 if unknown).

    Returns:
        (frames that had a line before; what is known about the video, None if it was not read).

    Raises:
        DataError: If the folder cannot be written to.
        KeyboardInterrupt: If the run is interrupted while a file is read. An interrupted camera has simply ended.
    """
    job = _Job(
        model, name, folder, choice, fan=fan, smooth=smooth, overlays=overlays, batch_size=batch_size, progress=progress
    )
    if job.was_done():
        return job.skipped, folder.videos[public_name(name)]
    try:
        reader = VideoReader(name, choice)
    except DataError as e:
        folder.fail(public_name(name), str(e))
        return 0, None
    with closing(reader):
        found = job.run(reader)
    return job.skipped, found


class _Job:
    """One video on its way.

    Attributes:
        skipped: Frames that had a line before.
    """

    def __init__(
        self,
        model: Predictor,
        name: str | Path,
        folder: RunFolder,
        choice: Choice,
        *,
        fan: FanChoice,
        smooth: float,
        overlays: bool,
        batch_size: int,
        progress: Callable[[int, int], None],
    ) -> None:
        self._model, self._folder, self._choice = model, folder, choice
        self._name, self._live = public_name(name), is_camera(name)
        self._fan, self._smooth = FanWatch(fan), smooth
        self._overlays, self._batch_size, self._progress = overlays, batch_size, progress
        self._file: InputFile | None = None if self._live else input_file(Path(name))
        self.skipped = self._seen = self._failed = 0
        self._last = -1

    def _earlier(self) -> VideoFacts | None:
        """The facts of an earlier run that read the same frames of the same file."""
        facts = self._folder.videos.get(self._name)
        if facts is None or self._file is None or facts.file != self._file:
            return None
        return facts if Choice(facts.every, facts.frame, facts.limit) == self._choice else None

    def _overlay_is_there(self) -> bool:
        earlier = self._earlier()
        there = earlier is not None and earlier.overlay is not None
        return there and (self._folder.folder / path_of(self._name)).is_file()

    def was_done(self) -> bool:
        """Whether an earlier run did all of this; counts its frames."""
        earlier = self._earlier()
        if earlier is None or earlier.failed or (self._overlays and not self._overlay_is_there()):
            return False
        self.skipped = sum(id_.startswith(f"{self._name}#") for id_ in self._folder.done)
        return self.skipped == earlier.frames

    def run(self, reader: VideoReader) -> VideoFacts | None:
        """Predict the frames that are wanted, and keep the facts; None if no frame has a line."""
        folder = self._folder
        if self._overlays and not self._overlay_is_there():
            rate = reader.rate / self._choice.every
            folder.overlay_video = OverlayVideo(folder.folder, self._name, rate=rate, real_time=self._live)
        whole = False
        try:
            if self._live:
                with suppress(KeyboardInterrupt):
                    self._predict_live(reader)
                reader.close()
            else:
                self._predict_file(reader)
            folder.flush()
            whole = True
        finally:
            written, folder.overlay_video = folder.overlay_video, None
            if written is not None and not whole:
                written.discard()
        self._note_faults(reader)
        if self._fan.now is not None and self._fan.now.kind == "none":
            tell_unsure([self._name])
        try:
            if written is not None:
                written.finish()
        except DataError as e:
            folder.fail(self._name, str(e))
            self._failed, written = self._failed + 1, None
        except KeyboardInterrupt:
            if written is not None:
                written.discard()
            raise
        facts = self._facts(reader, written)
        folder.videos.pop(self._name, None)
        if facts is not None:
            folder.videos[self._name] = facts
        return facts

    def _predict_file(self, reader: VideoReader) -> None:
        frames = self._wanted(reader)
        results = self._model.predict_frames(frames, batch_size=self._batch_size, on_error=failing(self._folder))
        for result in smoothed(results, self._smooth):
            self._keep(reader, result)
        self._note_faults(reader)

    def _predict_live(self, reader: VideoReader) -> None:
        frames = ((frame.image, frame) for frame in reader.frames())
        seen = self._model.stream(frames, fan=self._fan, newest=True, on_error=self._unscored)
        smoother = Smoother(self._smooth)
        with closing(seen):
            for live in seen:
                frame: VideoFrame = live.stamp
                sample = self._sample(frame, self._fan.now)
                found = smoother.next(replace(live.prediction, id=sample.id), frame.seconds)
                self._keep(reader, Result(sample, frame.image, found, mask=None))

    def _unscored(self, number: int, error: DataError) -> None:
        self._folder.fail(f"{self._name}#{number * self._choice.every}", f"{self._name}: {error}")
        self._failed += 1

    def _wanted(self, reader: VideoReader) -> Iterator[tuple[Sample, NDArray[np.uint8]]]:
        """The frames to predict."""
        with closing(reader.frames()) as frames:
            for frame in frames:
                sample = self._sample(frame, self._fan.see(frame.image))
                there = sample.id in self._folder.done
                self.skipped += there
                if not there or self._smooth or self._folder.overlay_video is not None:
                    yield sample, frame.image
                else:
                    self._tell(reader)

    def _sample(self, frame: VideoFrame, fan: Fan | None) -> Sample:
        number = frame.number
        return Sample(f"{self._name}#{number}", Path(self._name), frame=number, seconds=frame.seconds, fan=fan)

    def _keep(self, reader: VideoReader, result: Result) -> None:
        self._last = result.sample.frame
        self._folder.add(result)
        self._note_faults(reader)
        self._tell(reader)

    def _tell(self, reader: VideoReader) -> None:
        self._seen += 1
        frames, c = reader.expected, self._choice
        total = 0 if frames is None or c.seconds is not None else 1 if c.frame is not None else -(-frames // c.every)
        self._progress(self._seen, max(total, self._seen) if total else 0)

    def _note_faults(self, reader: VideoReader) -> None:
        while reader.faults:
            id_, reason = reader.faults.pop(0)
            self._folder.fail(id_, reason)
            self._failed += 1

    def _facts(self, reader: VideoReader, written: OverlayVideo | None) -> VideoFacts | None:
        """What there is to say about the frames that have lines; None if there are none."""
        rows = [row for row in read_rows(self._folder.folder) if row.video == self._name]
        if not rows:
            return None
        times = sorted(row.seconds for row in rows if row.abnormal and row.seconds is not None)
        top = max(rows, key=lambda row: (row.score, -row.frame))
        earlier = self._earlier() if written is None and self._overlay_is_there() else None
        picture = written.picture if written else earlier.peak.overlay if earlier and earlier.peak else None
        c = self._choice
        return VideoFacts(
            name=self._name,
            file=self._file,
            frames=len(rows),
            failed=self._failed,
            dropped=max(0, self._last + 1 - len(rows)) if self._live else 0,
            abnormal=len(times),
            first=times[0] if times else None,
            last=times[-1] if times else None,
            peak=Peak(frame=top.frame, seconds=_seconds(top), score=top.score, overlay=picture),
            key_frames=key_frames(((r.frame, r.score) for r in rows if r.abnormal), seconds=1 / reader.rate),
            seconds=max(map(_seconds, rows)),
            every=c.every,
            frame=c.frame,
            limit=c.seconds,
            rate=round(reader.rate, 6),
            overlay=written.path if written else earlier.overlay if earlier else None,
        )


def _seconds(row: ImageRow) -> float:
    return row.seconds or 0.0
