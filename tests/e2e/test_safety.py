"""What the page keeps out: other servers, other pages, scripts in names and headers; and that it needs no network."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests import helpers
from tests.e2e.conftest import Open, Watch
from tests.e2e.hand import Hand
from tests.e2e.serving import Server

SCRIPT = "<img src=x onerror=document.title='run'>"


def test_the_policy_stops_what_the_tests_watch_for(server: Server, browser: Any) -> None:
    """A page that asked another server, or ran a script of its own, would fail every test that opens one."""
    watch = Watch(server.origin)
    context = browser.new_context(storage_state=server.cookies)
    page = context.new_page()
    watch.follow(page)
    page.goto(server.origin if server.cookies else server.address)
    page.wait_for_selector(".shell")
    server.cookies = server.cookies or {"cookies": context.cookies(), "origins": []}
    watch.check()
    for attempt in (
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"http://example.org/a.png\">')",
        "document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 1'}))",
        "fetch('http://example.org/').catch(() => 0)",
    ):
        page.evaluate(f"() => {{ {attempt} }}")
        page.wait_for_timeout(300)
        assert any("Content Security Policy" in text for text in watch.errors), attempt
        watch.errors.clear()
    assert page.title() != "1"
    context.close()


def test_names_of_files_and_texts_of_headers_are_shown_as_text(page: Any, tmp_path: Path) -> None:
    path = helpers.write_dicom(tmp_path / f"{SCRIPT}.dcm", seed=80)
    dataset = pydicom.dcmread(path)
    dataset.ManufacturerModelName = SCRIPT
    dataset.save_as(path)
    hand = Hand(page)
    page.click("text=Add images")
    with page.expect_file_chooser() as chooser:
        page.click("text=Choose files")
    chooser.value.set_files([str(path)])
    item = hand.until(lambda: next((i for i in hand.items() if SCRIPT in i["name"]), None))
    page.reload()
    page.get_by_placeholder("Search").fill("onerror")  # its tile is out of sight without
    assert SCRIPT in item["device"]
    for view, where in (
        ("images", ".tile .name"),
        (f"mark/{item['id']}/0", ".mark-head h1"),
        (f"mark/{item['id']}/0", ".mark-head .muted"),
        ("look/device", "th[scope=row]"),
    ):
        page.evaluate(f"location.hash = '{view}'")
        page.wait_for_function(
            "([where, text]) => [...document.querySelectorAll(where)].some(e => e.textContent.includes(text))",
            arg=[where, "<img src=x"],
        )
        assert page.locator("img[src='x']").count() == 0
    assert page.title() != "run"


@pytest.fixture
def foreign(server: Server) -> Iterator[str]:
    """Another page on the same machine: the browser sends it the cookie of this host, whatever the port."""
    target = server.origin

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<!doctype html><title>other</title><iframe src='{target}/'></iframe>".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{other.server_port}/"
        other.shutdown()


def test_another_page_can_neither_show_read_nor_send(server: Server, open_page: Open, foreign: str) -> None:
    own = open_page(server)
    ask = "path => fetch(path).then(r => r.json())"
    (image,) = own.evaluate(ask, "/api/images?limit=1")["items"]
    row = {"id": uuid.uuid4().hex, "image": image["id"], "frame": 0, "kind": "label", "class": "benign"}
    body = json.dumps({"rater": "mallory", "rows": [row]})
    marked = own.evaluate(ask, "/api/marks")["row"]
    page = own.context.new_page()
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.method) if r.url.startswith(f"{server.origin}/api/") else None)
    page.goto(foreign)
    frame = next(f for f in page.frames if f != page.main_frame)
    assert "ultraad" not in frame.content(), "the page is not shown inside another one"
    send = """([url, method, mode, body]) => {
        const headers = body ? {'Content-Type': mode === 'cors' ? 'application/json' : 'text/plain'} : {};
        return fetch(url, {method, mode, credentials: 'include', body, headers}).then(r => r.text(), e => 'stopped');
    }"""
    for mode in ("cors", "no-cors"):
        for method, path in (("GET", "/api/project"), ("POST", "/api/marks"), ("GET", f"/api/images/{image['id']}")):
            what = [server.origin + path, method, mode, body if method == "POST" else None]
            assert page.evaluate(send, what) in ("stopped", "")
    assert {"GET", "POST"} <= set(asked)
    page.close()
    assert own.evaluate(ask, "/api/marks")["row"] == marked, "nothing was saved"
    with_cookie = own.evaluate(
        "body => fetch('/api/marks', {method: 'POST', body, headers: {'Content-Type': 'application/json'}})"
        ".then(r => r.status)",
        body,
    )
    assert with_cookie == 200, "the same from the page itself would have been"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs the network namespaces of Linux")
def test_the_whole_loop_runs_where_no_route_leads_away(tmp_path: Path) -> None:
    """The server, the browser and the command line in a network namespace that has this machine's loopback and no more.

    Its kernel counts the packets for which there was no route: nothing tried to leave.
    """
    test = "tests/e2e/test_loop.py::test_mark_adapt_look_correct_and_take_the_model_away"
    command = f"{sys.executable} -m pytest -q -p no:cacheprovider {test}"
    script = f"ip link set lo up && {command}; echo code $?; cat /proc/net/snmp"
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", script],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "CI": "1", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    if "unshare failed" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip("this user may make no network namespace")
    assert "code 0" in done.stdout, done.stdout[-3000:]
    names, values = (line.split()[1:] for line in done.stdout.splitlines() if line.startswith("Ip:"))
    counts = dict(zip(names, map(int, values), strict=True))
    assert counts["OutRequests"] > 100, "the loop went over the loopback of this namespace"
    assert counts["OutNoRoutes"] == 0
