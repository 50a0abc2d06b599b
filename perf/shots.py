"""What shots change, on the scanner they come from and on another one. BUSI is never read here.

    python -m perf.shots DATA/BUS-UCLM DATA/BUS-BRA --weights X.safetensors -o perf/results/shots.json

Four settings, each with three draws and 1 to 16 shots; every number is the difference to zero-shot on the same images,
in points of AUROC (P pixel, I image, C three classes, BM benign against malignant):

``same``   shots of BUS-UCLM, tested on its patients outside the support (three folds of patients)
``other``  shots of BUS-UCLM, tested on the cases of BUS-BRA that pretraining leaves out; its normal images are the same
           pictures with the lesion painted out (:mod:`pretraining.real`)
``lesions`` the same without normal images
``back``   shots of those cases of BUS-BRA (lesions only), tested on BUS-UCLM

Each image passes the tower once. The candidates differ in options that do not affect the fit, so that one fit serves
all of them.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from perf.backbone import CLASSES, held_out, tower
from perf.ultraad_defaults import auc, folds_of
from pretraining.real import without_lesion

import ultraad
from ultraad.data.loader import load_batch
from ultraad.data.preprocess import Preprocess
from ultraad.io import read_image, read_mask
from ultraad.methods.ultraad import UltraAD, UltraADConfig
from ultraad.types import Batch, Features, Sample

ZERO: dict = {"prior": {"map": 0.0, "cls": 0.0, "grade": 0.0}}
CANDIDATES: dict[str, dict] = {
    "default": {},
    "surer": {"prior": {"cls_spread": 1}},
    "two masks": {"prior": {"map_worth": 2, "map_worth_lesions": 2}},
    "one share": {"prior": {"grade": "cls"}},
    "shots alone": {"prior": {"map": 1.0, "cls": 1.0, "grade": 1.0}},
}
SHOTS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Set:
    """A data set, encoded once.

    Attributes:
        samples: Its images.
        batch: All of them.
        features: Their features.
        masks: bool (b g g), lesions at four pixels per patch.
    """

    samples: list[Sample]
    batch: Batch
    features: Features
    masks: torch.Tensor

    @classmethod
    def load(cls, samples: list[Sample], backbone: object) -> Set:
        batch = load_batch(samples, Preprocess(backbone.preprocess), classes=CLASSES, normal_class="normal")
        return cls.of(samples, batch, backbone)

    @classmethod
    def of(cls, samples: list[Sample], batch: Batch, backbone: object) -> Set:
        grid = (4 * backbone.grid[0],) * 2
        masks = torch.nn.functional.interpolate(batch.masks[:, None].float(), size=grid, mode="area")[:, 0] >= 0.5
        features = backbone.cache.encode(batch.images, layers=backbone.default_layers)
        return cls(samples, batch, features, masks)


def painted(samples: list[Sample], folder: Path) -> list[Sample]:
    """The same pictures with their lesion painted out, as files in ``folder``; those without room are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for i, sample in enumerate(samples):
        image = read_image(sample.image)
        made = without_lesion(image[..., 0], read_mask(sample.masks, shape=image.shape[:2]), np.random.default_rng(i))
        if made is not None:
            path = folder / sample.image.name
            cv2.imwrite(str(path), made)
            out.append(
                replace(sample, id=f"painted/{sample.id}", image=path, masks=(), label="normal", anomalous=False)
            )
    return out


