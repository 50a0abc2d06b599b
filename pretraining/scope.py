"""The statistics of ultrasound that ship beside the weights, for ``ultraad.model.scope``. No image is kept.

    python -m pretraining.scope BUS-BRA embedded

The reference is BUS-BRA (the cases that may be trained on) and simulated images, each as it is and as another machine
might show it (``pretraining.augment``). Each group weighs the same, or less if it has few images: the four devices of
BUS-BRA, the twelve machines of the simulator, and its schematic tissue. The p-values are calibrated on the images as
they are, each by the reference without its own group; there each group weighs the same.

``embedded-simulated`` is for those who want nothing of a patient, so no such statistics ship with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from pretraining.augment import augment
from pretraining.real import HELD_OUT
from ultraad.backbones import load_backbone
from ultraad.backbones._door import Backbone
from ultraad.backbones._gist import gist
from ultraad.backbones._towers import TOWERS
from ultraad.data.preprocess import Preprocess
from ultraad.data.sources import scan
from ultraad.io import read_image
from ultraad.model.scope import Scope, reference_arrays
from ultraad.simulate import simulate

SEEDS = {"layered": (3_000_000, 600), "schematic": (3_100_000, 300)}  # first seed and number, apart from the training's
EVERY = 2  # each second image of BUS-BRA
ENOUGH = 100  # images of a group that weighs as much as the largest
NULL = 300  # distances of each held-out group, drawn with replacement: each weighs the same


def pictures(bus_bra: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(group, picture uint8 (h w 3)) of every image of the reference."""
    known = [s for s in scan(bus_bra) if s.group is not None and int(s.group) % HELD_OUT]
    for sample in known[::EVERY]:
        yield str(sample.device), read_image(sample.image)
    for tissue, (first, count) in SEEDS.items():
        for seed in range(first, first + count):
            phantom = simulate(seed, tissue=tissue)
            yield phantom.device if tissue == "layered" else tissue, phantom.image


@torch.no_grad()
def gists(backbones: list[Backbone], bus_bra: Path) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """(groups (n,), for each backbone the gists (n k) of the images as they are, and those of other machines)."""
    prepare = Preprocess(backbones[0].preprocess)
    mean, std = (torch.tensor(x)[:, None, None] for x in (prepare.config.mean, prepare.config.std))
    generator = torch.Generator().manual_seed(0)
    groups: list[str] = []
    found: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = [([], []) for _ in backbones]

    def encode(part: list[torch.Tensor]) -> None:
        x = torch.stack(part)
        other, _ = augment(
            (x * std + mean).clamp(0, 1), torch.zeros(len(x), *x.shape[2:]), side=prepare.config.size,
            generator=generator, shrunk=0.3, shadowed=0.1,
        )  # fmt: skip
        other = (other.expand(-1, 3, -1, -1) - mean) / std
        for backbone, (plain, changed) in zip(backbones, found, strict=True):
            plain.append(gist(backbone, x))
            changed.append(gist(backbone, other))

    waiting: list[torch.Tensor] = []
    for group, picture in pictures(bus_bra):
        groups.append(group)
        waiting.append(prepare.image(picture)[0])
        if len(waiting) == 16:
            encode(waiting)
            waiting = []
    if waiting:
        encode(waiting)
    return np.array(groups), [tuple(torch.cat(x).double().numpy() for x in pair) for pair in found]  # type: ignore[misc]


def weights_of(groups: np.ndarray) -> np.ndarray:
    """(n,): each group weighs the same, or less if it has fewer than :data:`ENOUGH` images."""
    _, at, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return (np.minimum(counts, ENOUGH) / counts)[at]


def statistics(groups: np.ndarray, plain: np.ndarray, changed: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of the reference."""
    rng, null = np.random.default_rng(0), []
    both, of = np.concatenate([plain, changed]), np.concatenate([groups, groups])
    for group in np.unique(groups):
        rest = Scope(reference_arrays(both[of != group], weights_of(of[of != group])))
        far = rest.distances(plain[groups == group])
        print(
            f"{group}: {len(far)} images, distance 50 % {np.median(far):.0f}, 98 % {np.quantile(far, 0.98):.0f}",
            flush=True,
        )
        null.append(rng.choice(far, NULL))
    return reference_arrays(both, weights_of(of), np.concatenate(null))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bus_bra", type=Path)
    parser.add_argument("towers", nargs="+", choices=[*TOWERS])
    options = parser.parse_args()
    torch.set_num_threads(1)
    backbones = [load_backbone(name) for name in options.towers]
    if len({b.preprocess for b in backbones}) > 1:
        parser.error("these towers have input sides of their own; call the command for each")
    groups, found = gists(backbones, options.bus_bra)
    for backbone, pair in zip(backbones, found, strict=True):
        path = TOWERS[backbone.name].scope
        facts = {
            "weights": backbone.weights,
            "side": str(backbone.size),
            "images": str(len(groups)),
            "recipe": f"BUS-BRA without every fifth case, every {EVERY}nd image; simulated seeds {SEEDS}",
        }
        part = path.with_suffix(".part")
        save_file(statistics(groups, *pair), part, metadata=facts)
        part.replace(path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
