"""What is called out of scope: pictures that are no ultrasound, other organs, and unseen scanners.

    python -m perf.scope DATA/BUS-UCLM DATA/BUS-BRA DATA/Dataset_BUSI_with_GT DATA/liver -o perf/results/scope.json

The first data set is the unseen scanner that the strangers (:mod:`perf.strangers`) are compared with: for each kind the
AUROC, the false alarms on that scanner when 95 % of the kind are found, and the share that is flagged by the shipped
statistics as they are. Of BUS-BRA only the fifth that nothing was fitted on is measured. Then each data set is the
support set in turn: what of the other patients, of the others sets and of the strangers is unlike it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from perf.strangers import strangers
from sklearn.metrics import roc_auc_score

import ultraad
from ultraad.backbones._door import Backbone
from ultraad.backbones._gist import gist
from ultraad.backbones._towers import TOWERS
from ultraad.data.preprocess import Preprocess
from ultraad.data.sources.bus_bra import SEEN
from ultraad.io import read_image
from ultraad.io.files import write_json
from ultraad.model.scope import LEVEL, Arrays, Scope, shipped
from ultraad.simulate import simulate
from ultraad.types import Sample

SUPPORT, DRAWS = 24, 3


def gists(backbone: Backbone, pictures: Iterable[np.ndarray]) -> np.ndarray:
    """(n k)."""
    prepare, found, part = Preprocess(backbone.preprocess), [], []
    for picture in pictures:
        part.append(prepare.image(picture)[0])
        if len(part) == 16:
            found.append(gist(backbone, torch.stack(part)))
            part = []
    if part:
        found.append(gist(backbone, torch.stack(part)))
    return torch.cat(found).numpy()


def measurable(root: Path, every: int) -> list[Sample]:
    """The images of a data set, without those of BUS-BRA that the statistics were made of."""
    samples = ultraad.scan(root)
    if root.name == "BUS-BRA":
        samples = [s for s in samples if SEEN not in s.tags]
    return samples[::every]


def by_kind(scope: Scope, unseen: np.ndarray, kinds: dict[str, np.ndarray]) -> dict[str, Any]:
    """Detection of each kind against an unseen scanner."""
    near, found = scope.distances(unseen), {}
    for kind, x in kinds.items():
        far = scope.distances(x)
        truth = np.r_[np.zeros(len(near)), np.ones(len(far))]
        found[kind] = {
            "n": len(x),
            "auroc": round(float(roc_auc_score(truth, np.r_[near, far])), 4),
            "false alarms at 95 %": round(float((near >= np.quantile(far, 0.05)).mean()), 4),
            "flagged at 2 % false alarms": round(float((far > np.quantile(near, 0.98)).mean()), 4),
            "flagged": flagged(scope, x),
        }
    return found


def flagged(scope: Scope, x: np.ndarray) -> float:
    """Share that is out of scope."""
    return round(float(np.mean([r.ok is False for r in scope.judge(x)])), 4)


def as_support(reference: Arrays, sets: dict[str, tuple[np.ndarray, list[str]]], others: np.ndarray) -> dict[str, Any]:
    """{support: {images: [out of scope, unlike the support]}}, means over draws of 24 images."""
    found: dict[str, Any] = {}
    for name, (x, groups) in sets.items():
        rows: dict[str, list[list[float]]] = {}
        for seed in range(DRAWS):
            order = np.random.default_rng(seed).permutation(len(x))[:SUPPORT]
            scope = Scope.of(reference, x[order])
            used = {groups[i] for i in order}
            own = [
                i for i in range(len(x)) if i not in set(order.tolist()) and (not groups[i] or groups[i] not in used)
            ]
            parts = {"other patients": x[own], **{k: v for k, (v, _) in sets.items() if k != name}, "strangers": others}
            for part, y in parts.items():
                unlike = scope.support(y)
                assert unlike is not None
                rows.setdefault(part, []).append([flagged(scope, y), float((unlike < LEVEL).mean())])
        found[name] = {part: [round(v, 3) for v in np.mean(values, 0).tolist()] for part, values in rows.items()}
    return found


def cost(backbone: str) -> dict[str, float]:
    """Milliseconds per image of a prediction and of its record."""
    model = ultraad.zero_shot(backbone=backbone)
    image = simulate(0).image
    model.predict(image)
    times, judged = [], []
    x = gists(model.backbone, [image])
    for _ in range(30):
        start = time.perf_counter()
        model.predict(image)
        times.append(time.perf_counter() - start)
        start = time.perf_counter()
        model.scope.judge(x)
        judged.append(time.perf_counter() - start)
    whole, part = (1000 * float(np.median(t)) for t in (times, judged))
    return {"predict ms": round(whole, 2), "record ms": round(part, 3), "share": round(part / whole, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="the first is the unseen scanner")
    parser.add_argument("--backbone", default="embedded", choices=[*TOWERS])
    parser.add_argument("--every", type=int, default=1, help="only each n-th image")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    backbone = ultraad.load_backbone(given.backbone)
    reference = shipped(TOWERS[given.backbone].scope, weights=backbone.weights, side=backbone.size)
    if not reference:
        parser.error(f"no statistics ship with {given.backbone}")
    scope = Scope(reference)
    sets = {}
    for root in given.data:
        samples = measurable(root, given.every)
        sets[root.name] = (
            gists(backbone, (read_image(s.image, frame=s.frame) for s in samples)),
            [s.group or "" for s in samples],
        )
    kinds = {kind: gists(backbone, pictures) for kind, pictures in strangers(1).items()}
    sims = {"simulated scanners": gists(backbone, (simulate(4_000_000 + i).image for i in range(0, 240, given.every)))}
    unseen = given.data[0].name
    found = {
        "backbone": given.backbone,
        "flagged": {
            name: [len(x), flagged(scope, x)] for name, x in {**{k: v for k, (v, _) in sets.items()}, **sims}.items()
        },
        "against": unseen,
        "kinds": by_kind(scope, sets[unseen][0], {**kinds, **{k: v for k, (v, _) in sets.items() if k == "liver"}}),
        "support": as_support(reference, sets, np.concatenate([*kinds.values()])),
        "cost": cost(given.backbone),
    }
    print(json.dumps(found, indent=1))
    if given.output:
        write_json(given.output, found)


if __name__ == "__main__":
    main()
