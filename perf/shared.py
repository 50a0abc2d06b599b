"""``ultraad bench`` on several methods, against running each of them alone.

    python -m perf.shared

The methods read frozen features of whole images. Alone, each method sends every image (support and test) through the
tower; in one benchmark an image is encoded once, kept on disk, and read by all methods. Images are counted where they
enter the tower, so that images that bypass the cache are counted too.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from perf.timing import Row, arguments, compared, finish

from ultraad.backbones._door import Around, Backbone
from ultraad.bench.recipe import Recipe
from ultraad.bench.results import BenchFolder
from ultraad.bench.run.driver import run
from ultraad.simulate import write_dataset
from ultraad.types import Features

METHODS = ("linear_probe", "lp_plus_plus", "patch_core", "april_gan", "vcp_clip")
OPTIONS = {
    "april_gan": {"epochs": 1},
    "vcp_clip": {"epochs": 1},
}  # the time of the tower does not depend on the training of the head
SHOTS = 8


@dataclass
class TowerUse:
    """Images that went through the image tower, and the seconds that it took."""

    images: int = 0
    seconds: float = 0.0


@contextmanager
def counted() -> Iterator[TowerUse]:
    """Count every image that a bare tower encodes in this process."""
    tower, bare = TowerUse(), Backbone._run_tower

    def counting(
        self: Backbone, images: torch.Tensor, *, layers: Sequence[int], around: Around | None = None
    ) -> Features:
        start = time.perf_counter()
        found = bare(self, images, layers=layers, around=around)
        tower.seconds += time.perf_counter() - start
        tower.images += len(images)
        return found

    with patch.object(Backbone, "_run_tower", counting):
        yield tower


def recipe(root: Path, names: Sequence[str], *, threads: int) -> Recipe:
    """Adapt on one simulated data set, test on another."""
    return Recipe.model_validate(
        {
            "name": "shared",
            "data": {name: {"root": root / name} for name in ("here", "elsewhere")},
            "adapt": {"on": "here", "split": None},
            "test": ["elsewhere"],
            "methods": [{"name": name, "options": OPTIONS.get(name, {})} for name in names],
            "shots": [SHOTS],
            "seeds": [0],
            "bootstrap": 0,
            "maps": "none",
            "threads": threads,
        }
    )


def bench(root: Path, names: Sequence[str], output: Path, *, threads: int, share: bool) -> tuple[TowerUse, float]:
    """One benchmark in this process: what the tower did, and the wall time.

    Raises:
        RuntimeError: If a method failed, which would make its time meaningless.
    """
    start = time.perf_counter()
    with counted() as tower:
        run(recipe(root, names, threads=threads), output, jobs=1, share=share)
    taken = time.perf_counter() - start
    failed = [row.reason for row in BenchFolder.open(output).rows() if row.status != "ok"]
    if failed:
        raise RuntimeError(failed[0])
    return tower, taken


def measure(root: Path, *, images: int, threads: int) -> list[Row]:
    """Both rows."""
    for number, name in enumerate(("here", "elsewhere")):
        write_dataset(root / name, n=images, seed=number, size=256, shares=(1, 1, 1))
    bench(root, METHODS, root / "first", threads=threads, share=False)  # imports and first calls are not timed
    together, ours = bench(root, METHODS, root / "together", threads=threads, share=True)
    alone = [bench(root, [name], root / name, threads=threads, share=False) for name in METHODS]
    pair = 3 * SHOTS + images
    what = f"bench, {len(METHODS)} methods on frozen features, {pair} images"
    apart = sum(tower.images for tower, _ in alone)
    return [
        Row(
            f"{what}: images through the tower",
            "images in the pair",
            "overhead",
            together.images / pair,
            must=1.05,
            aim=1.0,
            detail={
                "ours": together.images,
                "alone": apart,
                "ours_tower_s": round(together.seconds, 2),
                "alone_tower_s": round(sum(tower.seconds for tower, _ in alone), 2),
                "methods": ", ".join(METHODS),
            },
        ),
        compared(f"{what}: wall time", "each method alone", [(ours, sum(s for _, s in alone))], kind="speedup"),
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=120, help="of each of the two simulated data sets")
    args = parser.parse_args()
    threads = args.threads or torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), images=args.images, threads=threads)
    finish(rows, args.output)


if __name__ == "__main__":
    main()
