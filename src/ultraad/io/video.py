"""Video files and cameras, frame by frame.

    VideoReader -> (another process: OpenCV with FFmpeg, video_process.py) -> frames, faults

A file is read to its end; a damaged frame and a cut are faults, and the frames around them are kept. A camera is read
until the caller stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from ultraad.errors import DataError
from ultraad.io import raster, video_process
from ultraad.io.containers import COUNTED, MP4, container_of, is_mirrored
from ultraad.io.faults import warn_of
from ultraad.io.names import kind_of

MAX_FRAMES = 1_000_000  # eleven hours at 25 frames a second
USUAL_RATE = 25.0  # frames a second where a source does not say
WAIT_SECONDS = 30.0  # for a file to open, and for each of its frames
LIVE_WAIT_SECONDS = 10.0  # the same of a camera

_CAMERA = re.compile(r"camera:(\d+)")
_DEVICE = re.compile(r"/dev/video\d+")
_PROTOCOLS = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "rtp", "srt"})
_CUT = re.compile(r"premature|partial file|truncat|end of file|corrupt|overread|invalid|error", re.IGNORECASE)
_CUT_BEFORE = re.compile(r"premature|partial file|truncat|packet corrupt", re.IGNORECASE)
_NO_INDEX = "moov atom not found"
_OPTIONS = {False: "protocol_whitelist;file", True: "rtsp_transport;tcp"}  # a file must not make us read others
_EVEN = 1.5  # frames that a time may be off before a video counts as uneven
_SLACK = 2  # frames that the count in a header may be off


@dataclass(frozen=True, slots=True, eq=False)
class VideoFrame:
    """One frame.

    Attributes:
        number: Position in the source, from 0; damaged and dropped frames count.
        seconds: Since the first frame.
        image: uint8 (h w 3), upright.
    """

    number: int
    seconds: float
    image: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which frames of a video are wanted.

    Attributes:
        every: Every how many frames one is.
        frame: Only this 0-based frame; None for all.
        seconds: Only so many seconds from the first frame; None for all.
    """

    every: int = 1
    frame: int | None = None
    seconds: float | None = None


def is_camera(name: str | Path) -> bool:
    """Whether a name means a camera: ``camera:0``, ``/dev/video0``, or a URL such as ``rtsp://host/stream``."""
    text = str(name)
    url = "://" in text and urlsplit(text).scheme.lower() in _PROTOCOLS
    return url or bool(_CAMERA.fullmatch(text) or _DEVICE.fullmatch(text))


def public_name(name: str | Path) -> str:
    """The name of a source in results: a path, or a camera without the password and query of its URL."""
    text = str(name)
    if not is_camera(text):
        return Path(text).as_posix()
    if "://" not in text:
        return text
    parts = urlsplit(text)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def is_video(path: Path) -> bool:
    """Whether a file is a video: by its first bytes, and if these are those of no picture, by its suffix."""
    try:
        header = raster.read_header(path)
    except DataError:
        return kind_of(path) == "video"
    if container_of(header) is not None:
        return True
    return kind_of(path) == "video" and not raster.is_raster(header) and header[128:132] != b"DICM"


