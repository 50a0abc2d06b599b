"""Give a trained tower another trunk, for a run to go on from.

    python -m pretraining.grow IMAGES START.safetensors --deep -o grown.safetensors
    python -m pretraining.grow IMAGES START.safetensors --trunk efficientnet_lite2 --deep -o grown.safetensors

With the same trunk, ``--deep`` adds the ImageNet stages at stride 32, at first without effect. Another trunk begins as
its ImageNet weights; the layers that turn its maps into tokens are fitted by ridge regression, so that the tokens are
those of the trained tower as nearly as a linear layer can make them. Everything after the tokens is kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from pretraining.export import save_tower
from pretraining.images import Shards
from pretraining.tower import IMAGENET, new_tower
from ultraad.backbones._embedded_tower import LITE0, MEAN, STD, Shape, TrunkPatchEmbed, load, side_of
from ultraad.backbones._torchvision import ensure_torchvision

IMAGES = 480  # simulated, for the regression
RIDGE = 1e-3  # of the mean variance of an input


def inputs(maps: list[torch.Tensor]) -> torch.Tensor:
    """What the linear layers see of each token (t f): 2x2 places of stride 8, one of 16, one of 32, and a one."""
    x8, x16, *x32 = maps
    fine = F.pixel_unshuffle(x8, 2)  # in the order of a 2x2 kernel: channel, row, column
    coarse = [F.interpolate(x, x16.shape[-2:], mode="bilinear") for x in x32]
    x = torch.cat([fine, x16, *coarse, torch.ones_like(x16[:, :1])], 1)
    return x.permute(0, 2, 3, 1).flatten(0, 2)


@torch.no_grad()
def fit(embed: TrunkPatchEmbed, like: nn.Module, images: torch.Tensor) -> float:
    """Fit the linear layers to the tokens of ``like``; return the share of the variance that is explained.

    Args:
        embed: Its trunk stays as it is.
        like: The trained patch embedding.
        images: (b 3 s s), normalised.
    """
    x, y = [], []
    for some in images.split(16):
        x.append(inputs(embed.trunk(some)))
        y.append(like(some).permute(0, 2, 3, 1).flatten(0, 2))
    x, y = torch.cat(x).double(), torch.cat(y).double()
    gram = x.T @ x / len(x)
    penalty = RIDGE * gram.diagonal()[:-1].mean() * torch.eye(len(gram), dtype=gram.dtype)
    penalty[-1, -1] = 0
    found = torch.linalg.solve(gram + penalty, x.T @ y / len(x))
    weight, bias = found[:-1].T.float(), found[-1].float()
    layers = [layer for layer in (embed.from8, embed.from16, embed.from32) if layer is not None]
    for layer in layers:
        layer.bias.zero_()
    for layer, part in zip(layers, weight.split([layer.weight[0].numel() for layer in layers], 1), strict=True):
        layer.weight.copy_(part.reshape(layer.weight.shape))
    embed.from16.bias.copy_(bias)
    return float(1 - (y - x @ found).var(0).sum() / y.var(0).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("start", type=Path, help="exported weights")
    parser.add_argument("--trunk", choices=IMAGENET, default=LITE0.trunk)
    parser.add_argument("--deep", action="store_true", help="with the stages at stride 32")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ensure_torchvision()
    old = {name: value.float() for name, value in load_file(options.start).items()}
    shape = Shape(options.trunk, options.deep)
    grown = new_tower(seed=0, frozen_stages=0, shape=shape).eval()
    state, embed = grown.state_dict(), grown.visual.conv1
    if Shape.of(options.start).trunk == shape.trunk:
        state |= old
    else:
        state |= {name: value for name, value in old.items() if not name.startswith("visual.conv1.")}
        share = fit(embed, load(options.start).visual.conv1, pictures(options.images, side=side_of(options.start)))
        print(f"the new trunk explains {share:.3f} of the variance of the tokens")
        state |= {f"visual.conv1.{name}": value for name, value in embed.state_dict().items()}
    save_tower(state, options.output, {**shape.metadata(), "validation_side": str(side_of(options.start))})


def pictures(folder: Path, *, side: int) -> torch.Tensor:
    """Some simulated images (b 3 s s), normalised."""
    shards = Shards(folder)
    picked = shards.take(np.linspace(0, len(shards) - 1, IMAGES).astype(np.int64))[0]
    images = torch.from_numpy(picked).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (F.interpolate(images, (side, side), mode="bilinear", antialias=True) - mean) / std


if __name__ == "__main__":
    main()
