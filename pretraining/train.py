"""Train the embedded backbone on simulated images, and on real ones.

    python -m pretraining.train IMAGES RUN --images 36000
    python -m pretraining.train IMAGES RUN --images 36000 --real lesion=9 decoy=9 painted=10 window=4

The learning rate is a cosine over the images seen. A run resumes from its last checkpoint; its images depend on
the seed and the step alone, so that it ends as if it had never stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from pretraining.augment import augment, with_levels_of
from pretraining.images import Shards
from pretraining.objective import WEIGHTS, objective
from pretraining.prompts import sentences
from pretraining.real import Part
from pretraining.teacher import Teacher
from pretraining.tower import Words, freeze_statistics, new_tower, tokenizer
from pretraining.validate import KINDS, validate
from ultraad.backbones._embedded_tower import LITE0, SIDE, Shape
from ultraad.io.files import sha256

VALIDATION_SHARD = 900
SEED = 0
FROZEN_STAGES = 2  # of the trunk
WARMUP = 40  # steps
SIDES = "112,128:0.4 128,160:0.35 160,176:0.25"
CHECKPOINT = 200  # steps


def vocabulary() -> Words:
    """Every word that captions, prompts and validation can use."""
    return Words(sorted(sentences() | set(KINDS)), tokenizer=tokenizer())


class Run:
    """Model, optimiser, and their files."""

    def __init__(
        self,
        folder: Path,
        *,
        lr: float,
        seed: int = SEED,
        frozen_stages: int = FROZEN_STAGES,
        start: Path | None = None,
    ) -> None:
        self.folder, self.file = folder, folder / "last.pt"
        folder.mkdir(parents=True, exist_ok=True)
        state = torch.load(self.file, weights_only=True) if self.file.exists() else None
        if state is not None:  # a run goes on as it began
            seed, frozen_stages = state["seed"], state["frozen_stages"]
        self.seed, self.frozen_stages = seed, frozen_stages
        self.start = state.get("start") if state else sha256(start) if start else None
        self.shape = Shape(**state.get("shape", {})) if state else Shape.of(start) if start else LITE0
        self.words = vocabulary()
        self.model = new_tower(seed=seed, frozen_stages=frozen_stages, shape=self.shape)
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.nn.Parameter(
            torch.randn(len(self.words), self.model.token_embedding.embedding_dim, generator=generator) * 0.05
        )
        if start is not None and state is None:
            weights = {name: value.float() for name, value in load_file(start).items()}
            self.model.load_state_dict(weights)
            self.table.data.copy_(self.words.small(weights["token_embedding.weight"]))
        self.model.token_embedding.weight.requires_grad_(requires_grad=False)
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        trunk = [p for n, p in named if ".trunk." in n]
        matrices = [p for n, p in named if ".trunk." not in n and p.ndim >= 2]
        vectors = [p for n, p in named if ".trunk." not in n and p.ndim < 2]
        self.parameters = [*trunk, *matrices, *vectors, self.table]
        self.rates = [0.3 * lr, lr, lr]
        groups = [
            {"params": trunk, "weight_decay": 1e-4},
            {"params": matrices, "weight_decay": 0.05},
            {"params": [*vectors, self.table], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))
        self.average = [p.detach().clone() for p in self.parameters]
        self.step = self.seen = 0
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seen = state["step"], state["seen"]
            with torch.no_grad():
                self.table.copy_(state["table"])
                for a, value in zip(self.average, state["average"], strict=True):
                    a.copy_(value)

    def update_average(self) -> None:
        """Exponential moving average of the weights over the last few hundred steps."""
        decay = min(0.995, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and their average."""
        for p, a in zip(self.parameters, self.average, strict=True):
            kept = p.detach().clone()
            p.copy_(a)
            a.copy_(kept)

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "table": self.table.detach(),
            "average": self.average,
            "step": self.step,
            "seen": self.seen,
            "seed": self.seed,
            "frozen_stages": self.frozen_stages,
            "start": self.start,
            "shape": self.shape._asdict(),
        }
        torch.save(state, self.file.with_suffix(".new"))
        self.file.with_suffix(".new").replace(self.file)