class VideoReader:
    """An open video file or camera.

    Args:
        name: A file, or a camera as in :func:`is_camera`.
        choice: Which frames are read.

    Raises:
        DataError: If it cannot be opened, is no video, or claims more than the limits.

    Attributes:
        name: :func:`public_name`.
        live: Whether it is a camera.
        rate: Frames a second on average.
        expected: Number of frames as the header says; None if it does not.
        faults: (id, reason) of what could not be read so far: ``name#number`` of a frame, ``name`` of the whole. They
            may be taken out.
    """

    def __init__(self, name: str | Path, choice: Choice | None = None) -> None:
        self.name, self.live = public_name(name), is_camera(name)
        self._choice, self._closed = choice or Choice(), False
        self.faults: list[tuple[str, str]] = []
        self._container = "" if self.live else _container(Path(name))
        advice = "Check its name and its cable" if self.live else "Copy or convert the file"
        job = {**_source(str(name)), "live": self.live, "wait": LIVE_WAIT_SECONDS if self.live else WAIT_SECONDS}
        c = self._choice
        self._process = VideoProcess(job | {"every": c.every, "only": c.frame, "seconds": c.seconds})
        with contextlib.ExitStack() as unless_opened:
            unless_opened.callback(self._process.close)
            said = self._process.receive()
            if "facts" not in said:
                reason = str(said.get("error", "")).rstrip(".")
                if _NO_INDEX in reason:
                    reason = f"its index is missing, as if the recording was not finished ({_NO_INDEX})"
                msg = f"{self.name} cannot be opened as a video: {reason}. {advice}"
                raise DataError(msg)
            self._take(said["facts"], name)
            unless_opened.pop_all()

    def _take(self, facts: dict[str, float], name: str | Path) -> None:
        """Check what the header says before a frame is decoded, and keep it."""
        h, w = int(facts["height"]), int(facts["width"])
        if h or w:
            raster.check_size((h, w), self.name)
        self.rate = facts["rate"] if 0.01 < facts["rate"] < 1000 else USUAL_RATE
        frames = int(facts["frames"]) if abs(facts["frames"]) < 1 << 62 else 0
        self.expected = frames if frames > 0 and not self.live else None
        if self.expected is not None:
            with raster.open_file(Path(name)) as file:
                size = os.fstat(file.fileno()).st_size
            if self.expected > size:
                msg = f"{self.name} says that it has {frames} frames, but it is too small for them; export it again"
                raise DataError(msg)
            if self.expected > MAX_FRAMES:
                msg = f"{self.name} has {frames} frames; the limit is {MAX_FRAMES}. Split the file, or check its header"
                raise DataError(msg)
        across, down = facts["across"], facts["down"]
        if across > 0 and down > 0 and across != down:
            warn_of(self.name, f"its pixels are not square ({across:g} : {down:g}); they are used as they are stored")
        if not self.live and self._container == MP4 and is_mirrored(Path(name)):
            warn_of(self.name, "its frames are to be mirrored, which is not done")
        if facts["turn"] % 90:
            warn_of(self.name, f"its frames are to be turned by {facts['turn']:g} degrees, which is not done")

    def frames(self) -> Generator[VideoFrame]:
        """The wanted frames in the order of display, to be iterated once; the source is closed at the end."""
        group, uneven = _Group(self), False
        try:
            self._process.send(b"+")
            while "end" not in (said := self._process.receive()):
                if self._closed:
                    return
                if "error" in said:
                    group.end()
                    self._fail(f"{self.name} cannot be read on: {said['error']}. The frames before are kept")
                    return
                number, seconds = int(said["number"]), float(said["seconds"])
                if "fault" in said:
                    group.add(number, str(said["fault"]))
                    continue
                group.end()
                h, w = said["size"]
                raster.check_size((h, w), f"{self.name}#{number}")
                if number >= MAX_FRAMES and not self.live:
                    self._fail(f"{self.name} has more than {MAX_FRAMES} frames; those beyond were not read")
                    return
                pixels = self._process.receive_bytes(h * w * 3)
                uneven |= abs(seconds - number / self.rate) > _EVEN / self.rate
                yield VideoFrame(number, seconds, np.frombuffer(pixels, np.uint8).reshape(h, w, 3))
            group.end()
            self._judge(**said["end"])
            if uneven and not self.live:
                text = "its frames are not evenly spaced in time; the overlay video shows each equally long"
                warn_of(self.name, f"{text}, the tables have the times")
        except DataError as e:
            self._fail(f"{self.name} cannot be read on: {e}. The frames before are kept")
        finally:
            self.close()

    def _judge(self, frames: int, opening: list[str], words: list[str]) -> None:
        """Say at the end what is missing.

        Args:
            frames: Number of frames, damaged ones included.
            opening: What was printed while the source was opened.
            words: What was printed where there was no frame, such as at the end.
        """
        if not frames:
            said = [word.rstrip(".") for word in (*opening, *words)]
            why = next(("AV1 is not supported" for word in said if "AV1" in word), said[-1] if said else "")
            what = "gives no picture" if self.live else "has no frame that can be decoded"
            advice = "Check its name and its cable" if self.live else "Convert it to H.264, or copy it again"
            self._fail(f"{self.name} {what}{f' ({why})' if why else ''}. {advice}")
        elif self._choice.frame is not None and frames <= self._choice.frame:
            self._fail(f"{self.name} has {frames} frame(s), but frame {self._choice.frame} was requested")
        elif self.expected is not None and self._choice == Choice(self._choice.every):
            hints = [*(w for w in words if _CUT.search(w)), *(w for w in opening if _CUT_BEFORE.search(w))]
            told = hints[0].rstrip(".") if hints else None
            least = self.expected - _SLACK * (told is None)
            cut = frames < least and (self._container == COUNTED or told is not None)
            if cut or (told is not None and "premature" in told):
                at, of = frames / self.rate, self.expected / self.rate
                self._fail(
                    f"{self.name} is cut off: it ends after {frames} of {max(self.expected, frames)} frames, at "
                    f"{at:.1f} of {of:.1f} s{f' ({told})' if told else ''}. The frames before are kept"
                )

    def _fail(self, reason: str) -> None:
        self.faults.append((self.name, reason))

    def close(self) -> None:
        """Close the source; an iteration in another thread then ends."""
        self._closed = True
        self._process.close()


