"""What class probabilities are worth on a scanner that a model was not adapted on, before and after scaling.

    python -m perf.calibrated DATA/BUS-UCLM DATA/BUS-BRA DATA/Dataset_BUSI_with_GT -o perf/results/calibrated.json

The first data set gives the support sets; the others are measured whole (of BUS-BRA only the fifth that the backbone
was not trained on), and of the first the other patients. For each draw: the probabilities of the method, those scaled
on the held-out support images (:mod:`ultraad.model.probabilities`), and both moved to the share of lesions, or of the
classes, of the measured set, as ``--prevalence`` moves them. Beside each class ECE stands the one that true
probabilities would have: the mean over labels that are drawn from the probabilities. A finite set shows at least that.
BUSI is only reported: nothing was chosen on it.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from perf.scope import measurable

import ultraad
from ultraad.io.files import write_json
from ultraad.metrics.calibration import classwise_calibration_error
from ultraad.metrics.classes import class_metrics
from ultraad.model.model import Model
from ultraad.model.probabilities import Prevalence, at_prevalence
from ultraad.runs.judge import in_classes, unseen

KEYS = ("class_ece", "ece", "nll", "brier", "class_auroc_macro", "balanced_accuracy", "aurc")


def numbers(probs: list[dict[str, float]], labels: list[str], model: Model) -> dict[str, float | None]:
    """The metrics of some probabilities."""
    found = class_metrics(
        [[p[c] for c in model.classes] for p in probs],
        [model.classes.index(label) for label in labels],
        classes=model.classes,
        normal_class=model.normal_class,
        resamples=0,
    )
    told = {key: None if (value := found[key].value) is None else round(value, 4) for key in KEYS}
    return told | {"class_ece_if_true": round(if_true(np.array([[p[c] for c in model.classes] for p in probs])), 4)}


def if_true(probs: NDArray[np.float64], draws: int = 200) -> float:
    """Class ECE that these probabilities (n c) have on average if they are true."""
    ends = probs.cumsum(1)[:, :-1]
    labels = [(u[:, None] > ends).sum(1) for u in np.random.default_rng(0).random((draws, len(probs)))]
    return float(np.mean([classwise_calibration_error(probs, y) for y in labels]))


def measured(model: Model, root: Path, every: int) -> dict[str, Any]:
    """The probabilities of one model on one data set, in three states."""
    samples = in_classes(measurable(root, every), model)
    samples = unseen([f for f, _ in model.support], samples, layout=None)
    scaling, model.calibration = model.calibration.scaling, model.calibration.model_copy(update={"scaling": None})
    results = [r for r in model.predict_many(samples) if r.sample.label in model.classes]
    model.calibration = model.calibration.model_copy(update={"scaling": scaling})
    labels = [str(r.sample.label) for r in results]
    raw = [dict(r.prediction.probs or {}) for r in results]
    scaled = [p if scaling is None else scaling(p) for p in raw]
    share = float(np.mean([label != model.normal_class for label in labels]))
    found = {"n": len(labels), "lesions": round(share, 3), "raw": numbers(raw, labels, model)}
    found["scaled"] = numbers(scaled, labels, model)
    places: dict[str, Prevalence] = {"class shares": {c: labels.count(c) / len(labels) for c in model.classes}}
    if 0 < share < 1:
        places["prevalence"] = share
    shares = None if scaling is None else scaling.shares
    for (way, given), (name, place) in product((("raw", raw), ("scaled", scaled)), places.items()):
        moved = [at_prevalence(p, place, normal_class=model.normal_class, shares=shares) for p in given]
        found[f"{way}, at its {name}"] = numbers(moved, labels, model)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="the first gives the support sets")
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 4, 16])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--every", type=int, default=1, help="only each n-th image is measured")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    backbone = ultraad.load_backbone("embedded")
    rows = []
    for shots in given.shots:
        for seed in range(given.draws if shots else 1):
            model = ultraad.zero_shot(backbone=backbone)
            if shots:
                support = ultraad.draw_support(given.data[0], shots=shots, seed=seed)
                model = ultraad.adapt(support, backbone=backbone, seed=seed)
            scaling = model.calibration.scaling
            told = None if scaling is None else scaling.model_dump(mode="json")
            for root in given.data:
                row = {"shots": shots, "seed": seed, "set": root.name, "scaling": told}
                rows.append({**row, **measured(model, root, given.every)})
                print(json.dumps(rows[-1]), flush=True)
            if given.output:
                write_json(given.output, {"support": given.data[0].name, "every": given.every, "rows": rows})


if __name__ == "__main__":
    main()
