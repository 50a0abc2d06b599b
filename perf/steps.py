"""Processor time of each step of ``ultraad predict zero-shot`` alone, in one thread: where the milliseconds go.

    python -m perf.steps                 # on the files of perf.end_to_end

A step is called on all pictures in turn, several times; a row has the least time of an image. Processor time does not
count what other programs take, but they also take the caches, so compare rows of one call, or calls close together.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from perf.end_to_end import DISTINCT, HEIGHT, WIDTH, write_files
from perf.timing import Row, arguments, finish

import ultraad
from ultraad.io import read_image
from ultraad.io.files import sha256, write_image
from ultraad.io.maps import write_grid, write_map
from ultraad.io.overlay import overlay
from ultraad.model import exported
from ultraad.model.predictor import Predictor
from ultraad.types import Geometry, Prediction

S = TypeVar("S")
T = TypeVar("T")


def step(rows: list[Row], what: str, call: Callable[[S], T], items: Iterable[S], *, turns: int, of: int = 1) -> list[T]:
    """What the call gives for each item, which is ``of`` images; the row is printed."""
    items, took, found = list(items), list[float](), list[T]()
    for _ in range(turns):
        began = time.process_time()
        found = [call(item) for item in items]
        took.append(1000 * (time.process_time() - began) / len(items) / of)
    rows.append(Row(what, "milliseconds of processor time of an image", "report", round(min(took), 2)))
    finish(rows[-1:], None)
    return found


def computed(
    rows: list[Row], name: str, model: Predictor, images: list[NDArray[np.uint8]], *, together: int, turns: int
) -> list[Prediction]:
    """Predictions; a row for what a thread prepares, and one for the rest."""

    def prepare(image: NDArray[np.uint8]) -> tuple[Any, Geometry]:
        return model._prepare(image, None, None)

    def predict(batch: list[tuple[Any, Geometry]]) -> list[Prediction]:
        return model._predict(batch, ["image"] * len(batch))

    inputs = step(rows, f"prepare, {name}", prepare, images, turns=turns)
    batches = [inputs[i : i + together] for i in range(0, len(inputs), together)]
    found = step(rows, f"score and map, {name}, {together} images", predict, batches, turns=turns, of=together)
    return [prediction for batch in found for prediction in batch]


def measure(folder: Path, *, turns: int) -> list[Row]:
    """A row for each step."""
    write_files(folder / "files", DISTINCT)
    files, rows = sorted((folder / "files").iterdir()), list[Row]()
    images = step(rows, f"read a PNG file of {WIDTH} x {HEIGHT}", read_image, files, turns=turns)
    step(rows, "sha256 of the file", sha256, files, turns=turns)
    computed(rows, "PyTorch", ultraad.zero_shot(), images, together=8, turns=turns)
    model = exported.zero_shot(threads=1)
    predictions = computed(rows, "ONNX Runtime", model, images, together=2, turns=turns)
    threshold = model.calibration.pixel_threshold
    pairs = list(zip(images, (p.map for p in predictions), strict=True))
    drawn = step(rows, "draw an overlay", lambda p: overlay(p[0], p[1], threshold=threshold), pairs, turns=turns)
    step(rows, "write an overlay", lambda picture: write_image(folder / "overlay.png", picture), drawn, turns=turns)
    step(rows, "write a full map", lambda p: write_map(folder / "map.png", np.clip(p[1], 0, 1)), pairs, turns=turns)
    step(rows, "write a grid", lambda p: write_grid(folder / "map.npz", p.grid), predictions, turns=turns)
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads or 1)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), turns=args.turns)
    if args.output is not None:
        finish(rows, args.output)


if __name__ == "__main__":
    main()
