"""The overlays of the frames of one video, as a video."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ultraad.io.files import write_image
from ultraad.io.video_writer import VideoWriter
from ultraad.results.saving import file_name


class Drawn(NamedTuple):
    """What was made of a prediction: the rest of its row, and its overlay uint8 (h w 3) if a video takes it."""

    rest: dict[str, Any]
    overlay: NDArray[np.uint8] | None


class OverlayVideo:
    """Takes overlays in the order of display; the one with the highest score is kept as a picture, too.

    Args:
        folder: Of the run.
        name: Of the video or camera.
        rate: Frames a second.
        real_time: As in :class:`~ultraad.io.video_writer.VideoWriter`.

    Attributes:
        path: Of the video, below the folder.
        picture: Of the picture, likewise; None before :meth:`finish`.
    """

    def __init__(self, folder: Path, name: str, *, rate: float, real_time: bool) -> None:
        self.path = path_of(name)
        self.picture: str | None = None
        self._folder = folder
        self._writer = VideoWriter(folder / self.path, rate=rate, real_time=real_time)
        self._best: tuple[float, NDArray[np.uint8]] | None = None

    def add(self, overlay: NDArray[np.uint8], *, seconds: float, score: float) -> None:
        """Add the overlay uint8 (h w 3) of the next frame."""
        self._writer.add(overlay, seconds=seconds)
        if self._best is None or score > self._best[0]:
            self._best = score, overlay

    def finish(self) -> None:
        """Write both files.

        Raises:
            DataError: If one cannot be written; the video is then not there.
        """
        if self._best is None:
            return
        try:
            picture = Path(self.path).with_suffix(".png").as_posix()
            write_image(self._folder / picture, self._best[1])
            self.picture = picture
            self._writer.finish()
        finally:
            self._writer.discard()

    def discard(self) -> None:
        """Remove the unfinished video."""
        self._writer.discard()


def path_of(name: str) -> str:
    """Where the overlay video of a video or camera is, below the folder of the run."""
    return f"overlays/{file_name(name)}.mp4"
