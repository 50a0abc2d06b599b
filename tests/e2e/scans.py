"""Images for the page's tests: without marks beside them, and what is true about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import ultraad
from tests import helpers
from ultraad.io import read_image, read_mask
from ultraad.simulate import write_dataset

DATA = Path(__file__).parents[3] / "shared" / "data"  # real data sets, where they are beside the repository
_LEAST = 64  # narrowest strip of tissue that is cut out


@dataclass
class Scans:
    """Images in one folder.

    Attributes:
        folder: The images.
        truth: {file name: (class, mask bool (h w))}.
    """

    folder: Path
    truth: dict[str, tuple[str, np.ndarray]] = field(default_factory=dict)

    def add(self, name: str, label: str, image: np.ndarray, mask: np.ndarray) -> None:
        helpers.save(self.folder / name, image)
        self.truth[name] = (label, mask)

    def of(self, label: str) -> list[str]:
        return sorted(name for name, (c, _) in self.truth.items() if c == label)


def simulated(folder: Path, *, each: int, size: int = 160) -> Scans:
    """Simulated images, ``each`` of every class."""
    made = write_dataset(folder.with_name("simulated"), n=3 * each, size=size, shares=(1, 1, 1), clutter=False)
    scans = Scans(folder)
    for path in sorted(p for p in made.rglob("*.png") if not p.stem.endswith("_mask")):
        mask = np.asarray(Image.open(path.with_name(f"{path.stem}_mask.png")).convert("L")) > 0
        scans.add(f"drawn-{path.name}", path.parent.name, np.asarray(Image.open(path)), mask)
    return scans


def shipped(folder: Path, *, each: int = 8, longest: int = 200) -> Scans:
    """Small copies of the real images that ship: ``each`` benign and malignant ones, and ``each`` without a lesion.

    Args:
        folder: To write to.
        each: Images of every class.
        longest: Longest side of a copy in pixels.

    BUS-BRA has no normal image. Those here are strips of tissue beside a lesion, of patients that are not among the
    others.
    """
    scans = Scans(folder)
    by_class: dict[str, list[tuple[str, np.ndarray, np.ndarray]]] = {"benign": [], "malignant": []}
    for sample in ultraad.scan(ultraad.samples()):
        if sample.image.stem.endswith("-l"):  # one view of a patient
            image = read_image(sample.image)[..., 0]
            by_class[str(sample.label)].append((sample.image.stem, image, read_mask(sample.masks, shape=image.shape)))
    strips = []
    for label, found in by_class.items():
        for name, image, mask in found[:each]:
            scans.add(f"{name}.png", label, *_small(image, mask, longest))
        strips += [(name, strip) for name, image, mask in found[each:] for strip in _strips(image, mask)]
    for n, (name, strip) in enumerate(strips[:each]):
        scans.add(f"{name}-tissue{n}.png", "normal", *_small(strip, np.zeros(strip.shape, dtype=np.bool_), longest))
    return scans


def _strips(image: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    """The columns left and right of a lesion, where they are wide enough."""
    columns = np.flatnonzero(mask.any(0))
    return [part for part in (image[:, : columns[0]], image[:, columns[-1] + 1 :]) if part.shape[1] >= _LEAST]


def _small(image: np.ndarray, mask: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    scale = min(1.0, longest / max(image.shape))
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), small > 0


def bus_uclm(folder: Path, *, each: int) -> Scans:
    """Images of BUS-UCLM, ``each`` of every class, of different patients where there are as many."""
    scans = Scans(folder)
    root = DATA / "BUS-UCLM"
    for label, channel in (("normal", None), ("benign", 1), ("malignant", 0)):
        seen: set[str] = set()
        for path in sorted((root / "images").glob("*.png")):
            mask = np.asarray(Image.open(root / "masks" / path.name).convert("RGB")) > 127
            image = np.asarray(Image.open(path).convert("L"))
            found = mask.any((0, 1))
            mine = not found.any() if channel is None else found[channel] and found.sum() == 1
            if mine and path.name[:4] not in seen and mask.shape[:2] == image.shape:
                seen.add(path.name[:4])
                scans.add(path.name, label, image, mask.any(-1))
            if len(seen) == each:
                break
    return scans
