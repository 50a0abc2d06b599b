"""The whole loop in a browser: mark, adapt, look, correct, adapt, undo, reload, take away, and use it elsewhere."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Open
from tests.e2e.hand import Hand, across, corners
from tests.e2e.scans import DATA, bus_uclm
from tests.e2e.serving import Server, start, stop
from ultraad.cli import main

LONG = 120_000  # milliseconds; machines that are shared are slow


def adapt(page: Any) -> int:
    """Press the keys, wait for the last map of the new model, and return its number."""
    before = page.evaluate("fetch('/api/models').then(r => r.json())")[0]["number"]
    page.keyboard.press("Shift+Enter")
    page.wait_for_selector(f".bottom .model:text-is('model {before + 1}')", timeout=LONG)
    page.wait_for_selector("#adapt:not([aria-disabled='true'])", timeout=LONG)
    return int(before + 1)


def test_mark_adapt_look_correct_and_take_the_model_away(
    server: Server, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On images that ship, and strips of tissue beside their lesions as normal ones."""
    loop(server, open_page, monkeypatch)


@pytest.mark.slow
def test_the_same_with_real_normal_images_and_the_backbone_that_ships(
    tmp_path: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (DATA / "BUS-UCLM").is_dir():
        pytest.skip("BUS-UCLM is not beside this checkout")
    server = start(bus_uclm(tmp_path / "scans", each=4), tmp_path / "project", backbone="embedded")
    try:
        loop(server, open_page, monkeypatch)
    finally:
        stop(server)


def loop(server: Server, open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    page = open_page(server, has_touch=True, width=1024, height=640)
    hand = Hand(page)
    page.wait_for_selector(".bottom .model:not(:text-is('no model yet'))", timeout=LONG)
    page.wait_for_selector(".tile img")
    unmarked = {item["name"] for item in hand.items("&state=unmarked")}
    normal, benign, malignant = (
        [name for name in server.images.of(label) if name in unmarked and not name.startswith("drawn")]
        for label in ("normal", "benign", "malignant")
    )

    for name in normal[:2]:  # by keyboard: the tile has the focus, 1 is the first class
        page.locator(".tile a", has_text=name).focus()
        page.keyboard.press("1")
        page.wait_for_selector(f".tile:has-text('{name}') .badges .dot")
    for name in benign[:2]:  # with the mouse
        hand.show(name)
        page.keyboard.press("2")
        hand.polygon(corners(server.images.truth[name][1]))
        assert "benign" in hand.expect(1)[0]
    first, second = malignant[:2]
    hand.show(first)  # with a finger
    page.keyboard.press("3")
    page.keyboard.press("b")
    hand.touch(across(server.images.truth[first][1]))
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

    one = adapt(page)
    page.wait_for_selector(f".ready:has-text('Model {one} is ready')")
    page.click(".ready a:text-is('Look')")
    page.wait_for_selector(".tile canvas.map")
    assert page.locator(".tile .verdict").count() >= 6

    fresh = benign[2]  # correct: accept what the model draws at a low threshold
    hand.show(fresh)
    page.get_by_label("Map threshold").focus()
    page.keyboard.press("Home")
    page.wait_for_selector(".side button:text-is('Accept')")
    page.locator("#stage").focus()
    page.keyboard.press("Enter")
    hand.expect(1)
    assert "accepted" in page.inner_text("#marks")

    two = adapt(page)
    page.evaluate("location.hash = 'adapt'")
    page.wait_for_selector(f"h2:text-is('What changed since model {one}')")
    page.click(f".page >> text=Back to model {one}")
    page.wait_for_selector(f".bottom .model:text-is('model {one}')")
    page.click(f"[aria-label='Use model {two}']")
    page.wait_for_selector(f".bottom .model:text-is('model {two}')")

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

    page.evaluate("location.hash = 'take'")
    page.click("button:has-text('Export')")
    page.wait_for_selector(".exports .command code", timeout=LONG)
    command = shlex.split(page.locator(".exports .command code").first.inner_text())
    with page.expect_download() as download:
        page.click("text=Download")
    assert Path(download.value.path()).read_bytes()[:2] == b"PK"

    assert command[0] == "ultraad"
    monkeypatch.chdir(server.project)
    with pytest.raises(SystemExit) as end:
        main(command[1:])
    assert end.value.code in (None, 0)
