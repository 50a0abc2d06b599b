"""Video files and cameras: frames in, an overlay video out. PyAV does the work, from the extra ``video``.

A file is read to its end or to the first fault that stops the decoder; what was decoded is kept and the fault is named.
A camera is read until the caller stops.
"""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from ultraad.errors import ConfigError, DataError, one_line
from ultraad.io.faults import Faults
from ultraad.io.names import kind_of
from ultraad.io.raster import check_size, open_file

if TYPE_CHECKING:
    import av

INSTALL = "pip install 'ultraad[video]'"
USUAL_RATE = Fraction(25)  # frames a second where a source does not say

_CAMERA = re.compile(r"camera:(?P<which>.+)")
_DEVICE = re.compile(r"/dev/video\d+")
_PROTOCOLS = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "rtp", "srt"})
_WAIT_SECONDS = 10.0  # for a camera to open, and for each of its frames
_ENCODERS = (  # the first that the installed PyAV has; options for a picture without visible loss
    ("libx264", {"preset": "veryfast", "crf": "18"}),
    ("libopenh264", {"b": "8M"}),
    ("mpeg4", {"q:v": "2", "qmin": "2", "qmax": "3"}),
)


@dataclass(frozen=True, slots=True, eq=False)
class VideoFrame:
    """One decoded frame.

    Attributes:
        number: Position in the source, from 0.
        time: Since the first frame, in units of the source's time base; larger than that of the frame before.
        duration: Until the next frame, as far as known, in the same units.
        seconds: ``time`` in seconds.
        image: uint8 (h w 3), upright.
    """

    number: int
    time: int
    duration: int
    seconds: float
    image: NDArray[np.uint8]


def is_camera(name: str | Path) -> bool:
    """Whether a name means a camera: ``camera:0``, ``/dev/video0``, or a URL such as ``rtsp://host/stream``."""
    text = str(name)
    url = "://" in text and urlsplit(text).scheme.lower() in _PROTOCOLS
    return url or bool(_CAMERA.fullmatch(text) or _DEVICE.fullmatch(text))


def is_video(name: str | Path) -> bool:
    """Whether a name means a camera or a video file, which its suffix tells."""
    return is_camera(name) or kind_of(Path(name)) == "video"


def public_name(name: str | Path) -> str:
    """The name of a source in results: a path, or a camera without the password and query of its URL."""
    text = str(name)
    if not is_camera(text):
        return Path(text).as_posix()
    if "://" not in text:
        return text
    parts = urlsplit(text)
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def require_video() -> None:
    """Check that PyAV is installed.

    Raises:
        ConfigError: If it is not.
    """
    if find_spec("av") is None:
        msg = f"video files and cameras need PyAV: {INSTALL}"
        raise ConfigError(msg)


