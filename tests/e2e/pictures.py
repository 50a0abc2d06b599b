"""Draws the pictures of docs/page.md: a project of simulated images, marked and adapted in a browser.

Run from the repository, with Chromium installed: ``python -m tests.e2e.pictures``
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from tests.e2e.conftest import Images, start, stop
from tests.e2e.hand import Hand, corners
from ultraad.simulate import write_dataset

OUT = Path("docs/images")
SCREENS = {"phone": (390, 844, 2), "": (1280, 800, 1), "4k": (3840, 2160, 1)}
VIEWS = ("images", "mark", "next", "adapt", "look", "look/compare", "take")
READY = "#adapt:not([aria-disabled='true'])"
MINUTES = 60_000 * 4


def scans(folder: Path) -> Images:
    """Sixty simulated images and what is true about them."""
    images = Images(write_dataset(folder, n=60, seed=0))
    for path in sorted(p for p in folder.rglob("*.png") if not p.stem.endswith("_mask")):
        mask = np.asarray(Image.open(path.with_name(f"{path.stem}_mask.png")).convert("L")) > 0
        images.truth[path.name] = (path.parent.name, mask)
    return images


def mark(hand: Hand, images: Images, each: slice) -> None:
    for label, key in (("normal", "1"), ("benign", "2"), ("malignant", "3")):
        for name in images.of(label)[each]:
            hand.show(name)
            hand.page.keyboard.press(key)
            if label != "normal":
                hand.polygon(corners(images.truth[name][1]))
            hand.saved()


def adapt(page: Any) -> None:
    page.wait_for_selector(READY, timeout=MINUTES)
    page.keyboard.press("Shift+Enter")
    page.wait_for_selector(".adapt-box progress")
    page.wait_for_selector(READY, timeout=MINUTES)


def shoot(page: Any, view: str, name: str) -> None:
    page.evaluate(f"location.hash = '{view}'")
    page.mouse.move(0, 0)
    page.wait_for_timeout(4000)  # thumbnails and maps
    picture = Path(tempfile.gettempdir()) / "shot.png"
    page.screenshot(path=picture)
    shot = Image.open(picture).convert("RGB")
    shot.thumbnail((1920, 1920))
    shot.save(OUT / f"page-{name}.jpg", quality=85, optimize=True, progressive=True)


def main() -> None:
    root = Path(tempfile.mkdtemp())
    images = scans(root / "scans")
    server = start(images, root / "scans-project", backbone="embedded")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        page = context.new_page()
        page.goto(server.address)
        page.wait_for_selector(".tile img")
        page.wait_for_selector(".bottom .model:text-is('starting model')", timeout=MINUTES)
        hand = Hand(page)
        mark(hand, images, slice(0, 4))
        adapt(page)
        mark(hand, images, slice(4, 6))
        adapt(page)
        shown = next(
            i for i in hand.items("&state=unmarked&sort=score&order=desc") if i["pred"]["class"] == "malignant"
        )
        cookies = {"cookies": context.cookies(), "origins": []}
        for screen, (width, height, scale) in SCREENS.items():
            size = {"width": width, "height": height}
            other = browser.new_context(
                viewport=size,
                device_scale_factor=scale,
                has_touch=width < 500,
                is_mobile=width < 500,
                storage_state=cookies,
            )
            page = other.new_page()
            page.goto(server.origin)
            page.wait_for_selector(".shell")
            for view in VIEWS:
                name = view.split("/")[-1] + (f"-{screen}" if screen else "")
                shoot(page, f"mark/{shown['id']}/0" if view == "mark" else view, name)
            other.close()
        browser.close()
    stop(server)


if __name__ == "__main__":
    main()
