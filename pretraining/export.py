"""Write the shipped weights from one training run or several.

    python -m pretraining.export IMAGES RUN [RUN ...] -o src/ultraad/backbones/pretrained/embedded.safetensors

Runs that went on from the same weights are averaged; ``--share`` averages the result with the weights that they
started from, ``--trunk`` its trunk with the ImageNet weights that it once began as. The result is validated at the side
it will be used at; the numbers go into the metadata. Matrices and kernels are stored in half precision, vectors in
single.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from pretraining.images import SHARD, Shards
from pretraining.tower import IMAGENET, imagenet_trunk
from pretraining.train import VALIDATION_SHARD, Run
from pretraining.validate import validate
from ultraad.backbones._embedded_tower import LITE0, SIDE, build
from ultraad.io.files import sha256

VERSIONS = {"embedded": "4", "embedded-large": "1"}
FEW = 240  # of the validation images, for a test that draws them again
RECIPE = (
    "{trunk} trunk from ImageNet ({package} 0.1.0, Apache-2.0), everything else from scratch; trained on images of "
    "ultraad.simulate and on BUS-BRA (four fifths of its cases); see pretraining/"
)
TRUNK = "visual.conv1.trunk."


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    """The state dict of ``ultraad.backbones._embedded_tower.build``, f32, for the run's moving average."""
    run.swap()
    trained = {name: value.clone() for name, value in run.model.state_dict().items()}
    trained["token_embedding.weight"] = run.words.table(trained["token_embedding.weight"], run.table.detach())
    run.swap()
    return {name: trained[name] for name in build(shape=run.shape).state_dict()}


def mean(states: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Parameter by parameter (model soups: Wortsman et al., ICML 2022)."""
    return {
        name: torch.stack([s[name] for s in states]).mean(0) if value.is_floating_point() else value
        for name, value in states[0].items()
    }


def toward(state: dict[str, torch.Tensor], first: dict[str, torch.Tensor], *, share: float) -> dict[str, torch.Tensor]:
    """``share`` of the state and the rest of the weights that it started from (WiSE-FT: Wortsman et al., CVPR 2022)."""
    return {
        name: torch.lerp(first[name].float(), value, share) if value.is_floating_point() else value
        for name, value in state.items()
    }


def toward_imagenet(
    state: dict[str, torch.Tensor], *, share: float, trunk: str = LITE0.trunk
) -> dict[str, torch.Tensor]:
    """The trunk as ``share`` of itself and the rest of its ImageNet weights."""
    first = {TRUNK + name: value for name, value in imagenet_trunk(trunk).items()}
    parts = {name: value for name, value in state.items() if name.startswith(TRUNK)}
    return state | toward(parts, first, share=share)


def save_tower(state: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write matrices and kernels in half precision, vectors in single."""
    tensors = {
        name: (value.half() if value.is_floating_point() and value.ndim >= 2 else value).contiguous()
        for name, value in state.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    save_file(tensors, new, metadata=metadata)
    new.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("folders", type=Path, nargs="+", help="of runs; several are averaged")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="the weights that the runs started from, for --share")
    parser.add_argument("--share", type=float, default=1.0, help="share of the trained weights beside those of --start")
    parser.add_argument("--trunk", type=float, default=1.0, help="share of the trained trunk beside ImageNet's")
    parser.add_argument("--side", type=int, default=SIDE, help="input side in pixels that the weights are made for")
    parser.add_argument("--count", type=int, default=1000, help="validation images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if (options.start is None) != (options.share == 1.0):
        parser.error("--share needs --start, and the other way round")
    runs = [Run(folder, lr=0.0) for folder in options.folders]
    shape = runs[0].shape
    state = mean([weights_of(run) for run in runs])
    if options.start is not None:
        if {sha256(options.start)} != {run.start for run in runs}:
            parser.error(f"the runs did not start from {options.start}")
        state = toward(state, load_file(options.start), share=options.share)
    state = toward_imagenet(state, share=options.trunk, trunk=shape.trunk)
    model, words = runs[0].model, runs[0].words
    model.load_state_dict(state)
    held_out = Shards(options.images, first=VALIDATION_SHARD, last=VALIDATION_SHARD)
    data = held_out.take(np.arange(options.count))
    table = words.small(state["token_embedding.weight"])
    metrics, few = (
        {
            name: round(float(v), 4)
            for name, v in validate(model, table, words, *(x[:n] for x in data), side=options.side).items()
        }
        for n in (options.count, FEW)
    )
    metadata = {
        "name": options.output.stem,
        **shape.metadata(),
        "version": VERSIONS.get(options.output.stem, "0"),
        "recipe": RECIPE.format(trunk=shape.trunk, package=IMAGENET[shape.trunk][0].replace("_", "-")),
        "runs": json.dumps([{"seed": run.seed, "steps": run.step, "images_seen": run.seen} for run in runs]),
        "started_from": ", ".join(sorted({run.start or "ImageNet" for run in runs})),
        "share": str(options.share),
        "trunk_share": str(options.trunk),
        "image_seeds": ", ".join(f"{SHARD * k}..{SHARD * (k + 1) - 1}" for k in sorted(Shards(options.images).facts)),
        "validation_seeds": f"{SHARD * VALIDATION_SHARD}..{SHARD * VALIDATION_SHARD + options.count - 1}",
        "validation_side": str(options.side),
        "validation_size": str(data[0].shape[1]),
        "simulated_validation": json.dumps(metrics),
        f"simulated_validation_{FEW}": json.dumps(few),
    }
    save_tower(state, options.output, metadata)
    size = options.output.stat().st_size / 1e6
    print(json.dumps(metadata, indent=1), f"{size:.1f} MB sha256 {sha256(options.output)}", sep="\n")


if __name__ == "__main__":
    main()
