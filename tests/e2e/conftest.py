"""One browser and one server for all tests, and rules that hold on every page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import helpers
from tests.e2e.hand import Hand
from tests.e2e.scans import shipped, simulated
from tests.e2e.serving import Server, browsing, chromium, start, stop

WEB = Path(__file__).parents[2] / "web"
MISSING = "tests of the page need a browser: apt-get install chromium; pip install 'ultraad[dev,serve]'"


def _missing(message: str) -> None:
    """Skips with what to install; in CI nothing is skipped."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium of the system that can resolve no name but this machine's."""
    executable = chromium()
    try:
        import playwright  # noqa: F401
    except ImportError:
        executable = None
    if executable is None:
        _missing(MISSING)
    with browsing(str(executable)) as opened:
        yield opened


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, as web/package-lock.json pins it."""
    script = WEB / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        _missing("the accessibility test needs axe-core: cd web && npm ci")
    return script.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[Server]:
    """One project: real images for the loop, simulated ones for single marks, and a cine."""
    root = tmp_path_factory.mktemp("page")
    images = shipped(root / "scans")
    images.truth |= simulated(images.folder, each=5).truth
    helpers.write_dicom(images.folder / "cine.dcm", patient="Doe", frames=4)
    running = start(images, root / "project")
    yield running
    stop(running)


@dataclass
class Watch:
    """What went wrong in a page."""

    origin: str
    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def follow(self, page: Any) -> None:
        own = (self.origin, "blob:", "about:")
        page.on("request", lambda r: None if r.url.startswith(own) else self.foreign.append(r.url))
        page.on("pageerror", lambda e: self.errors.append(str(e)))
        page.on("console", lambda m: self.errors.append(m.text) if "Content Security Policy" in m.text else None)

    def check(self) -> None:
        """Nothing came from elsewhere, and no script or policy failed."""
        foreign, errors = self.foreign.copy(), self.errors.copy()
        self.foreign.clear()
        self.errors.clear()
        assert foreign == []
        assert errors == []


Open = Callable[..., Any]


class Pages:
    """Opens the page of a server, each time in a browser profile of its own."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self._contexts: list[Any] = []
        self._watches: list[Watch] = []

    def __call__(self, server: Server, view: str = "images", **options: Any) -> Any:
        size = {"width": options.pop("width", 1280), "height": options.pop("height", 800)}
        context = self._browser.new_context(viewport=size, storage_state=server.cookies, **options)
        context.set_default_timeout(15_000)
        self._contexts.append(context)
        self._watches.append(Watch(server.origin))
        page = context.new_page()
        self._watches[-1].follow(page)
        page.goto(f"{server.origin}/#{view}" if server.cookies else server.address)
        page.wait_for_selector(".shell")
        if not server.cookies:
            server.cookies = {"cookies": context.cookies(), "origins": []}
            page.evaluate(f"location.hash = '{view}'")
        return page

    def check(self) -> None:
        for watch in self._watches:
            watch.check()

    def close(self) -> None:
        for n, context in enumerate(self._contexts):
            if shots := os.environ.get("ULTRAAD_SHOTS"):  # to see where a test stopped
                context.pages[0].screenshot(path=Path(shots) / f"{n}.png")
            context.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    pages = Pages(browser)
    yield pages
    pages.close()
    pages.check()


@pytest.fixture(scope="module")
def shared_page(browser: Any, server: Server) -> Iterator[tuple[Any, Pages]]:
    """A page for all tests of a file, touchable."""
    pages = Pages(browser)
    page = pages(server, has_touch=True, width=760, height=560)
    page.wait_for_selector(".tile img")
    yield page, pages
    pages.close()


@pytest.fixture
def page(shared_page: tuple[Any, Pages]) -> Iterator[Any]:
    """The page as a new user finds it; what one test sets does not reach the next."""
    page, pages = shared_page
    if page.evaluate("localStorage.length"):
        page.evaluate("localStorage.clear()")
        page.reload()
    page.evaluate("location.hash = 'images'")
    page.wait_for_selector(".tile img")
    yield page
    page.unroute_all()
    pages.check()


@pytest.fixture
def hand(page: Any) -> Hand:
    """On an image of its own that nobody has marked."""
    hand = Hand(page)
    hand.show(next(i["name"] for i in hand.items("&state=unmarked&search=drawn")))
    for key in ("Escape", "b", "2"):  # brush, benign
        page.keyboard.press(key)
    return hand
