"""The picture of the review in docs/dicom.md: made scans with names in their pixels, half decided in a browser.

    python -m docs.figures.review                # a minute; needs the extras deidentify and serve, Chromium, Playwright

Simulated tissue and an invented name; nothing of a patient. To be run again when the page of the review changes.
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from tests.e2e.reviewing import at, saved, show, start, stop, write_scans
from tests.e2e.serving import browsing, chromium

OUT = Path(__file__).parent / "review.webp"
SIZE = (1100, 700)


def main() -> None:
    """Decide about two files, begin with a third, and keep the picture."""
    executable = chromium()
    if executable is None:
        sys.exit("needs Chromium: apt-get install chromium")
    with TemporaryDirectory() as temporary, browsing(executable) as browser:
        folder = Path(temporary)
        command = start(write_scans(folder / "scans"), folder / "clean")
        try:
            page = browser.new_context(viewport={"width": SIZE[0], "height": SIZE[1]}).new_page()
            page.goto(command.address)
            page.wait_for_selector(".decide h1")
            for name, key in (("plain.dcm", "Enter"), ("export.png", "x")):
                show(page, name)
                page.keyboard.press(key)
                page.wait_for_selector(f".files li:not(.open):has-text('{name}')")
            show(page, "still.dcm")
            page.keyboard.press("Space")  # a mark of the scanner that is no text
            saved(page)
            page.mouse.move(*at(page, 300, 60))  # a box around what the search has missed
            page.mouse.down()
            page.mouse.move(*at(page, 380, 84), steps=4)
            page.mouse.up()
            page.wait_for_selector(".boxes .name:text-is('drawn')")
            saved(page)
            Image.open(BytesIO(page.screenshot())).convert("RGB").save(OUT, quality=75, method=6)
        finally:
            stop(command)


if __name__ == "__main__":
    main()
