"""How good the embedded backbone is, against baselines that learn nothing: the numbers of docs/backbone.md.

    python -m perf.backbone sanity DATA/BUS-UCLM DATA/Dataset_BUSI_with_GT -o perf/results/sanity.json
    python -m perf.backbone unmarked DATA/BUS-UCLM -o perf/results/unmarked.json
    python -m perf.backbone towers DATA/BUS-UCLM DATA/Dataset_BUSI_with_GT --weights X.safetensors Y.safetensors \
        -o perf/results/towers.json
    python -m perf.backbone zero DATA/BUS-UCLM DATA/BUS-BRA --weights X.safetensors --sides 160 224 \
        -o perf/results/zero.json
    python -m perf.backbone speed -o perf/results/backbone_speed.json

``sanity``: baselines without text or training (a centred blob, local darkness, the true size of the lesion); then
UltraAD with 16 shots of BUS-UCLM, seed 0, on the same architecture with random weights, with an ImageNet trunk, with
the embedded weights. ``unmarked``: BUS-UCLM images without calipers and Doppler, of patients outside the support set
(three folds of patients, scores pooled). ``towers``: files from pretraining.export, zero-shot on both data sets, and on
the second with 16 shots of the first. ``zero``: the same files, zero-shot at each side, or with ``--together`` by
features averaged over the sides; of BUS-BRA only the cases that pretraining leaves out. ``speed``: one 224-pixel image
through the image tower, the towers that ship at their own side with finer patches, and the simulator.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from perf.ultraad_defaults import folds_of

import ultraad
from ultraad.backbones import _embedded_tower as embedded_tower
from ultraad.backbones._decoder import Detailed, load_decoder
from ultraad.backbones._door import Around, Backbone
from ultraad.backbones._mirrored import Mirrored
from ultraad.backbones._torchvision import ensure_torchvision
from ultraad.data.sources.bus_bra import SEEN
from ultraad.io import read_image, read_mask
from ultraad.metrics.summary import Evaluation
from ultraad.simulate import simulate
from ultraad.types import Features, PreprocessConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultraad.types import Sample

CLASSES = ("normal", "benign", "malignant")
SHOWN = {
    "pixel_auroc": "P",
    "pixel_ap": "AP",
    "image_auroc": "I",
    "class_auroc_macro": "C",
    "benign_malignant_auroc": "BM",
    "peak_in_small_lesion": "small",
}


def darkness(image: np.ndarray) -> np.ndarray:
    """Local darkness (h w): a Gaussian mean over 20 % of the side minus one over 4 %."""
    grey = image.mean(-1).astype(np.float32) / 255
    side = min(grey.shape)
    return cv2.GaussianBlur(grey, (0, 0), 0.2 * side) - cv2.GaussianBlur(grey, (0, 0), 0.04 * side)


def centre(image: np.ndarray) -> np.ndarray:
    """A centred Gaussian (h w) with a sigma of a quarter of the side."""
    h, w = image.shape[:2]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    return np.exp(-(((y - h / 2) / h) ** 2 + ((x - w / 2) / w) ** 2) / (2 * 0.25**2)).astype(np.float32)


def trivial(samples: list[Sample], kind: str) -> dict:
    """Metrics of a map that learns nothing; ``size`` grades lesions by their true area."""
    evaluation = Evaluation(CLASSES, "normal")
    for s in samples:
        image = read_image(s.image)
        mask = read_mask(s.masks, shape=image.shape[:2]) if s.masks else None
        if kind == "lesion size":
            area = 0.0 if mask is None else float(mask.mean())
            probs = {"normal": 0.0, "benign": 1 - area, "malignant": area}
            evaluation.add(id=s.id, score=area, anomalous=None, probs=probs, label=s.label)
            continue
        found = darkness(image) if kind == "local darkness" else centre(image)
        flat = np.sort(found.ravel())
        score = float(flat[-max(1, len(flat) // 100) :].mean())
        evaluation.add(id=s.id, score=score, anomalous=None, map=found, mask=mask, label=s.label)
    return evaluation.result(bootstrap=1000)["metrics"]


def tower(kind: str, *, side: int = embedded_tower.SIDE, mirror: bool = False, decoder: Path | None = None) -> Backbone:
    """The embedded architecture: with random weights, with an ImageNet trunk, as shipped, or from a weights file.

    With ``mirror``, as :class:`Mirrored`; with ``decoder``, a weights file that also knows finer patches. A shipped
    name has its own decoder.

    Raises:
        FileNotFoundError: If ``kind`` names a weights file that is not there.
    """
    if kind.startswith("embedded") and not Path(kind).exists():
        return ultraad.load_backbone(f"{kind}:mirror" if mirror else kind, size=side)
    if kind not in ("random tower", "ImageNet trunk") and not Path(kind).is_file():
        raise FileNotFoundError(kind)
    ensure_torchvision()
    import open_clip

    torch.manual_seed(0)
    model = embedded_tower.load(kind, size=side) if Path(kind).is_file() else embedded_tower.build(size=side)
    if kind == "ImageNet trunk":
        from pretraining.tower import imagenet_trunk

        weights = imagenet_trunk()
        trunk = model.visual.conv1.trunk
        trunk.load_state_dict({name: weights[name] for name in trunk.state_dict()})
    made = (Mirrored if mirror else Detailed)(
        model,
        open_clip.tokenize,
        name=kind,
        preprocess=PreprocessConfig(size=side, mean=embedded_tower.MEAN, std=embedded_tower.STD),
    )
    return made if decoder is None else made.with_decoder(load_decoder(decoder))


class Together(Backbone):
    """A backbone whose image features are the mean over several input sides.

    The picture arrives at the first side; the others get it resized, and their patches are resized to its grid.
    """

    others: Sequence[Backbone] = ()

    def _run_tower(self, images: torch.Tensor, *, layers: Sequence[int], around: Around | None = None) -> Features:
        found = [super()._run_tower(images, layers=layers, around=around)]
        for other in self.others:
            resized = F.interpolate(images, (other.size, other.size), mode="bilinear", antialias=True)
            found.append(other._run_tower(resized, layers=layers))
        n = len(found)
        return Features(
            image=sum(f.image for f in found) / n,
            patches={layer: sum(self._on_grid(f.patches[layer], f.grid) for f in found) / n for layer in layers},
            cls={layer: sum(f.cls[layer] for f in found) / n for layer in layers},
            grid=self.grid,
        )

    def _on_grid(self, patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Patches (b n w) of another grid at the places of this one."""
        as_image = patches.reshape(len(patches), *grid, -1).permute(0, 3, 1, 2)
        return F.interpolate(as_image, self.grid, mode="bilinear", antialias=True).flatten(2).transpose(1, 2)


