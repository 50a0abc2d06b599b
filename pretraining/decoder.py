"""Train the decoder that doubles the grid of patches, on a tower that stays as it is.

    python -m pretraining.decoder IMAGES TOWER.safetensors -o decoder.safetensors

At first it adds nothing to the patches. It is taught where lesions are, by the tower's own text embeddings, and nothing
else.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from pretraining.augment import augment
from pretraining.export import save_tower
from pretraining.images import Shards
from pretraining.objective import dense
from pretraining.prompts import PAIRS
from pretraining.real import Part
from pretraining.tower import TAPS, encode_texts, tokens_of
from pretraining.train import Recipe, batch_of, stages, vocabulary
from ultraad.backbones._decoder import LOCATION, Decoder
from ultraad.backbones._embedded_tower import load
from ultraad.backbones._torchvision import ensure_torchvision

RATE = 2e-3
BLOCKS = 2  # blocks of a step
SIDES = "160,192:0.7 192,224:0.3"
SMOOTH = 6  # pixels of 112, of the location prior
RARE = 0.005  # the least share of lesion anywhere
REAL = {"lesion": 8, "decoy": 8, "painted": 16}


def location_prior(masks: np.ndarray) -> torch.Tensor:
    """Where lesions lie: log-odds by place (h w) of masks (n s s) and of their mirror images, smoothed.

    Its mean over lesion pixels is 0, so that it takes from the edges of a picture and gives its middle little.
    """
    share = np.mean(
        [cv2.resize(mask.astype(np.float32), (112, 112), interpolation=cv2.INTER_AREA) for mask in masks], 0
    )
    share = cv2.GaussianBlur((share + share[:, ::-1]) / 2, (0, 0), SMOOTH).clip(RARE, 1 - RARE)
    odds = np.log(share / (1 - share))
    odds -= (share * odds).sum() / share.sum()
    return torch.from_numpy(cv2.resize(odds, (LOCATION, LOCATION), interpolation=cv2.INTER_AREA))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("tower", type=Path, help="exported weights")
    parser.add_argument("--images", type=int, default=16_000, dest="count", help="images to see")
    parser.add_argument("--sides", default=SIDES, help="sides in pixels and the share of the images seen at them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    ensure_torchvision()
    model, words = load(options.tower).requires_grad_(requires_grad=False), vocabulary()
    table = words.small(model.token_embedding.weight)
    visual = model.visual
    decoder = Decoder(visual.conv1.from8.in_channels, visual.proj.shape[0])
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=RATE, weight_decay=0.01)
    recipe = Recipe(images=options.count, batch=48, real=REAL, sides=stages(options.sides))
    shards, parts = Shards(options.images), {name: Part.load(options.images, name) for name in REAL}
    steps, begun, mean = options.count // recipe.batch, time.time(), 0.0
    for step in range(steps):
        rng = np.random.default_rng([options.seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**40)))
        sides = next(sides for until, sides in recipe.sides if step / steps < until)
        image, mask, _, _ = batch_of(shards, parts, recipe, rng)
        x, y = augment(
            torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255,
            torch.from_numpy(mask).float(),
            side=int(rng.choice(sides)),
            generator=generator,
            shrunk=0.5,
            shadowed=0.3,
            faded=0.3,
        )
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                x8, blocks, _ = tokens_of(model, x)
            taps = rng.choice(TAPS, BLOCKS, replace=False)
            fine = decoder(x8, {int(tap): blocks[tap][:, 1:] for tap in taps}).values()
        rows = words.rows([s for k in rng.integers(len(PAIRS), size=3) for s in PAIRS[int(k)]])
        normal, lesion = encode_texts(model, table, rows).reshape(3, 2, -1).unbind(1)
        embedded = [F.normalize(visual.ln_post(tokens.float()) @ visual.proj, dim=-1) for tokens in fine]
        share = F.adaptive_avg_pool2d(y[:, None], x8.shape[-2:]).flatten(1)
        loss = dense(embedded, lesion - normal, share, scale=model.logit_scale.exp())
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        mean = float(loss.detach()) if step == 0 else 0.95 * mean + 0.05 * float(loss.detach())
        if step % 20 == 0:
            speed = (step + 1) * recipe.batch / (time.time() - begun)
            print(
                json.dumps({"step": step, "of": steps, "dense": round(mean, 4), "images/s": round(speed, 1)}),
                flush=True,
            )
    decoder.location.copy_(location_prior(parts["lesion"].masks))
    save_tower(decoder.state_dict(), options.output, {})


if __name__ == "__main__":
    main()
