"""What finer patches and the location prior change in UltraAD's maps: the tables of docs/backbone.md.

    python -m perf.finer DATA/BUS-UCLM DATA/BUS-BRA --shots 0 4 16 --draws 1 -o finer-shots.json

Shots are of the first data set. Tested on every second image of its other patients, and of the cases of the second one
that pretraining leaves out. One fit serves all ways of drawing the map; thresholds are 0.5.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from perf.backbone import CLASSES, held_out

import ultraad
from ultraad.model.model import Model
from ultraad.types import Sample

METRICS = {
    "pixel_auroc": "P",
    "pixel_ap": "AP",
    "aupro": "AUPRO",
    "dice": "Dice",
    "peak_in_lesion": "peak",
    "peak_in_small_lesion": "small",
    "image_auroc": "I",
    "benign_malignant_auroc": "BM",
}
WAYS: dict[str, dict[str, Any]] = {
    "the tower's patches": {"fine": False, "location": 0.0},
    "finer": {"fine": True, "location": 0.0},
    "finer, location prior 0.15": {"fine": True, "location": 0.15},
    "finer, location prior 0.25": {"fine": True, "location": 0.25},
    "finer, location prior 0.5": {"fine": True, "location": 0.5},
}
EVERY = 2


def measured(model: Model, tests: dict[str, list[Sample]], way: dict[str, Any]) -> dict[str, dict[str, float]]:
    """{data set: {metric: %}} with these options of the map."""
    options = model.method.config
    model.method.config = options.model_copy(update={"map": options.map.model_copy(update=way)})
    found = {}
    for name, samples in tests.items():
        metrics = ultraad.evaluate(model, samples, bootstrap=0, leaks="drop")["metrics"]
        known = {short: metrics[key]["value"] for key, short in METRICS.items() if key in metrics}
        found[name] = {short: round(100 * value, 1) for short, value in known.items() if value is not None}
    model.method.config = options
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 4, 16])
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    backbone = ultraad.load_backbone(given.backbone)
    other = [s for s in ultraad.scan(given.second) if held_out(s)][::EVERY]
    rows: list[dict[str, Any]] = []
    for shots in given.shots:
        for draw in range(given.draws if shots else 1):
            if shots:
                support = ultraad.draw_support(given.first, shots=shots, seed=draw)
                model = ultraad.adapt(support, backbone=backbone, seed=draw, calibrate=False)
                taken = {s.group for s in support.samples}
            else:
                model, taken = ultraad.zero_shot(backbone=backbone, classes=CLASSES), set()
            same = [s for s in ultraad.scan(given.first) if s.group not in taken][::EVERY]
            for name, way in WAYS.items():
                found = measured(model, {given.first.name: same, given.second.name: other}, way)
                rows.append({"shots": shots, "draw": draw, "map": name, **found})
                print(json.dumps(rows[-1]), flush=True)
    given.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
