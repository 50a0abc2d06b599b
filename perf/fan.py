"""How often the fan of a probe is found, and what it does to scores: ``--fan auto`` and ``off`` on the same images.

Images of a data set are looked at; some of each class are predicted, by a zero-shot model and by one that was
adapted to other images (of other patients, where they are known), drawn with the same choice:

    python -m perf.fan DATA/liver DATA/BUS-UCLM --images 12 --shots 4 --every 8 -o perf/results/fan.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import ultraad
from ultraad.data.loader import decode
from ultraad.io.fan import find_fan
from ultraad.io.files import write_json
from ultraad.rng import seeded
from ultraad.types import Sample

METRICS = ("image_auroc", "pixel_auroc", "pixel_ap", "dice")
CHOICES = ("auto", "off")


def found(samples: list[Sample]) -> dict[str, Any]:
    """Kinds of fans, lesion pixels that lie outside of them, and milliseconds of processor time for an image."""
    kinds: Counter[str] = Counter()
    lost, marked, seconds = 0, 0, 0.0
    worst = 0.0
    for sample in samples:
        item = decode(sample, normal_class="normal")
        start = time.process_time()
        fan = find_fan(item.image)
        seconds += time.process_time() - start
        kinds[fan.kind] += 1
        if fan.masks and item.mask is not None and item.mask.any():
            outside = np.count_nonzero(item.mask & ~fan.mask(item.mask.shape))
            lost, marked = lost + outside, marked + np.count_nonzero(item.mask)
            worst = max(worst, outside / np.count_nonzero(item.mask))
    return {
        "images": len(samples),
        "kinds": dict(kinds),
        "lesion_pixels_outside": round(lost / marked, 6) if marked else None,
        "most_of_one_lesion": round(worst, 4),
        "milliseconds": round(1000 * seconds / len(samples), 1),
    }


def choose(samples: list[Sample], images: int) -> list[Sample]:
    """Some images of each class."""
    chosen = []
    for label in sorted({s.label or "" for s in samples}):
        members = [s for s in samples if s.label == label]
        chosen += [members[i] for i in seeded(0, f"fan {label}").permutation(len(members))[:images]]
    return chosen


def measure(root: Path, *, images: int, shots: int, every: int, backbone: str) -> dict[str, Any]:
    """What is found in one data set, and the metrics of both choices by model."""
    samples = [s for s in ultraad.scan(root) if s.mask_aligned and not s.tags]
    texts = {"texts": "liver"} if "liver" in root.name else {}
    patients = any(s.group for s in samples)
    supports = {fan: ultraad.draw_support(root, shots=max(1, shots), per_patient=patients, fan=fan) for fan in CHOICES}
    learned = supports["off"].samples
    ids, groups = {s.id for s in learned}, {s.group for s in learned if s.group}
    chosen = choose([s for s in samples if s.id not in ids and s.group not in groups], images)
    scores: dict[str, Any] = {}
    for fan in CHOICES:
        models = {"zero-shot": ultraad.zero_shot(backbone=backbone, options=texts)}
        if shots:
            models[f"{shots} shots"] = ultraad.adapt(supports[fan], backbone=backbone, options=texts)
        for name, model in models.items():
            result = ultraad.evaluate(model, chosen, layout=ultraad.data.sources.detect(root), fan=fan, bootstrap=200)
            values = {m: {k: round(result["metrics"][m][k], 4) for k in ("value", "low", "high")} for m in METRICS}
            scores.setdefault(name, {})[fan] = values
    return {"data": root.name, "found": found(samples[::every]), "predicted": len(chosen), "metrics": scores}


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=12, help="of each class")
    parser.add_argument("--shots", type=int, default=4, help="of the adapted model; 0: only zero-shot")
    parser.add_argument("--every", type=int, default=1, help="look for the fan of every how many images one has")
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    about = {"images": given.images, "shots": given.shots, "every": given.every, "backbone": given.backbone}
    result = []
    for root in given.data:
        result.append(measure(root, **about))
        print(json.dumps(result[-1], indent=1), flush=True)
        if given.output:
            write_json(given.output, {**about, "sets": result})


if __name__ == "__main__":
    main()
