"""The pictures of docs/medi-clip-synthesis.md: every family of synthetic anomalies on the same normal images.

    python docs/figures/medi_clip_synthesis.py                                # simulated, into docs/images
    python docs/figures/medi_clip_synthesis.py --real DATA/BUS-UCLM --out .   # a data set's normal images

Needs nothing but the package. Same arguments, same pictures.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import ultraad
from ultraad.io import read_image
from ultraad.nn.synthesis import FAMILIES, apply, draw
from ultraad.rng import seeded
from ultraad.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

IMAGES = Path(__file__).parents[1] / "images"
SIDE = 224  # pixels, the reference's
COLUMNS = 6
INCHES = 1.16  # of one picture
OUTLINE = "#ffd400"
EFFECT = {
    "identity": "unchanged",
    "cutpaste": "tissue from another\nof these images",
    "gauss_intensity": "brighter or darker,\nwith a texture",
    "smooth_intensity": "brighter or darker,\nwith a smooth rim",
    "source": "pushed outwards\nfrom a point",
    "sink": "pulled inwards\nto a point",
}


def simulated() -> list[NDArray[np.uint8]]:
    """Normal phantoms of as many patients, without console clutter."""
    return [simulate(seed, label="normal", size=SIDE, clutter=False).image for seed in range(1, COLUMNS + 1)]


def real(folder: Path, *, seed: int) -> list[NDArray[np.uint8]]:
    """One normal image without marks of each of some patients."""
    normal = [s for s in ultraad.scan(folder) if s.anomalous is False and not s.tags]
    order = seeded(seed, "figure").permutation(len(normal))
    by_patient = {normal[i].group or normal[i].id: normal[i] for i in order}
    return [read_image(s.image, frame=s.frame) for s in list(by_patient.values())[:COLUMNS]]


def grey(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Squashed to the model's side, as in training: f32 (SIDE SIDE) in 0..1."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) / 255, np.float32)


def figure(images: Sequence[NDArray[np.float32]], *, seed: int) -> Figure:
    """One row per family, one column per image, masks outlined."""
    rows = ("identity", *(family for family in FAMILIES if family != "identity"))
    fig = Figure(figsize=(INCHES * COLUMNS + 1.6, INCHES * len(rows)))
    grid = fig.add_gridspec(
        len(rows), COLUMNS, left=1.6 / fig.get_figwidth(), right=1, bottom=0, top=1, wspace=0.03, hspace=0.03
    )
    for r, family in enumerate(rows):
        for c, image in enumerate(images):
            ax = fig.add_subplot(grid[r, c])
            rng = seeded(seed, f"{family}/{c}")
            painted, mask = apply(image, draw(family, rng, shape=image.shape, sources=len(images)), images)
            ax.imshow(painted, cmap="gray", vmin=0, vmax=1, interpolation="lanczos")
            if mask.any():
                ax.contour(mask, [0.5], colors=OUTLINE, linewidths=1.1)
            ax.set_axis_off()
            if c == 0:
                ax.text(-0.05, 0.56, family, transform=ax.transAxes, ha="right", va="bottom", size=9, weight="bold")
                ax.text(-0.05, 0.50, EFFECT[family], transform=ax.transAxes, ha="right", va="top", size=8, color="0.3")
    return fig


def save(fig: Figure, path: Path) -> None:
    """As a PNG of 256 colours: grey levels need no more, and the file is a third."""
    buffer = BytesIO()
    fig.savefig(buffer, dpi=125, facecolor="white")
    Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Draw what was asked for."""
    parser = argparse.ArgumentParser(description="Pictures of MediCLIP's synthetic anomalies.")
    parser.add_argument("--real", type=Path, help="a data set that ultraad knows; without it, images are simulated")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder for the picture")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    name, images = ("simulated", simulated()) if a.real is None else ("real", real(a.real, seed=a.seed))
    save(figure([grey(image) for image in images], seed=a.seed), a.out / f"medi-clip-{name}.png")


if __name__ == "__main__":
    main()
