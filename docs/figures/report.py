"""The picture of the README: the report of ``ultraad demo`` on the real images that ship, beside its examples.

    python docs/figures/report.py        # a minute; needs Chromium

To be run again when the default backbone, the demo or the page changes.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from ultraad.cli import demo

PICTURE = Path(__file__).parents[1] / "images" / "report.png"
PAGE = (1080, 1588)  # what is seen of the page, in pixels
COLUMN = (800, PAGE[1] * 800 // PAGE[0])
COLUMNS = (  # what each hides
    "section:has(> #examples), section:has(> #examples) ~ * { display: none }",
    "body :not(:has(#examples), section:has(> #examples) *, section:has(> #examples)) { display: none }",
)


def photograph(page: Path, png: Path) -> Image.Image:
    """A page as Chromium draws it, from its top."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("Chromium is not installed")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={PAGE[0]},{PAGE[1]}")
    command = [browser, *options, f"--screenshot={png}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True)
    return Image.open(png).convert("RGB").resize(COLUMN, Image.Resampling.LANCZOS)


def main() -> None:
    """Run the demo and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=PICTURE)
    output = parser.parse_args().output
    with TemporaryDirectory() as name:
        folder = Path(name)
        text = demo.run(folder / "demo").report.read_text(encoding="utf-8")
        picture = Image.new("RGB", (COLUMN[0] * len(COLUMNS), COLUMN[1]))
        for i, style in enumerate(COLUMNS):
            page = folder / f"{i}.html"
            page.write_text(text.replace("</head>", f"<style>{style}</style></head>"), encoding="utf-8")
            picture.paste(photograph(page, page.with_suffix(".png")), (i * COLUMN[0], 0))
    picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(output, optimize=True)


if __name__ == "__main__":
    main()
