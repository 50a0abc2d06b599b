"""What prediction sets, controlled misses and moved thresholds keep on a scanner that a model was not adapted on.

    python -m perf.promises DATA/BUS-UCLM DATA/BUS-BRA DATA/Dataset_BUSI_with_GT -o perf/results/promises.json

Models are adapted on draws of the first and of the second data set and measured on all; of BUS-BRA only the fifth that
the backbone was not trained on, and never a patient of the support set. Each image goes through the tower once
(``--cache``); what each model says of it is kept (``--records``), so numbers can be made again in seconds. BUSI is only
reported: nothing was chosen on it.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from perf.scope import measurable
from perf.transferred import table_of

import ultraad
from ultraad.io.files import write_json
from ultraad.metrics.froc import false_levels
from ultraad.model.model import Model
from ultraad.runs.judge import in_classes, unseen
from ultraad.types import Result

STEPS = np.linspace(0, 1, 201)  # thresholds at which a map is counted


def said(result: Result) -> dict[str, Any]:
    """What a model says of one image, without its map: pixels of lesion and of the rest from each threshold up."""
    s, p = result.sample, result.prediction
    found = {"label": s.label, "anomalous": s.anomalous, "group": s.group, "score": p.score, "probs": p.probs}
    found["distance"] = p.in_scope.distance if p.in_scope is not None else None
    if p.map is not None:
        mask = np.zeros(p.map.shape, bool) if result.mask is None else result.mask
        known = result.mask is not None or s.anomalous is False
        place = np.clip(np.searchsorted(STEPS, p.map, side="right") - 1, 0, STEPS.size - 1)
        for name, part in (("lesion", mask), ("rest", ~mask)):
            counts = np.bincount(place[part], minlength=STEPS.size)
            found[name] = counts[::-1].cumsum()[::-1].tolist()
        found["known"] = known
        found["false"] = false_levels(p.map, mask) if known else None
    return found


def recorded(model: Model, root: Path, every: int, file: Path) -> list[dict[str, Any]]:
    """What a model says of a data set; from ``file`` if it is there."""
    if not file.is_file():
        samples = in_classes(measurable(root, every), model)
        samples = unseen([f for f, _ in model.support], samples, layout=None)
        scaling, model.calibration = model.calibration.scaling, model.calibration.model_copy(update={"scaling": None})
        write_json(file, [said(r) for r in model.predict_many(samples)])
        model.calibration = model.calibration.model_copy(update={"scaling": scaling})
    found: list[dict[str, Any]] = json.loads(file.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="the first two give the support sets")
    parser.add_argument("--shots", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--every", type=int, default=1, help="only each n-th image is measured")
    parser.add_argument("--cache", type=Path, default=Path("build/promises/features"))
    parser.add_argument("--records", type=Path, default=Path("build/promises/records"))
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    backbone = ultraad.load_backbone("embedded")
    given.records.mkdir(parents=True, exist_ok=True)
    rows = []
    with backbone.caching(backbone.new_cache(given.cache)):
        for seed, shots, source in product(range(given.draws), given.shots, given.data[:2]):
            name = f"{source.name}-{shots}-{seed}"
            folder = given.records / f"{name}.model"
            if not folder.exists():
                support = ultraad.draw_support(source, shots=shots, seed=seed)
                ultraad.adapt(support, backbone=backbone, seed=seed).save(folder)
            model = ultraad.load(folder, backbone=backbone)
            for root in given.data:
                file = given.records / f"{name}-{root.name}-{given.every}.json"
                images = recorded(model, root, given.every, file)
                row = {"source": source.name, "shots": shots, "seed": seed, "set": root.name, "n": len(images)}
                rows.append({**row, **table_of(model, images)})
                print(json.dumps(rows[-1]), flush=True)
            if given.output:
                write_json(given.output, {"every": given.every, "rows": rows})


if __name__ == "__main__":
    main()
