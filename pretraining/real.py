"""Real images for training: BUS-BRA, with normal images made from it.

    python -m pretraining.real BUS-BRA IMAGES    # into the folder of the simulated ones, two minutes

BUS-BRA (Gomez-Flores et al., Medical Physics 51:3110, 2024) has lesions only. A tower that sees nothing else real
learns that real means lesion. Normal images are made from the same pictures in two ways: the lesion is painted out with
tissue of the same image, or a window without lesion is cut out. A picture and its painted twin share machine, depth,
text and calipers, so only the lesion tells them apart. Healthy tissue is painted over in other lesion images, so that
the painting tells nothing.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pretraining.images import FACTS
from ultraad.data.sources.bus_bra import is_held_out
from ultraad.simulate import LABELS, LEXICON

SIZE = 224
FAMILY = {
    "fibroadenoma": "fibroadenoma",
    "cyst": "simple cyst",
    "fibrocystic changes": "adenosis",
    "sclerosing adenosis": "adenosis",
    "intraductal papilloma": "papilloma",
    "lipoma": "lipoma",
    "hamartoma": "hamartoma",
    "fat necrosis": "fat necrosis or scar",
    "mastitis": "abscess",
    "invasive ductal carcinoma": "invasive carcinoma",
    "invasive lobular carcinoma": "lobular carcinoma",
    "papillary carcinoma": "papillary or cystic carcinoma",
    "mucinous carcinoma": "circumscribed carcinoma",
    "medullary carcinoma": "circumscribed carcinoma",
    "ductal carcinoma in situ": "ductal carcinoma in situ",
}
"""Histology to the simulator's family; a histology without a family teaches its class only."""

BIRADS = ("2", "3", "4", "5")


def facts_of(row: dict[str, str]) -> list[int]:
    """Label, family and BI-RADS category of a line of ``bus_data.csv`` as numbers; -1 is unknown."""
    known = {"label": LABELS.index(row["Pathology"]), "birads": BIRADS.index(row["BIRADS"])}
    if row["Histology"] in FAMILY:
        known["family"] = LEXICON["family"].index(FAMILY[row["Histology"]])
    return [known.get(name, -1) for name in FACTS]


