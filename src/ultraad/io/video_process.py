"""Decodes or encodes one video, as a program of its own; :mod:`ultraad.io.video` and :mod:`.video_writer` start it.

FFmpeg, which is inside OpenCV, crashes, hangs and takes memory on damaged files, prints what is wrong, and returns a
picture as if nothing were. Here a crash costs one video, a watchdog ends a hang, the memory has a limit, and what it
prints is read and held against the frames. Only OpenCV is imported, so that the program starts in a fifth of a second.

    argument   one JSON object, the job; "path" or "camera" for read(), "size" for write()
    stdout     messages: the length of a JSON object (4 bytes, little endian), the object, and pixels if it has "size"
    stdin      read(): one byte, to go on; write(): frames, each after 4 bytes with how often it is shown; 0 is the end
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, BinaryIO

MORE_MEMORY = 1_500_000_000  # bytes beside the program itself; a frame of 64 megapixels fits
LOG_LEVEL = 32  # of FFmpeg; from here it says that it made up parts of a frame ("concealing errors")
LONGEST_GROUP = 300  # frames between key frames; x264, x265 and libvpx put at most 250 there by themselves

_ERROR, _WARNING = 16, 24  # levels of FFmpeg
_REORDER = 4  # frames that may come before the one that was damaged, in streams with B frames
_BETWEEN = 8  # frames that a damaged B frame can spoil, which only B frames beside it are predicted from
_SHORTEST = 1e-5  # seconds between two frames; times have six digits
_LONGEST_VIDEO = 1e7  # seconds, a hundred days
_TRIES = 64  # of reading on after a fault, in a file; at its end, each costs microseconds
_LIVE_TRIES = 3
_LOG_BYTES = 1 << 20  # after which the log begins anew

_LINE = re.compile(r"\[OPENCV:FFMPEG:(-?\d+)\] ?(.*)|(.+)")
_SPOILS = re.compile(r"conceal|corrupt|undecodable|dqt:", re.IGNORECASE)  # although it is no error
_HARMLESS = re.compile(r"mmco|reference frames|hardware accelerated|deprecated pixel format", re.IGNORECASE)


class Log:
    """What C libraries print, to stdout and stderr."""

    def __init__(self) -> None:
        number, self._name = tempfile.mkstemp(prefix="ultraad-video-")
        os.close(number)
        self._file = os.open(self._name, os.O_WRONLY | os.O_APPEND)
        self._reader = open(self._name, "rb")  # noqa: PTH123, SIM115 - its end is that of the program
        if os.name == "posix":
            os.unlink(self._name)  # noqa: PTH108
        for number in (1, 2):
            os.dup2(self._file, number)
        self._flush = _flush_of_c()
        self._level = 0

    def new(self) -> list[tuple[int, str]]:
        """(level, line) of everything that was printed since the last call."""
        self._flush()
        text = self._reader.read().decode(errors="replace")
        if self._reader.tell() > _LOG_BYTES:
            os.ftruncate(self._file, 0)
            self._reader.seek(0)
        return [self._parse(line) for line in text.splitlines() if line.strip()]

    def _parse(self, line: str) -> tuple[int, str]:
        found = _LINE.match(line)
        if found is not None and found[1]:
            self._level = int(found[1])
            return self._level, found[2].strip()
        return (self._level or _WARNING), line.strip()

    def remove(self) -> None:
        """Remove the file, where that could not be done before."""
        self._reader.close()
        if os.name != "posix":
            os.close(self._file)
            os.unlink(self._name)  # noqa: PTH108


def _flush_of_c() -> Callable[[], object]:
    """Writes what C programs keep in memory of their output."""
    import ctypes

    try:
        library = ctypes.CDLL(None if os.name == "posix" else "msvcrt")
        return lambda: library.fflush(None)
    except (OSError, AttributeError, TypeError):
        return lambda: None


class Damage:
    """Which frames show what was damaged.

    A damaged frame is shown a few frames after its decoder complains if frames are reordered, and all frames up to the
    next key frame are predicted from it. Of frames in doubt, none passes.
    """

    def __init__(self) -> None:
        self._reason: str | None = None
        self._since, self._longest = 0, LONGEST_GROUP
        self._reordered = self._key_read = False

    def of(self, told: list[tuple[int, str]], kind: str, *, key: bool) -> str | None:
        """What spoils the next frame; None if nothing does.

        Args:
            told: What was printed while it was decoded.
            kind: ``"I"`` for a frame that is coded without others, ``"P"``, ``"B"``; ``"?"`` if that is not known. An I
                frame can still depend on what the decoder has learned from others.
            key: Whether a key frame was read for it, the frame itself or a later one in the order of display.
        """
        self._reordered |= kind == "B"
        heard = first_fault(told)
        if heard is not None:
            between = any("in B frame" in text for _, text in told)
            if self._reason is None or not between:
                self._longest = _BETWEEN if between else LONGEST_GROUP
            self._reason, self._since, self._key_read = heard, 0, False
        elif self._reason is not None:
            self._since += 1
            self._key_read |= key
            whole = self._key_read and kind in "I?" and self._since > _REORDER * self._reordered
            if whole or self._since >= self._longest:
                self._reason = None
        return self._reason


def first_fault(told: list[tuple[int, str]]) -> str | None:
    """The first line that says that a frame is damaged."""
    return next(
        (text for level, text in told if not _HARMLESS.search(text) and (level <= _ERROR or _SPOILS.search(text))),
        None,
    )


def read(job: dict[str, Any], send: Callable[..., None], log: Log) -> None:
    """Decode a file or camera and send its frames.

    Args:
        job: ``path`` or ``camera`` (a number), ``live``, ``wait`` (seconds), and which frames: ``every``, ``only``,
            ``seconds``.
        send: Sends a message.
        log: What was printed.
    """
    import cv2

    cv2.setNumThreads(1)
    _bound_memory()
    watch(job["wait"])
    capture = _open(job)
    told = log.new()
    if not capture.isOpened():
        why = first_fault(told) or "its codec is not known, or it is cut off"
        send({"error": "there is no such camera, or another program uses it" if "camera" in job else why})
        return
    facts = {
        name: capture.get(getattr(cv2, f"CAP_PROP_{key}"))
        for name, key in (
            ("width", "FRAME_WIDTH"),
            ("height", "FRAME_HEIGHT"),
            ("rate", "FPS"),
            ("frames", "FRAME_COUNT"),
            ("across", "SAR_NUM"),
            ("down", "SAR_DEN"),
            ("turn", "ORIENTATION_META"),
        )
    }
    send({"facts": facts})
    faulthandler.cancel_dump_traceback_later()
    if not sys.stdin.buffer.read(1):
        return
    count, words = [0], list[str]()
    for number, seconds, fault in _frames(capture, job, log, words, count):
        if fault is not None:
            send({"number": number, "seconds": seconds, "fault": fault})
            continue
        whole, image = capture.retrieve()
        if not whole or image is None or image.ndim != 3 or image.shape[2] != 3 or image.dtype != "uint8":
            send({"number": number, "seconds": seconds, "fault": "its pixels cannot be converted to colours"})
            continue
        pixels = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        send({"number": number, "seconds": seconds, "size": pixels.shape[:2]}, pixels)
    send({"end": {"frames": count[0], "opening": [text for _, text in told][-20:], "words": words[-20:]}})


def _open(job: dict[str, Any]) -> Any:  # noqa: ANN401
    import cv2

    if "camera" in job:
        return cv2.VideoCapture(job["camera"])
    wait = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC]
    options = [cv2.CAP_PROP_N_THREADS, 1, cv2.CAP_PROP_HW_ACCELERATION, cv2.VIDEO_ACCELERATION_NONE]
    # of several threads, messages come before the frame that they are about by as many frames
    options += [number for key in wait for number in (key, int(job["wait"] * 1000))]
    return cv2.VideoCapture(job["path"], cv2.CAP_FFMPEG, options)


def _frames(
    capture: Any,  # noqa: ANN401
    job: dict[str, Any],
    log: Log,
    words: list[str],
    count: list[int],
) -> Iterator[tuple[int, float, str | None]]:
    """(number, seconds since the first, what is wrong with it) of each wanted frame, decoded and not yet converted.

    Args:
        capture: Open.
        job: As in :func:`read`.
        log: What was printed.
        words: Gets the last things that were printed without a frame.
        count: Its only value becomes the number of frames so far, wanted or not.
    """
    import cv2

    live, every, only, limit = job["live"], job["every"], job["only"], job["seconds"]
    rate = capture.get(cv2.CAP_PROP_FPS)
    step = 1 / rate if 0.01 < rate < 1000 else 0.04
    damage = Damage()
    number, failures, began, last = -1, 0, None, -step
    lost: str | None = None
    while failures < (_LIVE_TRIES if live else _TRIES):
        watch(job["wait"] + 5)
        grabbed = capture.grab()
        faulthandler.cancel_dump_traceback_later()  # while the other side is busy
        if not grabbed:
            failures += 1
            told = log.new()
            words += [text for _, text in told]
            lost = lost or first_fault(told)
            damage.of([(_ERROR, lost or "a frame cannot be decoded")], "?", key=False)
            continue
        now = time.monotonic() if live else capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        told = log.new()
        kind = chr(int(capture.get(cv2.CAP_PROP_FRAME_TYPE)) or ord("?"))
        missing = 0 if live and began is None else failures
        began = now if began is None else began
        seconds = now - began
        fault = damage.of(told, kind, key=capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME) == 1)
        passed = round((seconds - last) / step) if (fault or missing) and not live else 1
        if not last + _SHORTEST < seconds < _LONGEST_VIDEO or passed > LONGEST_GROUP:
            seconds = last + step * (1 + missing)  # a time stamp that is missing, damaged or not after the one before
        elif not live:  # decoders leave out damaged frames, with a word or without; which ones, the time says
            missing = max(0, passed - 1)
        for absent in range(number + 1, number + 1 + missing):
            if _wanted(absent, every, only) and (limit is None or last + step < limit):
                yield absent, round(last + step, 6), lost or fault or "it cannot be decoded"
        number, failures, lost, last = number + 1 + missing, 0, None, seconds
        count[0] = number + 1
        if (limit is not None and seconds >= limit) or (only is not None and number > only):
            return
        if _wanted(number, every, only):
            yield number, round(seconds, 6), fault


def _wanted(number: int, every: int, only: int | None) -> bool:
    return number % every == 0 if only is None else number == only


def write(job: dict[str, Any], send: Callable[..., None], log: Log) -> None:
    """Encode the frames from stdin, uint8 (h w 3) red first, and check the file.

    Args:
        job: ``path``, ``size`` (h, w), both even, and ``rate``.
        send: Sends a message.
        log: What was printed.
    """
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    h, w = job["size"]
    writer = cv2.VideoWriter(job["path"], cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), job["rate"], (w, h))
    if not writer.isOpened():
        send({"error": first_fault(log.new()) or "no encoder for this size and rate"})
        return
    written = 0
    while True:
        head = sys.stdin.buffer.read(4)
        if len(head) < 4:
            return  # the other side is gone
        times = struct.unpack("<I", head)[0]
        if not times:
            break
        pixels = sys.stdin.buffer.read(h * w * 3)
        if len(pixels) < h * w * 3:
            return
        image = cv2.cvtColor(np.frombuffer(pixels, np.uint8).reshape(h, w, 3), cv2.COLOR_RGB2BGR)
        for _ in range(times):
            writer.write(image)
        written += times
    writer.release()
    found = cv2.VideoCapture(job["path"], cv2.CAP_FFMPEG)
    whole = found.isOpened() and found.get(cv2.CAP_PROP_FRAME_COUNT) == written and found.grab()
    told = first_fault(log.new())  # a full disk is printed, not raised
    send({"end": {"frames": written}} if whole else {"error": told or "its frames are not all in the file"})


def watch(seconds: float) -> None:
    """End the program unless it comes here again within so many seconds."""
    faulthandler.dump_traceback_later(seconds, exit=True)


def _bound_memory() -> None:
    """Let the program have so much memory and no more, where the system can do that."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MORE_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, OSError, ValueError):
        return


def main() -> None:
    """Do the job of the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that started this one
    job = json.loads(sys.argv[1])
    out: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)

    def send(message: dict[str, Any], pixels: Any = b"") -> None:  # noqa: ANN401
        text = json.dumps(message).encode()
        try:
            out.write(struct.pack("<I", len(text)) + text)
            view = memoryview(pixels).cast("B")
            while view:
                view = view[out.write(view) :]
        except BrokenPipeError:
            os._exit(0)

    def failed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:  # noqa: ARG001
        send({"error": " ".join(str(error).split()) or kind.__name__})

    sys.excepthook = failed
    log = Log()
    (write if "size" in job else read)(job, send, log)
    log.remove()


if __name__ == "__main__":
    main()
