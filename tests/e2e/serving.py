"""``ultraad serve`` in a process of its own, and the browser that opens its page."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.scans import Scans

RULES = "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"  # the browser resolves no name; only this machine can be reached
ARGUMENTS = ["--no-sandbox", "--disable-gpu", f"--host-resolver-rules={RULES}"]


def chromium() -> str | None:
    """The browser of the system."""
    found = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    return next(filter(None, found), None)


@contextmanager
def browsing(executable: str) -> Iterator[Any]:
    """A headless browser that can resolve no name but this machine's."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        opened = p.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield opened
        opened.close()


@dataclass
class Server:
    """A server and what it serves."""

    images: Scans
    project: Path
    port: int
    process: subprocess.Popen[str]
    address: str
    cookies: Any = None  # the address works once: later pages bring the cookie

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def start(images: Scans, project: Path, port: int | None = None, *, backbone: str = "tiny") -> Server:
    """Start the server and read its one-time address."""
    port = port or _free_port()
    command = [sys.executable, "-m", "ultraad.cli", "serve", str(images.folder), "--project", str(project)]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--backbone", backbone, "--device", "cpu", "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"http://127\.0\.0\.1:\d+/#code=\S+", line):
            return Server(images, project, port, process, found[0])
    raise RuntimeError(f"the server did not start: {''.join(said)}")


def stop(server: Server, how: int = signal.SIGTERM) -> None:
    server.process.send_signal(how)
    server.process.wait(20)
    assert server.process.stdout is not None
    server.process.stdout.close()
