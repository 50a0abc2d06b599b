"""The pictures of docs/simulator.md.

python -m pretraining.figures docs/images
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from ultraad.simulate import FAMILIES, LEXICON, PROFILES, Attributes, simulate
from ultraad.simulate.phantom import Phantom

TILE = 132
CAPTION = 16
PLAIN = Attributes("fibroadenoma", "oval", "parallel", "circumscribed", "hypoechoic", "no posterior features")
DEVICE = "harmonic"
SEED = 116


def tile(phantom: Phantom, text: str, *, outline: bool = False) -> np.ndarray:
    """The picture over its caption, grey (h w)."""
    grey = cv2.resize(cv2.cvtColor(phantom.image, cv2.COLOR_RGB2GRAY), (TILE, TILE), interpolation=cv2.INTER_AREA)
    if outline:
        mask = cv2.resize(phantom.mask.astype(np.uint8), (TILE, TILE), interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(grey, contours, -1, 255, 1)
    out = np.full((TILE + CAPTION + 2, TILE + 4), 255, np.uint8)
    out[:TILE, 2:-2] = grey // 8 * 8
    cv2.putText(out, text, (3, TILE + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.32, 0, 1, cv2.LINE_AA)
    return out


def sheet(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Rows of tiles, filled up with white."""
    width = max(map(len, rows))
    blank = np.full_like(rows[0][0], 255)
    return np.vstack([np.hstack([*row, *[blank] * (width - len(row))]) for row in rows])


def families() -> np.ndarray:
    """Two lesions of each family, the mask outlined in the second."""
    names = list(FAMILIES)
    rows = []
    for start in range(0, len(names), 7):
        for again in (False, True):
            row = []
            for i, name in enumerate(names[start : start + 7], start=start):
                label = FAMILIES[name].label
                seed = 100 + 7 * i + 50 * again
                phantom = simulate(seed, label=label, family=name, device=DEVICE, clutter=False)
                row.append(tile(phantom, label if again else name, outline=again))
            rows.append(row)
    return sheet(rows)


def attributes() -> np.ndarray:
    """One lesion, one attribute changed at a time."""
    changes = {name: LEXICON[name] for name in ("shape", "orientation", "margin", "echo", "posterior")}
    rows = [
        [
            tile(
                simulate(SEED, attributes=replace(PLAIN, **{name: value}), device=DEVICE, clutter=False),
                f"{name}: {value}" if len(f"{name}: {value}") < 25 else value,
            )
            for value in values
        ]
        for name, values in changes.items()
    ]
    extra = [(name, value) for name in ("calcifications", "halo") for value in (False, True)]
    rows[1] += [
        tile(
            simulate(SEED, attributes=replace(PLAIN, **{name: value}), device=DEVICE, clutter=False),
            name if value else f"no {name}",
        )
        for name, value in extra
    ]
    return sheet(rows)


def devices() -> np.ndarray:
    """One patient through every kind of machine, then console clutter."""
    seen = [tile(simulate(SEED, attributes=PLAIN, device=n, clutter=False), n) for n in PROFILES]
    labels = ("normal", "benign", "malignant") * 2
    clutter = [tile(simulate(seed, label=label), label) for seed, label in enumerate(labels, start=20)]
    return sheet([seen[:6], seen[6:], clutter])


def schematic() -> np.ndarray:
    """Eight findings in both kinds of tissue."""
    rows = []
    for tissue in ("layered", "schematic"):
        phantoms = [simulate(seed, tissue=tissue, clutter=False) for seed in range(40, 48)]
        rows.append([tile(p, f"{tissue}, {p.label}", outline=True) for p in phantoms])
    return sheet(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for draw in (families, attributes, devices, schematic):
        path = folder / f"simulator-{draw.__name__}.png"
        path.write_bytes(cv2.imencode(".png", draw(), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
