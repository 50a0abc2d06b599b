"""Whether white marks are found, and whether "this score rests on marks" is true, with marks drawn onto images.

    python -m perf.marks DATA/BUS-UCLM --bus-bra DATA/BUS-BRA --busi DATA/Dataset_BUSI_with_GT --images 24 \\
        -o perf/results/marks.json

Found: on images without marks nothing should be; on the same ones with white calipers and text, the drawn pixels. Of
BUS-BRA (cases that no constant was chosen on) and BUSI it is not known which images have marks, so these are counts.

Rests: the truth is known, since the score of the same image without the drawn marks is. It is compared with what
``Model.why`` finds when it paints marks out, by the same rule. Each method is adapted twice: on the support
images as they are, and with calipers on every lesion and on no normal image, so that it can learn the shortcut.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

import ultraad
from ultraad.backbones._door import Backbone
from ultraad.data.sources.bus_bra import SEEN
from ultraad.io import read_image
from ultraad.io.files import write_image, write_json
from ultraad.io.marks import paint_out, white
from ultraad.model.model import Model
from ultraad.model.reasons import rests
from ultraad.rng import seeded
from ultraad.simulate import simulate
from ultraad.types import Sample, SupportSet

YELLOW, WHITE = (255, 220, 40), (255, 255, 255)
METHODS = {"ultraad": {"train.epochs": 15, "train.views": 4}, "linear_probe": {}}


PARTS = ("calipers", "dots", "text")


def drawn(
    image: NDArray[np.uint8], colour: tuple[int, int, int], *, seed: int, parts: Collection[str] = PARTS
) -> NDArray[np.uint8]:
    """An image with two calipers, the line of dots between them, and a measurement in words."""
    rng, out = seeded(seed, "calipers"), image.copy()
    h, w = out.shape[:2]
    ends = [(int(rng.integers(w // 5, 4 * w // 5)), int(rng.integers(h // 5, 4 * h // 5))) for _ in range(2)]
    if "calipers" in parts:
        for x, y in ends:
            cv2.line(out, (x - 5, y), (x + 5, y), colour)
            cv2.line(out, (x, y - 5), (x, y + 5), colour)
    if "dots" in parts:
        for at in np.linspace(0, 1, 16)[1:-1]:
            x, y = (round(a + at * (b - a)) for a, b in zip(*ends, strict=True))
            out[y, x] = colour
    if "text" in parts:
        cv2.putText(out, "D1 12.4 mm", (8, h - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
    return out


def counted(images: Iterable[NDArray[np.uint8]]) -> dict[str, Any]:
    """In how many images white marks are found, and how much of the picture they are at most."""
    areas = [float(white(image).mean()) for image in images]
    return {
        "images": len(areas),
        "with white marks found": sum(area > 0 for area in areas),
        "largest share of pixels": round(max(areas), 4),
    }


def painted(images: Iterable[NDArray[np.uint8]]) -> dict[str, float]:
    """Shares of the pixels of drawn white marks that are painted out, over all images."""
    hit, there = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
    for i, clean in enumerate(images):
        seen = drawn(clean, WHITE, seed=i)
        filled = (paint_out(seen, white(seen)) != seen).any(-1)
        for part in PARTS:
            alone = (drawn(clean, WHITE, seed=i, parts=(part,)) != clean).any(-1)
            hit[part] += int((alone & filled).sum())
            there[part] += int(alone.sum())
    return {part: round(hit[part] / there[part], 3) for part in PARTS}


def detected(root: Path, bus_bra: Path | None, busi: Path | None) -> dict[str, Any]:
    """White marks found in real and in simulated images, and those drawn onto the ones without."""

    def read(samples: Iterable[Sample]) -> Iterable[NDArray[np.uint8]]:
        return (read_image(s.image) for s in samples)

    known = ultraad.scan(root)
    bare = [s for s in known if not s.tags][1::2]  # constants were chosen with some of the others
    marked = [s for s in known if s.tags == {"marks"}]
    simulated = [simulate(seed, size=384, clutter=False).image for seed in range(100)]
    found = {
        "BUS-UCLM without marks": {**counted(read(bare)), "drawn pixels painted out": painted(read(bare[::2]))},
        "BUS-UCLM with marks, mostly yellow": counted(read(marked)),
        "simulated without marks": {**counted(simulated), "drawn pixels painted out": painted(simulated)},
    }
    if bus_bra:
        fifth = [s for s in ultraad.scan(bus_bra) if SEEN not in s.tags]
        found["BUS-BRA, each fifth case"] = counted(read(fifth))
    if busi:
        found["BUSI"] = counted(read(ultraad.scan(busi)))
    return found


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
    moved = max(abs(one.score - before) for one in why.stability.changes)
    return {
        "score": before,
        "change": before - bare,
        "rests": rests(before - bare, why.stability, before),
        "found": why.marks.change,
        "flagged": bool(why.marks.rests),
        "moved": moved,
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
        "painted out in": len(errors),
        "median change by drawn marks": round(float(np.median([abs(r["change"]) for r in rows])), 4),
        "median error of the change found": round(float(np.median(errors)), 4) if errors else None,
        "median of the largest change by gain and crop": round(float(np.median([r["moved"] for r in rows])), 4),
        "error above that change": sum(
            abs(r["found"] - r["change"]) > r["moved"] for r in rows if r["found"] is not None
        ),
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
    parser.add_argument("--bus-bra", type=Path)
    parser.add_argument("--busi", type=Path)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument(
        "--images", type=int, default=30, help="without calipers, half of them with a lesion; as many with"
    )
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = detected(given.data, given.bus_bra, given.busi)
    print(json.dumps(found), flush=True)
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
        write_json(given.output, {"shots": given.shots, "seed": 0, "white": found, "rows": rows})


if __name__ == "__main__":
    main()