class TogetherMirrored(Together, Mirrored):
    """The same, with the mirror image at the first side; the others are :class:`Mirrored` themselves."""


def together(kind: str, *, sides: list[int], mirror: bool) -> Backbone:
    """A weights file at several sides at once."""
    first, *others = (tower(kind, side=side, mirror=mirror) for side in sides)
    made = (TogetherMirrored if mirror else Together)(
        first.model, first._tokenizer, name=first.name, preprocess=first.preprocess
    )
    made.others = others
    return made


def line(name: str, metrics: dict) -> str:
    """One printed row, in percent."""
    cells = []
    for key, label in SHOWN.items():
        m = metrics.get(key)
        if m and m["value"] is not None:
            between = f" [{100 * m['low']:.1f}, {100 * m['high']:.1f}]" if m["low"] is not None else ""
            cells.append(f"{label} {100 * m['value']:5.1f}{between}")
    return f"{name:26s} " + "  ".join(cells)


def sanity(uclm: Path, busi: Path) -> list[dict]:
    """Rows of docs/backbone.md."""
    samples = ultraad.scan(busi)
    rows = []
    for kind in ("centre prior", "local darkness", "lesion size"):
        metrics = trivial(samples, kind)
        keep = ("benign_malignant_auroc",) if kind == "lesion size" else ("pixel_auroc", "pixel_ap", "image_auroc")
        if kind == "centre prior":
            keep = keep[:2]  # the map is the same for every image, so there is no image score
        rows.append({"name": kind, "shots": 0, "metrics": {key: metrics[key] for key in keep}})
        print(line(kind, rows[-1]["metrics"]), flush=True)
    support = ultraad.draw_support(uclm, shots=16, seed=0)
    for kind in ("random tower", "ImageNet trunk", "embedded"):
        model = ultraad.adapt(support, backbone=tower(kind), seed=0, calibrate=False)
        metrics = ultraad.evaluate(model, busi, bootstrap=1000)["metrics"]
        rows.append({"name": kind, "shots": 16, "metrics": metrics})
        print(line(f"{kind}, 16 shots", metrics), flush=True)
    return rows


def unmarked(uclm: Path, *, name: str) -> list[dict]:
    """Image AUROC on unmarked images of patients outside the support."""
    samples = ultraad.scan(uclm)
    backbone = ultraad.load_backbone(name)
    rows = []
    for shots in (0, 4, 8, 16):
        evaluation = Evaluation(CLASSES, "normal")
        for k, held_out in enumerate(folds_of(samples, 3)):
            test = [s for s in samples if s.group in held_out and not s.tags & {"marks", "doppler", "combined"}]
            if shots:
                support = ultraad.draw_support(uclm, shots=shots, seed=k, split=None, exclude_groups=sorted(held_out))
                model = ultraad.adapt(support, backbone=backbone, seed=k, calibrate=False)
            else:
                model = ultraad.zero_shot(backbone=backbone)
            for result in model.predict_many(test):
                s, p = result.sample, result.prediction
                evaluation.add(
                    id=s.id,
                    score=p.score,
                    anomalous=None,
                    map=p.map,
                    mask=result.mask,
                    probs=p.probs,
                    label=s.label,
                    group=s.group,
                )
        found = evaluation.result(bootstrap=1000)
        rows.append({"name": "unmarked BUS-UCLM", "shots": shots, "n": found["n"], "metrics": found["metrics"]})
        print(line(f"{shots} shots, n={found['n']['images']}", found["metrics"]), flush=True)
    return rows


