"""Every view: reachable for all, on every screen, in both themes, and honest about what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests import helpers
from tests.e2e.hand import Hand
from tests.e2e.serving import Server

VIEWS = ("images", "mark", "next", "adapt", "look", "look/compare", "look/patient", "look/warnings", "take")
DIALOGS = {"keys": "[aria-label='Keys']", "settings": ".who"}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RESEARCH = ".research:has-text('Research use only. Not a medical device.')"


def settle(page: Any) -> None:
    page.wait_for_selector("main > *")
    page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")


@pytest.fixture(scope="module", autouse=True)
def started(shared_page: tuple[Any, Any]) -> None:
    """All views have something to show."""
    shared_page[0].wait_for_selector(".bottom .model:not(:text-is('no model yet'))", timeout=60_000)


def faults(page: Any, only: object) -> list[tuple[str, str, list[str]]]:
    """What axe finds that is worse than minor."""
    result = page.evaluate("only => axe.run({runOnly: only}).then(r => r.violations)", only)
    bad = [(v["id"], v["impact"], [n["html"][:160] for n in v["nodes"][:3]]) for v in result]
    return [v for v in bad if v[1] != "minor"]


def test_axe_finds_nothing_on_any_view(page: Any, axe: str) -> None:
    page.evaluate(axe)
    found = {}
    for view in (*VIEWS, *DIALOGS):
        if view in DIALOGS:
            page.click(DIALOGS[view])
            page.wait_for_selector("dialog[open]")
        else:
            page.evaluate(f"location.hash = '{view}'")
        settle(page)
        found[view] = faults(page, RULES)
        page.keyboard.press("Escape")
    assert found == {view: [] for view in found}


@pytest.mark.slow
def test_the_light_theme_has_contrast_too(page: Any, axe: str) -> None:
    page.evaluate(axe)
    page.click("[aria-label='Light theme']")
    found = {}
    for view in VIEWS:
        page.evaluate(f"location.hash = '{view}'")
        settle(page)
        found[view] = faults(page, {"type": "rule", "values": ["color-contrast"]})
    assert found == {view: [] for view in found}


@pytest.mark.parametrize(
    "width", [390, pytest.param(1280, marks=pytest.mark.slow), pytest.param(3840, marks=pytest.mark.slow)]
)
def test_no_view_is_wider_than_its_screen_and_all_say_what_this_is_for(page: Any, width: int) -> None:
    usual = page.viewport_size
    page.set_viewport_size({"width": width, "height": min(2160, max(800, width // 2))})
    try:
        for view in VIEWS:
            page.evaluate(f"location.hash = '{view}'")
            settle(page)
            assert page.evaluate("document.scrollingElement.scrollWidth") <= width, view
            box = page.locator(RESEARCH).bounding_box()
            assert box["x"] >= 0, view
            assert box["x"] + box["width"] <= width, view
            small = page.evaluate(
                "() => [...document.querySelectorAll('button, select, .button')].filter(e => e.offsetParent)"
                ".map(e => [e.getBoundingClientRect(), e.outerHTML.slice(0, 80)])"
                ".filter(([r]) => r.width < 24 || r.height < 24).map(([r, html]) => html)"
            )
            assert small == [], view
    finally:
        page.set_viewport_size(usual)


def test_the_grid_holds_ten_thousand_tiles_but_draws_few(page: Any) -> None:
    items = page.evaluate("fetch('/api/images?limit=2').then(r => r.json())")["items"]

    def answer(route: Any) -> None:
        asked = parse_qs(urlsplit(route.request.url).query)
        every = [f"{n:016x}" for n in range(10_000)]
        ids = asked["ids"][0].split(",") if "ids" in asked else every[:200]
        some = [{**items[int(i, 16) % 2], "id": i, "name": f"scan {int(i, 16)}.png"} for i in ids]
        order = every if "with_order" in asked else []
        route.fulfill(json={"total": len(order) or len(some), "row": 0, "items": some, "order": order})

    page.route("**/api/images?*", answer)
    page.route("**/thumbnail?*", lambda route: route.abort())
    page.reload()
    page.wait_for_selector(".tile:has-text('scan 0.png')")
    assert page.locator(".tile").count() < 100
    page.locator(".tile a").first.focus()
    page.keyboard.press("End")
    page.wait_for_selector(".tile:has-text('scan 9999.png')")
    page.wait_for_function("() => document.activeElement.textContent.startsWith('scan 9999.png')")
    assert page.locator(".tile").count() < 100
    page.keyboard.press("Home")
    page.wait_for_selector(".tile:has-text('scan 0.png')")


def test_search_and_filters_and_their_empty_answer(page: Any) -> None:
    name = Hand(page).items()[3]["name"].split("/")[-1]
    page.get_by_placeholder("Search").fill(name)
    page.wait_for_selector(".count:text-is('1 image')")
    page.get_by_placeholder("Search").fill("nothing is called this")
    page.wait_for_selector("text=No image fits this search")
    page.click("text=Clear")
    page.wait_for_selector(".tile img")


def test_adapt_says_in_words_why_it_cannot_be_pressed(page: Any) -> None:
    project = page.evaluate("fetch('/api/project').then(r => r.json())")
    reason = "no normal image is marked yet"
    page.route(
        "**/api/project",
        lambda r: r.fulfill(json={**project, "adapt": {**project["adapt"], "ready": False, "reason": reason}}),
    )
    page.reload()
    page.evaluate("location.hash = 'adapt'")
    page.wait_for_selector(f"#adapt-why:text-is('{reason.capitalize()}')")
    assert page.locator("#adapt").get_attribute("aria-disabled") == "true"
    page.keyboard.press("Shift+Enter")
    page.wait_for_selector(f".status:text-is('Adapt is not possible: {reason}')")
    page.click("summary:has-text('Method, backbone and options')")
    page.wait_for_selector("fieldset .field")
    assert page.get_by_label("Method").locator("option").count() > 5


def test_next_gives_reasons_and_skips(page: Any) -> None:
    page.evaluate("location.hash = 'next'")
    page.wait_for_selector(".card strong")
    assert all(text.strip() for text in page.locator(".card strong").all_inner_texts())
    first = page.locator(".card").first.inner_text()
    page.locator(".card button").first.click()
    page.wait_for_selector(".status:has-text('skipped')")
    page.wait_for_function("text => document.querySelector('.card').innerText !== text", arg=first)


def test_files_that_are_chosen_are_imported(page: Any, tmp_path: Path) -> None:
    before = len(Hand(page).items())
    page.click("text=Add images")
    files = [str(helpers.save(tmp_path / f"new {n}.png", helpers.picture(n, lesion=False)[0])) for n in (71, 72)]
    with page.expect_file_chooser() as chooser:
        page.click("text=Choose files")
    chooser.value.set_files(files)
    page.wait_for_selector(f".count:text-is('{before + 2} images')")


def test_without_the_address_the_page_says_where_to_find_it(server: Server, browser: Any) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.origin)
    page.wait_for_selector("text=ultraad serve")
    assert page.locator(".tile").count() == 0
    context.close()
