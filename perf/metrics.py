"""Speed, memory and error of the streaming pixel metrics, against the usual implementations, in the same run.

    python -m perf.metrics                          # 100 maps of 336 x 336 pixels, about three minutes
    python -m perf.metrics --images 780 --turns 1   # as large as BUSI; the peers take gigabytes

The usual implementation keeps all maps, calls scikit-learn on all pixels (AUROC, average precision, largest F1), and
computes AUPRO at 200 equidistant thresholds. The routine that published scripts share finds the regions of every mask
again at every threshold, with scikit-image's regionprops; the stronger peer does the same with scipy's labels.
torchmetrics has AUROC and average precision, in its exact form (``thresholds=None``), and no AUPRO.

Seconds are processor seconds, so other jobs on the machine do not count. scikit-image and torchmetrics are only needed
here (``pip install scikit-image torchmetrics``); without one of them, its rows are left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from time import process_time

import numpy as np
import torch
from perf.timing import Row, arguments, compared, finish
from scipy import ndimage
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from ultraad.metrics import Metric
from ultraad.metrics.pixel import PixelMetrics

THRESHOLDS = 200
PATIENTS = 30  # in the memory rows; what is kept for a patient is bounded by itself, see pixel.MAX_CLUSTERS
CHILD = """
import json, sys
from perf.metrics import PATIENTS, images
from ultraad.bench.run.peak_memory import PeakMemory
from ultraad.metrics.pixel import PixelMetrics
peak = PeakMemory()
start = peak.megabytes()
pixels = PixelMetrics(threshold=0.5)
for i, (scores, mask) in enumerate(images(int(sys.argv[1]), int(sys.argv[2]))):
    pixels.add(scores, mask, group=str(i % PATIENTS))
pixels.result(resamples=0)
print(json.dumps([start, peak.megabytes()]))
"""


def images(n: int, side: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Softmax-like maps with one or two elliptic lesions; every third image is normal."""
    y, x = np.mgrid[:side, :side] / side
    for i in range(n):
        rng = np.random.default_rng(i)
        mask = np.zeros((side, side), bool)
        for _ in range(0 if i % 3 == 0 else rng.integers(1, 3)):
            cy, cx, ry, rx = rng.uniform([0.3, 0.3, 0.05, 0.05], [0.7, 0.7, 0.15, 0.2])
            mask |= ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        logit = 2 * rng.standard_normal((side, side), dtype=np.float32) + 3 * mask - 3 + rng.normal()
        yield (1 / (1 + np.exp(-logit))).astype(np.float32), mask


def ours(maps: np.ndarray, masks: np.ndarray) -> dict[str, Metric]:
    """All of PixelMetrics. It computes more than the peers: also the metrics of each image and the mean Dice."""
    pixels = PixelMetrics(threshold=0.5)
    for i, (scores, mask) in enumerate(zip(maps, masks, strict=True)):
        pixels.add(scores, mask, group=str(i // 3))
    return pixels.result(resamples=0)


def scikit_learn(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    truth, scores = masks.ravel(), maps.ravel()
    precision, recall, _ = precision_recall_curve(truth, scores)
    return {
        "pixel_auroc": float(roc_auc_score(truth, scores)),
        "pixel_ap": float(average_precision_score(truth, scores)),
        "pixel_f1_oracle": float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))),
    }


