"""Simulated images on disk, for training: shards of uint8 arrays.

    python -m pretraining.images IMAGES --shards 11              # 22 000 images, 4 minutes on one core
    python -m pretraining.images IMAGES --shards 11 --first 100 --tissue schematic
    python -m pretraining.images IMAGES --shards 1 --first 900   # the validation shard

A shard holds ``image`` (n s s 3), ``mask`` (n s s) and ``facts`` (n f), f = label and the attributes as numbers.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from ultraad.simulate import LABELS, LEXICON, TISSUES, Attributes, TissueKind, simulate

SHARD = 2000
SIZE = 176
FACTS = ("label", *LEXICON, "calcifications", "halo", "birads")


def encode(label: str, attributes: Attributes | None) -> list[int]:
    """Label and attributes as numbers; -1 where there is none. Simulated lesions have no BI-RADS category."""
    row = [LABELS.index(label)]
    if attributes is None:
        return row + [-1] * (len(FACTS) - 1)
    row += [words.index(getattr(attributes, name)) for name, words in LEXICON.items()]
    return [*row, int(attributes.calcifications), int(attributes.halo), -1]


def decode(row: np.ndarray) -> tuple[str, Attributes | None]:
    """The inverse of :func:`encode`."""
    value = dict(zip(FACTS, (int(v) for v in row), strict=True))
    label = LABELS[value["label"]]
    if label == "normal":
        return label, None
    words = {name: LEXICON[name][value[name]] for name in LEXICON}
    return label, Attributes(**words, calcifications=bool(value["calcifications"]), halo=bool(value["halo"]))


def write_shard(folder: Path, number: int, *, size: int, tissue: TissueKind) -> None:
    """Images with seeds ``number * SHARD`` and up; complete when the facts file is there."""
    image = np.empty((SHARD, size, size, 3), np.uint8)
    mask = np.empty((SHARD, size, size), np.uint8)
    facts = np.empty((SHARD, len(FACTS)), np.int8)
    for i in range(SHARD):
        phantom = simulate(number * SHARD + i, size=size, tissue=tissue)
        image[i], mask[i], facts[i] = phantom.image, phantom.mask, encode(phantom.label, phantom.attributes)
    np.save(folder / f"image-{number:04d}.npy", image)
    np.save(folder / f"mask-{number:04d}.npy", mask)
    np.save(folder / f"facts-{number:04d}.npy", facts)


class Shards:
    """All complete shards of a folder, memory-mapped."""

    def __init__(self, folder: Path, *, first: int = 0, last: int = 899) -> None:
        self.image: dict[int, np.ndarray] = {}
        self.mask: dict[int, np.ndarray] = {}
        self.facts: dict[int, np.ndarray] = {}
        for path in sorted(folder.glob("facts-*.npy")):
            k = int(path.stem.split("-")[1])
            if first <= k <= last:
                self.image[k] = np.load(folder / f"image-{k:04d}.npy", mmap_mode="r")
                self.mask[k] = np.load(folder / f"mask-{k:04d}.npy", mmap_mode="r")
                self.facts[k] = np.load(path)

    def __len__(self) -> int:
        return SHARD * len(self.facts)

    def take(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images (b s s 3), masks (b s s) and facts (b f) at positions 0 .. len - 1."""
        keys = sorted(self.facts)
        where = [(keys[int(i) // SHARD], int(i) % SHARD) for i in index]
        parts = ([part[k][i] for k, i in where] for part in (self.image, self.mask, self.facts))
        image, mask, facts = (np.stack(p) for p in parts)
        return image, mask, facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--size", type=int, default=SIZE, help="side in pixels; one per folder")
    parser.add_argument("--tissue", choices=TISSUES, default="layered")
    parser.add_argument("--step", type=int, default=1, help="distance of shard numbers, to share work among processes")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    for number in range(options.first, options.first + options.shards * options.step, options.step):
        if not (options.folder / f"facts-{number:04d}.npy").exists():
            start = time.perf_counter()
            write_shard(options.folder, number, size=options.size, tissue=options.tissue)
            print(f"shard {number}: {SHARD / (time.perf_counter() - start):.1f} images/s", flush=True)


if __name__ == "__main__":
    main()
