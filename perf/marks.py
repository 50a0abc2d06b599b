"""Whether "this score rests on marks" is true: calipers and text are drawn onto images that had none.

    python -m perf.marks DATA/BUS-UCLM -o perf/results/marks.json

The truth is known, since the score of the same image without the drawn marks is. It is compared with what
``Model.why`` finds when it paints coloured marks out, by the same rule. Each method is adapted twice: on the support
images as they are, and with calipers on every lesion and on no normal image, so that it can learn the shortcut.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

import ultraad
from ultraad.backbones._door import Backbone
from ultraad.io import read_image
from ultraad.io.files import write_image, write_json
from ultraad.model.model import Model
from ultraad.model.reasons import rests
from ultraad.rng import seeded
from ultraad.types import Sample, SupportSet

YELLOW, WHITE = (255, 220, 40), (255, 255, 255)
METHODS = {"ultraad": {"train.epochs": 15, "train.views": 4}, "linear_probe": {}}


def drawn(image: NDArray[np.uint8], colour: tuple[int, int, int], *, seed: int) -> NDArray[np.uint8]:
    """An image with two calipers, the line of dots between them, and a measurement in words."""
    rng, out = seeded(seed, "calipers"), image.copy()
    h, w = out.shape[:2]
    ends = [(int(rng.integers(w // 5, 4 * w // 5)), int(rng.integers(h // 5, 4 * h // 5))) for _ in range(2)]
    for x, y in ends:
        cv2.line(out, (x - 5, y), (x + 5, y), colour)
        cv2.line(out, (x, y - 5), (x, y + 5), colour)
    for at in np.linspace(0, 1, 16)[1:-1]:
        x, y = (round(a + at * (b - a)) for a, b in zip(*ends, strict=True))
        out[y, x] = colour
    cv2.putText(out, "D1 12.4 mm", (8, h - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
    return out


def shortcut(support: SupportSet, folder: Path) -> SupportSet:
    """The support set with calipers on every image that shows a lesion."""

    def with_marks(i: int, sample: Sample) -> Sample:
        if sample.label == support.normal_class:
            return sample
        path = folder / f"{i}.png"
        write_image(path, drawn(read_image(sample.image), YELLOW, seed=10_000 + i))
        return replace(sample, image=path)

    return replace(support, samples=tuple(with_marks(i, s) for i, s in enumerate(support.samples)))


def said(model: Model, clean: NDArray[np.uint8], seen: NDArray[np.uint8]) -> dict[str, Any]:
    """What the marks of an image do, and what is found; ``clean`` is the same image without the drawn ones."""
    why, before, bare = model.explain(seen), model.predict(seen).score, model.predict(clean).score
    return {
        "score": before,
        "change": before - bare,
        "rests": rests(before - bare, why.stability, before),
        "found": why.marks.change,
        "flagged": bool(why.marks.rests),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of one kind of images."""
    both = [(r["rests"], r["flagged"]) for r in rows]
    errors = [abs(r["found"] - r["change"]) for r in rows if r["found"] is not None]
    return {
        "images": len(rows),
        "flagged": sum(f for _, f in both),
        "rest on drawn marks": sum(t for t, _ in both),
        "of these flagged": sum(t and f for t, f in both),
        "median change by drawn marks": round(float(np.median([abs(r["change"]) for r in rows])), 4),
        "median error of the change found": round(float(np.median(errors)), 4) if errors else None,
    }


def measured(model: Model, samples: list[Sample], marked: list[Sample]) -> dict[str, Any]:
    """Each kind of images: as they are, with drawn marks in two colours, and those that came with marks."""
    kinds: dict[str, list[dict[str, Any]]] = {"no calipers": [], "yellow drawn": [], "white drawn": []}
    for i, sample in enumerate(samples):
        clean = read_image(sample.image)
        kinds["no calipers"].append(said(model, clean, clean))
        kinds["yellow drawn"].append(said(model, clean, drawn(clean, YELLOW, seed=i)))
        kinds["white drawn"].append(said(model, clean, drawn(clean, WHITE, seed=i)))
    real = [model.explain(read_image(s.image)).marks for s in marked]
    found = {kind: summary(rows) for kind, rows in kinds.items()}
    return {**found, "came with calipers": {"images": len(real), "flagged": sum(bool(m.rests) for m in real)}}


def models(root: Path, backbone: Backbone, shots: int, folder: Path) -> dict[str, tuple[Model, set[str | None]]]:
    """Each method on plain support images, and on those with calipers on every lesion; and the support's patients."""
    support = ultraad.draw_support(root, shots=shots, exclude_tags=["marks", "doppler", "combined"])
    groups = {s.group for s in support.samples}
    found = {}
    for name, options in METHODS.items():
        for kind, chosen in (("plain", support), ("shortcut", shortcut(support, folder))):
            model = ultraad.adapt(chosen, method=name, backbone=backbone, options=options, calibrate=False)
            found[f"{name}, {kind}"] = (model, groups)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument(
        "--images", type=int, default=30, help="without calipers, half of them with a lesion; as many with"
    )
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    backbone = ultraad.load_backbone("embedded")
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (model, groups) in models(given.data, backbone, given.shots, Path(folder)).items():
            others = [s for s in ultraad.scan(given.data) if s.group not in groups]
            bare = [s for s in others if not s.tags]
            halves = [[s for s in bare if s.anomalous is side] for side in (False, True)]
            samples = [s for half in halves for s in half[:: max(1, len(half) // (given.images // 2))]]
            marked = [s for s in others if s.tags == {"marks"}]
            rows[name] = measured(model, samples, marked[:: max(1, len(marked) // given.images)])
            print(json.dumps({name: rows[name]}), flush=True)
    if given.output:
        write_json(given.output, {"shots": given.shots, "seed": 0, "rows": rows})


if __name__ == "__main__":
    main()
