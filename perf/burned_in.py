"""How much burned-in text the search of ``ultraad deidentify`` finds, and how often it finds text where there is none.

Names, numbers and dates are drawn in three fonts, five sizes and three contrasts, on black and on speckle of tissue.
A text counts as found if boxes cover nine tenths of the pixels that it changed. Pictures of tissue without a word of
ours say how much is found on top (some of them do hold text):

    python -m perf.burned_in --repeats 3 --tissue DATA/BUS-UCLM/images --images 20 -o perf/results/burned_in.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ultraad.dicom.deidentify.text import TextFinder
from ultraad.io import find_images, read_image
from ultraad.io.files import write_json
from ultraad.rng import seeded

SIZE = (480, 640)
FONTS = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono")
HEIGHTS = (8, 10, 12, 16, 24)  # of the font, in pixels; capital letters have about 0.7 of that
CONTRASTS = (40, 90, 200)  # grey levels above the background
GROUNDS = {"black": 0, "speckle": 45}
FAMILY = ("MUELLER", "Okonkwo", "Garcia", "NGUYEN", "Rossi")
GIVEN = ("ANNA", "Adaeze", "Maria", "LINH", "Paolo")
FOUND = 0.9


def words(rng: np.random.Generator) -> str:
    """A name, a number or a date, as a scanner writes it."""
    name = f"{rng.choice(FAMILY)}, {rng.choice(GIVEN)}"
    number = f"ID {rng.integers(10_000, 99_999_999)}"
    day = f"{rng.integers(1, 29):02d}.{rng.integers(1, 13):02d}.{rng.integers(1930, 2010)}"
    return str(rng.choice([name, number, day]))


def drawn(ground: str, height: int, rng: np.random.Generator) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """A picture uint8 (h w 3) with one text in each font and contrast, and where they are."""
    grey = rng.rayleigh(36, SIZE).clip(0, 255) if ground == "speckle" else np.zeros(SIZE)
    picture = Image.fromarray(grey.astype(np.uint8))
    texts = []
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for row, name in enumerate(FONTS):
        font = ImageFont.truetype(str(folder / f"{name}.ttf"), height)
        for column, contrast in enumerate(CONTRASTS):
            before = np.asarray(picture).copy()
            at = (12 + 210 * column, 20 + 150 * row + int(rng.integers(0, 90)))
            value = min(255, GROUNDS[ground] + contrast)
            ImageDraw.Draw(picture).text(at, words(rng), font=font, fill=value)
            texts.append({"font": name, "contrast": contrast, "pixels": np.asarray(picture) != before})
    return np.stack([np.asarray(picture)] * 3, axis=-1), texts


def covered(finder: TextFinder, picture: np.ndarray) -> np.ndarray:
    """bool (h w): what would be blanked."""
    out = np.zeros(picture.shape[:2], bool)
    for text in finder.find(picture):
        x, y, w, h = text.box
        out[y : y + h, x : x + w] = True
    return out


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--tissue", type=Path)
    options.add_argument("--images", type=int, default=20)
    options.add_argument("-o", "--output", type=Path)
    given = options.parse_args()
    finder, rng = TextFinder(), seeded(0, "burned-in text")
    rows, started, pictures = [], time.process_time(), 0
    for ground in GROUNDS:
        for height in HEIGHTS:
            for _ in range(given.repeats):
                picture, texts = drawn(ground, height, rng)
                found = covered(finder, picture)
                pictures += 1
                for text in texts:
                    share = float(found[text.pop("pixels")].mean())
                    rows.append({"ground": ground, "height": height, **text, "found": share >= FOUND})
            print(*summary(rows, ground=ground, height=height), flush=True)
    seconds = (time.process_time() - started) / pictures
    print(f"{seconds:.2f} s of one core for a picture of {SIZE[1]} x {SIZE[0]}")
    for key, values in (("font", FONTS), ("contrast", CONTRASTS)):
        for value in values:
            print(*summary(rows, **{key: value}))
    print(*summary(rows))
    extra = None
    if given.tissue is not None:
        paths = find_images(given.tissue)
        boxes, share = [], []
        for path in paths[:: max(1, len(paths) // given.images)][: given.images]:
            image = read_image(path)
            boxes.append(len(finder.find(image)))
            share.append(float(covered(finder, image).mean()))
        extra = {
            "images": len(boxes),
            "with_boxes": sum(map(bool, boxes)),
            "boxes": sum(boxes),
            "share": np.mean(share),
        }
        print(f"tissue: {extra}")
    if given.output is not None:
        write_json(given.output, {"seconds": seconds, "rows": rows, "tissue": extra})


def summary(rows: list[dict[str, Any]], **wanted: object) -> tuple[object, ...]:
    """(what, found, of how many, per cent)."""
    some = [row["found"] for row in rows if all(row[key] == value for key, value in wanted.items())]
    name = " ".join(map(str, wanted.values())) or "all"
    return name, sum(some), len(some), f"{100 * sum(some) / max(1, len(some)):.0f} %"


if __name__ == "__main__":
    main()
