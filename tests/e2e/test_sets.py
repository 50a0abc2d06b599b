"""Prediction sets in the page: beside the class where the marks can promise them, and else the reason."""

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

LONG = 180
POST = """
([path, body]) => fetch(path, {method: 'POST', body, headers: {'Content-Type': 'application/json'}}).then(r => r.status)
"""


@pytest.fixture
def own(tmp_path: Path, browser: Any) -> Iterator[Server]:
    """A project of twelve images, three of each class to be marked."""
    server = start(simulated(tmp_path / "scans", each=4, size=96), tmp_path / "project")
    yield server
    stop(server)


def test_the_page_shows_sets_or_says_why_there_are_none(own: Server, open_page: Open) -> None:
    page = open_page(own, height=1100)
    page.wait_for_selector(".bottom .model:not(:text-is('no model yet'))", timeout=1000 * LONG)
    hand = Hand(page)
    items = {item["name"]: item for item in hand.items()}

    def ask(path: str) -> Any:
        return page.evaluate("path => fetch(path).then(r => r.json())", path)

    def post(path: str, body: object) -> None:
        assert page.evaluate(POST, [path, json.dumps(body)]) < 300

    def adapt(each: slice) -> dict[str, Any]:
        """Label images, adapt to all of them, and wait for what the cross-validation says."""
        rows = [
            {"id": uuid.uuid4().hex, "image": items[name]["id"], "frame": 0, "kind": "label", "class": label}
            for label in ("normal", "benign", "malignant")
            for name in own.images.of(label)[each]
        ]
        post("/api/marks", {"rater": "anna", "rows": rows})
        before = ask("/api/models")[0]["number"]
        options = {"train.epochs": 1, "train.views": 1}
        post("/api/jobs", {"kind": "adapt", "use_held_out": True, "options": options})

        def done() -> Any:
            model = ask("/api/models")[0]
            return model if model["number"] > before and model["threshold_from"] == "cross-validation" else None

        return hand.until(done, LONG)

    few = adapt(slice(0, 2))
    assert few["sets"].startswith(
        "no prediction sets at 90 %: with 6 held-out images no promise above 85 % can be made"
    )
    shown = own.images.of("benign")[3]
    hand.show(shown)
    page.wait_for_selector(".side .set:has-text('No prediction sets at 90 %: with 6 held-out images')")

    enough = adapt(slice(2, 3))
    assert enough["sets"].startswith("prediction sets at 90 % rest on 9 held-out support images")

    def told() -> Any:
        pred = next(item["pred"] for item in hand.items() if item["name"] == shown)
        return pred if pred and pred["model"] == enough["number"] and pred["set"] is not None else None

    pred = hand.until(told, LONG)
    words = ", ".join(pred["set"]) or "none of the classes"
    page.wait_for_selector(f".side .set:has-text('May be, at 90 %: {words}')")
    assert "rest on 9 held-out" in page.get_attribute(".side .set", "title")
    marked = hand.until(
        lambda: [i["pred"]["set"] for i in hand.items() if i["pred"]["model"] == enough["number"]], LONG
    )
    assert all(one is not None for one in marked)  # those that were predicted before the cross-validation, too
