"""The browser is killed, the disk is full, there are two tabs: what was marked is there afterwards."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Open
from tests.e2e.hand import Hand
from tests.e2e.scans import simulated
from tests.e2e.serving import RULES, Server, chromium, start, stop


@pytest.fixture
def own_server(tmp_path: Path, browser: Any) -> Iterator[Server]:
    """A server of this test's own."""
    server = start(simulated(tmp_path / "scans", each=1), tmp_path / "project")
    yield server
    stop(server)


def processes_below(parent: int) -> list[int]:
    """A process and all that it started."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listed.splitlines():
        pid, of = map(int, line.split())
        children.setdefault(of, []).append(pid)
    found = [parent]
    for pid in found:
        found += children.get(pid, [])
    return found


def stroke_at(n: int) -> list[tuple[float, float]]:
    """A short stroke that touches no other."""
    x, y = 10 + 14 * (n % 10), 10 + 14 * (n // 10 % 10)
    return [(x, y), (x + 4, y)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the browser's processes in /proc")
@pytest.mark.parametrize("kills", [8])
def test_kills_of_the_browser_lose_at_most_the_stroke_in_the_air(
    kills: int, tmp_path: Path, own_server: Server, browser: Any
) -> None:
    """With a server that saves nothing meanwhile: the strokes wait on the disk of the browser."""
    rng, drawn, cookies = random.Random(2), 0, []
    (name,) = own_server.images.of("benign")
    marks = "() => document.querySelectorAll('#marks > li').length"
    arguments = ["--no-sandbox", "--disable-gpu", f"--host-resolver-rules={RULES}"]
    for turn in range(kills + 1):
        context = browser.browser_type.launch_persistent_context(
            tmp_path / "profile", executable_path=chromium(), args=arguments
        )
        context.set_default_timeout(60_000)
        context.add_cookies(cookies)  # a browser forgets them when it ends
        page = context.pages[0]
        if turn < kills:
            page.route("**/api/marks", lambda route: route.abort())
        page.goto(own_server.origin if turn else own_server.address)
        page.wait_for_selector(".tile img")
        cookies = context.cookies()
        hand = Hand(page)
        hand.show(name)
        found = hand.until(lambda least=drawn - turn, page=page: (n := page.evaluate(marks)) >= least and n + 1) - 1
        if turn == kills:
            hand.saved()
            assert len(hand.marks()) == found
            context.close()
            break
        for _ in range(rng.randint(1, 3)):
            page.keyboard.press("x")  # a lesion of its own
            hand.draw(stroke_at(drawn))
            drawn += 1
        time.sleep(rng.uniform(0, 0.3))
        for pid in processes_below(_browser_of(tmp_path / "profile")):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert drawn >= found >= drawn - kills, "each kill lost at most one stroke"


def _browser_of(profile: Path) -> int:
    """The browser's first process: its command line names the profile, and its parent does not."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"--user-data-dir={profile}" in path.read_text().split("\0"):
                found[int(path.parent.name)] = int(path.with_name("stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return next(pid for pid, parent in found.items() if parent not in found)


@pytest.fixture
def disk(own_server: Server) -> Iterator[Callable[[int | None], None]]:
    """Sets how large a file of the server may become: its disk is full, or is not."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("needs prlimit")

    def limit(size: int | None) -> None:
        _, most = resource.prlimit(own_server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(
            own_server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY if size is None else size, most)
        )

    yield limit
    limit(None)


def test_strokes_wait_while_the_disk_is_full_and_are_saved_when_there_is_room(
    own_server: Server, open_page: Open, disk: Callable[[int | None], None]
) -> None:
    page = open_page(own_server)
    hand = Hand(page)
    page.wait_for_selector(".tile img", timeout=60_000)
    hand.show(own_server.images.of("benign")[0])
    hand.mouse(stroke_at(0))
    hand.expect(1)
    disk(0)
    hand.draw(stroke_at(44))
    page.wait_for_selector(".note.error:has-text('disk of the project is full')")
    page.wait_for_function("() => document.querySelectorAll('#marks > li').length === 2")
    assert page.locator("[data-saved='true']").count() == 0
    assert "1 wait" in page.inner_text(".line")
    disk(None)
    hand.expect(2)
    assert page.locator(".note.error").count() == 0
    page.reload()
    page.wait_for_selector("#stage")
    hand.expect(2)


def test_two_tabs_of_one_rater_show_the_same_and_save_each_stroke_once(server: Server, open_page: Open) -> None:
    first = open_page(server)
    first.wait_for_selector(".tile img", timeout=60_000)
    second = first.context.new_page()
    second.goto(server.origin)
    second.wait_for_selector(".tile img", timeout=60_000)
    one, two = Hand(first), Hand(second)
    free = one.until(lambda: one.items("&state=unmarked&search=drawn"))[-1]["name"]
    for hand in (one, two):
        hand.show(free)
    one.mouse(stroke_at(0))
    two.expect(1)
    two.mouse(stroke_at(44))
    one.expect(2)
    one.page.keyboard.press("z")  # one rater has one history, whatever the tab
    one.expect(1)
    two.expect(1)
    two.page.keyboard.press("Shift+Z")
    assert one.expect(2) == two.expect(2)
