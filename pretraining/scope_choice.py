"""Which statistic tells ultrasound from everything else: the comparison behind ``pretraining.scope``.

    python -m pretraining.scope_choice DATA/BUS-BRA -o perf/results/scope-choice.json
    python -m pretraining.scope_choice DATA/BUS-BRA --keep looks.npz    # a second time without encoding

Only BUS-BRA's training cases, simulated images and pictures that are no ultrasound (:mod:`perf.strangers`, seed 0) are
looked at; BUS-UCLM, BUSI and the liver are not. The rule, stated before the numbers were seen:

    1. Each device of BUS-BRA and each machine of the simulator is held out in turn and measured by a reference
       without it. The level is where 2 % of these images are called out of scope, each group with the same weight.
    2. A statistic is as good as its worst of photographs, photographs in grey, MRI and CT, and charts: the share that
       is found at that level. Among equals (one point) the mean over all kinds decides, and among equals in that (one
       point) the simplest, which is the first in this list.

Looks, each a vector of an image: mean, or mean and spread, of the patches after the first step and after blocks 2, 4
and 6; the class token. Distances: Mahalanobis to the mean; the same to the nearest group's mean, with the covariance
inside groups (Lee et al., NeurIPS 2018); the fifth nearest reference image after whitening (Sun et al., ICML 2022); the
energy of the class logits (Liu et al., NeurIPS 2020).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from perf.strangers import strangers

from pretraining.scope import both_ways, weights_of
from ultraad.backbones import load_backbone
from ultraad.backbones._door import Backbone
from ultraad.data.preprocess import Preprocess
from ultraad.io.files import write_json
from ultraad.model.scope import LEVEL
from ultraad.nn.class_texts import class_texts
from ultraad.nn.prompts import unit

JUDGED = ("photographs", "photographs in grey", "MRI and CT", "charts")
BLOCKS = (2, 4, 6)
SHRINKAGES = (0.01, 0.1)
NEAREST = 5
CLASSES = ("normal", "benign", "malignant")

Arrays = dict[str, np.ndarray]
Measure = Callable[[np.ndarray], np.ndarray]
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, float], Measure]
"""(images (n k), weights (n,), groups (n,), shrinkage) to distances of images (m k): (m,)."""


@torch.no_grad()
def looks(backbone: Backbone, texts: torch.Tensor, images: torch.Tensor) -> Arrays:
    """{look: (b k)} of images f32 (b 3 s s); ``texts`` are unit vectors of the classes (c d)."""
    tokens = backbone.embed_image(images)
    f = backbone.encode_tokens(tokens, layers=BLOCKS)
    patches = {"first step": tokens[:, 1:].float(), **{f"block {layer}": f.patches[layer] for layer in BLOCKS}}
    found = {"first step, mean": patches["first step"].mean(1)}
    found |= {name: torch.cat([x.mean(1), x.std(1)], 1) for name, x in patches.items()}
    energy = (backbone.logit_scale * unit(f.image) @ texts.T).logsumexp(1)[:, None]
    return {name: x.numpy() for name, x in {**found, "class token": f.image, "energy": energy}.items()}


def measured(bus_bra: Path, tower: str) -> Arrays:
    """``groups`` (n,), and (n k) arrays ``plain|look``, ``changed|look`` of the reference and ``kind|look``."""
    backbone = load_backbone(tower)
    prepare = Preprocess(backbone.preprocess)
    texts, _ = class_texts(backbone, CLASSES, None, source="bank")
    groups: list[str] = []
    parts: dict[str, list[Arrays]] = {"plain": [], "changed": []}
    for names, x, other in both_ways(bus_bra, prepare):
        groups += names
        parts["plain"].append(looks(backbone, texts, x))
        parts["changed"].append(looks(backbone, texts, other))
    for kind, pictures in strangers(0).items():
        parts[kind] = [looks(backbone, texts, prepare.image(picture)[0][None]) for picture in pictures]
    found = {"groups": np.array(groups)}
    for part, every in parts.items():
        found |= {f"{part}|{look}": np.concatenate([one[look] for one in every]) for look in every[0]}
    return found


def whitening(x: np.ndarray, weights: np.ndarray, mean: np.ndarray, shrinkage: float) -> np.ndarray:
    """(k k): off-centre images times this have about unit covariance; ``mean`` (k,) or that of each image (n k)."""
    off = x - mean
    covariance = (off * weights[:, None]).T @ off / weights.sum()
    k = len(covariance)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / k * np.eye(k)
    return np.linalg.cholesky(np.linalg.inv(covariance))


def mahalanobis(x: np.ndarray, weights: np.ndarray, _groups: np.ndarray, shrinkage: float) -> Measure:
    """To the mean of the reference."""
    mean = np.average(x, axis=0, weights=weights)
    factor = whitening(x, weights, mean, shrinkage)
    return lambda y: np.asarray((((y - mean) @ factor) ** 2).sum(1))


def by_group(x: np.ndarray, weights: np.ndarray, groups: np.ndarray, shrinkage: float) -> Measure:
    """To the mean of the nearest group."""
    names, at = np.unique(groups, return_inverse=True)
    means = np.stack([x[at == i].mean(0) for i in range(len(names))])
    factor = whitening(x, weights, means[at], shrinkage)
    return lambda y: np.min([(((y - m) @ factor) ** 2).sum(1) for m in means], axis=0)


def nearest(x: np.ndarray, weights: np.ndarray, _groups: np.ndarray, shrinkage: float) -> Measure:
    """To the fifth nearest image of the reference."""
    mean = np.average(x, axis=0, weights=weights)
    factor = whitening(x, weights, mean, shrinkage)
    known = (x - mean) @ factor

    def measure(y: np.ndarray) -> np.ndarray:
        off = (y - mean) @ factor
        squares = (off**2).sum(1)[:, None] + (known**2).sum(1)[None] - 2 * off @ known.T
        return np.asarray(np.partition(squares, NEAREST - 1, axis=1)[:, NEAREST - 1])

    return measure


def energy(*_: object) -> Measure:
    """Minus the logarithm of the sum of the exponentials of the class logits, whatever the reference."""
    return lambda y: -y[:, 0]


DISTANCES: dict[str, Fit] = {"Mahalanobis": mahalanobis, "by group": by_group, "nearest": nearest}


LOOKS = ("first step, mean", "first step", *(f"block {layer}" for layer in BLOCKS), "class token", "energy")


def candidates(names: Iterable[str]) -> Iterator[tuple[str, str, float]]:
    """(look, distance, shrinkage), the simplest first."""
    for look in names:
        if look == "energy":
            yield look, "energy", 0.0
            continue
        for distance in DISTANCES:
            for shrinkage in SHRINKAGES:
                yield look, distance, shrinkage


def found_of(
    fit: Fit, shrinkage: float, groups: np.ndarray, plain: np.ndarray, changed: np.ndarray, kinds: Arrays
) -> dict[str, Any]:
    """What a statistic finds of each kind at the level, and what of each group it calls out of scope there."""
    both, of = np.concatenate([plain, changed]).astype(np.float64), np.concatenate([groups, groups])
    null = {}
    for group in np.unique(groups):
        rest = of != group
        null[group] = fit(both[rest], weights_of(of[rest]), of[rest], shrinkage)(plain[groups == group])
    level = level_of([*null.values()])
    measure = fit(both, weights_of(of), of, shrinkage)
    found = {kind: round(float((measure(x) > level).mean()), 4) for kind, x in kinds.items()}
    return {
        "worst": min(found[kind] for kind in JUDGED if kind in found),
        "mean": round(float(np.mean([*found.values()])), 4),
        "found": found,
        "false alarms": {str(group): round(float((v > level).mean()), 3) for group, v in null.items()},
    }


def level_of(null: list[np.ndarray]) -> float:
    """The distance that 2 % of the held-out images exceed, where each group has the same weight."""
    every = np.concatenate(null)
    weights = np.concatenate([np.full(len(v), 1 / len(v) / len(null)) for v in null])
    order = np.argsort(every)
    return float(every[order][np.searchsorted(weights[order].cumsum(), 1 - LEVEL)])


def chosen(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row that the rule takes."""
    for key in ("worst", "mean"):
        best = max(row[key] for row in rows)
        rows = [row for row in rows if row[key] >= best - 0.01]
    return rows[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bus_bra", type=Path)
    parser.add_argument("--tower", default="embedded")
    parser.add_argument("--keep", type=Path, help="a file for the looks; if it is there, they are read from it")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.keep and given.keep.is_file():
        with np.load(given.keep) as file:
            every = dict(file)
    else:
        every = measured(given.bus_bra, given.tower)
        if given.keep:
            np.savez(given.keep, **every)
    known = {name.partition("|")[2] for name in every} - {""}
    kinds = [name.partition("|")[0] for name in every if name.endswith("|energy")]
    rows = []
    for look, distance, shrinkage in candidates(look for look in LOOKS if look in known):
        strange = {kind: every[f"{kind}|{look}"] for kind in kinds if kind not in ("plain", "changed")}
        plain, changed = every[f"plain|{look}"], every[f"changed|{look}"]
        row = found_of(DISTANCES.get(distance, energy), shrinkage, every["groups"], plain, changed, strange)
        rows.append({"look": look, "distance": distance, "shrinkage": shrinkage, **row})
        print(look, distance, shrinkage, row["worst"], row["mean"], flush=True)
    best = chosen(rows)
    print(best)
    if given.output:
        count = {"reference": len(every["groups"]), **{kind: len(every[f"{kind}|energy"]) for kind in kinds[2:]}}
        write_json(given.output, {"tower": given.tower, "pictures": count, "chosen": best, "rows": rows})


if __name__ == "__main__":
    main()