class VideoReader:
    """An open video file or camera.

    Args:
        name: A file, or a camera as in :func:`is_camera`.

    Raises:
        ConfigError: If PyAV is not installed.
        DataError: If it cannot be opened or has no pictures.

    Attributes:
        name: :func:`public_name`.
        live: Whether it is a camera.
        rate: Frames a second on average.
        time_base: Seconds per unit of time.
        aspect: Width of a pixel by its height; None if they are square.
        expected: Frames as the header says; None if it does not.
        fault: What could not be read, once :meth:`frames` has ended; None if all could.
    """

    def __init__(self, name: str | Path) -> None:
        self.name, self.live = public_name(name), is_camera(name)
        self.fault: str | None = None
        require_video()
        advice = "Check its name and whether another program uses it" if self.live else "Copy or export the file again"
        with Faults(f"{self.name} cannot be opened as a video", about=self.name, advice=advice), _plain():
            self._container = _open(name)
        try:
            self._stream = self._pictures()
            context = self._stream.codec_context
            check_size((context.height, context.width), self.name)
        except DataError:
            self._container.close()
            raise
        self.rate = self._stream.average_rate or self._stream.guessed_rate or USUAL_RATE
        self.time_base = self._stream.time_base or 1 / self.rate
        aspect = self._stream.sample_aspect_ratio
        self.aspect = aspect if aspect and aspect != 1 else None
        self._end = self._duration()
        said = self._stream.frames or (None if self._end is None else round(self._end * float(self.rate)))
        self.expected = None if self.live else said
        # of MP4 and MOV, edit lists can leave out frames, which the duration takes into account
        self._promised = 0 if "mp4" in self._container.format.name else self._stream.frames

    def _pictures(self) -> av.VideoStream:
        pictures = [s for s in self._container.streams.video if not int(s.disposition) & _cover()]
        if not pictures:
            kinds = ", ".join(sorted({s.type for s in self._container.streams})) or "nothing"
            msg = f"{self.name} has no video frames; found {kinds}. Give a file with pictures"
            raise DataError(msg)
        if not self.live:
            pictures[0].thread_type = "AUTO"  # by frames, which delays a camera
        return pictures[0]

    def _duration(self) -> float | None:
        """Seconds as the header says."""
        if self.live:
            return None
        if self._stream.duration:
            return float(self._stream.duration * self.time_base)
        if len(self._container.streams) == 1 and self._container.duration:
            return self._container.duration / 1e6  # in microseconds
        return None

    def frames(self) -> Generator[VideoFrame]:
        """The frames in the order of display, to be iterated once; the source is closed at the end."""
        step = max(1, round(1 / (self.rate * self.time_base)))
        number, first, last = 0, None, -step
        spoiled, problem = 0, ""
        try:
            for found in self._decoded():
                if isinstance(found, Exception):
                    spoiled, problem = spoiled + 1, problem or _text(found)
                    continue
                time = last + step if found.pts is None else found.pts - (first or 0)
                if first is None:
                    first, time = found.pts or 0, 0
                last = max(time, last + 1)
                check_size((found.height, found.width), self.name)
                image = _upright(found)
                yield VideoFrame(number, last, found.duration or step, float(last * self.time_base), image)
                number += 1
        finally:
            self.close()
        self.fault = self._verdict(number, spoiled, problem, seconds=float((last + step) * self.time_base))

    def _decoded(self) -> Iterator[av.VideoFrame | Exception]:
        """The frames, and an error in place of each packet or frame that is spoiled, or of the rest of the file."""
        from av.error import FFmpegError

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError as e:
                yield e
                packet = None
            try:
                decoded = self._stream.codec_context.decode(packet)
            except FFmpegError as e:
                if not isinstance(e, EOFError):
                    yield e
                decoded = []
            for frame in decoded:
                yield ValueError("a frame is damaged") if frame.is_corrupt else frame
            if packet is None or (packet.dts is None and packet.size == 0):
                return

    def _verdict(self, frames: int, spoiled: int, problem: str, *, seconds: float) -> str | None:
        if not frames:
            return f"{self.name} has no frame that can be decoded{f' ({problem})' if problem else ''}"
        faults = []
        if self._end is not None and seconds < self._end - max(0.1, 3 / float(self.rate)):
            faults.append(f"ends after {frames} frames, at {seconds:.1f} of {self._end:.1f} s")
        elif frames + spoiled < self._promised - 3:
            faults.append(f"ends after {frames} of {self._promised} frames")
        if spoiled:
            faults.append(f"{spoiled} packet(s) or frame(s) cannot be decoded ({problem})")
        return f"{self.name}: {'; '.join(faults)}. The frames that could be decoded are kept" if faults else None

    def close(self) -> None:
        """Close the source, unless :meth:`frames` is being iterated in another thread."""
        self._container.close()


def _cover() -> int:
    """The flag of a stream that is the cover of an audio file."""
    from av.stream import Disposition

    return int(Disposition.attached_pic)


@contextmanager
def _plain() -> Iterator[None]:
    """Replace an error of FFmpeg by its words, without its number and the call that it came from."""
    from av.error import FFmpegError

    try:
        yield
    except FFmpegError as e:
        raise ValueError(_text(e)) from e