@dataclass(frozen=True)
class Recipe:
    """What a run sees.

    Attributes:
        images: Images to see.
        batch: Images of a step.
        real: How many of them are of each part of BUS-BRA, see :mod:`pretraining.real`; the others are simulated.
        sides: Stages as (last share of the images, sides in pixels to draw from).
        style: Share of the simulated images that get the grey levels of a real one.
        shrunk: See :func:`pretraining.augment.augment`.
        shadowed: See there.
        faded: See there.
        grades_only: See :func:`pretraining.objective.objective`.
        bf16: Number type of the image tower's blocks.
    """

    images: int
    batch: int
    real: dict[str, int]
    sides: tuple[tuple[float, tuple[int, ...]], ...]
    style: float = 0.0
    shrunk: float = 0.0
    shadowed: float = 0.0
    faded: float = 0.0
    grades_only: bool = False
    bf16: bool = False


def stages(text: str) -> tuple[tuple[float, tuple[int, ...]], ...]:
    """Sides by progress, from ``"112,128:0.4 128,160:0.6"``: 112 or 128 pixels for the first 40 % of the images."""
    out, until = [], 0.0
    for stage in text.split():
        sides, share = stage.split(":")
        until += float(share)
        out.append((until, tuple(int(side) for side in sides.split(","))))
    return tuple(out)


