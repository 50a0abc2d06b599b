"""The loss of accuracy with bfloat16: one model, adapted in float32, evaluated in float32 and in bfloat16.

    python -m perf.dtype DATA/BUS-UCLM DATA/Dataset_BUSI_with_GT -o perf/results/dtype.json

UltraAD, 16 shots of BUS-UCLM, evaluated on every image of the BUSI folder with the same learned values and thresholds;
only the number type of the image tower differs. A row is a difference of AUROCs in points (bfloat16 minus float32). The
goal is to lose at most a tenth of a point. The last row is what ``--dtype auto`` chooses on this machine.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from perf.timing import Row, arguments, finish

import ultraad
from ultraad.backbones._dtype import has_bfloat16, seconds

KEYS = {
    "pixel_auroc": "P",
    "image_auroc": "I",
    "class_auroc_macro": "C",
    "benign_malignant_auroc": "BM",
}
MAY_LOSE = 0.1  # AUROC points


def differences(folder: Path, data: Path, *, backbone: str, title: str) -> list[Row]:
    """Evaluate the model saved in ``folder`` in both number types."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        model = ultraad.load(folder, dtype=dtype)
        found[dtype] = ultraad.evaluate(model, data, bootstrap=0)["metrics"]
    rows = []
    for key, label in KEYS.items():
        full, half = (found[dtype][key]["value"] for dtype in ("float32", "bfloat16"))
        if full is None or half is None:
            print(f"{label}-AUROC is not defined on this data: {found['float32'][key]['reason']}")
            continue
        change = 100 * (half - full)
        rows.append(
            Row(
                f"{label}-AUROC, {title}, {backbone}, bfloat16",
                "the same model in float32, points",
                "report",
                change,
                must=-MAY_LOSE,
                detail={"float32": 100 * full, "bfloat16": 100 * half, "images": found["float32"][key]["n"]},
            )
        )
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("adapt_on", type=Path)
    parser.add_argument("evaluate_on", type=Path)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backbone", default="embedded")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    support = ultraad.draw_support(args.adapt_on, shots=args.shots, seed=args.seed)
    tower = ultraad.load_backbone(args.backbone)
    with tempfile.TemporaryDirectory() as folder:
        ultraad.adapt(support, backbone=tower, seed=args.seed).save(Path(folder) / "model")
        rows = differences(
            Path(folder) / "model",
            args.evaluate_on,
            backbone=args.backbone,
            title=f"{args.shots} shots, seed {args.seed}",
        )
    half = tower.in_dtype("bfloat16")
    for count in (1, 8):
        taken = [1000 * seconds(backbone, count) / count for backbone in (tower, half)]
        rows.append(
            Row(
                f"image tower, {args.backbone} {tower.size} px, batch {count}, bfloat16",
                "the same tower in float32",
                "report",
                taken[0] / taken[1],
                detail={
                    "float32_ms": taken[0],
                    "bfloat16_ms": taken[1],
                    "bfloat16 built in": has_bfloat16(tower.device),
                },
            )
        )
    finish(rows, args.output)


if __name__ == "__main__":
    main()
