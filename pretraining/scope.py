"""The statistics of ultrasound that ship beside the weights, for ``ultraad.model.scope``. No image is kept.

    python -m pretraining.scope BUS-BRA embedded

The reference is a quarter of BUS-BRA (of the cases that may be trained on) and simulated images, each as it is and as
another machine might show it (``pretraining.augment``). Each group weighs the same, or less if it has few images: the
four devices of BUS-BRA, the twelve machines of the simulator, and its schematic tissue. The p-values are calibrated on
the same images, each by the reference without its own group; there each group weighs the same. How this
statistic was chosen: ``pretraining.scope_choice``. After a change of the weights, run this command again (minutes);
``tests/model/test_scope.py`` fails until the statistics belong to the weights that ship.

``embedded-simulated`` is for those who want nothing of a patient, so no such statistics ship with it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from pretraining.augment import augment
from ultraad.backbones import load_backbone
from ultraad.backbones._door import Backbone
from ultraad.backbones._gist import gist
from ultraad.backbones._towers import TOWERS
from ultraad.data.preprocess import Preprocess
from ultraad.data.sources import scan
from ultraad.data.sources.bus_bra import SEEN
from ultraad.io import read_image
from ultraad.model.scope import Scope, reference_arrays
from ultraad.simulate import simulate

SEEDS = {"layered": (3_000_000, 300), "schematic": (3_100_000, 100)}  # first seed and number, apart from the training's
EVERY = 4  # every fourth image of BUS-BRA
ENOUGH = 100  # images of a group that weighs as much as the largest
BATCH = 16
NULL = 500  # quantiles that are kept of the distances of held-out groups


Pictures = Iterator[tuple[str, np.ndarray]]
"""(group, picture uint8 (h w 3))."""


def real(bus_bra: Path) -> Pictures:
    """Of the cases of BUS-BRA that may be trained on, every fourth image."""
    known = [s for s in scan(bus_bra) if SEEN in s.tags]
    for sample in known[::EVERY]:
        yield str(sample.device), read_image(sample.image)


def simulated() -> Pictures:
    """Every machine of the simulator, and its schematic tissue."""
    for tissue, (first, count) in SEEDS.items():
        for seed in range(first, first + count):
            phantom = simulate(seed, tissue=tissue)
            yield phantom.device if tissue == "layered" else tissue, phantom.image


def both_ways(bus_bra: Path, prepare: Preprocess) -> Iterator[tuple[list[str], torch.Tensor, torch.Tensor]]:
    """(groups, images f32 (b 3 s s) as they are, and as another machine might show them), batch by batch."""
    mean, std = (torch.tensor(x)[:, None, None] for x in (prepare.config.mean, prepare.config.std))
    for pictures in (real(bus_bra), simulated()):
        generator = torch.Generator().manual_seed(0)
        while part := list(itertools.islice(pictures, BATCH)):
            x = torch.stack([prepare.image(picture)[0] for _, picture in part])
            other, _ = augment(
                (x * std + mean).clamp(0, 1), torch.zeros(len(x), *x.shape[2:]), side=prepare.config.size,
                generator=generator, shrunk=0.3, shadowed=0.1,
            )  # fmt: skip
            yield [group for group, _ in part], x, (other.expand(-1, 3, -1, -1) - mean) / std


def weights_of(groups: np.ndarray) -> np.ndarray:
    """(n,): each group weighs the same, or less if it has fewer than :data:`ENOUGH` images."""
    _, at, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return (np.minimum(counts, ENOUGH) / counts)[at]


def statistics(groups: np.ndarray, plain: np.ndarray, changed: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of the reference."""
    null, names = [], np.unique(groups)
    both, of = np.concatenate([plain, changed]), np.concatenate([groups, groups])
    for group in names:
        rest = Scope(reference_arrays(both[of != group], weights_of(of[of != group])))
        null.append(rest.distances(both[of == group]))
        far = ", ".join(f"{100 * q:g} %: {np.quantile(null[-1], q):.0f}" for q in (0.5, 0.9, 0.98))
        print(f"{group}: {len(null[-1])} images, distance {far}", flush=True)
    same = np.concatenate([np.full(len(far), 1 / len(far)) for far in null])  # each group weighs the same
    steps = (np.arange(NULL) + 0.5) / NULL
    spread = np.quantile(np.concatenate(null), steps, method="inverted_cdf", weights=same)
    return reference_arrays(both, weights_of(of), spread)


def save(path: Path, arrays: dict[str, np.ndarray], backbone: Backbone, *, images: int) -> None:
    """Write the statistics with what they belong to."""
    facts = {
        "weights": backbone.weights,
        "side": str(backbone.size),
        "images": str(images),
        "recipe": f"BUS-BRA without every fifth case, every {EVERY}th image; simulated seeds {SEEDS}",
    }
    part = path.with_suffix(".part")
    save_file(arrays, part, metadata=facts)
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bus_bra", type=Path)
    parser.add_argument("towers", nargs="+", choices=[*TOWERS])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.towers:
        backbone = load_backbone(name)
        groups: list[str] = []
        plain, changed = [], []
        for names, x, other in both_ways(options.bus_bra, Preprocess(backbone.preprocess)):
            groups += names
            plain.append(gist(backbone, x))
            changed.append(gist(backbone, other))
        arrays = statistics(np.array(groups), *(torch.cat(part).double().numpy() for part in (plain, changed)))
        path = TOWERS[name].scope
        save(path, arrays, backbone, images=len(groups))
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
