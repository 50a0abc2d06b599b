"""Every view: reachable for all, on every screen, in both themes, and honest about what it is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import Open, Server
from tests.e2e.hand import Hand

VIEWS = ("images", "mark", "next", "adapt", "look", "look/compare", "look/patient", "look/warnings", "take")


def settle(page: Any) -> None:
    page.wait_for_selector("main > *")
    page.wait_for_timeout(200)


@pytest.fixture
def page(server: Server, open_page: Open) -> Any:
    opened = open_page(server)
    opened.wait_for_selector(".bottom .model:text-is('starting model')", timeout=60_000)
    return opened


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_axe_finds_nothing_serious_on_any_view(page: Any, axe: str, theme: str) -> None:
    page.evaluate(f"localStorage.setItem('ultraad.theme', '\"{theme}\"')")
    page.reload()
    page.wait_for_selector(".shell")
    page.evaluate(axe)
    found = {}
    for view in (*VIEWS, "keys", "settings"):
        if view in ("keys", "settings"):
            page.click("[aria-label='Keys']" if view == "keys" else ".who")
            page.wait_for_selector("dialog[open]")
        else:
            page.evaluate(f"location.hash = '{view}'")
        settle(page)
        tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
        result = page.evaluate("tags => axe.run({runOnly: tags}).then(r => r.violations)", tags)
        bad = [(v["id"], v["impact"], [n["html"][:120] for n in v["nodes"][:3]]) for v in result]
        found[view] = [v for v in bad if v[1] in ("serious", "critical", "moderate")]
        if view in ("keys", "settings"):
            page.keyboard.press("Escape")
    assert found == {view: [] for view in found}


@pytest.mark.parametrize("width", [390, 1280, 3840])
def test_no_view_is_wider_than_its_screen_and_all_say_what_this_is_for(
    server: Server, open_page: Open, width: int
) -> None:
    page = open_page(server, width=width, height={390: 844, 1280: 800, 3840: 2160}[width], has_touch=width == 390)
    for view in VIEWS:
        page.evaluate(f"location.hash = '{view}'")
        settle(page)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width, view
        notice = page.locator(".research")
        assert notice.inner_text().startswith("Research use only."), view
        box = notice.bounding_box()
        assert box["x"] >= 0, view
        assert box["x"] + box["width"] <= width, view
        small = page.evaluate(
            "() => [...document.querySelectorAll('button, select, .button')].filter(e => e.offsetParent)"
            ".map(e => [e.getBoundingClientRect(), e.outerHTML.slice(0, 80)])"
            ".filter(([r]) => r.width < 24 || r.height < 24).map(([r, html]) => html)"
        )
        assert small == [], view


def test_the_grid_holds_ten_thousand_tiles_but_draws_few(page: Any) -> None:
    items = page.evaluate("fetch('/api/images?limit=2').then(r => r.json())")["items"]

    def answer(route: Any) -> None:
        start = int(route.request.url.split("offset=")[1].split("&")[0])
        some = [{**items[n % 2], "id": f"{n:016x}", "name": f"scan {n}.png"} for n in range(start, start + 200)]
        route.fulfill(json={"total": 10_000, "row": 0, "items": some})

    page.route("**/api/images?*", answer)
    page.route("**/thumbnail?*", lambda route: route.abort())
    page.reload()
    page.wait_for_selector(".tile:has-text('scan 0.png')")
    assert page.locator(".tile").count() < 100
    page.locator(".tile a").first.focus()
    page.keyboard.press("End")
    page.wait_for_selector(".tile:has-text('scan 9999.png')")
    assert page.evaluate("document.activeElement.textContent").startswith("scan 9999.png")
    assert page.locator(".tile").count() < 100
    page.keyboard.press("Home")
    page.wait_for_selector(".tile:has-text('scan 0.png')")


def test_search_and_filters_and_their_empty_answer(page: Any) -> None:
    page.wait_for_selector(".tile img")
    name = Hand(page).items()[3]["name"].split("/")[-1]
    page.get_by_placeholder("Search").fill(name)
    page.wait_for_selector(".count:text-is('1 image')")
    page.get_by_placeholder("Search").fill("nothing is called this")
    page.wait_for_selector("text=No image fits this search")
    page.click("text=Clear")
    page.wait_for_selector(".tile img")


def test_adapt_says_in_words_why_it_cannot_be_pressed(page: Any) -> None:
    page.evaluate("location.hash = 'adapt'")
    page.wait_for_selector("#adapt-why:has-text('is marked yet')")
    page.keyboard.press("Shift+Enter")
    page.wait_for_selector(".status:has-text('Adapt is not possible')")
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


def test_a_folder_that_is_dropped_is_imported(page: Any, server: Server) -> None:
    page.wait_for_selector(".tile img")
    page.click("text=Add images")
    files = [str(server.images.folder / name) for name in server.images.of("normal")[:2]]
    with page.expect_file_chooser() as chooser:
        page.click("text=Choose files")
    chooser.value.set_files(files)
    page.wait_for_function("() => /^1[0-9] images$/.test(document.querySelector('.count').textContent)")


def test_without_the_address_the_page_says_where_to_find_it(server: Server, browser: Any) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.origin)
    page.wait_for_selector("text=ultraad serve")
    assert page.locator(".tile").count() == 0
    context.close()