def towers(uclm: Path, busi: Path, *, weights: list[Path]) -> list[dict]:
    """Results of other training runs."""
    support = ultraad.draw_support(uclm, shots=16, seed=0)
    rows = []
    for path in weights:
        backbone = tower(str(path))
        zero_shot = ultraad.zero_shot(backbone=backbone)
        adapted = ultraad.adapt(support, backbone=backbone, seed=0, calibrate=False)
        for model, shots, data in ((zero_shot, 0, uclm), (zero_shot, 0, busi), (adapted, 16, busi)):
            metrics = ultraad.evaluate(model, data, bootstrap=1000)["metrics"]
            rows.append({"name": path.stem, "shots": shots, "data": data.name, "metrics": metrics})
            print(line(f"{path.stem}, {shots} shots, {data.name}", metrics), flush=True)
    return rows


def zero(
    *data: Path, weights: list[Path], sides: list[int], mirror: bool, average: bool, decoder: Path | None
) -> list[dict]:
    """Zero-shot results of training runs at each input side, or at all of them together."""
    rows = []
    for path in weights:
        if average:
            towers = {"+".join(map(str, sides)): together(str(path), sides=sides, mirror=mirror)}
        else:
            towers = {side: tower(str(path), side=side, mirror=mirror, decoder=decoder) for side in sides}
        for side, backbone in towers.items():
            model = ultraad.zero_shot(backbone=backbone, classes=CLASSES)
            for folder in data:
                samples = [s for s in ultraad.scan(folder) if folder.name != "BUS-BRA" or held_out(s)]
                metrics = ultraad.evaluate(model, samples, bootstrap=0)["metrics"]
                rows.append({"name": path.stem, "side": side, "data": folder.name, "metrics": metrics})
                print(line(f"{path.stem}, {side} px, {folder.name}", metrics), flush=True)
    return rows


def held_out(sample: Sample) -> bool:
    """Is this an image of BUS-BRA that pretraining leaves out?"""
    return SEEN not in sample.tags


def speed() -> list[dict]:
    """Milliseconds per image, best of five rounds, for one and for two threads."""
    rows = []
    image = torch.rand(1, 3, 224, 224)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for dtype in ("float32", "bfloat16"):
            backbone = ultraad.load_backbone("embedded", size=224, dtype=dtype)
            rounds = []
            with torch.inference_mode():
                for _ in range(6):
                    start = time.perf_counter()
                    for _ in range(20):
                        backbone.encode_image(image, layers=backbone.default_layers)
                    rounds.append((time.perf_counter() - start) / 20 * 1000)
            rows.append({"name": f"encode 224 px, {dtype}, {threads} threads", "ms": round(min(rounds), 2)})
            print(rows[-1], flush=True)
    torch.set_num_threads(1)
    shipped = {name: ultraad.load_backbone(name) for name in ("embedded", "embedded-large", "embedded+embedded-large")}
    best = dict.fromkeys(shipped, float("inf"))
    with torch.inference_mode():
        for _ in range(30):  # in turn, so that other work on the machine meets all alike
            for name, backbone in shipped.items():
                images = torch.rand(4, 3, backbone.size, backbone.size)
                start = time.perf_counter()
                backbone.finer(backbone.encode_image(images, layers=backbone.default_layers))
                best[name] = min(best[name], (time.perf_counter() - start) / 4 * 1000)
    for name, ms in best.items():
        rows.append({"name": f"{name}, 1 thread", "ms": round(ms, 2), "times": round(ms / best["embedded"], 2)})
        print(rows[-1], flush=True)
    cv2.setNumThreads(1)
    start = time.perf_counter()
    for i in range(200):
        simulate(10_000 + i, size=224)
    rows.append(
        {"name": "simulate 224 px, one core", "images_per_second": round(200 / (time.perf_counter() - start), 1)}
    )
    print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sanity", "unmarked", "towers", "zero", "speed"))
    parser.add_argument("data", type=Path, nargs="*")
    parser.add_argument("--weights", type=Path, nargs="*", help="for 'towers' and 'zero'; a file, or a name that ships")
    parser.add_argument("--backbone", default="embedded", help="for 'unmarked': a name")
    parser.add_argument("--sides", type=int, nargs="+", default=[embedded_tower.SIDE], help="for 'zero', in pixels")
    parser.add_argument("--mirror", action="store_true", help="for 'zero': each image and its mirror image")
    parser.add_argument("--together", action="store_true", help="for 'zero': features averaged over the sides")
    parser.add_argument("--decoder", type=Path, help="for 'zero': a file of pretraining.decoder")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    what = {"sanity": sanity, "unmarked": unmarked, "towers": towers, "zero": zero, "speed": speed}[args.what]
    if bool(args.weights) != (args.what in ("towers", "zero")):
        parser.error("'towers' and 'zero' need --weights, and nothing else takes them")
    options = {"weights": args.weights} if args.weights else {}
    if args.what == "unmarked":
        options = {"name": args.backbone}
    if args.what == "zero":
        options |= {"sides": args.sides, "mirror": args.mirror, "average": args.together, "decoder": args.decoder}
    rows = what(*args.data, **options)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
