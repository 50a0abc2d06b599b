"""Adapt to a folder of labelled images, and predict score, map and class of a new one; all images are simulated.

python examples/adapt_and_predict.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ultraad
from ultraad.io import read_image
from ultraad.io.files import write_image
from ultraad.io.overlay import overlay
from ultraad.simulate import write_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--output", type=Path, default=Path("example-output"))
    args = parser.parse_args()

    data = write_dataset(args.output / "simulated", n=40, seed=0, size=128)
    samples = ultraad.scan(data)
    print(f"{len(samples)} images of {len({s.group for s in samples})} simulated patients")

    support = ultraad.draw_support(data, shots=4, seed=0)
    model = ultraad.adapt(
        support,
        backbone=args.backbone,
        options={"train.epochs": 10, "train.views": 2, "calibration.folds": 2},  # for speed; leave out for real use
    )
    model.save(args.output / "model")

    model = ultraad.load(args.output / "model")  # the folder holds no images, so it can be shared
    known = {s.group for s in support.samples}
    new = next(s for s in samples if s.label == "malignant" and s.group not in known)
    p = model.predict(new.image)
    print(f"{new.image.name}: score {p.score:.2f}, abnormal: {model.is_abnormal(p)}")
    print(", ".join(f"{name} {value:.2f}" for name, value in (p.probs or {}).items()))

    assert p.map is not None  # UltraAD has a map; a pure classifier has none
    picture = overlay(read_image(new.image), p.map, threshold=model.calibration.pixel_threshold)
    write_image(args.output / "overlay.png", picture)
    print(f"model and overlay are in {args.output}")


if __name__ == "__main__":
    main()
