"""The whole loop in a browser: mark, adapt, look, correct, adapt, undo, reload, take away, and use it elsewhere."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import REAL, Open, real, simulated, start, stop
from tests.e2e.hand import Hand, across, corners


def adapt(page: Any, model: int) -> None:
    """Press the keys, and wait for the last map of the new model."""
    page.keyboard.press("Shift+Enter")
    page.wait_for_function(
        f"() => document.querySelector('.bottom .model').textContent === 'model {model}'", timeout=20_000
    )
    page.wait_for_selector("#adapt:not([aria-disabled='true'])", timeout=20_000)


@pytest.mark.parametrize("kind", ["simulated", "real"])
def test_mark_adapt_look_correct_and_take_the_model_away(kind: str, tmp_path: Path, open_page: Open) -> None:
    if kind == "real" and not REAL.is_dir():
        pytest.skip("no real images beside this checkout")
    images = (simulated if kind == "simulated" else real)(tmp_path / "scans", each=4)
    server = start(images, tmp_path / "project")
    try:
        page = open_page(server, has_touch=True)
        hand = Hand(page)
        page.wait_for_selector(".tile img")
        page.wait_for_selector(".bottom .model:text-is('starting model')", timeout=60_000)
        assert page.locator("#adapt").get_attribute("aria-disabled") == "true"
        assert "normal" in page.inner_text("#why-not")

        for name in images.of("normal")[:2]:  # by keyboard: the tile has the focus, 1 is the first class
            page.locator(".tile a", has_text=name).focus()
            page.keyboard.press("1")
            page.wait_for_selector(f".tile:has-text('{name}') .badges .dot")
        for name in images.of("benign")[:2]:  # with the mouse
            hand.show(name)
            page.keyboard.press("2")
            hand.polygon(corners(images.truth[name][1]))
            assert "benign" in hand.expect(1)[0]
        first, second = images.of("malignant")[:2]
        hand.show(first)  # with a finger
        page.keyboard.press("3")
        page.keyboard.press("b")
        hand.touch(across(images.truth[first][1]))
        assert "malignant" in hand.expect(1)[0]
        hand.show(second)  # by keyboard alone: a box, corner to corner
        page.keyboard.press("r")
        page.keyboard.press("k")
        page.keyboard.press("Space")
        for _ in range(2):
            page.keyboard.press("Shift+ArrowRight")
            page.keyboard.press("Shift+ArrowDown")
        page.keyboard.press("Space")
        page.wait_for_selector(".proposal")
        assert hand.marks() == []  # shown before it counts
        page.keyboard.press("Enter")
        assert "malignant" in hand.expect(1)[0]
        page.keyboard.press("k")

        adapt(page, 1)

        page.goto(f"{server.origin}/#look")
        page.wait_for_selector(".tile canvas.map")
        assert page.locator(".tile .verdict").count() >= 6

        fresh = images.of("benign")[2]  # correct: accept what the model draws at a low threshold
        hand.show(fresh)
        threshold = page.get_by_label("Map threshold")
        threshold.focus()
        page.keyboard.press("Home")
        page.wait_for_selector(".side button:text-is('Accept')")
        page.locator("#stage").focus()
        page.keyboard.press("Enter")
        hand.expect(1)
        assert "accepted" in page.inner_text("#marks")

        adapt(page, 2)
        page.goto(f"{server.origin}/#adapt")
        page.wait_for_selector("h2:text-is('What changed since model 1')")
        page.click("text=Back to model 1")
        page.wait_for_function("() => document.querySelector('.bottom .model').textContent === 'model 1'")
        page.click("[aria-label='Use model 2']")
        page.wait_for_function("() => document.querySelector('.bottom .model').textContent === 'model 2'")

        hand.show(fresh)
        hand.expect(1)
        page.keyboard.press("z")
        hand.expect(0)
        page.reload()
        page.wait_for_selector("#stage")
        hand.expect(0)
        page.keyboard.press("Control+Shift+Z")
        hand.expect(1)
        page.reload()
        page.wait_for_selector("#stage")
        hand.expect(1)

        page.goto(f"{server.origin}/#take")
        page.click("button:has-text('Export')")
        page.wait_for_selector(".exports code >> nth=1", timeout=20_000)
        command = shlex.split(page.locator(".exports .command code").inner_text())
        with page.expect_download() as download:
            page.click("text=Download")
        assert Path(download.value.path()).read_bytes()[:2] == b"PK"
    finally:
        stop(server)
    assert command[0] == "ultraad"
    run = subprocess.run(
        [sys.executable, "-m", "ultraad.cli", *command[1:]],
        cwd=server.project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
