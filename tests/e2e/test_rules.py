"""What the model says and what people say never look alike, and never get mixed up."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Open
from tests.e2e.hand import Hand
from tests.e2e.scans import simulated
from tests.e2e.serving import Server, start, stop

# The share of an outline whose pixels are coloured on the canvas: dashes have gaps, where the dark halo shows.
DRAWN = """
points => {
  const stage = document.getElementById('stage'), c = stage.getContext('2d'), box = stage.getBoundingClientRect();
  const k = stage.width / box.width;
  const coloured = points.map(([x, y]) => {
    const [r, g, b] = c.getImageData((x - box.left) * k, (y - box.top) * k, 1, 1).data;
    return Math.max(r, g, b) - Math.min(r, g, b) > 60;
  });
  return coloured.filter(Boolean).length / points.length;
}
"""


@pytest.fixture(scope="module", autouse=True)
def started(shared_page: tuple[Any, Any]) -> None:
    """The starting model has looked at the images."""
    shared_page[0].wait_for_selector(".bottom .model:not(:text-is('no model yet'))", timeout=60_000)


def along(ring: list[float], hand: Hand) -> list[tuple[float, float]]:
    """Points on the screen along an outline, one for each pixel of the image or more."""
    points = list(zip(ring[::2], ring[1::2], strict=True))
    (left, top), (right, _) = hand.at(0, 0), hand.at(1, 0)  # the stage is asked for its place once
    scale = right - left
    found = []
    for (x, y), (u, v) in zip(points, [*points[1:], points[0]], strict=True):
        steps = max(1, 2 * round(max(abs(u - x), abs(v - y))))
        found += [
            (left + scale * (x + (u - x) * n / steps), top + scale * (y + (v - y) * n / steps)) for n in range(steps)
        ]
    return found


def ask(page: Any, path: str) -> Any:
    return page.evaluate("path => fetch(path).then(r => r.json())", path)


def seen_by_model(page: Any) -> dict[str, Any]:
    """An image that nobody has marked, and that has a map."""
    hand = Hand(page)

    def found() -> list[dict[str, Any]]:
        items = hand.items("&state=unmarked&search=drawn")
        return items if all(i["pred"] and i["pred"]["has_map"] for i in items) else []

    return hand.until(found)[0]


def offered_with_class(page: Any, hand: Hand) -> dict[str, Any]:
    """An unmarked image that the model in use calls a lesion: its suggestions have the colour of a class."""
    for item in hand.items("&state=unmarked&search=drawn"):
        found = ask(page, f"/api/images/{item['id']}/frames/0/suggestions?threshold=0.02")["suggestions"]
        if found and found[0]["class"]:
            return item
    raise AssertionError("the model calls every unmarked image normal")


@pytest.fixture
def own(tmp_path: Path, browser: Any) -> Iterator[Server]:
    """A project whose model no other test adapts."""
    server = start(simulated(tmp_path / "scans", each=5), tmp_path / "project")
    yield server
    stop(server)


def test_a_suggestion_is_dashed_a_mark_is_solid_and_h_hides_what_was_not_accepted(own: Server, open_page: Open) -> None:
    page = open_page(own, width=760, height=560)
    hand = Hand(page)
    seen_by_model(page)
    item = hand.show(offered_with_class(page, hand)["name"])
    page.get_by_label("Map threshold").focus()
    page.keyboard.press("Home")
    page.wait_for_selector(".side button:text-is('Accept')")
    place = f"/api/images/{item['id']}/frames/0"
    page.locator("#stage").focus()
    page.keyboard.press("o")  # without the map, so that only lines have colours
    page.mouse.move(0, 0)

    def dashed() -> list[tuple[float, float]]:
        (ring, *_) = ask(page, f"{place}/suggestions?threshold=0.02")["suggestions"][0]["outline"]
        points = along(ring, hand)
        return points if 0.3 < page.evaluate(DRAWN, points) < 0.85 else []

    points = hand.until(dashed)
    page.keyboard.press("h")
    page.wait_for_function(f"points => ({DRAWN})(points) < 0.1", arg=points)
    assert page.locator(".side button:text-is('Accept')").count() == 0
    page.keyboard.press("Enter")  # what is hidden is not accepted
    page.wait_for_selector(".status:has-text('H shows them')")
    assert hand.marks() == []
    page.keyboard.press("h")
    page.keyboard.press("Enter")
    hand.expect(1)
    page.keyboard.press("h")
    (ring, *_) = ask(page, f"{place}/marks")["lesions"][0]["outline"]
    page.wait_for_function(f"points => ({DRAWN})(points) > 0.9", arg=along(ring, hand))


def test_the_review_is_one_pass_with_enter_and_backspace(page: Any) -> None:
    seen_by_model(page)
    items = [i for i in Hand(page).items("&state=unmarked&search=drawn") if i["pred"]][:2]
    for item in items:  # called what the model finds least likely
        wrong = min(item["pred"]["probs"], key=item["pred"]["probs"].get)
        row = {"id": uuid.uuid4().hex, "image": item["id"], "frame": 0, "kind": "label", "class": wrong}
        body = json.dumps({"rater": "anna", "rows": [row]})
        send = "body => fetch('/api/marks', {method: 'POST', body, headers: {'Content-Type': 'application/json'}})"
        assert page.evaluate(f"body => ({send})(body).then(r => r.status)", body) == 200
    waiting = {i["id"] for i in Hand(page).items("&state=review")}
    assert {i["id"] for i in items} <= waiting
    page.evaluate("location.hash = 'next'")
    page.click("text=Start the review")
    page.wait_for_selector(".chip:has-text('Review')")
    page.wait_for_function("() => document.getElementById('stage').getAttribute('aria-label').includes('mark')")
    first = page.evaluate("location.hash")
    assert first.split("/")[1] in waiting
    page.keyboard.press("Enter")
    page.wait_for_function("first => location.hash !== first", arg=first)
    Hand(page).saved()
    assert first.split("/")[1] not in {i["id"] for i in Hand(page).items("&state=review")}
    page.keyboard.press("Backspace")
    page.wait_for_function("first => location.hash === first", arg=first)


def test_what_an_earlier_model_said_names_it_until_the_new_one_has_spoken(page: Any) -> None:
    def older(route: Any) -> None:
        answer = route.fetch().json()
        for item in answer["items"]:
            if item["pred"]:
                item["pred"]["model"] += 7
        route.fulfill(json=answer)

    newest = seen_by_model(page)["pred"]["model"]  # other tests may have adapted
    assert page.locator(".badge.from").count() == 0
    page.route("**/api/images?*", older)
    page.reload()
    page.wait_for_selector(f".tile .badge.from:has-text('from model {newest + 7}')")


def test_a_cine_offers_its_best_frame(page: Any) -> None:
    hand = Hand(page)
    item = hand.show("cine.dcm", 0)
    other = 0 if item["best"] else 1
    hand.show("cine.dcm", other)
    page.click(f"button:text-is('Best frame {item['best'] + 1}')")
    page.wait_for_function("best => location.hash.endsWith('/' + best)", arg=item["best"])
