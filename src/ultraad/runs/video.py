"""Predict the frames of one video or camera into a results folder, with a video of their overlays.

    VideoReader.frames -> (a thread) -> Predictor.stream -> a line per frame, and the overlay video

A few frames are in memory at any time, whatever the length of the video. Frames that have a line already are predicted
again only if the overlay video was not finished, as it cannot be drawn without their maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ultraad.errors import Caught, DataError, UltraadError, brief
from ultraad.io.overlay import overlay
from ultraad.io.video import VideoFrame, VideoReader, VideoWriter, public_name
from ultraad.model.predictor import Predictor
from ultraad.model.stream import Live
from ultraad.results.folder import RunFolder, input_file
from ultraad.results.row import InputFile, VideoFacts
from ultraad.results.saving import file_name
from ultraad.runs.job import Outcome
from ultraad.types import Prediction, Result, Sample

_AHEAD = 8  # decoded frames of a file that wait for the model


@dataclass(frozen=True, slots=True)
class Choice:
    """Which frames are predicted.

    Attributes:
        every: Every how many frames one is.
        frame: Only this 0-based frame; None for all.
        limit: Only the first seconds; None for all.
    """

    every: int = 1
    frame: int | None = None
    limit: float | None = None

    def takes(self, frame: VideoFrame) -> bool:
        """Whether a frame is predicted, if it is not beyond the end."""
        return frame.number % self.every == 0 if self.frame is None else frame.number == self.frame

    def ends_before(self, frame: VideoFrame) -> bool:
        """Whether neither this frame nor a later one is predicted."""
        return (self.limit is not None and frame.seconds >= self.limit) or (
            self.frame is not None and frame.number > self.frame
        )

    def count(self, frames: int | None) -> int:
        """Frames of a video of so many that are predicted, as far as known; 0 if unknown."""
        return 0 if frames is None else 1 if self.frame is not None else -(-frames // self.every)


def predict_video(
    model: Predictor,
    name: str | Path,
    folder: RunFolder,
    outcome: Outcome,
    *,
    choice: Choice,
    overlays: bool,
    threshold: float | None,
    progress: Callable[[int, int], None],
) -> int:
    """Predict one video or camera. What cannot be read is recorded as its failure; the frames before it are kept.

    Args:
        model: Any model.
        name: A file or camera, as in :func:`ultraad.io.video.is_video`.
        folder: Gets the lines, and the facts about the video when it has been read to its end.
        outcome: Counts of the run, which are continued.
        choice: Which frames are predicted.
        overlays: Write the overlay video.
        threshold: Of pixels, for the overlays.
        progress: Called with (frames done, frames; 0 if unknown).

    Returns:
        Frames that have a line now.

    Raises:
        DataError: If the folder cannot be written to, or holds a recording of the same camera.
        KeyboardInterrupt: If the run is interrupted while a file is read. An interrupted camera has simply ended.
    """
    try:
        video = VideoReader(name)
    except DataError as e:
        folder.fail(public_name(name), str(e))
        return 0
    if video.live and any(id_.startswith(f"{video.name}#") for id_ in folder.done):
        video.close()
        msg = f"{folder.folder} holds a recording of {video.name} already; choose another output folder"
        raise DataError(msg)
    path = f"overlays/{file_name(video.name)}.mp4" if overlays and threshold is not None else None
    job = _Job(model, video, folder, choice, path=path, threshold=threshold or 0.0)
    if job.was_done():
        video.close()
    else:
        job.run(progress)
    outcome.skipped += job.skipped
    return job.predicted + job.skipped


class _Job:
    """One video on its way.

    Attributes:
        predicted: Frames that got a line.
        skipped: Frames that had one already.
    """

    def __init__(
        self,
        model: Predictor,
        video: VideoReader,
        folder: RunFolder,
        choice: Choice,
        *,
        path: str | None,
        threshold: float,
    ) -> None:
        self._model, self._video, self._folder, self._choice = model, video, folder, choice
        self._path, self._threshold = path, threshold
        self._file = None if video.live else input_file(Path(video.name))
        self._writer: VideoWriter | None = None
        self._size = (0, 0)
        self._taken = self.predicted = self.skipped = 0

    def was_done(self) -> bool:
        """Whether an earlier run did the same with the same file; counts its frames and tells its fault again."""
        earlier = self._folder.videos.get(self._video.name)
        if earlier is None or _work(earlier) != (self._file, self._choice):
            return False
        if self._path is not None and not (self._folder.folder / self._path).is_file():
            return False
        if sum(id_.startswith(f"{self._video.name}#") for id_ in self._folder.done) < earlier.frames:
            return False
        self.skipped = earlier.frames
        if earlier.fault is not None:
            self._folder.fail(self._video.name, earlier.fault)
        return True

    def run(self, progress: Callable[[int, int], None]) -> None:
        """Predict the frames that are wanted."""
        whole = False
        try:
            problem = self._predict(progress)
            if problem is None and self._writer is not None:
                self._writer.finish()
            whole = problem is None
        finally:
            if not whole and self._writer is not None:
                self._writer.discard()
        fault = problem or self._video.fault
        if fault is not None:
            self._folder.fail(self._video.name, fault)
        if whole and self.predicted:
            self._folder.videos[self._video.name] = self._facts()

    def _predict(self, progress: Callable[[int, int], None]) -> str | None:
        """Predict frame after frame; returns what the model could not do, which ends the video."""
        total = self._choice.count(self._video.expected)
        frames = self._model.stream(self._wanted(), newest=self._video.live, prefetch=1 if self._video.live else _AHEAD)
        try:
            while True:
                live: Live | None = None
                with Caught() as caught:  # not what is written: a full disk ends the run
                    live = next(frames, None)
                e = caught.error
                if isinstance(e, UltraadError) and not isinstance(e, DataError):
                    raise e
                if e is not None:
                    return str(e) if isinstance(e, DataError) else f"{self._video.name} could not be scored: {brief(e)}"
                if live is None:
                    return None
                self._keep(live.stamp, live.prediction)
                done = self.predicted + self.skipped
                progress(done, max(total, done) if total else 0)
        except KeyboardInterrupt:
            if not self._video.live:
                raise
            return None

    def _wanted(self) -> Iterator[tuple[NDArray[np.uint8], VideoFrame]]:
        """The frames to predict, in the thread of the source."""
        with closing(self._video.frames()) as frames:  # also when it ends early
            for frame in frames:
                if self._choice.ends_before(frame):
                    return
                if not self._choice.takes(frame):
                    continue
                self._taken += 1
                if self._path is None and self._id(frame) in self._folder.done:
                    self.skipped += 1
                else:
                    yield frame.image, frame

    def _id(self, frame: VideoFrame) -> str:
        return f"{self._video.name}#{frame.number}"

    def _keep(self, frame: VideoFrame, prediction: Prediction) -> None:
        """Write the line of a frame, unless there is one, and its picture of the overlay video."""
        id_ = self._id(frame)
        if id_ in self._folder.done:
            self.skipped += 1
        else:
            sample = Sample(id=id_, image=Path(self._video.name), frame=frame.number)
            result = Result(sample, frame.image, replace(prediction, id=id_), mask=None)
            self._folder.add(result, seconds=frame.seconds)
            self.predicted += 1
        self._size = frame.image.shape[:2]
        if self._path is None or prediction.map is None:
            return
        if self._writer is None:
            self._writer = VideoWriter(
                self._folder.folder / self._path,
                size=self._size,
                rate=self._video.rate / self._choice.every,
                time_base=self._video.time_base,
                aspect=self._video.aspect,
            )
        drawn = overlay(frame.image, prediction.map, threshold=self._threshold)
        self._writer.add(drawn, time=frame.time, duration=frame.duration * self._choice.every)

    def _facts(self) -> VideoFacts:
        frames = self.predicted + self.skipped
        return VideoFacts(
            name=self._video.name,
            file=self._file,
            frames=frames,
            dropped=self._taken - frames if self._video.live else 0,
            every=self._choice.every,
            frame=self._choice.frame,
            limit=self._choice.limit,
            width=self._size[1],
            height=self._size[0],
            rate=round(float(self._video.rate), 6),
            overlay=self._path if self._writer is not None else None,
            fault=self._video.fault,
        )


def _work(video: VideoFacts) -> tuple[InputFile | None, Choice]:
    """What a video and a choice of frames have to be for the same result."""
    return video.file, Choice(video.every, video.frame, video.limit)