def batch_of(
    shards: Shards, parts: dict[str, Part], recipe: Recipe, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 (b s s 3), masks (b s s), facts (b f), and which are real (b)."""
    simulated = recipe.batch - sum(recipe.real.values())
    taken = [shards.take(rng.choice(len(shards), simulated, replace=False))]
    taken += [parts[name].take(count, rng) for name, count in recipe.real.items()]
    images = taken[0][0]
    for i in np.flatnonzero(rng.random(simulated) < recipe.style):
        like = parts["lesion"].images
        images[i] = with_levels_of(images[i], like[int(rng.integers(len(like)))])
    size = images.shape[1]
    masks = [mask for _, mask, _ in taken]
    assert all(mask.shape[1] == size for mask in masks), "simulated and real pictures have one size"
    return (
        np.concatenate([image for image, _, _ in taken]),
        np.concatenate(masks),
        np.concatenate([facts for _, _, facts in taken]),
        np.arange(recipe.batch) >= simulated,
    )


def train(
    run: Run, shards: Shards, held_out: Shards, parts: dict[str, Part], recipe: Recipe, teacher: Teacher | None = None
) -> None:
    """Step until the run has seen its images."""
    begun, seen, mean = time.time(), 0, {}
    freeze_statistics(run.model)
    while run.seen < recipe.images:
        rng = np.random.default_rng([run.seed, run.step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**40)))
        progress = run.seen / recipe.images
        rate = min(1.0, (run.step + 1) / WARMUP) * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * progress)))
        for group, base in zip(run.optimizer.param_groups, run.rates, strict=True):
            group["lr"] = float(base * rate)
        image, mask, facts, real = batch_of(shards, parts, recipe, rng)
        sides = next((sides for until, sides in recipe.sides if progress < until), recipe.sides[-1][1])
        side = int(rng.choice(sides))
        x = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255
        x, y = augment(
            x,
            torch.from_numpy(mask).float(),
            side=teacher.side if teacher else side,
            generator=generator,
            shrunk=recipe.shrunk,
            shadowed=recipe.shadowed,
            faded=recipe.faded,
        )
        look = None
        if teacher is not None:
            look = partial(teacher.look, x, bf16=recipe.bf16)
            x, y = smaller(x, side), smaller(y[:, None], side)[:, 0]
        losses = objective(
            run.model,
            run.table,
            run.words,
            x,
            y,
            facts,
            rng,
            real=real,
            grades_only=recipe.grades_only,
            bf16=recipe.bf16,
            teacher=look,
        )
        run.optimizer.zero_grad(set_to_none=True)
        sum(WEIGHTS[name] * loss for name, loss in losses.items()).backward()
        torch.nn.utils.clip_grad_norm_(run.parameters, 1.0)
        run.optimizer.step()
        with torch.no_grad():
            run.model.logit_scale.clamp_(max=np.log(100))
        run.step, run.seen, seen = run.step + 1, run.seen + recipe.batch, seen + recipe.batch
        run.update_average()
        for name, loss in losses.items():
            mean[name] = 0.97 * mean.get(name, float(loss.detach())) + 0.03 * float(loss.detach())
        if run.step % 20 == 0:
            row: dict[str, Any] = {
                "step": run.step,
                "seen": run.seen,
                "images/s": round(seen / (time.time() - begun), 1),
                "rate": round(rate, 3),
                "scale": round(float(run.model.logit_scale.detach().exp()), 1),
                **{k: round(v, 3) for k, v in mean.items()},
            }
            report(run, row)
        if run.step % CHECKPOINT == 0:
            run.save()
    evaluate(run, held_out)
    run.save()


def smaller(x: torch.Tensor, side: int) -> torch.Tensor:
    """Pictures (b c s s) at another side in pixels."""
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)


def evaluate(run: Run, held_out: Shards, *, count: int = 1000) -> None:
    """Validate the average and log it."""
    run.swap()
    data = held_out.take(np.arange(count))
    metrics = validate(run.model, run.table.detach(), run.words, *data, side=SIDE)
    run.swap()
    report(run, {"step": run.step, "seen": run.seen, **{k: round(float(v), 4) for k, v in metrics.items()}})


def report(run: Run, row: dict[str, Any]) -> None:
    """One line of the log."""
    line = json.dumps({"time": time.strftime("%H:%M:%S"), **row})
    print(line, flush=True)
    with (run.folder / "log.jsonl").open("a") as f:
        f.write(line + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=36_000, dest="count", help="images to see")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--sides", default=SIDES, help="sides in pixels and the share of the images seen at them")
    parser.add_argument("--real", nargs="*", default=[], help="real images of each kind in a batch: lesion=8 painted=8")
    parser.add_argument("--style", type=float, default=0.0, help="share of simulated images with real grey levels")
    parser.add_argument("--shrunk", type=float, default=0.0, help="share of images made smaller, for small lesions")
    parser.add_argument("--shadowed", type=float, default=0.0, help="share of images with shadows from the skin")
    parser.add_argument("--faded", type=float, default=0.0, help="share of images whose lesion is faint")
    parser.add_argument("--grades-only", action="store_true", help="real images never teach normal against lesion")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=SEED, help="of weights and of the order of images")
    parser.add_argument("--start", type=Path, help="exported weights to go on from, instead of ImageNet's trunk alone")
    parser.add_argument("--teacher", type=Path, help="exported weights of a larger tower to learn from as well")
    parser.add_argument("--teacher-side", type=int, default=224, help="its input side in pixels")
    parser.add_argument("--frozen-stages", type=int, default=FROZEN_STAGES, help="of the trunk's five, from the stem")
    parser.add_argument("--bf16", action="store_true", help="image tower in bfloat16, where the processor has it")
    options = parser.parse_args()
    real = {name: int(count) for name, count in (item.split("=") for item in options.real)}
    torch.set_num_threads(options.threads)
    run = Run(
        options.folder,
        lr=options.lr,
        seed=options.seed,
        frozen_stages=options.frozen_stages,
        start=options.start,
    )
    recipe = Recipe(
        images=options.count,
        batch=options.batch,
        real=real,
        sides=stages(options.sides),
        style=options.style,
        shrunk=options.shrunk,
        shadowed=options.shadowed,
        faded=options.faded,
        grades_only=options.grades_only,
        bf16=options.bf16,
    )
    (options.folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1) + "\n")
    shards = Shards(options.images)
    parts = {name: Part.load(options.images, name) for name in {*real, *(["lesion"] if options.style else [])}}
    teacher = Teacher(options.teacher, run.words, side=options.teacher_side) if options.teacher else None
    train(run, shards, Shards(options.images, first=VALIDATION_SHARD, last=VALIDATION_SHARD), parts, recipe, teacher)


if __name__ == "__main__":
    main()
