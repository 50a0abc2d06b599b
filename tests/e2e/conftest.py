"""A server of its own for each group of tests, a browser for all, and rules that hold on every page."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import helpers
from ultraad.simulate import write_dataset

WEB = Path(__file__).parents[2] / "web"
REAL = Path(__file__).parents[3] / "shared" / "data" / "BUS-UCLM"
MISSING = "tests of the page need a browser: apt-get install chromium; pip install 'ultraad[dev,serve]'"


def _missing(message: str) -> None:
    """Skips with what to install; in CI nothing is skipped."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium of the system that can resolve no name but this machine's."""
    found = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        found = None
    if found is None:
        _missing(MISSING)
    rules = "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with sync_playwright() as p:
        opened = p.chromium.launch(executable_path=found, args=["--no-sandbox", f"--host-resolver-rules={rules}"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, as web/package-lock.json pins it."""
    script = WEB / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        _missing("the accessibility test needs axe-core: cd web && npm ci")
    return script.read_text(encoding="utf-8")


@dataclass
class Images:
    """Images without marks beside them, and what is true about them.

    Attributes:
        folder: The images, all in one folder.
        truth: {file name: (class, mask bool (h w))}.
    """

    folder: Path
    truth: dict[str, tuple[str, np.ndarray]] = field(default_factory=dict)

    def add(self, name: str, label: str, image: np.ndarray, mask: np.ndarray) -> None:
        helpers.save(self.folder / name, image)
        self.truth[name] = (label, mask)

    def of(self, label: str) -> list[str]:
        return sorted(name for name, (c, _) in self.truth.items() if c == label)


def simulated(folder: Path, *, each: int, size: int = 160) -> Images:
    """Simulated images, ``each`` of every class."""
    made = write_dataset(folder.with_name("simulated"), n=3 * each, size=size, shares=(1, 1, 1), clutter=False)
    images = Images(folder)
    for path in sorted(p for p in made.rglob("*.png") if not p.stem.endswith("_mask")):
        mask = np.asarray(Image.open(path.with_name(f"{path.stem}_mask.png")).convert("L")) > 0
        images.add(path.name, path.parent.name, np.asarray(Image.open(path)), mask)
    return images


def real(folder: Path, *, each: int) -> Images:
    """Images of BUS-UCLM, ``each`` of every class, of different patients where there are as many."""
    images = Images(folder)
    for label, channel in (("normal", None), ("benign", 1), ("malignant", 0)):
        seen: set[str] = set()
        for path in sorted((REAL / "images").glob("*.png")):
            mask = np.asarray(Image.open(REAL / "masks" / path.name).convert("RGB")) > 127
            image = np.asarray(Image.open(path).convert("L"))
            found = mask.any((0, 1))
            mine = not found.any() if channel is None else found[channel] and found.sum() == 1
            if mine and path.name[:4] not in seen and mask.shape[:2] == image.shape:
                seen.add(path.name[:4])
                images.add(path.name, label, image, mask.any(-1))
            if len(seen) == each:
                break
    return images


@dataclass
class Server:
    """``ultraad serve`` in a process of its own."""

    images: Images
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


def start(images: Images, project: Path, port: int | None = None, *, backbone: str = "tiny") -> Server:
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
    pytest.fail(f"the server did not start: {''.join(said)}")


def stop(server: Server, how: int = signal.SIGTERM) -> None:
    server.process.send_signal(how)
    server.process.wait(20)
    assert server.process.stdout is not None
    server.process.stdout.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[Server]:
    """One project with simulated images for all tests of a file."""
    root = tmp_path_factory.mktemp("page")
    images = simulated(root / "scans", each=4)
    helpers.write_dicom(images.folder / "cine.dcm", patient="Doe", frames=4)
    running = start(images, root / "project")
    yield running
    stop(running)


@dataclass
class Watch:
    """What went wrong in the pages of one test."""

    origin: str
    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def follow(self, page: Any) -> None:
        own = (self.origin, "blob:", "about:")
        page.on("request", lambda r: None if r.url.startswith(own) else self.foreign.append(r.url))
        page.on("pageerror", lambda e: self.errors.append(str(e)))
        page.on("console", lambda m: self.errors.append(m.text) if "Content Security Policy" in m.text else None)


Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens the page of a server; afterwards nothing came from elsewhere, and no script or policy failed."""
    contexts: list[Any] = []
    watches: list[Watch] = []

    def opened(server: Server, view: str = "images", **options: Any) -> Any:
        size = {"width": options.pop("width", 1280), "height": options.pop("height", 800)}
        context = browser.new_context(viewport=size, storage_state=server.cookies, **options)
        context.set_default_timeout(15_000)
        contexts.append(context)
        watches.append(Watch(server.origin))
        page = context.new_page()
        watches[-1].follow(page)
        page.goto(f"{server.origin}/#{view}" if server.cookies else server.address)
        page.wait_for_selector(".shell")
        server.cookies = {"cookies": context.cookies(), "origins": []}
        page.goto(f"{server.origin}/#{view}")
        return page

    yield opened
    for n, context in enumerate(contexts):
        if shots := os.environ.get("ULTRAAD_SHOTS"):  # to see where a test stopped
            context.pages[0].screenshot(path=Path(shots) / f"{n}.png")
        context.close()
    for watch in watches:
        assert watch.foreign == []
        assert watch.errors == []
