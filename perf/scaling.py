"""How the cost grows with images, shots, resolution, classes, and the size of the backbone.

Each axis is measured at a few points; the slope of a line fitted in log-log is compared with the expected slope. The
figures of docs/performance.md are drawn from the JSON:

    python -m perf.scaling --figures docs/figures -o perf/results/scaling.json
    python -m perf.scaling --drawn-from perf/results/scaling.json --figures docs/figures
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from perf.flops import fastest, operations
from perf.timing import arguments, machine

import ultraad
from ultraad.backbones._door import Backbone
from ultraad.simulate import write_dataset

TOWERS = {
    "tiny": "tiny",
    "embedded": "embedded",
    "ViT-B-32": "open_clip:ViT-B-32-quickgelu",
    "ViT-B-16": "open_clip:ViT-B-16-quickgelu",
    "ViT-L-14": "open_clip:ViT-L-14-quickgelu",
    "ViT-L-14-336": "open_clip:ViT-L-14-336-quickgelu",
}
EPOCHS = 4  # of an adaptation: every epoch costs the same


@dataclass(frozen=True)
class Axis:
    """One measured relation.

    Attributes:
        name: Of the figure's file.
        x: What grows.
        y: What is measured.
        order: Expected slope in log-log, in words.
        values: Of x.
        costs: Of y.
        labels: Of the points, if x is not enough.
        fit_from: First point of the fit; before it, constant costs dominate.
    """

    name: str
    x: str
    y: str
    order: str
    values: tuple[float, ...]
    costs: tuple[float, ...]
    labels: tuple[str, ...] = ()
    fit_from: int = 0

    @property
    def slope(self) -> float:
        """Of the fitted line."""
        x, y = np.log(self.values[self.fit_from :]), np.log(self.costs[self.fit_from :])
        return float(np.polyfit(x, y, 1)[0])


def over_images(folder: Path, tower: Backbone) -> Axis:
    """Prediction, file to map."""
    model = ultraad.zero_shot(backbone=tower)
    paths = sorted(p for p in folder.rglob("*.png") if not p.stem.endswith("_mask"))
    counts = (8, 16, 32, 64, 128)
    costs = [fastest(lambda n=n: list(model.predict_many(paths[:n])), times=2) for n in counts]
    return Axis("images", "images", "seconds of predict", "1", counts, tuple(costs))


def over_shots(folder: Path, tower: Backbone) -> Axis:
    """Adaptation, views encoded and a head trained."""
    shots = (1, 2, 4, 8, 16)
    costs = []
    for k in shots:
        support = ultraad.draw_support(folder, shots=k, seed=0)
        tower.cache.clear()
        options = {"train.epochs": EPOCHS}
        start = time.perf_counter()
        ultraad.adapt(support, backbone=tower, options=options, calibrate=False)
        costs.append(time.perf_counter() - start)
    return Axis("shots", "images per class", f"seconds of adapt, {EPOCHS} epochs", "1", shots, tuple(costs), fit_from=1)


def over_resolution() -> Axis:
    """The embedded tower on larger inputs; the number of patches is the square of the side."""
    sides = (96, 160, 224, 320, 448)
    costs = []
    with torch.inference_mode():
        for side in sides:
            tower = ultraad.load_backbone("embedded", size=side)
            image = torch.randn(1, 3, side, side)
            costs.append(fastest(lambda t=tower, x=image: t.encode_image(x, layers=t.default_layers), times=5))
    return Axis("resolution", "input side in pixels", "seconds per image", "2 to 4", sides, tuple(costs), fit_from=1)


def over_classes(tower: Backbone) -> Axis:
    """Prediction with more classes; their sentences are encoded once, beforehand."""
    counts = (2, 8, 32, 128)
    images = torch.randn(4, 3, tower.size, tower.size)
    costs = []
    with torch.inference_mode():
        for c in counts:
            names = ["normal", *(f"lesion {i}" for i in range(c - 1))]
            method = ultraad.zero_shot(backbone=tower, classes=names).method
            costs.append(fastest(lambda m=method: m.score(images), times=7) / len(images))
    return Axis("classes", "classes", "seconds per image of predict", "0", counts, tuple(costs))


def over_backbones() -> Axis:
    """Image towers of open_clip with random weights, against the operations they need."""
    work, costs = [], []
    for name in TOWERS.values():
        tower = ultraad.load_backbone(name)
        image = torch.randn(1, 3, tower.size, tower.size)
        with torch.inference_mode():
            costs.append(fastest(lambda t=tower, x=image: t.encode_image(x), times=3))
        with torch.no_grad():
            work.append(operations(lambda t=tower, x=image: t.encode_image(x)) / 1e9)
    axis = ("backbones", "GFLOP per image", "seconds per image", "1")
    return Axis(*axis, tuple(work), tuple(costs), labels=tuple(TOWERS), fit_from=1)


def draw(axis: Axis, folder: Path) -> None:
    """A small log-log plot with the fitted line."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": axis.name, "font.size": 9})
    x, y = np.array(axis.values), np.array(axis.costs)
    figure, plot = plt.subplots(figsize=(4.2, 3.0), layout="constrained")
    plot.loglog(x, y, "o", color="#1f4e79")
    fitted = np.polyfit(np.log(x[axis.fit_from :]), np.log(y[axis.fit_from :]), 1)
    line = np.exp(np.polyval(fitted, np.log(x)))
    plot.loglog(x, line, "-", color="#c55a11", linewidth=1)
    for i, label in enumerate(axis.labels):
        left = 2 * i < len(x)  # on the side of the point that has room
        place, side = ((6, -3), "left") if left else ((-6, -3), "right")
        plot.annotate(label, (x[i], y[i]), xytext=place, ha=side, textcoords="offset points", fontsize=7)
    if not axis.labels:
        plot.set_xticks(x, [f"{v:g}" for v in x])
        plot.minorticks_off()
    low, high = min(y.min(), line.min()), max(y.max(), line.max())
    plot.set_ylim(low / 2, high * 2)
    plot.set_xlabel(axis.x)
    plot.set_ylabel(axis.y)
    plot.set_title(f"slope {axis.slope:.2f}, expected {axis.order}", fontsize=9)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"scaling_{axis.name}.svg", metadata={"Date": None})
    plt.close(figure)


def measured() -> list[Axis]:
    """All axes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder, n=130, size=256, shares=(1, 1, 1))
        tower = ultraad.load_backbone("embedded")
        axes = [over_images(folder, tower), over_shots(folder, tower), over_resolution(), over_classes(tower)]
    return [*axes, over_backbones()]


def read(path: Path) -> list[Axis]:
    """Axes from an earlier run."""

    def axis(facts: dict[str, Any]) -> Axis:
        facts.pop("slope")
        lists = {key: tuple(value) for key, value in facts.items() if isinstance(value, Sequence) and key in _LISTS}
        return Axis(**{**facts, **lists})

    return [axis(facts) for facts in json.loads(path.read_text())["axes"]]


_LISTS = ("values", "costs", "labels")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--figures", type=Path, help="folder for the figures")
    parser.add_argument(
        "--drawn-from", type=Path, metavar="JSON", help="measure nothing; draw the results of an earlier run"
    )
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    axes = read(args.drawn_from) if args.drawn_from else measured()
    for axis in axes:
        print(f"{axis.name:12s} slope {axis.slope:5.2f}, expected {axis.order}")
        if args.figures:
            draw(axis, args.figures)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        kept = {"machine": machine(), "axes": [asdict(axis) | {"slope": round(axis.slope, 3)} for axis in axes]}
        args.output.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
