"""Marking with every kind of hand, and never losing or moving a stroke."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.e2e.conftest import Open
from tests.e2e.hand import Hand
from tests.e2e.scans import simulated
from tests.e2e.serving import Server, start, stop


def sent(hand: Hand) -> list[dict[str, Any]]:
    """The rows that the page posts from now on."""
    rows: list[dict[str, Any]] = []

    def note(request: Any) -> None:
        if request.method == "POST" and request.url.endswith("/api/marks"):
            rows.extend(json.loads(request.post_data)["rows"])

    hand.page.on("request", note)
    return rows


def outline(hand: Hand) -> list[list[float]]:
    """The first lesion's outline as the server has it."""
    view = hand.page.evaluate("location.hash").split("/")
    found = hand.page.evaluate(f"fetch('/api/images/{view[1]}/frames/{view[2]}/marks').then(r => r.json())")
    return found["lesions"][0]["outline"]


def test_mouse_finger_and_pen_draw_and_only_the_pen_has_pressure(hand: Hand) -> None:
    rows = sent(hand)
    line = [(40.0, 40.0), (60.0, 44.0), (80.0, 40.0)]
    hand.mouse(line)
    hand.touch([(x, y + 40) for x, y in line])
    hand.pen([(x, y + 80) for x, y in line], [0.1, 0.5, 1.0])
    hand.expect(3)
    mouse, touch, pen = rows
    assert "radii" not in mouse
    assert mouse["radius"] == touch["radius"]
    assert pen["radii"] == sorted(pen["radii"])
    assert pen["radii"][-1] > 1.5 * pen["radii"][0]
    for row, dy in ((mouse, 0), (touch, 40), (pen, 80)):
        assert row["points"][:2] == pytest.approx([40, 40 + dy], abs=1)
        assert row["points"][-2:] == pytest.approx([80, 40 + dy], abs=1)


@pytest.mark.slow
def test_two_fingers_zoom_and_draw_nothing(hand: Hand) -> None:
    def fingers(kind: str, *points: tuple[float, float]) -> None:
        spots = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(points)]
        hand.cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": spots})

    x, y = hand.at(80, 80)
    fingers("touchStart", (x, y))
    fingers("touchStart", (x, y), (x + 60, y))
    for k in range(1, 8):
        fingers("touchMove", (x - 12 * k, y), (x + 60 + 12 * k, y))
    fingers("touchEnd")
    assert hand.marks() == []
    hand.page.mouse.move(x, y)
    hand.page.mouse.down()
    hand.page.mouse.move(x + 30, y, steps=4)
    hand.page.mouse.up()
    (text,) = hand.expect(1)
    long = float(text.split(",")[2].split()[0])
    w = hand.page.locator("#stage").bounding_box()["height"] / hand.size[1]
    assert long < 30 / w + 2 * 3 + 2  # 30 screen pixels are fewer image pixels than without zoom


@pytest.mark.slow
def test_a_stroke_stays_where_it_is_in_the_image_at_any_zoom(hand: Hand) -> None:
    hand.mouse([(50, 50), (90, 70)])
    before = outline(hand)
    x, y = hand.at(80, 80)
    hand.page.mouse.move(x, y)
    hand.page.mouse.wheel(0, -400)
    hand.page.keyboard.press("z")
    hand.expect(0)
    hand.page.keyboard.press("Shift+Z")
    hand.expect(1)
    hand.page.keyboard.press("0")
    assert outline(hand) == before


@pytest.mark.slow
def test_the_eraser_the_polygon_and_a_second_lesion(hand: Hand) -> None:
    page = hand.page
    hand.mouse([(40, 40), (70, 40)])
    hand.polygon([(100, 90), (130, 90), (130, 120), (100, 120)])
    texts = hand.expect(2)
    assert "30 x 30" in texts[1] or "42 x 42" in texts[1]
    page.keyboard.press("b")
    hand.mouse([(70, 40), (80, 44)])  # touches the first: the same lesion
    hand.expect(2)
    page.keyboard.press("x")
    hand.mouse([(76, 44), (84, 48)])  # touches it too, but a new one was asked for
    hand.expect(3)
    page.keyboard.press("e")
    for _ in range(9):
        page.keyboard.press("]")
    hand.mouse([(99, 90), (131, 105), (99, 120), (131, 120), (131, 90)])
    hand.expect(2)


