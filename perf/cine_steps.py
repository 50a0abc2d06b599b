"""Where the time of a cine goes: processor milliseconds of each step for a frame, and the whole against the bare tower.

    python -m perf.cine_steps -o perf/results/cine_steps.json

Colour frames of 640 x 480, uncompressed and as JPEG. Processor time of all threads, so that other work on the machine
lengthens the run and hardly the numbers; ``frames_per_second`` is what the whole would reach on so many idle cores if
its steps ran in parallel without loss. ``whole`` is ``ultraad.predict`` from the header to the report, no pictures;
with the fan and smoothing in another row. The peer is the image tower alone on the same frames, prepared beforehand, in
the same batches. ``perf.cine`` measures frames per second by the clock, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from perf.cine import REAL_TIME, frames, write_cine
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit

import ultraad
from ultraad.io import read_image
from ultraad.io.fan import find_fan
from ultraad.io.files import write_json
from ultraad.io.overlay import overlay
from ultraad.metrics.lesions import find_lesions
from ultraad.model.model import Model
from ultraad.runs.predict import predict

CORES = 2
BATCH = 8


def each(step: Callable[[int], object], number: int) -> float:
    """Processor milliseconds of a step for one of so many frames, after one that does not count."""
    step(0)
    start = time.process_time()
    for i in range(number):
        step(i)
    return 1000 * (time.process_time() - start) / number


def steps(model: Model, cine: Path, number: int) -> dict[str, float]:
    """Milliseconds of each step for a frame."""
    pictures = [read_image(cine, frame=i) for i in range(number)]
    prepared = torch.stack([model.preprocess.image(p)[0] for p in pictures])
    geometry = model.preprocess.image(pictures[0])[1]
    batches = prepared.split(BATCH)
    grid = np.random.default_rng(0).random((32, 32), dtype=np.float32)
    map_ = geometry.invert(grid)

    def tower(i: int) -> None:
        with torch.no_grad():
            model.backbone.encode_image(batches[i % len(batches)])

    def method(i: int) -> None:
        with torch.no_grad():
            model.method.score(batches[i % len(batches)])

    alone = each(tower, len(batches)) * len(batches) / number
    found = {
        "decode": each(lambda i: read_image(cine, frame=i), number),
        "prepare (resize, normalise)": each(lambda i: model.preprocess.image(pictures[i]), number),
        "image tower": alone,
        "method on top": each(method, len(batches)) * len(batches) / number - alone,
        "map to the picture": each(lambda _: geometry.invert(grid), number),
        "look for the fan (not every frame)": each(lambda i: find_fan(pictures[i]), number),
        "lesions (with --save boxes)": each(lambda _: find_lesions(map_, 0.95), number),
        "draw the overlay (if saved)": each(lambda i: overlay(pictures[i], map_, threshold=0.5), number),
    }
    return {name: round(ms, 2) for name, ms in found.items()}


def whole(model: Model, cine: Path, number: int, **options: Any) -> float:  # noqa: ANN401
    """Processor milliseconds of ``ultraad.predict`` for a frame."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        done = predict(model, [cine], Path(folder) / "out", save=(), **options)
        taken = time.process_time() - start
    assert done.predicted == number, done.failed
    return 1000 * taken / number


def measure(model: Model, syntax: UID, number: int) -> dict[str, Any]:
    """All numbers of one encoding."""
    with tempfile.TemporaryDirectory() as folder:
        cine = write_cine(Path(folder) / "cine.dcm", frames(), number, syntax=syntax, grey=False)
        whole(model, cine, number)  # the first run is slower
        parts = steps(model, cine, number)
        plain = whole(model, cine, number)
        both = whole(model, cine, number, fan="auto", smooth=0.2)
    return {
        "encoding": syntax.name,
        "steps_ms": parts,
        "whole_ms": round(plain, 2),
        "whole_with_fan_and_smoothing_ms": round(both, 2),
        "times_the_bare_tower": round(plain / parts["image tower"], 2),
        "frames_per_second": round(CORES * 1000 / plain, 1),
        "real_time_factor": round(CORES * 1000 / plain / REAL_TIME, 2),
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    model = ultraad.zero_shot(backbone=given.backbone)
    found = [measure(model, syntax, given.frames) for syntax in (ExplicitVRLittleEndian, JPEGBaseline8Bit)]
    print(json.dumps(found, indent=1))
    if given.output:
        write_json(given.output, {"frames": given.frames, "cores": CORES, "backbone": given.backbone, "rows": found})


if __name__ == "__main__":
    main()