def torchmetrics(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

    found = {"pixel_auroc": BinaryAUROC(thresholds=None), "pixel_ap": BinaryAveragePrecision(thresholds=None)}
    for scores, mask in zip(maps, masks, strict=True):
        for metric in found.values():
            metric.update(torch.from_numpy(scores), torch.from_numpy(mask).long())
    return {name: float(metric.compute()) for name, metric in found.items()}


def copied_aupro(maps: np.ndarray, masks: np.ndarray) -> float:
    """AUPRO as published scripts compute it: regionprops, and the false positive rate rescaled to its largest value."""
    from skimage import measure

    truth, low, high = masks.astype(int), maps.min(), maps.max()
    binary = np.zeros(maps.shape, bool)
    pro, fpr = [], []
    for threshold in np.arange(low, high, (high - low) / THRESHOLDS):
        binary[maps <= threshold], binary[maps > threshold] = False, True
        overlap = []
        for b, mask in zip(binary, truth, strict=True):
            for region in measure.regionprops(measure.label(mask)):
                overlap.append(b[region.coords[:, 0], region.coords[:, 1]].sum() / region.area)
        healthy = 1 - truth
        pro.append(np.mean(overlap))
        fpr.append(np.logical_and(healthy, binary).sum() / healthy.sum())
    x, y = np.array(fpr), np.array(pro)
    kept = x < 0.3
    x = x[kept]
    return float(auc((x - x.min()) / (x.max() - x.min()), y[kept]))


def labelled_aupro(maps: np.ndarray, masks: np.ndarray) -> float:
    """The same thresholds with scipy's labels and boxes, interpolated at 0.3 as in the definition."""
    fpr, pro, negatives = [0.0], [0.0], (~masks).sum()
    for threshold in np.linspace(maps.max(), maps.min(), THRESHOLDS):
        binary = maps >= threshold
        overlap = []
        for b, mask in zip(binary, masks, strict=True):
            labels, n = ndimage.label(mask, structure=np.ones((3, 3)))
            overlap += [b[box][labels[box] == k + 1].mean() for k, box in enumerate(ndimage.find_objects(labels, n))]
        pro.append(np.mean(overlap))
        fpr.append((binary & ~masks).sum() / negatives)
    at = np.linspace(0, 0.3, 10_001)
    return float(np.trapezoid(np.interp(at, fpr, pro), at) / 0.3)


def exact_aupro(maps: np.ndarray, masks: np.ndarray) -> float:
    """AUPRO over all distinct scores of all pixels, by one sort; not timed."""
    overlap = np.zeros(maps.shape, np.float32)
    for o, mask in zip(overlap, masks, strict=True):
        labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
        o[mask] = 1 / np.bincount(labels[mask])[labels[mask]]
    order = np.argsort(maps, axis=None)[::-1]
    falling = maps.ravel()[order]
    ends = np.flatnonzero(np.r_[falling[1:] != falling[:-1], True])
    fpr = np.r_[0, np.cumsum(~masks.ravel()[order], dtype=np.float64)[ends]]
    pro = np.r_[0, np.cumsum(overlap.ravel()[order], dtype=np.float64)[ends]]
    fpr, pro = fpr / fpr[-1], pro / pro[-1]
    last = np.searchsorted(fpr, 0.3)
    fpr, pro = np.r_[fpr[:last], 0.3], np.r_[pro[:last], np.interp(0.3, fpr, pro)]
    return float(np.trapezoid(pro, fpr) / 0.3)


def peak_megabytes(n: int, side: int) -> tuple[float, float]:
    """(at the start, at most) of a process that measures n images one by one, in 10^6 bytes."""
    done = subprocess.run([sys.executable, "-c", CHILD, str(n), str(side)], check=True, capture_output=True, text=True)
    start, peak = json.loads(done.stdout)
    return start, peak


def memory_row(n: int, side: int) -> Row:
    (_, few), (start, many) = peak_megabytes(n, side), peak_megabytes(10 * n, side)
    return Row(
        f"pixel metrics, peak memory of {10 * n} maps",
        f"the same for {n} maps",
        "overhead",
        many / few,
        must=1.1,
        detail={
            "MB": [round(few), round(many)],
            "MB_before_the_first": round(start),
            "MB_to_keep_them": round(10 * n * side**2 * 5 / 1e6),
        },
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--side", type=int, default=336, help="pixels")
    parser.add_argument("--turns", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads or 1)

    parts: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
        "ours": ours,
        "scikit-learn": scikit_learn,
        "AUPRO by scipy's labels": labelled_aupro,
    }
    if find_spec("skimage"):
        parts["AUPRO by regionprops"] = copied_aupro
    else:
        print("no row for the field's copied AUPRO: pip install scikit-image")
    if find_spec("torchmetrics"):
        from ultraad.backbones._torchvision import ensure_torchvision

        ensure_torchvision()  # torchmetrics imports it
        parts["torchmetrics"] = torchmetrics
    else:
        print("no row for torchmetrics: pip install torchmetrics")

    pairs = list(images(args.images, args.side))
    maps, masks = np.stack([scores for scores, _ in pairs]), np.stack([mask for _, mask in pairs])
    del pairs
    for part in parts.values():
        part(maps[:3], masks[:3])  # imports and first calls are not timed
    found: dict[str, object] = {}
    turns: list[dict[str, float]] = []
    for turn in range(args.turns):
        seconds = {}
        for name in list(parts)[:: 1 if turn % 2 == 0 else -1]:
            start = process_time()
            found[name] = parts[name](maps, masks)
            seconds[name] = process_time() - start
        turns.append(seconds)

    streamed: dict[str, Metric] = found["ours"]
    exact = {**found["scikit-learn"], "aupro": exact_aupro(maps, masks)}
    errors: dict[str, str] = {}
    for name, value in exact.items():
        error, bound = abs(streamed[name].value - value), streamed[name].error
        errors[f"error_{name.removeprefix('pixel_')}"] = f"{error:.1e} (bound {bound:.0e})"
    what = f"pixel AUROC, AP, F1, AUPRO of {args.images} maps of {args.side} x {args.side}"
    rows = []

    def against(*peers: str, must: float | None = None, **detail: object) -> None:
        if set(peers) <= set(parts):
            times = [(s["ours"], sum(s[p] for p in peers)) for s in turns]
            rows.append(compared(what, ", ".join(peers), times, kind="speedup", must=must, **detail))

    for loop, must in {"AUPRO by regionprops": 20.0, "AUPRO by scipy's labels": None}.items():
        if loop in found:
            off = f"{abs(found[loop] - exact['aupro']):.1e}"
            against("scikit-learn", loop, must=must, **errors, peer_error_aupro=off)
    against("torchmetrics", "AUPRO by regionprops", must=20)
    against("torchmetrics")  # only two of the four metrics, so it has no goal
    rows.append(memory_row(min(args.images, 100), args.side))
    finish(rows, args.output)


if __name__ == "__main__":
    main()
