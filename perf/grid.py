"""``ultraad serve`` with 10,000 images: how soon the first grid is there, and whether scrolling leaves tiles blank.

    python -m perf.grid                    # needs Chromium and Playwright; the import takes minutes
    python -m perf.grid --folder FOLDER    # keeps images and project there, for the next time

A tile counts as blank from the moment it is in sight until its picture is. Scrolling is that of a wheel turned fast,
three screens a second, and after that jumps to places that were never shown. Lists are the requests behind the grid.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from perf.timing import Row, arguments, finish
from tests.e2e.scans import Scans
from tests.e2e.serving import browsing, chromium, start, stop

from ultraad.rng import seeded

if TYPE_CHECKING:
    from playwright.sync_api import Page

FIRST = 1.5  # seconds to the first grid
BLANK = 0.2  # seconds that a tile in sight may be blank

WATCH = """
() => {
  const box = document.querySelector(".grid"), seen = new Map(), spans = [];
  const look = (now) => {
    const { top, bottom } = box.getBoundingClientRect();
    const here = new Set();
    for (const tile of box.querySelectorAll("li")) {
      const at = tile.getBoundingClientRect();
      if (at.bottom <= top || at.top >= bottom) continue;
      const index = tile.dataset.index, picture = tile.querySelector("img");
      here.add(index);
      const shown = picture !== null && picture.complete && picture.naturalWidth > 0;
      if (!seen.has(index)) seen.set(index, now);
      if (shown && seen.get(index) >= 0) {
        spans.push(now - seen.get(index));
        seen.set(index, -1);
      }
    }
    for (const index of seen.keys()) if (!here.has(index)) seen.delete(index);
    window.blank = { spans, waiting: [...seen.values()].filter((t) => t >= 0).map((t) => now - t) };
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}
"""
SCROLL = """
async (seconds) => {
  const box = document.querySelector(".grid"), start = performance.now();
  let last = start;
  while (performance.now() - start < 1000 * seconds) {
    const now = await new Promise(requestAnimationFrame);
    box.scrollTop += (3 * box.clientHeight * (now - last)) / 1000;
    last = now;
  }
}
"""
LIST = """
async (path) => {
  const start = performance.now();
  await (await fetch(path)).json();
  return (performance.now() - start) / 1000;
}
"""
LISTS = ("images?limit=200&with_order=true", "images?sort=score&limit=200", "queue", "groups", "project")
DRAWN = """
() => {
  const inSight = (t) => t.getBoundingClientRect().top < innerHeight - 40;
  const shown = [...document.querySelectorAll(".grid li")].filter(inSight);
  const there = (t) => (t.querySelector("img")?.naturalWidth ?? 0) > 0;
  return shown.length > 0 && shown.every(there) ? performance.now() : 0;
}
"""


def write(folder: Path, n: int) -> Scans:
    """``n`` different JPEGs of 640 x 480."""
    folder.mkdir(parents=True)
    rng = seeded(0, "grid")
    for i in range(n):
        small = rng.integers(0, 255, (60, 80), dtype=np.uint8)
        large = cv2.resize(small, (640, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"scan{i:05d}.jpg"), large, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return Scans(folder)


def blank(page: Page) -> list[float]:
    """Seconds that tiles were blank since the last call."""
    found = page.evaluate("() => { const { spans, waiting } = window.blank; return [...spans.splice(0), ...waiting] }")
    return [ms / 1000 for ms in found]


def measure(page: Page, rows: list[Row], *, images: int, seconds: float) -> None:
    page.reload(wait_until="commit")
    page.wait_for_function(DRAWN, polling="raf")
    first = page.evaluate(DRAWN) / 1000
    detail = {"images": images}
    rows.append(
        Row(
            "page, first grid",
            f"{FIRST} s",
            "overhead",
            first / FIRST,
            must=1.0,
            detail={**detail, "s": round(first, 2)},
        )
    )
    page.evaluate(WATCH)
    page.wait_for_timeout(200)
    blank(page)
    page.evaluate(SCROLL, seconds)
    rolled = blank(page)
    jumps: list[float] = []
    for share in (0.9, 0.3, 0.7, 0.1, 0.5):
        page.evaluate(
            "share => { const b = document.querySelector('.grid'); b.scrollTop = share * b.scrollHeight }", share
        )
        page.wait_for_timeout(1500)
        jumps += blank(page)
    for name, spans in (("scrolling", rolled), ("jumping", jumps)):
        detail = {
            "images": images,
            "tiles": len(spans),
            "longest_s": round(max(spans), 3),
            "over_0.2_s": sum(s > BLANK for s in spans),
        }
        rows.append(
            Row(
                f"page, {name}: longest blank tile",
                f"{BLANK} s",
                "overhead",
                max(spans) / BLANK,
                must=1.0,
                detail=detail,
            )
        )


def lists(page: Page, rows: list[Row], *, images: int) -> None:
    """Seconds of the requests that have to do with all images, five times each."""
    for path in LISTS:
        found = [page.evaluate(LIST, f"/api/{path}") for _ in range(5)]
        detail = {"images": images, "unit": "s", "first": round(found[0], 3)}
        name = f"page, GET /api/{path}"
        rows.append(Row(name, "-", "report", float(np.median(found)), min(found), max(found), detail=detail))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="keep images and project here")
    parser.add_argument("--seconds", type=float, default=10.0, help="of scrolling")
    args = parser.parse_args()
    executable = chromium()
    if executable is None:
        sys.exit("Chromium is not installed")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        root: Path = args.folder or Path(name)
        scans = Scans(root / "scans") if (root / "scans").is_dir() else write(root / "scans", args.images)
        server = start(scans, root / "project")
        try:
            with browsing(executable) as browser:
                context = browser.new_context(viewport={"width": 1280, "height": 800})
                page = context.new_page()
                page.goto(server.address)
                began = time.monotonic()
                page.wait_for_selector(f".count:text-is('{args.images:,} images')", timeout=3_600_000)
                print(f"imported in {time.monotonic() - began:.0f} s", flush=True)
                page.wait_for_selector(".bottom .model:text-is('starting model')", timeout=600_000)
                measure(page, rows, images=args.images, seconds=args.seconds)
                lists(page, rows, images=args.images)
        finally:
            stop(server)
    finish(rows, args.output)


if __name__ == "__main__":
    main()
