"""UltraAD's ``predict`` against the bare image tower: the cost of adaptation at prediction time.

    python -m perf.predict            # the embedded tower and the paper's, 1 and 8 images, float32 and bfloat16
    python -m perf.predict --quick    # the paper's tower with one image only

Ours is everything after preprocessing: tower, image-aware prompts through the text tower, patch adapters, fusion,
smoothed map on the original 600 x 800 pixels, classes, score. The peer is one call of open_clip's ``encode_image``,
in the same number type, on the same images and threads.

The embedded tower has two peers. "As exported" is the output of ``ultraad backbones export``, run by open_clip and
timm. ultraad makes the tower faster when it loads it (``embedded_tower.quicken``); "as loaded" is that tower, which
isolates the cost of everything around it. Goals are for 224 pixels and "as exported".
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import torch
from perf.timing import Row, arguments, compared, finish, in_turns

import ultraad
from ultraad.backbones import DEFAULT
from ultraad.backbones import _embedded_tower as embedded_tower
from ultraad.backbones._towers import TOWERS
from ultraad.data.loader import array_batch
from ultraad.model.model import Model
from ultraad.simulate import simulate, write_dataset

PAPER = "open_clip:ViT-L-14-336-quickgelu"  # no tag: random weights, at the same speed
HEIGHT, WIDTH = 600, 800  # of a file; usual for a scanner
MUST, AIM = 1.15, 1.05
Encode = Callable[[torch.Tensor], torch.Tensor]


def adapted(backbone: str, size: int | None, dtype: str) -> Model:
    """A model whose learned parts all take part in a prediction; what they learned does not matter here."""
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder) / "data", n=12, size=128)
        support = ultraad.draw_support(Path(folder) / "data", shots=1, seed=0)
        options = {"train.epochs": 1, "train.views": 1}
        return ultraad.adapt(support, backbone=backbone, size=size, dtype=dtype, options=options, calibrate=False)


def as_exported(size: int, dtype: torch.dtype) -> Encode:
    """The embedded tower without ultraad."""
    tower = embedded_tower.load(TOWERS[DEFAULT].weights, size=size)
    tower.visual.to(dtype)
    return tower.encode_image


def compare(
    model: Model, name: str, peers: dict[str, Encode], *, goal: str | None, counts: list[int], turns: int
) -> list[Row]:
    """A row for each number of images and each peer; only the peer named ``goal`` has goals."""
    tower = model.backbone
    pictures = [cv2.resize(simulate(i).image, (WIDTH, HEIGHT)) for i in range(max(counts))]
    every = array_batch(pictures, [str(i) for i in range(len(pictures))], model.preprocess)
    rows = []
    for count in counts:
        batch = every.select(list(range(count))).unlabelled()
        images = batch.images.to(tower.dtype)
        for peer, encode in peers.items():

            @torch.no_grad()
            def bare(encode: Encode = encode, images: torch.Tensor = images) -> torch.Tensor:
                return encode(images)

            rows.append(
                compared(
                    f"UltraAD predict, {name} {tower.size} px, {model.describe().backbone.dtype}, batch {count}",
                    f"bare encode_image, {peer}",
                    in_turns(lambda batch=batch: model.method.predict(batch), bare, turns=turns),
                    kind="overhead",
                    must=MUST if peer == goal else None,
                    aim=AIM if peer == goal else None,
                )
            )
            finish(rows[-1:], None)
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--quick", action="store_true", help="the paper's tower with one image only")
    parser.add_argument(
        "--turns", type=int, default=15, help="for the embedded tower; a fifth of them for the tower of the paper"
    )
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    rows: list[Row] = []
    for dtype in ("float32", "bfloat16"):
        for size in (224, embedded_tower.SIDE):
            model = adapted("embedded", size, dtype)
            peers = {
                "as exported": as_exported(size, model.backbone.dtype),
                "as loaded": model.backbone.model.encode_image,
            }
            goal = "as exported" if size == 224 else None
            rows += compare(model, "embedded", peers, goal=goal, counts=[1, 8], turns=args.turns)
    for dtype in ("float32", "bfloat16"):
        model = adapted(PAPER, None, dtype)
        peers = {"random weights": model.backbone.model.encode_image}
        counts = [1] if args.quick else [1, 8]
        rows += compare(
            model, "ViT-L-14-336", peers, goal="random weights", counts=counts, turns=max(1, args.turns // 5)
        )
    if args.output is not None:
        finish(rows, args.output)


if __name__ == "__main__":
    main()
