"""A hand that marks: it knows where a pixel of the image is on the screen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

Point = tuple[float, float]


class Hand:
    """Marks the image that Mark shows, while the whole image is shown.

    Args:
        page: Of Playwright.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self.cdp = page.context.new_cdp_session(page)
        self.size = (0, 0)

    def items(self, query: str = "") -> list[dict[str, Any]]:
        """The images as the server lists them."""
        answer = self.page.evaluate(f"fetch('/api/images?limit=1000{query}').then(r => r.json())")
        return list(answer["items"])

    def show(self, name: str, frame: int = 0) -> dict[str, Any]:
        """Go to an image by its file name and wait until it can be marked."""
        item = next(i for i in self.items() if name in i["name"])
        self.page.evaluate(f"location.hash = '#mark/{item['id']}/{frame}'")
        self.page.wait_for_selector(f".mark-head h1:has-text('{name}')")
        self.page.wait_for_function(
            "() => document.getElementById('stage').getAttribute('aria-label').includes('mark')"
        )
        self.size = (item["width"], item["height"])
        return item

    def at(self, x: float, y: float) -> Point:
        """The screen position of a point of the image, as ``fit`` in web/src/core/view.ts places it."""
        box = self.page.locator("#stage").bounding_box()
        w, h = self.size
        scale = min((box["width"] - 16) / w, (box["height"] - 16) / h)
        left, top = (box["width"] - w * scale) / 2, (box["height"] - h * scale) / 2
        return box["x"] + left + x * scale, box["y"] + top + y * scale

    def mouse(self, points: Sequence[Point]) -> None:
        """One stroke with the left button."""
        self.draw(points)
        self.saved()

    def draw(self, points: Sequence[Point]) -> None:
        """One stroke with the left button, whether it can be saved or not."""
        self.page.mouse.move(*self.at(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.at(*point), steps=3)
        self.page.mouse.up()

    def touch(self, points: Sequence[Point]) -> None:
        """One stroke with a finger."""
        for n, point in enumerate(points):
            x, y = self.at(*point)
            kind = "touchMove" if n else "touchStart"
            self.cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        self.cdp.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        self.saved()

    def pen(self, points: Sequence[Point], pressures: Sequence[float]) -> None:
        """One stroke with a pen."""
        for n, (point, force) in enumerate(zip(points, pressures, strict=True)):
            x, y = self.at(*point)
            self._pen("mouseMoved" if n else "mousePressed", x, y, force)
        self._pen("mouseReleased", *self.at(*points[-1]), 0.0)
        self.saved()

    def _pen(self, kind: str, x: float, y: float, force: float) -> None:
        event = {"type": kind, "x": x, "y": y, "force": force, "pointerType": "pen", "button": "left"}
        held = 0 if kind == "mouseReleased" else 1
        self.cdp.send("Input.dispatchMouseEvent", {**event, "buttons": held, "clickCount": 1})

    def polygon(self, points: Sequence[Point]) -> None:
        """A polygon, corner by corner; Enter closes it."""
        self.page.keyboard.press("p")
        for point in points:
            self.page.mouse.click(*self.at(*point))
        self.page.keyboard.press("Enter")
        self.saved()

    def saved(self) -> None:
        """Wait until the server has every mark."""
        self.page.wait_for_selector("[data-saved='true']")

    def marks(self) -> list[str]:
        """The list of marks, as it reads."""
        return [
            text.split("\n")[0] for text in self.page.locator("#marks .row-main > span:last-child").all_inner_texts()
        ]

    def expect(self, marks: int) -> list[str]:
        """Wait for so many marks."""
        self.page.wait_for_function(f"() => document.querySelectorAll('#marks > li').length === {marks}")
        self.saved()
        return self.marks()

    def until(self, done: Callable[[], Any], seconds: float = 60) -> Any:
        """What ``done`` returns as soon as it is true; the page goes on meanwhile."""
        for _ in range(int(seconds / 0.2)):
            if found := done():
                return found
            self.page.wait_for_timeout(200)
        raise AssertionError("waited in vain")

    def told(self) -> str:
        """The live region."""
        return str(self.page.inner_text(".status")).strip()


def corners(mask: np.ndarray) -> list[Point]:
    """Eight points around the largest region of a mask."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(found, key=len)[:, 0]
    some = outline[np.linspace(0, len(outline), 8, endpoint=False).astype(int)]
    return [(float(x) + 0.5, float(y) + 0.5) for x, y in some]


def across(mask: np.ndarray) -> list[Point]:
    """A stroke through the middle of a mask, from its left to its right."""
    y, x = np.nonzero(mask)
    middle = float(np.median(y))
    return [(float(v), middle) for v in np.linspace(x.min() + 2, x.max() - 2, 6)]