class _Group:
    """Neighbouring frames that are damaged, which are one fault."""

    def __init__(self, reader: VideoReader) -> None:
        self._reader = reader
        self._frames: list[int] = []
        self._reason = ""

    def add(self, number: int, reason: str) -> None:
        self._reason = self._reason if self._frames else reason
        self._frames = [*self._frames[:1], number]

    def end(self) -> None:
        if not self._frames:
            return
        first, last, name = self._frames[0], self._frames[-1], self._reader.name
        what = f"frame {first} is damaged" if first == last else f"frames {first} to {last} are damaged or in doubt"
        self._reader.faults.append((f"{name}#{first}", f"{name}: {what} ({self._reason.rstrip('.')})"))
        self._frames = []


def _container(path: Path) -> str:
    """What kind of video a file is; FFmpeg would also open play lists, which name other files."""
    found = container_of(raster.read_header(path))
    if found is None:
        msg = f"{path} is no video: it does not begin like an MP4, MOV, AVI, MKV, WebM, MPEG, WMV or FLV file"
        raise DataError(msg)
    return found


def _source(name: str) -> dict[str, str | int]:
    """What is to be opened, as the other process wants it."""
    number = _CAMERA.fullmatch(name)
    if number is not None:
        return {"camera": int(number[1])}
    if _DEVICE.fullmatch(name):
        return {"camera": name}
    if is_camera(name):
        return {"path": name}
    path = str(Path(name).absolute())
    try:
        path.encode()
    except UnicodeEncodeError:
        msg = f"{public_name(name)} has a name that is no valid text; rename it"
        raise DataError(msg) from None
    return {"path": path}


class VideoProcess:
    """The process that decodes or encodes; :mod:`ultraad.io.video_process` has the messages.

    Args:
        job: What it does.

    Raises:
        DataError: If it cannot be started.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        alone: dict[str, Any] = (  # Ctrl-C is for this process, which then ends the other
            {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
            if sys.platform == "win32"
            else {"start_new_session": True}
        )
        key = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
        options = {} if job.get("live") and key in os.environ else {key: _OPTIONS[bool(job.get("live"))]}
        self._wait = job.get("wait", WAIT_SECONDS)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", video_process.__file__, json.dumps(job)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={
                    **os.environ,
                    **options,
                    "OPENCV_FFMPEG_LOGLEVEL": str(video_process.LOG_LEVEL),
                    "OPENBLAS_NUM_THREADS": "1",
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                },
                **alone,
            )
        except (OSError, ValueError) as e:
            msg = f"the process for videos cannot be started: {e}; check that {sys.executable} can be run"
            raise DataError(msg) from e
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._out, self._in = self._process.stdout, self._process.stdin

    def send(self, *parts: bytes | memoryview) -> bool:
        """Send bytes; False if the process has ended."""
        try:
            for part in parts:
                self._in.write(part)
            self._in.flush()
        except (OSError, ValueError):
            return False
        return True

    def receive(self) -> dict[str, Any]:
        """The next message; one with ``error`` if the process has ended."""
        head = self._out.read(4)
        text = self._out.read(struct.unpack("<I", head)[0]) if len(head) == 4 else b""
        try:
            return dict(json.loads(text))
        except ValueError:
            return {"error": self._how_it_ended()}

    def receive_bytes(self, count: int) -> bytes:
        """So many bytes.

        Raises:
            DataError: If the process ends before.
        """
        found: bytes = self._out.read(count)
        if len(found) < count:
            msg = self._how_it_ended()
            raise DataError(msg)
        return found

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        if code == 1:
            return f"it gave nothing for {self._wait:g} s"
        return f"its decoder crashed (exit code {code})"

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        for pipe in (self._in, self._out):
            with contextlib.suppress(OSError):
                pipe.close()
