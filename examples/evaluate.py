"""Adapt on one scanner, measure on another: 2 and 4 images per class against no images at all; simulated.

python examples/evaluate.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import ultraad
from ultraad.simulate import write_dataset

SHOWN = ("image_auroc", "pixel_auroc", "pixel_ap", "class_auroc_macro", "benign_malignant_auroc")
QUICK = {"train.epochs": 10, "train.views": 2}  # leave out for real use


def row(name: str, metrics: dict[str, Any]) -> str:
    """One line of the table, with a dash for undefined values."""
    cells = []
    for key in SHOWN:
        m = metrics[key]
        interval = "" if m["low"] is None else f" [{m['low']:.2f}, {m['high']:.2f}]"
        cells.append("-" if m["value"] is None else f"{m['value']:.2f}{interval}")
    return f"{name:<10}" + "".join(f"{cell:>20}" for cell in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--output", type=Path, default=Path("example-output"))
    args = parser.parse_args()

    here = write_dataset(args.output / "here", n=40, seed=0, size=128)
    there = write_dataset(args.output / "there", n=24, seed=1, size=128)
    backbone = ultraad.load_backbone(args.backbone)  # loaded once, shared by all models

    print(f"{'':<10}" + "".join(f"{key:>20}" for key in SHOWN))
    model = ultraad.zero_shot(backbone=backbone)
    print(row("zero-shot", ultraad.evaluate(model, there, bootstrap=100)["metrics"]))
    for shots in (2, 4):  # the images for 2 shots are among those for 4
        support = ultraad.draw_support(here, shots=shots, seed=0)
        model = ultraad.adapt(support, backbone=backbone, options=QUICK, calibrate=False)
        print(row(f"{shots} shots", ultraad.evaluate(model, there, bootstrap=100)["metrics"]))


if __name__ == "__main__":
    main()
