"""The README's table: adapt on BUS-UCLM, evaluate on every image of a BUSI folder that was never looked at before.

    python benchmarks/uclm_to_busi.py DATA/BUS-UCLM DATA/Dataset_BUSI_with_GT --shots 0 4 8 16 --seeds 0 1 2 \
        -o benchmarks/results/uclm_to_busi.json

Everything goes through the public interface: draw_support, adapt, evaluate, on each file's own pixel grid. Nothing is
chosen here. Rows that are in the output already are kept, so the run can be interrupted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import ultraad

KEYS = {
    "image_auroc": "I-AUROC",
    "pixel_auroc": "P-AUROC",
    "pixel_ap": "pixel AP",
    "aupro": "AUPRO",
    "dice": "Dice",
    "class_auroc_macro": "class AUROC",
    "benign_malignant_auroc": "B vs M",
}


def markdown(rows: list[dict]) -> str:
    """Mean +- standard deviation over seeds, in percent."""
    lines = ["| shots | " + " | ".join(KEYS.values()) + " |", "| --- |" + " --- |" * len(KEYS)]
    for shots in sorted({r["shots"] for r in rows}):
        cells = []
        for key in KEYS:
            values = [100 * r["metrics"][key]["value"] for r in rows if r["shots"] == shots]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        lines.append(f"| {shots or 'zero-shot'} | " + " | ".join(cells) + " |")
    prior = 100 * rows[0]["metrics"]["pixel_auroc_centre_prior"]["value"]
    return "\n".join([*lines, "", f"A centred Gaussian that sees no image has P-AUROC {prior:.1f}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapt_on", type=Path)
    parser.add_argument("evaluate_on", type=Path)
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 4, 8, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--set", type=json.loads, default={}, help="options of UltraAD as JSON")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    rows = json.loads(args.output.read_text()) if args.output.exists() else []
    backbone = ultraad.load_backbone(args.backbone)
    for shots in args.shots:
        for seed in args.seeds if shots else [0]:
            if any((r["shots"], r["seed"]) == (shots, seed) for r in rows):
                continue
            started = time.perf_counter()
            if shots:
                support = ultraad.draw_support(args.adapt_on, shots=shots, seed=seed)
                model = ultraad.adapt(support, backbone=backbone, options=args.set, seed=seed)
            else:
                model = ultraad.zero_shot(backbone=backbone, options=args.set)
            adapted = time.perf_counter()
            found = model.evaluate(args.evaluate_on, bootstrap=1000)
            rows.append(
                {
                    "shots": shots,
                    "seed": seed,
                    "backbone": backbone.name,
                    "fingerprint": backbone.fingerprint,
                    "support_digest": model.origin.support_digest,
                    "adapt_seconds": round(adapted - started, 1),
                    "evaluate_seconds": round(time.perf_counter() - adapted, 1),
                    "n": found["n"],
                    "metrics": found["metrics"],
                }
            )
            args.output.parent.mkdir(parents=True, exist_ok=True)
            args.output.write_text(json.dumps(rows, indent=1) + "\n")
            shown = "  ".join(f"{label} {100 * found['metrics'][key]['value']:.1f}" for key, label in KEYS.items())
            print(f"K={shots:2d} seed={seed}  {shown}  ({rows[-1]['adapt_seconds']} s to adapt)", flush=True)
    print(markdown(rows))


if __name__ == "__main__":
    main()
