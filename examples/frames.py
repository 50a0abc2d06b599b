"""Arrays instead of files: score the frames of a live scan one by one, and time them.

python examples/frames.py
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np

import ultraad
from ultraad.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def scan(count: int) -> Iterator[NDArray[np.uint8]]:
    """Frames as they would come from a grabber: uint8 (h w 3). Here the picture drifts sideways."""
    picture = simulate(seed=7, label="malignant", size=192).image
    for step in range(count):
        yield np.roll(picture, 4 * step, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--frames", type=int, default=5)
    args = parser.parse_args()

    model = ultraad.zero_shot(backbone=args.backbone)  # or ultraad.load("model"): the same from here on
    for number, frame in enumerate(scan(args.frames)):
        started = time.perf_counter()
        p = model.predict(frame)
        milliseconds = 1000 * (time.perf_counter() - started)
        assert p.map is not None
        y, x = np.unravel_index(int(p.map.argmax()), p.map.shape)
        print(f"frame {number}: score {p.score:.2f}, most abnormal at x={x}, y={y}, {milliseconds:.0f} ms")


if __name__ == "__main__":
    main()
