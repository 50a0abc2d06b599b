"""Choose UltraAD's defaults on BUS-UCLM patients outside the support. BUSI is never read here.

    python -m perf.ultraad_defaults DATA/BUS-UCLM --backbone embedded --shots 4 16 -o perf/results/x.json

Patients are dealt into folds. For each fold, the support is drawn from the patients of the other folds (seed = fold)
and every image of the fold's patients is scored; scores of all folds are pooled. Each image passes the tower once per
run of this script. Pixel AUROC is computed on a grid of four pixels per patch. With ``--other-machine`` the scored
images look as if they came from another scanner (:func:`pretraining.augment.other_machine`); the support images do not
change. A second run adds the missing rows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import time
from pathlib import Path

import numpy as np
import torch
from pretraining.augment import other_machine
from sklearn.metrics import roc_auc_score

import ultraad
from ultraad.data.loader import load_batch
from ultraad.data.preprocess import Preprocess
from ultraad.methods.ultraad import UltraAD, UltraADConfig
from ultraad.rng import seeded

CLASSES = ("normal", "benign", "malignant")
TWINS = {"CHCO": "CHVI"}  # these two patients of BUS-UCLM share four byte-identical files (docs/data-check.md)
AFTER_FIT = {"prior", "post", "bin"}  # sections that do not affect fit, so one fit serves all their candidates
FULL = {"prior": {"map": 1.0, "cls": 1.0, "grade": "cls"}}

# name -> options. "zero-shot" is the same for every shot count.
CANDIDATES: dict[str, dict] = {
    "zero-shot": {"prior": {"map": 0.0, "cls": 0.0, "grade": "cls"}, "train": {"epochs": 0, "views": 1}},
    "default": {},
    "paper": {"preset": "paper", "train": {"views": 4}},
    "shots alone": FULL,
    **{
        f"prior {m}/{c}": {"prior": {"map": m, "cls": c, "grade": "cls"}}
        for m, c in itertools.product((0.25, 0.5, 0.75), (0.1, 0.25, 0.5))
    },
    **{f"map {m}": {"prior": {"map": m}} for m in (0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1.0)},
    **{f"classes {c}": {"prior": {"cls": c, "grade": "cls"}} for c in (0.1, 0.25, 0.5, 0.75, 1.0)},
    "lr 1e-4": {"train": {"lr": 1e-4}},
    "lr 3e-4": {"train": {"lr": 3e-4}},
    "lr 3e-3": {"train": {"lr": 3e-3}},
    "epochs 20": {"train": {"epochs": 20}},
    "views 1": {"train": {"views": 1}},
    "views 8": {"train": {"views": 8}},
    "A1 cat": {"prompt": {"fuse": "cat"}},
    "A1 vcp_conv": {"prompt": {"fuse": "vcp_conv"}},
    "A1 r=4": {"prompt": {"n_global": 4}},
    "A2 two MiniNets": {"mininet": {"shared": False}},
    "A2 s=fh": {"prompt": {"instance": "fh"}},
    "no instance token": {"prompt": {"instance": "none"}},
    "A3 literal": {"mininet": {"residual": "none", "zero_init": False}},
    "A3 add": {"mininet": {"residual": "add_zero_init"}},
    "A4 via MiniNet": {"memory": {"keys": "via_mininet"}},
    "A4 frozen keys": {"memory": {"keys": "frozen"}},
    "A5 text per image": {"memory": {"text_per": "image"}},
    "A6 alpha 0": {"cls": {"alpha": 0.0}},
    "A6 alpha 5": {"cls": {"alpha": 5.0}},
    "A6 scale 100": {"cls": {"scale": 100.0}},
    "A6 mean votes": {"cls": {"cache_norm": "mean"}},
    "A6 learned": {"cls": {"learn_ab": True}},
    "A7 sees itself": {"memory": {"exclude_self": False}},
    "A8 concat rows": {"proto": {"mode": "concat_rows"}},
    "A8 text only": {"proto": {"mode": "text_only"}},
    "A8 prompt only": {"proto": {"mode": "prompt_only"}},
    "A9 max": {"proto": {"abn": "max"}},
    "A10 raw K V": {"pif": {"kv": "raw", "residual": "none"}},
    "A11 no residual": {"pif": {"residual": "none"}},
    "A11 out-proj": {"pif": {"out_proj": True}},
    "A11 no scale": {"pif": {"scale": "none"}},
    "no fusion": {"pif": {"enabled": False}},
    "A12 per layer": {"pif": {"share_layers": "per_layer"}},
    "A12 last only": {"pif": {"share_layers": "last_only"}},
    "A13 mean logit": {"map": {"layer_reduce": "mean_logit"}},
    "A13 last layer": {"layers": "last"},
    "A14 tau 0.01": {"score": {"tau": 0.01}},
    "A14 tau 0.07": {"score": {"tau": 0.07}},
    "A14 learned tau": {"score": {"tau": "learnable"}},
    "A15 mean": {"bin": {"fuse": "mean"}, "post": {"refine": "off"}},
    "A15 map only": {"bin": {"fuse": "map_only"}},
    "A15 clip pair": {"bin": {"cls": "clip_pair", "fuse": "mean"}},
    "A15 both": {"bin": {"cls": "both", "fuse": "mean"}, "post": {"refine": "off"}},
    "A15 product": {"bin": {"fuse": "product"}},
    "A15 top 0.75 %": {"post": {"map_stat": "topk"}},
    "A15 top 2 %": {"post": {"map_stat": "topk", "topk": 0.02}},
    "A16 mix": {"post": {"refine": "mix"}},
    "A16 logit": {"post": {"refine": "logit"}},
    "A16 off": {"post": {"refine": "off"}},
    "A17 averaged map": {"loss": {"seg_on": "averaged_map"}},
    "A17 sum": {"loss": {"layer_reduce": "sum"}},
    "A20 sigma 0": {"post": {"sigma": 0.0}},
    "A20 sigma 8": {"post": {"sigma": 8.0}},
    "A22 keep empty dice": {"loss": {"dice_skip_empty": False}},
    "US-unaware texts": {"memory": {"text": "generic"}},
    "no classification": {"cls": {"enabled": False}},
    "random adapters": {"adapter": {"input": "raw", "init": "default"}},
    "loss at full size": {"loss": {"upsample": 0}},
}


def merged(a: dict, b: dict) -> dict:
    """The options ``a``, updated by ``b`` section by section."""
    out = dict(a)
    for key, value in b.items():
        out[key] = {**out.get(key, {}), **value} if isinstance(value, dict) else value
    return out


def folds_of(samples: list, count: int) -> list[set[str]]:
    """Patients dealt into folds: those with malignant images, then benign, then only normal ones; order by the seed."""
    worst: dict[str, int] = {}
    for s in samples:
        if s.group in TWINS.values():
            continue
        worst[s.group] = max(worst.get(s.group, 0), CLASSES.index(s.label))
    rng = seeded(0, "folds")
    order = [g for level in (2, 1, 0) for g in rng.permutation(sorted(g for g, w in worst.items() if w == level))]
    folds = [set(order[k::count]) for k in range(count)]
    return [fold | {TWINS[g] for g in fold if g in TWINS} for fold in folds]


def auc(y: np.ndarray, s: np.ndarray) -> float:
    return round(100 * float(roc_auc_score(y, s)), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--size", type=int, help="input side in pixels; default: from the backbone")
    parser.add_argument(
        "--other-machine", action="store_true", help="change grey map, gain, sharpness and noise of the test images"
    )
    parser.add_argument("--shots", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="only candidates whose name begins with one of these")
    parser.add_argument("--base", type=json.loads, default={}, help="options that every candidate starts from, as JSON")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    logging.getLogger("ultraad").setLevel(logging.ERROR)
    samples = ultraad.scan(args.data)
    backbone = ultraad.load_backbone(args.backbone, size=args.size)
    batch = load_batch(samples, Preprocess(backbone.preprocess), classes=CLASSES, normal_class="normal")
    images = batch.images
    if args.other_machine:
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (backbone.preprocess.mean, backbone.preprocess.std))
        images = (other_machine(images * std + mean, generator=torch.Generator().manual_seed(0)) - mean) / std
    features = backbone.cache.encode(images, layers=backbone.default_layers)
    small = 4 * backbone.grid[0]
    masks = torch.nn.functional.interpolate(batch.masks[:, None].float(), size=(small, small), mode="area")[:, 0] >= 0.5
    known = batch.mask_known
    y = batch.labels.numpy()
    position = {s.id: i for i, s in enumerate(samples)}
    rows = json.loads(args.output.read_text()) if args.output.exists() else []
    done = {(r["name"], r["shots"]) for r in rows}
    supports, fitted = {}, {}
    for name, options in CANDIDATES.items():
        if args.only and not any(name.startswith(o) for o in args.only):
            continue
        for shots in args.shots:
            if (name, shots) in done:
                continue
            score, logits, maps, seconds = (
                np.zeros(len(y)),
                np.zeros((len(y), 3)),
                torch.zeros(len(y), small, small),
                0.0,
            )
            for k, held_out in enumerate(folds_of(samples, args.folds)):
                if (k, shots) not in supports:
                    drawn = ultraad.draw_support(
                        args.data, shots=shots, seed=k, split=None, exclude_groups=sorted(held_out)
                    )
                    supports[k, shots] = batch.select([position[s.id] for s in drawn.samples])
                chosen = dict(merged(args.base, options))
                if chosen.get("layers") == "last":
                    chosen["layers"] = (backbone.layers,)
                config = UltraADConfig.model_validate(chosen)
                learns = config.model_dump_json(exclude=AFTER_FIT)
                if (learns, shots, k) not in fitted:
                    method = UltraAD(backbone, config, classes=CLASSES, normal_class="normal")
                    fitted[learns, shots, k] = method, method.fit(supports[k, shots], seed=k).seconds
                method, took = fitted[learns, shots, k]
                method.config = config
                seconds += took
                test = [i for i, s in enumerate(samples) if s.group in held_out]
                for part in np.array_split(test, max(1, len(test) // 64)):
                    with torch.no_grad():
                        out = method.score_features(features.select(part.tolist()))
                    score[part] = out.score.numpy()
                    logits[part] = 0 if out.logits is None else out.logits.numpy()
                    maps[part] = torch.nn.functional.interpolate(out.map[:, None], size=(small, small), mode="area")[
                        :, 0
                    ]
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            lesion = y > 0
            grade = p[lesion, 2] / (p[lesion, 1] + p[lesion, 2])
            row = {
                "name": name,
                "shots": shots,
                "pixel_auroc": auc(masks[known].flatten().numpy(), maps[known].flatten().numpy()),
                "image_auroc": auc(lesion, score),
                "class_auroc_macro": round(float(np.mean([auc(y == c, p[:, c]) for c in range(3)])), 2),
                "benign_malignant_auroc": auc(y[lesion] == 2, grade),
                "adapt_seconds": round(seconds / args.folds, 1),
                "options": merged(args.base, options),
            }
            rows.append(row)
            args.output.parent.mkdir(parents=True, exist_ok=True)
            args.output.write_text(json.dumps(rows, indent=1) + "\n")
            print(
                f"{time.strftime('%H:%M:%S')} {name:22s} K={shots:2d}  P {row['pixel_auroc']:5.1f}  "
                f"I {row['image_auroc']:5.1f}  C {row['class_auroc_macro']:5.1f}  "
                f"BM {row['benign_malignant_auroc']:5.1f}  {row['adapt_seconds']:5.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