def _text(error: Exception) -> str:
    """What FFmpeg says of an error; the message of another one."""
    return getattr(error, "strerror", None) or one_line(error)


def _open(name: str | Path) -> av.container.InputContainer:
    import av

    if not is_camera(name):
        with open_file(Path(name)):  # a regular file that can be read
            pass
        return av.open(f"file:{Path(name)}")
    url, form = _camera(str(name))
    options = {"rtsp_transport": "tcp"} if url.lower().startswith("rtsp") else {}
    return av.open(url, format=form, options=options, timeout=_WAIT_SECONDS)


def _camera(name: str) -> tuple[str, str | None]:
    """What FFmpeg calls a camera, and the format in which it is opened; None lets FFmpeg find out."""
    found = _CAMERA.fullmatch(name)
    if found is None:
        return name, "v4l2" if _DEVICE.fullmatch(name) else None
    which = found["which"]
    if sys.platform == "darwin":
        return which, "avfoundation"
    if sys.platform == "win32":
        return f"video={which}", "dshow"
    return f"/dev/video{which}", "v4l2"


def _upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The pixels as uint8 (h w 3), turned and mirrored as the display matrix of the file says."""
    from av.sidedata.sidedata import Type

    image: NDArray[np.uint8] = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    side_data: Any = frame.side_data
    matrix = next((bytes(d) for d in side_data.keys() if d.type == Type.DISPLAYMATRIX), None)  # noqa: SIM118
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    across, down = a, d
    if abs(b) > abs(a):
        image, across, down = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


class VideoWriter:
    """Writes an MP4 video that appears under its name when it is complete.

    Args:
        path: File to write.
        size: (h, w) of the frames. An odd side is one pixel longer in the video, as H.264 for players needs even ones.
        rate: Frames a second on average.
        time_base: Seconds per unit of time.
        aspect: Width of a pixel by its height; None if they are square.

    Raises:
        DataError: If the file cannot be written.
    """

    def __init__(
        self, path: Path, *, size: tuple[int, int], rate: Fraction, time_base: Fraction, aspect: Fraction | None = None
    ) -> None:
        import av

        self._path, self._size = path, size
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        with self._faults():
            name, options = next((n, o) for n, o in _ENCODERS if n in av.codecs_available)
            timescale = {"video_track_timescale": str(time_base.denominator), "movflags": "faststart"}
            self._container = av.open(str(self._temporary), "w", format="mp4", options=timescale)
            stream: Any = self._container.add_stream(name, rate=rate, options=options)
            stream.height, stream.width = (side + side % 2 for side in size)
            stream.pix_fmt = "yuv420p"
            stream.time_base = stream.codec_context.time_base = time_base
            if aspect is not None:
                stream.codec_context.sample_aspect_ratio = aspect
            self._stream: av.VideoStream = stream

    def _faults(self) -> Faults:
        return Faults(f"{self._path} cannot be written", about=self._path, advice="Free space and permissions there")

    def add(self, image: NDArray[np.uint8], *, time: int, duration: int) -> None:
        """Add a frame.

        Args:
            image: uint8 (h w 3).
            time: Since the first frame, in units of the time base.
            duration: Of the frame, in the same units.

        Raises:
            DataError: If it cannot be written.
        """
        import av

        with self._faults():
            if image.shape[:2] != self._size:  # a source that changes its size on the way
                import cv2

                image = np.asarray(cv2.resize(image, self._size[::-1]), dtype=np.uint8)
            image = np.pad(image, ((0, self._size[0] % 2), (0, self._size[1] % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base, frame.duration = time, self._stream.time_base, duration
            self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write the end of the video and give it its name.

        Raises:
            DataError: If it cannot be written.
        """
        with self._faults():
            self._container.mux(self._stream.encode())
            self._container.close()
            self._temporary.replace(self._path)

    def discard(self) -> None:
        """Remove the unfinished video."""
        self._container.close()
        self._temporary.unlink(missing_ok=True)
