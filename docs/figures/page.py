"""The pictures of docs/page.md and of the README: a project of real images, marked and adapted in a browser.

    python -m docs.figures.page                  # two minutes; needs Chromium and Playwright
    python -m docs.figures.page --all FOLDER     # every view on a phone, a laptop and a 4K screen, to look at

The images are those that ship (BUS-BRA); the normal ones are strips of tissue beside a lesion. To be run again when the
page or the default backbone changes.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from PIL import Image
from tests.e2e.hand import Hand, corners
from tests.e2e.scans import Scans, shipped
from tests.e2e.serving import Server, browsing, chromium, start, stop

import ultraad

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OUT = Path(__file__).parent / "page"
SCREENS = {"phone": (390, 844, 2), "laptop": (1280, 800, 1), "4k": (3840, 2160, 1)}
VIEWS = ("images", "mark", "next", "adapt", "look", "look/compare", "look/patient", "look/warnings", "take")
SHOWN = {  # file: view, screen
    "images": ("images", "laptop"),
    "mark": ("mark", "laptop"),
    "adapt": ("adapt", "laptop"),
    "look": ("look", "laptop"),
    "phone": ("mark", "phone"),
}
WIDEST = 1280  # pixels of a picture in the documents
READY = "#adapt:not([aria-disabled='true'])"
MINUTES = 60_000 * 5


def scans(folder: Path) -> Scans:
    """The 24 images, and a table that names patients and devices."""
    images = shipped(folder, each=8, longest=288)
    known = {s.image.stem: s for s in ultraad.scan(ultraad.samples())}
    with (folder / "samples.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient", "device"])
        for name in images.truth:
            sample = known[name.removesuffix(".png").split("-tissue")[0]]
            table.writerow([name, sample.group, sample.device])
    return images


def mark(hand: Hand, images: Scans, each: slice) -> None:
    """Label normal images and outline lesions, some of every class."""
    for label, key in (("normal", "1"), ("benign", "2"), ("malignant", "3")):
        for name in images.of(label)[each]:
            hand.show(name)
            hand.page.keyboard.press(key)
            if label != "normal":
                hand.polygon(corners(images.truth[name][1]))
            hand.saved()


def adapt(page: Page) -> None:
    """Press Adapt and wait until the model is ready."""
    page.wait_for_selector(READY, timeout=MINUTES)
    page.keyboard.press("Shift+Enter")
    page.wait_for_selector(".adapt-box progress")
    page.wait_for_selector(READY, timeout=MINUTES)


def prepare(browser: Browser, server: Server) -> str:
    """Mark, adapt, mark more, adapt again; the address of an image worth looking at."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(server.address)
    page.wait_for_selector(".tile img", timeout=MINUTES)
    page.wait_for_selector(".bottom .model:text-is('starting model')", timeout=MINUTES)
    server.cookies = {"cookies": context.cookies(), "origins": []}
    hand = Hand(page)
    mark(hand, server.images, slice(0, 4))
    adapt(page)
    mark(hand, server.images, slice(4, 5))
    adapt(page)
    found = hand.items("&state=unmarked&sort=score&order=desc")
    page.evaluate("location.hash = 'take'")
    page.click("button:has-text('Export')")
    page.wait_for_selector(".exports code", timeout=MINUTES)
    page.evaluate("location.hash = 'look/warnings'")
    page.wait_for_timeout(1000)
    context.close()
    return f"mark/{found[0]['id']}/0"


def photographs(browser: Browser, server: Server, image: str, wanted: dict[str, tuple[str, str]], folder: Path) -> None:
    """Write ``{name: (view, screen)}`` as PNG files."""
    for screen, (width, height, scale) in SCREENS.items():
        views = {name: view for name, (view, on) in wanted.items() if on == screen}
        if not views:
            continue
        phone = width < 500
        context = browser.new_context(
            viewport={"width": width, "height": height},
            device_scale_factor=scale,
            has_touch=phone,
            is_mobile=phone,
            storage_state=server.cookies,
        )
        page = context.new_page()
        page.goto(server.origin)
        page.wait_for_selector(".shell")
        for name, view in views.items():
            page.evaluate(f"location.hash = '{image if view == 'mark' else view}'")
            page.mouse.move(0, 0)
            page.wait_for_timeout(2500)  # thumbnails, maps
            if view == "look":
                page.wait_for_selector(".rates", timeout=MINUTES)
            page.screenshot(path=folder / f"{name}.png")
        context.close()


def main() -> None:
    """Make the project and the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--all", type=Path, help="folder for pictures of every view on every screen")
    everything: Path | None = parser.parse_args().all
    executable = chromium()
    if executable is None:
        sys.exit("Chromium is not installed")
    with TemporaryDirectory() as name:
        root = Path(name)
        server = start(scans(root / "breast"), root / "breast-ultraad", backbone="embedded")
        try:
            with browsing(executable) as browser:
                image = prepare(browser, server)
                wanted = SHOWN
                if everything is not None:
                    wanted = {
                        f"{screen}-{view.replace('/', '-')}": (view, screen) for screen in SCREENS for view in VIEWS
                    }
                folder = everything or root / "shots"
                folder.mkdir(parents=True, exist_ok=True)
                photographs(browser, server, image, wanted, folder)
        finally:
            stop(server)
        if everything is None:
            OUT.mkdir(exist_ok=True)
            for shot in sorted(folder.glob("*.png")):
                picture = Image.open(shot).convert("RGB")
                picture.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
                picture.save(OUT / f"{shot.stem}.webp", quality=80, method=6)


if __name__ == "__main__":
    main()