@pytest.mark.slow
def test_a_polygon_loses_one_corner_per_undo_while_it_is_drawn(hand: Hand) -> None:
    page = hand.page
    rows = sent(hand)
    page.keyboard.press("p")
    for point in ((40, 40), (80, 40), (120, 140), (80, 80), (40, 80)):
        page.mouse.click(*hand.at(*point))
        if point == (120, 140):
            page.keyboard.press("z")
    page.keyboard.press("Enter")
    hand.expect(1)
    assert len(rows[0]["points"]) == 8


def test_a_box_is_shown_before_it_counts_and_can_be_dropped(hand: Hand) -> None:
    page = hand.page
    rows = sent(hand)
    page.keyboard.press("r")
    page.mouse.move(*hand.at(40, 40))
    page.mouse.down()
    page.mouse.move(*hand.at(90, 80), steps=4)
    page.mouse.up()
    rule = page.inner_text(".proposal p >> nth=0")
    assert rule.startswith("box: ")
    page.keyboard.press("Escape")
    page.wait_for_selector(".proposal", state="detached")
    assert rows == []
    hand.expect(0)


def test_undo_is_one_step_and_changes_neither_tool_nor_class_nor_image(hand: Hand) -> None:
    page = hand.page
    hand.mouse([(40, 40), (60, 40)])
    page.keyboard.press("3")
    page.keyboard.press("e")
    hand.mouse([(50, 30), (50, 50)])
    hash_before = page.evaluate("location.hash")
    page.keyboard.press("Control+z")
    page.wait_for_function("() => document.querySelector('.status').textContent.startsWith('Undone')")
    page.keyboard.press("z")
    hand.expect(0)
    assert page.locator(".tool[aria-label='Eraser']").get_attribute("aria-pressed") == "true"
    assert page.locator(".choice[aria-pressed='true'] >> nth=0").inner_text().startswith("M")
    assert page.evaluate("location.hash") == hash_before
    page.click("[aria-label^='Redo']")
    hand.expect(1)


@pytest.mark.slow
def test_a_label_is_one_step_too_and_a_conflict_is_said(hand: Hand) -> None:
    page = hand.page
    page.keyboard.press("1")
    page.wait_for_selector(".choice[aria-pressed='true']:has-text('normal')")
    hand.saved()
    hand.mouse([(40, 40), (60, 40)])
    page.wait_for_selector(".note.warning:has-text('normal')")
    page.keyboard.press("z")
    page.keyboard.press("z")
    page.wait_for_selector(".choice[aria-pressed='true']:has-text('normal')", state="detached")


def test_marks_can_be_chosen_reclassified_and_deleted_from_the_list(hand: Hand) -> None:
    page = hand.page
    hand.mouse([(40, 40), (60, 40)])
    page.locator("#marks .row-main").focus()
    page.keyboard.press("Enter")
    assert page.locator("#marks .row-main").get_attribute("aria-pressed") == "true"
    page.keyboard.press("3")
    page.wait_for_selector("#marks :text('malignant')")
    page.locator("#marks .row-main").focus()
    page.keyboard.press("Delete")
    hand.expect(0)
    assert hand.told().startswith("deleted: lesion ")


def test_keys_type_in_text_fields_and_can_be_switched_off(hand: Hand) -> None:
    page = hand.page
    page.keyboard.press("b")
    page.keyboard.press("?")
    page.get_by_label("Single keys work").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("e")
    assert page.locator(".tool[aria-label='Brush']").get_attribute("aria-pressed") == "true"
    page.click("[aria-label='Keys']")
    page.get_by_label("Single keys work").check()
    page.click("button.key:has-text('Key for eraser')")
    page.keyboard.press("b")
    page.wait_for_selector('text=B means "brush" already')
    page.click("button.key:has-text('Key for eraser')")
    page.keyboard.press("q")
    page.keyboard.press("Escape")
    page.keyboard.press("q")
    assert page.locator(".tool[aria-label='Eraser']").get_attribute("aria-pressed") == "true"
    page.goto(page.url.split("#")[0] + "#images")
    page.get_by_placeholder("Search").fill("")
    page.get_by_placeholder("Search").press_sequentially("be?1")
    assert page.get_by_placeholder("Search").input_value() == "be?1"
    assert page.locator("dialog").count() == 0


def test_a_cine_is_marked_frame_by_frame_and_marks_are_copied_on(hand: Hand) -> None:
    page = hand.page
    hand.show("cine.dcm", 1)
    hand.mouse([(20, 20), (30, 20)])
    (text,) = hand.expect(1)
    assert "mm" in text
    page.keyboard.press("c")
    page.wait_for_function("() => location.hash.endsWith('/2')")
    hand.expect(1)
    assert "copied" in page.inner_text("#marks")
    page.keyboard.press(".")
    page.wait_for_function("() => location.hash.endsWith('/3')")
    hand.expect(0)
    page.keyboard.press("Space")
    page.wait_for_selector("[aria-label='Stop']")
    first = page.evaluate("document.getElementById('stage').toDataURL()")
    page.wait_for_function("first => document.getElementById('stage').toDataURL() !== first", arg=first)
    page.keyboard.press("Space")
    page.wait_for_selector("[aria-label='Play']")


