"""Write an MP4 video; another process encodes it (:mod:`ultraad.io.video_process`).

The codec is MPEG-4 part 2, which the FFmpeg inside OpenCV can write. It has no encoder of H.264, as libx264 is under
the GPL, and its encoder of VP8 takes twenty times as long.
"""

from __future__ import annotations

import secrets
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ultraad.errors import DataError
from ultraad.io.video import VideoProcess

_RATES = (0.01, 600.0)  # frames a second that OpenCV and MPEG-4 can express
_FINE = 65.0  # up to here with three digits: MPEG-4 has at most 65535 steps a second
_LONGEST_STILL = 60.0  # seconds for which a frame is shown at most


class VideoWriter:
    """Writes a video that appears under its name when it is complete.

    What cannot be written does not raise before :meth:`finish`, so that the frames are predicted anyway.

    Args:
        path: File to write, ``.mp4``.
        rate: Frames a second.
        real_time: Show each frame until the next one's time, as frames of a camera come when they come; otherwise each
            is shown once.

    Attributes:
        path: The same.
    """

    def __init__(self, path: Path, *, rate: float, real_time: bool = False) -> None:
        self.path = path
        self._rate = min(max(round(rate, 3 if rate < _FINE else 2), _RATES[0]), _RATES[1])
        self._real_time = real_time
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp.mp4")
        self._process: VideoProcess | None = None
        self._size = (0, 0)
        self._written = 0
        self._waiting: bytes | None = None

    def add(self, image: NDArray[np.uint8], *, seconds: float) -> None:
        """Add a frame.

        Args:
            image: uint8 (h w 3). An odd side gets one pixel more, as the codec needs even ones; a frame of another size
                than the first is resized.
            seconds: Its time, larger than that of the frame before.
        """
        h, w = image.shape[:2]
        if self._process is None:
            self._size = (h + h % 2, w + w % 2)
            job = {"path": str(self._temporary.absolute()), "size": self._size, "rate": self._rate}
            self._process = VideoProcess(job)
        padded = np.pad(image, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
        if padded.shape[:2] != self._size:
            import cv2

            padded = np.asarray(cv2.resize(padded, self._size[::-1]), dtype=np.uint8)
        due = round(seconds * self._rate) - self._written
        self._show(min(due, round(_LONGEST_STILL * self._rate)) if self._real_time else 1)
        self._waiting = padded.tobytes()

    def _show(self, times: int) -> None:
        if self._waiting is None or self._process is None or times < 1:
            return
        self._process.send(struct.pack("<I", times), self._waiting)
        self._written += times

    def finish(self) -> None:
        """Write the end of the video and give it its name.

        Raises:
            DataError: If the video is not complete.
        """
        if self._process is None:
            return
        try:
            self._show(1)
            self._process.send(struct.pack("<I", 0))
            said = self._process.receive()
            written = said["end"]["frames"] if "end" in said else said.get("error", "nothing")
            if written != self._written:
                msg = f"{self.path} cannot be written: {written}; free space and permissions there"
                raise DataError(msg)
            self._temporary.replace(self.path)
        except OSError as e:
            msg = f"{self.path} cannot be written: {e.strerror or e}; free space and permissions there"
            raise DataError(msg) from e
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the unfinished video."""
        if self._process is not None:
            self._process.close()
            self._temporary.unlink(missing_ok=True)
