"""The review of burned-in text in a browser: clicked, typed, killed in between, confirmed, written."""

from __future__ import annotations

import csv
import http.client
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.e2e.conftest import Watch
from tests.e2e.reviewing import Reviewing, at, saved, show, start, stop, write_scans
from tests.e2e.test_views import faults
from ultraad.dicom.deidentify.run import deidentify
from ultraad.io.image import read_image


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scans, and beside them a review that the search for text has made; each test gets a copy."""
    root = tmp_path_factory.mktemp("scans")
    deidentify(write_scans(root / "in"), root / "looked", frames=1)
    return root / "in"


Begin = Callable[[Path, Path], Reviewing]


class Opened:
    """Browsers on a page; each is new, as after a kill."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self.contexts: list[Any] = []

    def __call__(self, command: Reviewing, **options: Any) -> Any:
        context = self._browser.new_context(viewport={"width": 1280, "height": 800}, **options)
        context.set_default_timeout(20_000)
        self.contexts.append(context)
        page = context.new_page()
        watch = Watch(command.origin)
        watch.follow(page)
        page.watch = watch
        page.goto(command.address)
        page.wait_for_selector(".decide h1")
        return page


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts the command; what still runs at the end of the test is stopped."""
    started: list[Reviewing] = []

    def begun(source: Path, out: Path) -> Reviewing:
        review = out.with_name(f"{out.name}-review")
        if not review.exists():
            shutil.copytree(source.with_name("looked-review"), review)
        started.append(start(source, out))
        return started[-1]

    yield begun
    for one in started:
        stop(one)


@pytest.fixture
def opened(browser: Any) -> Iterator[Opened]:
    found = Opened(browser)
    yield found
    for context in found.contexts:
        context.close()


def boxes(page: Any) -> list[str]:
    """The boxes as they are listed, without the scores."""
    return [text.split("\n")[0] for text in page.locator(".boxes li .name").all_inner_texts()]


def actions(page: Any) -> list[str]:
    return page.locator(".boxes .toggle").all_inner_texts()


def lines_of(out: Path, name: str) -> list[dict[str, str]]:
    with (out.with_name(f"{out.name}-review") / "boxes.csv").open(newline="") as file:
        return [line for line in csv.DictReader(file) if line["file"] == name]


def box_of(line: dict[str, str]) -> tuple[int, int, int, int]:
    return tuple(int(line[key]) for key in ("x0", "y0", "x1", "y1"))  # type: ignore[return-value]


def test_a_person_decides_by_mouse_and_keyboard_kills_lose_nothing_and_only_what_is_confirmed_is_written(
    scans: Path, tmp_path: Path, begin: Begin, opened: Opened
) -> None:
    out = tmp_path / "clean"
    command = begin(scans, out)
    page = opened(command)
    assert page.locator(".count").inner_text() == "0 of 4 decided, 4 open"
    assert page.locator("button:text-is('Write the images…')").is_disabled()

    show(page, "still.dcm")  # the mouse: a stroke draws a box, a click turns one over
    found = boxes(page)
    assert found
    assert set(actions(page)) == {"blank"}
    page.mouse.move(*at(page, 200, 100))
    page.mouse.down()
    page.mouse.move(*at(page, 260, 140), steps=4)
    page.mouse.up()
    page.wait_for_selector(".boxes .name:text-is('drawn')")
    saved(page)
    *_, mine = lines_of(out, "still.dcm")
    assert mine["box"] == ""
    assert all(abs(a - b) <= 1 for a, b in zip(box_of(mine), (200, 100, 260, 140), strict=True))
    x0, y0, x1, y1 = box_of(lines_of(out, "still.dcm")[0])
    page.mouse.click(*at(page, (x0 + x1) / 2, (y0 + y1) / 2))
    page.wait_for_selector("#toggle-0:text-is('leave')")
    page.click("#toggle-0")
    page.wait_for_selector("#toggle-0:text-is('blank')")
    page.click("#confirm")
    page.wait_for_selector(".count:has-text('1 of 4 decided')")
    kept = lines_of(out, "still.dcm")
    assert {line["confirmed"] for line in kept} == {"yes"}

    page.watch.check()
    page.context.close()  # the browser is killed, and then the command
    opened.contexts.clear()
    command.process.send_signal(signal.SIGKILL)
    command.process.wait(20)
    assert not out.exists()
    command = begin(scans, out)
    assert lines_of(out, "still.dcm") == kept
    page = opened(command)
    assert page.locator(".count").inner_text() == "1 of 4 decided, 3 open"
    assert page.locator(".files .confirmed").inner_text().split("\n")[1] == "still.dcm"

    show(page, "cine.dcm")  # the keyboard alone
    assert page.locator(".viewer svg").count() == 2
    count = len(boxes(page))
    page.keyboard.press("n")
    page.wait_for_selector(".boxes .name:text-is('drawn')")
    before = box_of(lines_of(out, "cine.dcm")[-1])
    page.keyboard.press("Shift+ArrowRight")
    saved(page)
    page.keyboard.press("Alt+ArrowDown")
    saved(page)
    x0, y0, x1, y1 = box_of(lines_of(out, "cine.dcm")[-1])
    assert (x0 > before[0], y0 == before[1], y1 > before[3]) == (True, True, True)
    page.keyboard.press("Delete")
    page.wait_for_function(f"() => document.querySelectorAll('.boxes li').length === {count}")
    page.keyboard.press("Space")
    page.wait_for_selector(f"#toggle-{count - 1}:text-is('leave')")
    page.keyboard.press("Enter")
    page.wait_for_selector(".count:has-text('2 of 4 decided')")
    show(page, "cine.dcm")
    page.keyboard.press("Space")  # another decision opens it again
    page.wait_for_selector(".count:has-text('1 of 4 decided')")
    page.keyboard.press("Enter")
    page.wait_for_selector(".count:has-text('2 of 4 decided')")
    show(page, "export.png")
    assert "not be declared free of text" in page.locator(".decide").inner_text()
    page.keyboard.press("x")
    page.wait_for_selector(".count:has-text('3 of 4 decided')")
    page.wait_for_selector(".decide h1:text-is('plain.dcm')")  # the next that is open
    page.keyboard.press("Enter")
    page.wait_for_selector(".count:text-is('4 of 4 decided')")
    page.click("button:text-is('Write the images…')")
    page.keyboard.press("x")  # behind the dialog, keys decide nothing
    page.click("#yes")
    page.wait_for_selector("h1:text-is('Confirmed.')")
    page.watch.check()

    said = command.rest()
    assert command.process.returncode == 0, said
    assert "3 written, 1 left out by the review, 0 failed" in said
    assert "3 declared free of identity" in said
    written = sorted(out.rglob("*.dcm"))
    assert len(written) == 3
    assert {pydicom.dcmread(path).BurnedInAnnotation for path in written} == {"NO"}
    (still,) = [path for path in written if not read_image(path)[102:138, 202:258].any()]  # what was drawn is black
    for line in kept:
        x0, y0, x1, y1 = box_of(line)
        assert not read_image(still)[y0:y1, x0:x1].any()


def test_what_does_not_come_from_the_page_is_refused(scans: Path, tmp_path: Path, begin: Begin, opened: Opened) -> None:
    out = tmp_path / "clean"
    command = begin(scans, out)
    page = opened(command)
    host = command.origin.removeprefix("http://")

    def status(method: str, path: str, **headers: str) -> int:
        connection = http.client.HTTPConnection(host, timeout=10)
        body = json.dumps({"boxes": [], "state": "dropped"})
        connection.request(method, path, body=body, headers={"Content-Type": "application/json", **headers})
        found = connection.getresponse().status
        connection.close()
        return found

    before = lines_of(out, "still.dcm")
    (cookie,) = page.context.cookies()
    mine = {"Cookie": f"{cookie['name']}={cookie['value']}"}
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert status("GET", "/api/review") == status("POST", "/api/review/0") == status("POST", "/api/confirm") == 401
    assert status("GET", "/api/review/0/pictures/0") == 401
    assert status("POST", "/api/review/0", Host="example.org", **mine) == 421
    assert status("POST", "/api/review/0", Origin="http://example.org", **mine) == 403
    assert status("POST", "/api/confirm", **mine) == 409  # nothing was decided
    numbers = {
        one["file"]: n for n, one in enumerate(page.evaluate("fetch('/api/review').then(r => r.json())")["files"])
    }
    assert status("POST", f"/api/review/{numbers['still.dcm']}", **mine) == 422  # the boxes that were found are missing
    assert status("GET", "/api/review/99/pictures/0", **mine) == 404
    assert lines_of(out, "still.dcm") == before
    code = command.address.partition("code=")[2]
    used = page.evaluate(
        "code => fetch('/api/session', {method: 'POST', credentials: 'omit', body: JSON.stringify({code}), "
        "headers: {'Content-Type': 'application/json'}}).then(r => r.status)",
        code,
    )
    assert used == 401  # the address works once
    command.process.send_signal(signal.SIGINT)
    assert "run the same command again to resume" in command.rest()
    assert command.process.returncode == 130
    assert not out.exists()
    page.keyboard.press("Enter")  # nobody answers any more, and the page says so
    page.wait_for_selector(".told.bad:has-text('Not saved')")
    assert page.locator(".files .confirmed").count() == 0


def test_the_page_has_no_accessibility_fault(
    scans: Path, tmp_path: Path, begin: Begin, opened: Opened, axe: str
) -> None:
    command = begin(scans, tmp_path / "clean")
    page = opened(command, bypass_csp=True)
    show(page, "cine.dcm")
    page.evaluate(axe)
    assert faults(page, ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]) == []