def paint(
    image: np.ndarray, region: np.ndarray, lesion: np.ndarray, rng: np.random.Generator, *, tries: int = 40
) -> np.ndarray | None:
    """Cover a region with tissue of the same depth from beside it, with a soft edge.

    Args:
        image: uint8 (h w).
        region: bool (h w), to be covered.
        lesion: bool (h w); the tissue is not taken from there.
        rng: Chooses where the tissue comes from.
        tries: Places to try.

    Returns:
        uint8 (h w), or None if the image has no free tissue of this size.
    """
    h, w = image.shape
    taboo = (region | lesion).astype(np.uint8)
    soft = cv2.GaussianBlur(region.astype(np.float32), (0, 0), max(1.5, 0.02 * w))
    soft = np.clip(1.6 * soft - 0.3, 0, 1)  # 1 well inside, 0 a little outside
    used = soft > 0
    ring = (cv2.dilate(region.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0) & (taboo == 0)
    if not ring.any():
        return None
    around = float(image[ring].mean()) + 1
    xs = np.flatnonzero(used.any(0))
    for _ in range(tries):
        mirrored = rng.random() < 0.5
        shift = int(rng.integers(-xs[-1] if not mirrored else 0, w - xs[0] if not mirrored else 2 * w))
        columns = shift - np.arange(w) if mirrored else np.arange(w) + shift
        if columns[xs].min() < 0 or columns[xs].max() >= w:
            continue
        columns = columns.clip(0, w - 1)
        rows = (np.arange(h) + int(rng.integers(-h // 20, h // 20 + 1))).clip(0, h - 1)
        if taboo[rows[:, None], columns][used].any():
            continue
        tissue = image[rows[:, None], columns].astype(np.float32)
        there = float(tissue[used].mean()) + 1
        gain = around / there
        if not 0.6 < gain < 1.7:  # a border, a shadow or the skin
            continue
        gain = 1 + 0.8 * (gain - 1)
        return np.clip(soft * gain * tissue + (1 - soft) * image, 0, 255).astype(np.uint8)
    return None


def without_lesion(image: np.ndarray, lesion: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """The image with its lesion and what lies behind it painted over; None where there is no room."""
    ys, xs = np.nonzero(lesion)
    height, width = ys.max() - ys.min() + 1, xs.max() - xs.min() + 1
    grown = 2 * int(2 + 0.06 * max(height, width)) + 1
    region = cv2.dilate(lesion.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grown, grown))) > 0
    behind = region.copy()  # shadow or enhancement
    for step in range(1, int(height * rng.uniform(0.3, 1.0)) + 1):
        behind[step:] |= region[:-step]
    return paint(image, behind, lesion, rng)


def with_decoy(image: np.ndarray, lesion: np.ndarray, shape: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """The image with healthy tissue painted over healthy tissue, in the shape of another image's lesion."""
    h, w = image.shape
    ys, xs = np.nonzero(cv2.resize(shape.astype(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST))
    near = cv2.dilate(lesion.astype(np.uint8), np.ones((13, 13), np.uint8)) > 0
    for _ in range(20):
        y, x = ys + int(rng.integers(-h // 2, h // 2 + 1)), xs + int(rng.integers(-w // 2, w // 2 + 1))
        if y.min() < 0 or x.min() < 0 or y.max() >= h or x.max() >= w or near[y, x].any():
            continue
        region = np.zeros((h, w), np.bool_)
        region[y, x] = True
        return paint(image, region, lesion, rng)
    return None


def window(image: np.ndarray, lesion: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """A random window without lesion, 0.4 to 0.9 of each side."""
    h, w = image.shape
    for _ in range(30):
        height, width = int(h * rng.uniform(0.45, 0.9)), int(w * rng.uniform(0.4, 0.9))
        y, x = int(rng.integers(0, h - height + 1)), int(rng.integers(0, w - width + 1))
        if not lesion[y : y + height, x : x + width].any():
            return image[y : y + height, x : x + width]
    return None


@dataclass(frozen=True)
class Part:
    """Pictures of one kind: uint8 images (n s s), uint8 masks (n s s) of 0 and 1, facts (n f)."""

    images: np.ndarray
    masks: np.ndarray
    facts: np.ndarray

    @classmethod
    def load(cls, folder: Path, name: str) -> Part:
        """One of the parts that this module wrote."""
        return cls(*(np.load(folder / f"real-{name}-{kind}.npy", mmap_mode="r") for kind in ("image", "mask", "facts")))

    def save(self, folder: Path, name: str) -> None:
        """Three files of ``folder``."""
        for kind, values in (("image", self.images), ("mask", self.masks), ("facts", self.facts)):
            np.save(folder / f"real-{name}-{kind}.npy", values)

    def take(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images (b s s 3), masks (b s s) and facts (b f) at random."""
        i = rng.choice(len(self.images), count, replace=count > len(self.images))
        return np.repeat(self.images[i][..., None], 3, -1), self.masks[i], self.facts[i]


def bus_bra(root: Path, *, size: int = SIZE, seed: int = 0, copies: int = 3) -> dict[str, Part]:
    """The cases of BUS-BRA that may be trained on.

    Args:
        root: The data set's folder.
        size: Side of the pictures in pixels.
        seed: Of everything that is painted or cut.
        copies: Painted versions of each picture.

    Returns:
        ``lesion`` (as they are), ``decoy`` (healthy tissue painted over), ``painted`` (lesion painted out), ``window``
        (cut out beside the lesion).
    """
    with (root / "bus_data.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if not is_held_out(row["Case"])]
    read = [
        (_grey(root / "Images" / f"{row['ID']}.png"), _grey(root / "Masks" / f"{_mask_name(row['ID'])}.png") > 127)
        for row in rows
    ]
    rng = np.random.default_rng([seed, 17])
    normal = [LABELS.index("normal")] + [-1] * (len(FACTS) - 1)
    lists: dict[str, list[tuple[np.ndarray, np.ndarray | None, list[int]]]] = {
        name: [] for name in ("lesion", "decoy", "painted", "window")
    }
    for row, (image, lesion) in zip(rows, read, strict=True):
        facts = facts_of(row)
        lists["lesion"].append((image, lesion, facts))
        for _ in range(copies):
            shape = read[int(rng.integers(len(read)))][1]
            if (made := with_decoy(image, lesion, shape, rng)) is not None:
                lists["decoy"].append((made, lesion, facts))
            if (made := without_lesion(image, lesion, rng)) is not None:
                lists["painted"].append((made, None, normal))
        if (made := window(image, lesion, rng)) is not None:
            lists["window"].append((made, None, normal))
    return {name: _part(items, size) for name, items in lists.items()}


def _grey(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)


def _mask_name(image_id: str) -> str:
    return image_id.replace("bus_", "mask_", 1)


def _part(items: list[tuple[np.ndarray, np.ndarray | None, list[int]]], size: int) -> Part:
    def small(picture: np.ndarray, how: int) -> np.ndarray:
        return cv2.resize(picture, (size, size), interpolation=how)

    empty = np.zeros((size, size), np.uint8)
    return Part(
        np.stack([small(image, cv2.INTER_AREA) for image, _, _ in items]),
        np.stack([empty if mask is None else small(mask.astype(np.uint8), cv2.INTER_NEAREST) for _, mask, _ in items]),
        np.array([facts for _, _, facts in items], np.int8),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bus_bra", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=SIZE, help="side in pixels, as that of the simulated images")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, part in bus_bra(options.bus_bra, size=options.size).items():
        part.save(options.folder, name)
        print(f"{name}: {len(part.images)} images", flush=True)


if __name__ == "__main__":
    main()