def test_strokes_wait_in_the_browser_while_the_server_is_away_and_outlive_the_tab(hand: Hand) -> None:
    page = hand.page
    name = page.inner_text(".mark-head h1")
    hand.mouse([(40, 40), (60, 40)])
    hand.expect(1)
    page.route("**/api/marks", lambda route: route.abort())
    hand.draw([(100, 100), (120, 100)])
    page.wait_for_selector(".line.away")
    page.wait_for_function("() => document.querySelectorAll('#marks > li').length === 2")
    assert "1 wait" in page.inner_text(".line")
    page.keyboard.press("z")  # what waits can be undone, and done again
    page.wait_for_function("() => document.querySelectorAll('#marks > li').length === 1")
    page.keyboard.press("Shift+Z")
    page.wait_for_function("() => document.querySelectorAll('#marks > li').length === 2")
    origin = page.evaluate("location.origin")
    page.goto("about:blank")  # the tab is gone; the strokes are in the browser
    page.unroute_all()
    page.goto(origin)
    page.wait_for_selector(".tile img")
    hand.show(name)
    hand.expect(2)


@pytest.mark.slow
def test_strokes_made_while_the_server_is_killed_are_saved_by_the_next_one(tmp_path: Path, open_page: Open) -> None:
    images = simulated(tmp_path / "scans", each=1)
    server = start(images, tmp_path / "project")
    page = open_page(server)
    hand = Hand(page)
    page.wait_for_selector(".tile img")
    name = images.of("benign")[0]
    hand.show(name)
    hand.mouse([(40, 40), (60, 40)])
    hand.expect(1)
    stop(server, signal.SIGKILL)
    page.wait_for_selector(".line.away")
    hand.draw([(100, 100), (120, 100)])
    page.wait_for_function("() => document.querySelectorAll('#marks > li').length === 2")
    again = start(images, server.project, server.port)
    try:
        page.wait_for_selector(".note.error:has-text('new address')")
        page.goto("about:blank")
        page.goto(again.address)
        page.wait_for_selector(".tile img")
        hand.show(name)
        hand.expect(2)
    finally:
        stop(again)


def test_marks_of_another_rater_arrive_and_undo_takes_back_only_ones_own(hand: Hand) -> None:
    page = hand.page
    _, image, frame = page.evaluate("location.hash").split("/")
    row = {"id": uuid4().hex, "image": image, "frame": int(frame), "kind": "stroke", "tool": "brush", "radius": 4}
    row |= {"points": [40, 40, 60, 40], "lesion": uuid4().hex, "class": "benign"}
    body = json.dumps({"rater": "anna", "rows": [row]})
    send = "body => fetch('/api/marks', {method: 'POST', body, headers: {'Content-Type': 'application/json'}})"
    assert page.evaluate(f"body => ({send})(body).then(r => r.status)", body) == 200
    hand.expect(1)
    assert "anna" in page.inner_text("#marks")
    hand.mouse([(100, 100), (120, 100)])
    hand.expect(2)
    page.keyboard.press("z")
    hand.expect(1)
    page.keyboard.press("z")
    page.wait_for_selector(".status:has-text('Nothing to undo')")
    assert "anna" in page.inner_text("#marks")


@pytest.mark.slow
def test_two_raters_see_each_other(server: Server, open_page: Open) -> None:
    one, two = Hand(open_page(server)), Hand(open_page(server))
    for hand, name in ((one, "anna"), (two, "bert")):
        hand.page.wait_for_selector(".tile img")
        hand.page.evaluate(f"localStorage.setItem('ultraad.rater', '\"{name}\"')")
        hand.page.reload()
        hand.page.wait_for_selector(".tile img")
    free = next(i["name"] for i in one.items("&state=unmarked") if i["frames"] == 1)
    one.show(free)
    two.show(free)
    one.mouse([(40, 40), (60, 40)])
    two.expect(1)
    assert "anna" in two.page.inner_text("#marks")
    two.mouse([(100, 100), (120, 100)])
    assert len(one.expect(2)) == 2
    two.page.keyboard.press("z")  # takes back its own stroke only
    one.expect(1)
    assert "anna" in one.page.inner_text("#marks")
