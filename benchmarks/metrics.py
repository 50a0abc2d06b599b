"""Speed, memory and error of the streaming pixel metrics, against the usual way in the same run.

The usual way keeps all maps, calls scikit-learn on all pixels, and computes AUPRO with 200 equidistant thresholds,
finding the regions of each mask anew for each of them, as the field's copied routine does (with scipy's labels here,
which is faster than regionprops).

Seconds are processor seconds, so another job on the machine does not count.

    OMP_NUM_THREADS=1 python benchmarks/metrics.py --images 780 --side 336
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Iterator
from time import process_time

import numpy as np
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from ultraad.metrics.pixel import PixelMetrics


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


def usual(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """scikit-learn on all pixels, and AUPRO over 200 thresholds (FPR cut at 0.3, interpolated there)."""
    truth, scores = masks.ravel(), maps.ravel()
    out = {"pixel_auroc": roc_auc_score(truth, scores), "pixel_ap": average_precision_score(truth, scores)}
    precision, recall, _ = precision_recall_curve(truth, scores)
    out["pixel_f1_oracle"] = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    fpr, pro, negatives = [0.0], [0.0], (~masks).sum()
    for threshold in np.linspace(scores.max(), scores.min(), 200):
        binary = maps >= threshold
        overlap = []
        for b, mask in zip(binary, masks, strict=True):
            labels, n = ndimage.label(mask, structure=np.ones((3, 3)))
            overlap += [b[box][labels[box] == k + 1].mean() for k, box in enumerate(ndimage.find_objects(labels, n))]
        pro.append(np.mean(overlap))
        fpr.append((binary & ~masks).sum() / negatives)
    at = np.linspace(0, 0.3, 10_001)
    out["aupro"] = np.trapezoid(np.interp(at, fpr, pro), at) / 0.3
    return {k: float(v) for k, v in out.items()}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--side", type=int, default=336)
    parser.add_argument("--streaming-only", action="store_true", help="skip the usual way; shows that memory is flat")
    args = parser.parse_args()

    pixels, seconds, checkpoint = PixelMetrics(threshold=0.5), 0.0, max(1, args.images // 5)
    for i, (scores, mask) in enumerate(images(args.images, args.side)):
        start = process_time()
        pixels.add(scores, mask, group=str(i // 3))
        seconds += process_time() - start
        if (i + 1) % checkpoint == 0:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(f"{i + 1:6d} images  {1000 * seconds / (i + 1):6.1f} ms per image  peak {peak} MB")
    start = process_time()
    streamed = pixels.result(resamples=0)
    seconds += process_time() - start
    start = process_time()
    pixels.result(resamples=1000)
    print(f"streaming {seconds:.1f} s; with 1000 resamples {process_time() - start:.1f} s more")
    if args.streaming_only:
        return

    maps = np.empty((args.images, args.side, args.side), np.float32)
    masks = np.empty(maps.shape, bool)
    for i, pair in enumerate(images(args.images, args.side)):
        maps[i], masks[i] = pair
    start = process_time()
    expected = usual(maps, masks)
    slow = process_time() - start
    print(f"usual way {slow:.1f} s: {slow / seconds:.1f} times the streaming time")
    expected["aupro"], coarse = exact_aupro(maps, masks), expected["aupro"]
    print(
        f"AUPRO of the usual way is off by {abs(coarse - expected['aupro']):.1e}; below it is compared to the exact one"
    )
    print(f"{'':18}{'streaming':>12}{'exact':>12}{'difference':>12}{'bound':>12}")
    for name, value in expected.items():
        m = streamed[name]
        print(f"{name:18}{m.value:12.7f}{value:12.7f}{m.value - value:12.1e}{m.error:12.1e}")


if __name__ == "__main__":
    main()
