"""A child process that is spoken to in messages over its standard input and output, and can be killed at any moment.

Everything that decodes files of unknown origin or computes for long runs in such a child: a file that hangs or crashes
a decoder costs one child, not the server. A message is a JSON object and, behind it, some bytes.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import struct
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from typing import IO, Any, NamedTuple

_LENGTHS = struct.Struct(">II")  # of the JSON and of the bytes


def where(error: BaseException) -> str:
    """The type of an error and where it was raised, for logs: its message may name a file or a patient."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def quiet() -> None:
    """Keep the library's warnings, which name files, out of the terminal; ``ULTRAAD_DEBUG=1`` shows them."""
    if os.environ.get("ULTRAAD_DEBUG") != "1":
        logging.getLogger("ultraad").addHandler(logging.NullHandler())


class Message(NamedTuple):
    """One message; ``what`` is plain JSON."""

    what: dict[str, Any]
    data: bytes = b""


def _write(stream: IO[bytes], message: Message) -> None:
    head = json.dumps(message.what).encode()
    stream.write(_LENGTHS.pack(len(head), len(message.data)) + head + message.data)
    stream.flush()


def _read(stream: IO[bytes]) -> Message | None:
    """The next message; None when the other side is gone."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    head, data = _LENGTHS.unpack(lengths)
    body = stream.read(head + data)
    return Message(json.loads(body[:head]), body[head:]) if len(body) == head + data else None


class Child:
    """The parent's side.

    Args:
        module: Run as ``python -m module``; it calls :func:`parent`.
        arguments: Of that program.
        nice: How much it leaves the processors to others, 0 to 19; Windows has no such thing.
    """

    def __init__(self, module: str, *arguments: str, nice: int = 0) -> None:
        command = [sys.executable, "-m", module, *arguments]
        # Threads of OpenMP that wait for others must not spin: beside a browser that took six times the processor time.
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        if nice and hasattr(os, "setpriority"):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, os.getpriority(os.PRIO_PROCESS, 0) + nice)
        self._writing = Lock()
        self._inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._listener = Thread(target=self._listen, name=f"from {module}", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        while (message := _read(self._process.stdout)) is not None:
            self._inbox.put(message)
        self._inbox.put(None)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def processor(self) -> tuple[bool, float]:
        """(whether it wants a processor now, the processor seconds it has spent); (False, 0) where no /proc tells."""
        with suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            return fields[0] == "R", (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return False, 0.0

    def send(self, message: Message) -> bool:
        """Send a message; False if the child is gone."""
        assert self._process.stdin is not None
        try:
            with self._writing:
                _write(self._process.stdin, message)
        except OSError:
            return False
        return True

    def receive(self, *, timeout: float | None = None) -> Message | None:
        """The next message; None if the child is gone.

        Raises:
            TimeoutError: If none came in this many seconds.
        """
        try:
            message = self._inbox.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if message is None:
            self._inbox.put(None)  # for whoever asks next
        return message

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()
        self._process.wait()
        self._listener.join(timeout=1)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(OSError):
                stream.close()


class Parent:
    """The child's side: the way to the process that started it."""

    def __init__(self, inward: IO[bytes], outward: IO[bytes]) -> None:
        self._in, self._out = inward, outward
        self._writing = Lock()

    def send(self, what: dict[str, Any], data: bytes = b"") -> None:
        """Send a message."""
        with self._writing:
            _write(self._out, Message(what, data))

    def messages(self) -> Iterator[Message]:
        """Every message until the parent is gone."""
        while (message := _read(self._in)) is not None:
            yield message


def parent() -> Parent:
    """Take over the standard streams of this process; what it prints from now on goes to stderr."""
    inward, outward = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return Parent(inward, outward)