def measured(method: UltraAD, test: Set, index: np.ndarray) -> dict[str, float | None]:
    """P, I, C (over the classes that are there) and BM in %; I is None without normal images."""
    score, logits, maps = [], [], []
    for part in np.array_split(index, max(1, len(index) // 64)):
        with torch.no_grad():
            out = method.score_features(test.features.select(part.tolist()))
        score.append(out.score)
        logits.append(out.logits)
        maps.append(torch.nn.functional.interpolate(out.map[:, None], size=test.masks.shape[1:], mode="area")[:, 0])
    p = torch.cat(logits).softmax(-1).numpy()
    y = test.batch.labels[index].numpy()
    known = test.batch.mask_known[index]
    lesion, there = y > 0, sorted(set(y.tolist()))
    return {
        "P": auc(test.masks[index][known].flatten().numpy(), torch.cat(maps)[known].flatten().numpy()),
        "I": None if lesion.all() else auc(lesion, torch.cat(score).numpy()),
        "C": float(np.mean([auc(y == c, p[:, c]) for c in there])),
        "BM": auc(y[lesion] == 2, (p[:, 2] / (p[:, 1] + p[:, 2]))[lesion]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("uclm", type=Path)
    parser.add_argument("bus_bra", type=Path)
    parser.add_argument("--weights", default="embedded", help="file of pretraining.export")
    parser.add_argument("--size", type=int, default=192, help="input side in pixels")
    parser.add_argument("--decoder", type=Path, help="file of pretraining.decoder; `embedded` has its own")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS)
    parser.add_argument("--settings", nargs="+", default=("same", "other", "lesions", "back"))
    parser.add_argument("--candidates", type=json.loads, default={}, help="more options by name, as JSON")
    parser.add_argument("--classes", nargs="+", help="classes of BUS-UCLM to draw from; all if left out")
    parser.add_argument("--only", nargs="+", help="names of the options to measure; all if left out")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    logging.getLogger("ultraad").setLevel(logging.ERROR)
    candidates = CANDIDATES | args.candidates
    candidates = {name: candidates[name] for name in args.only or candidates}
    backbone = tower(args.weights, side=args.size, decoder=args.decoder)
    uclm = Set.load(ultraad.scan(args.uclm), backbone)
    lesions = [s for s in ultraad.scan(args.bus_bra) if held_out(s)]
    cases = sorted({s.group for s in ultraad.scan(args.bus_bra)} - {s.group for s in lesions})
    bra = Set.load([*lesions, *painted(lesions, args.output.parent / "painted")], backbone)
    folds = folds_of(uclm.samples, args.draws)
    rows = []
    for setting in args.settings:
        for shots in args.shots:
            changes: dict[str, list[dict[str, float | None]]] = {name: [] for name in candidates}
            zeros = []
            for draw in range(args.draws):
                source, test = (bra, uclm) if setting == "back" else (uclm, uclm if setting == "same" else bra)
                excluded = cases if setting == "back" else sorted(folds[draw]) if setting == "same" else []
                drawn = ultraad.draw_support(
                    args.bus_bra if setting == "back" else args.uclm,
                    shots=shots,
                    seed=draw,
                    split=None,
                    exclude_groups=excluded,
                    classes=None if setting == "back" else args.classes,
                )
                position = {s.id: i for i, s in enumerate(source.samples)}
                index = np.array(
                    [
                        i
                        for i, s in enumerate(test.samples)
                        if (setting != "same" or s.group in folds[draw]) and (setting != "lesions" or s.anomalous)
                    ]
                )
                method = UltraAD(backbone, UltraADConfig(), classes=CLASSES, normal_class="normal")
                method.fit(source.batch.select([position[s.id] for s in drawn.samples]), seed=draw)
                method.config = UltraADConfig.model_validate(ZERO)
                zero = measured(method, test, index)
                zeros.append(zero)
                for name, options in candidates.items():
                    method.config = UltraADConfig.model_validate(options)
                    now = measured(method, test, index)
                    changes[name].append({k: None if v is None else v - zero[k] for k, v in now.items()})
            for name, found in {"zero-shot": zeros, **changes}.items():
                mean = {
                    k: None if found[0][k] is None else round(float(np.mean([f[k] for f in found])), 2) for k in zero
                }
                rows.append({"setting": setting, "shots": shots, "name": name, **mean})
                print(json.dumps(rows[-1]), flush=True)
            args.output.write_text(json.dumps(rows, indent=1) + "\n")
    for name in candidates:
        worst = min(
            (v, r["setting"], r["shots"], k)
            for r in rows
            if r["name"] == name
            for k, v in r.items()
            if k in zero and v is not None
        )
        print(f"{name}: worst change {worst}", flush=True)


if __name__ == "__main__":
    main()
