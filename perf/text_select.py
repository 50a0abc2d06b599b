"""Whether UltraAD gains by choosing sentences by the support (``memory.text_select=support``). BUSI is not read here.

    python -m perf.text_select DATA/BUS-UCLM DATA/BUS-BRA -o perf/results/text_select.json

For each draw, patients of BUS-UCLM are held out, the support is drawn from the others, and one fit of each candidate is
tested twice: ``same`` on the held-out patients, ``other`` on the cases of BUS-BRA that pretraining leaves out, with the
same pictures without their lesion as normal images (:mod:`perf.shots`). Pixel (P), image (I), class (C) and benign
against malignant (BM) AUROC in %, mean over the draws; each image passes the tower once.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import numpy as np
from perf.backbone import CLASSES, held_out
from perf.shots import Set, measured, painted
from perf.ultraad_defaults import folds_of

import ultraad
from ultraad.methods.ultraad import UltraAD, UltraADConfig

CANDIDATES: dict[str, dict] = {
    "all sentences": {},
    "support, half": {"memory": {"text_select": "support"}},
    "support, one": {"memory": {"text_select": "support", "text_keep": 0.01}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("uclm", type=Path)
    parser.add_argument("bus_bra", type=Path)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--shots", type=int, nargs="+", default=(4, 16))
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    logging.getLogger("ultraad").setLevel(logging.ERROR)
    backbone = ultraad.load_backbone("embedded")
    uclm = Set.load(ultraad.scan(args.uclm), backbone)
    lesions = [s for s in ultraad.scan(args.bus_bra) if held_out(s)]
    bra = Set.load([*lesions, *painted(lesions, args.output.parent / "painted")], backbone)
    folds = folds_of(uclm.samples, args.draws)
    position = {s.id: i for i, s in enumerate(uclm.samples)}
    everything = np.arange(len(bra.samples))
    rows = []
    for shots in args.shots:
        found: dict[tuple[str, str], list[dict]] = {}
        for draw, fold in enumerate(folds):
            drawn = ultraad.draw_support(args.uclm, shots=shots, seed=draw, split=None, exclude_groups=sorted(fold))
            support = uclm.batch.select([position[s.id] for s in drawn.samples])
            index = np.array([i for i, s in enumerate(uclm.samples) if s.group in fold])
            for name, options in CANDIDATES.items():
                config = UltraADConfig.model_validate(options)
                method = UltraAD(backbone, config, classes=CLASSES, normal_class="normal")
                method.fit(support, seed=draw)
                found.setdefault((name, "same"), []).append(measured(method, uclm, index))
                found.setdefault((name, "other"), []).append(measured(method, bra, everything))
        for (name, setting), draws in found.items():
            mean = {key: round(float(np.mean([d[key] for d in draws])), 2) for key in draws[0]}
            rows.append({"setting": setting, "shots": shots, "name": name, **mean, "draws": draws})
            print(json.dumps({key: value for key, value in rows[-1].items() if key != "draws"}), flush=True)
        args.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
