"""What five numbers of a file say about its class: a result may be how pictures were made, not what they show.

    python -m perf.picture_facts DATA/liver --shots 4 16 64

Height, height by width, mean and standard deviation of the grey levels, and the share of black pixels; a logistic
regression on them (as ``linear_probe features=moments``), fitted to the images that ``ultraad support draw`` draws and
tested on all others. A method that is no better has shown nothing about tissue.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

import ultraad
from ultraad.data.sources import class_order
from ultraad.io import read_image
from ultraad.nn.moments import regression

BLACK = 5  # grey levels below this


def facts(path: Path) -> list[float]:
    """The five numbers of a picture."""
    grey = read_image(path).mean(-1)
    return [grey.shape[0], grey.shape[0] / grey.shape[1], grey.mean(), grey.std(), (grey < BLACK).mean()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--shots", type=int, nargs="+", default=[16])
    parser.add_argument("--draws", type=int, default=3)
    args = parser.parse_args()
    samples = ultraad.scan(args.data)
    classes, normal = class_order(samples)
    x = torch.tensor([facts(s.image) for s in samples], dtype=torch.float64)
    y = torch.tensor([classes.index(s.label) for s in samples])
    for shots in args.shots:
        image, graded = [], []
        for draw in range(args.draws):
            drawn = {s.id for s in ultraad.draw_support(args.data, shots=shots, seed=draw).samples}
            seen = torch.tensor([s.id in drawn for s in samples])
            weight, bias = regression(x[seen], y[seen], classes=len(classes), standard=True)
            p, truth = (x[~seen] @ weight.T + bias).softmax(-1).numpy(), y[~seen].numpy()
            of_normal = classes.index(normal)
            image.append(100 * roc_auc_score(truth != of_normal, 1 - p[:, of_normal]))
            graded.append(100 * np.mean([roc_auc_score(truth == c, p[:, c]) for c in range(len(classes))]))
        spread = [f"{mean(v):.1f} ± {stdev(v):.1f}" if len(v) > 1 else f"{v[0]:.1f}" for v in (image, graded)]
        print(f"{shots} images per class: image AUROC {spread[0]}, class AUROC {spread[1]}", flush=True)


if __name__ == "__main__":
    main()
