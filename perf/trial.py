"""``ultraad serve`` as a new user goes through it: 24 images, from the command to an exported model, counted.

    python -m perf.trial                                 # the images that ship (BUS-BRA); needs Chromium and Playwright
    python -m perf.trial --data ROOT --pictures FOLDER   # another labelled data set; a picture of every step

A real browser, with real clicks and keys. The benign lesions are outlined corner by corner, the malignant ones boxed.
What a person would need is the keystroke-level model of Card, Moran and Newell (Communications of the ACM 23, 1980):
1.1 s to point, 0.2 s to click, 0.28 s for a key, and 1.35 s to think before each step. Waiting is measured.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from perf.timing import Row, arguments, finish
from tests.e2e.hand import Hand, Point, corners
from tests.e2e.scans import Scans
from tests.e2e.serving import browsing, chromium, start, stop

import ultraad
from ultraad.io import read_image, read_mask
from ultraad.rng import seeded

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES = 24
SHOTS = 4
MINUTES = 600_000  # milliseconds
SECONDS = {"click": 1.3, "drag": 2.4, "key": 0.28, "thought": 1.35}  # Card, Moran and Newell


def scans(root: Path, folder: Path) -> Scans:
    """Copies of some images of a labelled data set, half of each lesion class, and what is true about them."""
    folder.mkdir(parents=True)
    found = Scans(folder)
    samples = [s for s in ultraad.scan(root) if s.masks and s.anomalous and s.mask_aligned]
    order = [samples[i] for i in seeded(0, "trial").permutation(len(samples))]
    for label in ("benign", "malignant"):
        for sample in [s for s in order if s.label == label][: IMAGES // 2]:
            name = sample.image.name
            shutil.copyfile(sample.image, folder / name)
            mask = read_mask(sample.masks, shape=read_image(sample.image).shape[:2])
            found.truth[name] = (label, mask)
    return found


class Person:
    """Uses the page and counts."""

    def __init__(self, page: Page, pictures: Path | None) -> None:
        self.page, self.hand, self.pictures = page, Hand(page), pictures
        self.did: Counter[str] = Counter()
        self.waited = 0.0
        self.steps = 0

    def click(self, where: str) -> None:
        self.did.update(("thought", "click"))
        self.page.locator(where).first.click(timeout=MINUTES)

    def key(self, keys: str, *, thought: bool = True) -> None:
        self.did.update(["key"] + ["thought"] * thought)
        self.page.keyboard.press(keys)

    def polygon(self, points: list[Point]) -> None:
        self.did.update({"thought": 1, "click": len(points), "key": 1})
        for point in points:
            self.page.mouse.click(*self.hand.at(*point))
        self.page.keyboard.press("Enter")

    def box(self, mask: np.ndarray) -> None:
        rows, columns = np.nonzero(mask)
        self.did.update({"thought": 2, "drag": 1, "key": 1})
        ends = [(float(columns.min()), float(rows.min())), (float(columns.max() + 1), float(rows.max() + 1))]
        self.hand.draw(ends)
        self.wait(".proposal")
        self.page.keyboard.press("Enter")

    def wait(self, where: str) -> None:
        began = time.monotonic()
        self.page.wait_for_selector(where, timeout=MINUTES)
        self.waited += time.monotonic() - began

    def look(self, name: str) -> None:
        self.steps += 1
        if self.pictures is not None:
            self.page.wait_for_timeout(700)
            self.page.screenshot(path=self.pictures / f"{self.steps:02d}-{name}.png")

    @property
    def seconds(self) -> float:
        """For a person, without waiting."""
        return sum(SECONDS[what] * n for what, n in self.did.items())


def mark(person: Person, images: Scans) -> None:
    """Go through the images in their order until four of each class are marked."""
    person.click(".tile a")
    person.wait("#stage")
    person.look("mark-empty")
    done: Counter[str] = Counter()
    tool = ""
    while min(done[label] for label in ("benign", "malignant")) < SHOTS:
        person.page.wait_for_function("() => /mark/.test(document.getElementById('stage').getAttribute('aria-label'))")
        shown = person.page.inner_text(".mark-head h1")
        name = next(n for n in images.truth if shown in n)
        item = next(i for i in person.hand.items() if name in i["name"])
        person.hand.size = (item["width"], item["height"])
        label, mask = images.truth[name]
        if done[label] < SHOTS:
            wanted = "p" if label == "benign" else "r"
            if tool != wanted:
                person.key(wanted)
                person.key("2" if label == "benign" else "3", thought=False)
                tool = wanted
            person.polygon(corners(mask)) if label == "benign" else person.box(mask)
            person.hand.expect(1)
            done[label] += 1
            if done[label] == 1:
                person.look(f"marked-{label}")
        person.key("d", thought=False)
        person.page.wait_for_function("name => document.querySelector('.mark-head h1').innerText !== name", arg=shown)


def adapt(person: Person, number: int) -> None:
    person.wait("#adapt:not([aria-disabled='true'])")
    person.look("before-adapt")
    person.click("#adapt")
    person.wait(f".ready:has-text('Model {number} is ready')")
    person.look("ready")


def correct(person: Person) -> None:
    """What is suggested next: its outline is accepted where the model draws one, else the image is skipped."""
    person.click("nav.views a:has-text('Next')")
    person.wait(".card img")
    person.look("next")
    person.click(".card .button:has-text('Mark')")
    for _ in range(2):
        person.page.wait_for_timeout(1500)
        person.look("suggestion")
        offered = person.page.locator(".side button:text-is('Accept')").count()
        person.key("Enter" if offered else "s")
        person.page.wait_for_timeout(500)
        person.look("accepted")
        person.key("n")


def take(person: Person) -> None:
    person.click("nav.views a:has-text('Take')")
    person.wait("button:has-text('Export')")
    person.look("take")
    person.click("button:has-text('Export')")
    person.wait(".exports .command code")
    person.look("exported")
    person.did.update(("thought", "click"))
    with person.page.expect_download() as download:
        person.page.click("text=Download")
    assert Path(download.value.path()).read_bytes()[:2] == b"PK"


def rows(person: Person, parts: dict[str, tuple[float, float]]) -> list[Row]:
    """One row, with everything counted."""
    detail = {
        "images": IMAGES,
        **{f"{what}s": person.did[what] for what in ("click", "drag", "key")},
        "hand_s": round(person.seconds),
        "waited_s": round(person.waited),
        **{f"{name}_s": f"{hand:.0f} + {waited:.0f}" for name, (hand, waited) in parts.items()},
    }
    minutes = (person.seconds + person.waited) / 60
    return [Row("page, trial: from the command to an exported model", "-", "report", minutes, detail=detail)]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, default=ultraad.samples(), help="a labelled data set with masks")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of every step")
    args = parser.parse_args()
    executable = chromium()
    if executable is None:
        sys.exit("Chromium is not installed")
    if args.pictures is not None:
        args.pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        images = scans(args.data, Path(name) / "scans")
        began = time.monotonic()
        server = start(images, Path(name) / "scans-ultraad", backbone="embedded")
        try:
            with browsing(executable) as browser:
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                page.goto(server.address)
                person = Person(page, args.pictures)
                page.wait_for_selector(f".count:text-is('{IMAGES} images')", timeout=MINUTES)
                page.wait_for_selector(".tile img", timeout=MINUTES)
                person.waited = time.monotonic() - began
                person.look("images")
                parts = {"start": (0.0, person.waited)}
                steps = {"mark": lambda: mark(person, images), "adapt": lambda: adapt(person, 1)}
                steps |= {
                    "correct": lambda: correct(person),
                    "again": lambda: adapt(person, 2),
                    "take": lambda: take(person),
                }
                for step, work in steps.items():
                    hand, waited = person.seconds, person.waited
                    work()
                    parts[step] = (person.seconds - hand, person.waited - waited)
        finally:
            stop(server)
    finish(rows(person, parts), args.output)


if __name__ == "__main__":
    main()
