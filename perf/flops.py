"""The cost of an image: floating-point operations and bytes, and the images per day that machines could process.

    python -m perf.flops

Operations are counted by ``torch.utils.flop_counter`` (a multiplication and an addition are two), with attention as
plain matrix products, because it cannot count fused kernels. Bytes are those of the weights, of the features kept per
image, and of everything that each operation reads and writes once ("traffic": what memory would have to move if no two
operations shared a cache). Files are simulated images of the size that a scanner exports.

Images per day are calculated from these counts and from MACHINES below; docs/performance.md names every assumption.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from perf.speed import PAGE, write
from perf.timing import arguments, machine
from torch._ops import OpOverload
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import ultraad
from ultraad.backbones._door import Backbone
from ultraad.data.loader import load_batch
from ultraad.data.preprocess import Preprocess
from ultraad.io import read_image
from ultraad.methods.ultraad import METHOD
from ultraad.nn.views import SupportViews
from ultraad.simulate import write_dataset
from ultraad.types import SupportSet

BACKBONES = {"embedded": "embedded", "ViT-L-14-336": "open_clip:ViT-L-14-336-quickgelu"}
EXPORT_SIDE = 512  # pixels of the files: a console's export, cut to the picture
DAY = 86_400


@dataclass(frozen=True)
class Machine:
    """The capacity of a machine: published numbers, and assumptions where marked.

    Attributes:
        name: Of the machine.
        peak: Operations per second in the number type named.
        dtype: Number type of the tower.
        bandwidth: Bytes per second between processor and memory.
        cores: Cores that read and decode files.
        disk: Bytes per second when reading files (assumed).
        share: Achieved share of the peak, by backbone (assumed); None: the share measured here on one core.
    """

    name: str
    peak: float
    dtype: Literal["float32", "bfloat16"]
    bandwidth: float
    cores: int
    disk: float
    share: dict[str, float] | None = None


NODE = Machine("one CPU node (EPYC 9554)", 64 * 3.1e9 * 32, "float32", bandwidth=460.8e9, cores=64, disk=3e9)
"""64 cores at 3.1 GHz, two 256-bit multiply-adds a cycle (32 operations), 12 channels of DDR5-4800, one NVMe drive."""
MACHINES = (
    Machine(
        "one GPU (H100 SXM)",
        989e12,
        "bfloat16",
        bandwidth=3.35e12,
        cores=16,
        disk=3e9,
        share={"embedded": 0.1, "ViT-L-14-336": 0.4},
    ),
    NODE,
    replace(
        NODE,
        name="a hundred such nodes",
        peak=100 * NODE.peak,
        bandwidth=100 * NODE.bandwidth,
        cores=100 * NODE.cores,
        disk=20e9,  # shared by all nodes
    ),
)
BATCH = 8  # images for which the weights are read once


class Traffic(TorchDispatchMode):
    """Bytes that operations read and write, each tensor once per operation; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
            self.bytes += sum(t.nbytes for t in tensors)
        return out


def operations(call: Callable[[], object]) -> int:
    """Floating-point operations of one call."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not know this fused operation
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            call()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())


def traffic(call: Callable[[], object]) -> int:
    """Bytes that one call reads and writes."""
    with torch.no_grad(), Traffic() as counter:
        call()
    return counter.bytes


def fastest(call: Callable[[], object], *, times: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of the fastest of several calls."""
    taken = []
    for _ in range(times):
        start = clock()
        call()
        taken.append(clock() - start)
    return min(taken)


def count(label: str, tower: Backbone, support: SupportSet) -> dict[str, Any]:
    """Counts of one backbone, per image."""
    image = torch.randn(1, 3, tower.size, tower.size)
    some = load_batch(
        support.samples, Preprocess(tower.preprocess), classes=support.classes, normal_class=support.normal_class
    )
    config = METHOD.Config(train={"epochs": 0, "views": 1})
    method = METHOD(tower, config, classes=support.classes, normal_class=support.normal_class)
    method.fit(some, seed=0)
    layers = method.layers
    options = {"layers": layers, "count": 1, "mask_size": tower.grid[0] * 4, "epochs": 1, "seed": 0}
    views = SupportViews(tower, some, normal_index=method.normal_index, **options)
    index = torch.arange(len(some))
    with torch.no_grad():
        features = tower.encode_image(image, layers=layers)
        encode = operations(lambda: tower.encode_image(image, layers=layers))
        head = operations(lambda: method.score_features(features))
        seconds = fastest(lambda: tower.encode_image(image, layers=layers), times=3, clock=time.process_time)
    step = operations(lambda: method._loss(views, index, 0).backward())
    visual = tower._visual
    t = METHOD.Config().train
    adapt = 16 * len(support.classes) * (t.views * encode + t.epochs * step / len(some))
    return {
        "backbone": label,
        "side": tower.size,
        "encode": encode,
        "score": head,
        "train_step": step // len(some),
        "adapt_16": int(adapt),
        "weights_bytes": sum(p.nbytes for p in visual.parameters()),
        "features_bytes": sum(x.nbytes for x in (*features.patches.values(), *features.cls.values(), features.image)),
        "traffic_bytes": traffic(lambda: tower.encode_image(image, layers=layers)),
        "learned_bytes": sum(p.nbytes for p in method.parameters() if p.requires_grad),
        "seconds_here": round(seconds, 4),
        "per_second_here": encode / seconds,
    }


def files(folder: Path) -> dict[str, float]:
    """Size of a file, and how long one core reads, decodes and prepares it."""
    write_dataset(folder, n=24, size=EXPORT_SIDE, seed=1)
    paths = sorted(p for p in folder.rglob("*.png") if not p.stem.endswith("_mask"))
    prepare = Preprocess(ultraad.load_backbone("tiny", size=336).preprocess)
    taken = fastest(lambda: [prepare.image(read_image(p)) for p in paths], times=3, clock=time.process_time) / len(
        paths
    )
    return {
        "side": EXPORT_SIDE,
        "bytes": sum(p.stat().st_size for p in paths) / len(paths),
        "decode_seconds": taken,
    }


def days(counts: list[dict[str, Any]], file: dict[str, float], *, here: dict[str, float]) -> list[dict[str, Any]]:
    """Images per day: the limits by computing, memory, decoding and disk, and the limit by all of them.

    They overlap, so the slowest one decides. On a CPU the same cores compute and decode, so these two times add up.
    """
    rows = []
    for m in MACHINES:
        for c in counts:
            share = (m.share or here)[c["backbone"]]
            moved = c["traffic_bytes"] - c["weights_bytes"] * (1 - 1 / BATCH)
            second = {
                "computing": m.peak * share / (c["encode"] + c["score"]),
                "memory": m.bandwidth / (moved if m.dtype == "float32" else moved / 2),
                "decoding": m.cores / file["decode_seconds"],
                "disk": m.disk / file["bytes"],
            }
            least = min(second, key=lambda name: second[name])
            images = second[least]
            if m.share is None:
                images = min(images, 1 / (1 / second["computing"] + 1 / second["decoding"]))
            rows.append(
                {
                    "machine": m.name,
                    "backbone": c["backbone"],
                    "share": round(share, 3),
                    "per_day": {name: DAY * value for name, value in second.items()},
                    "least": least,
                    "images": DAY * images,
                    "bytes_per_second": images * file["bytes"],
                    "adapt_16_seconds": c["adapt_16"] / (m.peak * share),
                }
            )
    return rows


def markdown(found: dict[str, Any]) -> str:
    """Both tables of docs/performance.md."""
    file = found["files"]
    lines = [
        "| per image | " + " | ".join(c["backbone"] for c in found["counts"]) + " |",
        "| --- |" + " --- |" * len(found["counts"]),
    ]
    for name, key, unit, scale in (
        ("image tower", "encode", "GFLOP", 1e9),
        ("score and map from its features", "score", "GFLOP", 1e9),
        ("training, each time it is drawn", "train_step", "GFLOP", 1e9),
        ("a whole 16-shot adaptation without folds", "adapt_16", "TFLOP", 1e12),
        ("weights of the tower, float32", "weights_bytes", "MB", 1e6),
        ("features that are kept", "features_bytes", "MB", 1e6),
        ("read and written by all operations, batch 1", "traffic_bytes", "MB", 1e6),
        ("what is learned and stored", "learned_bytes", "MB", 1e6),
    ):
        cells = " | ".join(f"{digits(c[key] / scale, 3)} {unit}" for c in found["counts"])
        lines.append(f"| {name} | {cells} |")
    lines += [
        "",
        f"A {file['side']} x {file['side']} PNG file has {file['bytes'] / 1e3:.0f} kB and takes one core "
        f"{1000 * file['decode_seconds']:.1f} ms to read, decode and resize.",
        "",
        "| machine | backbone | share of peak | computing | memory | decoding | disk | together | slowest |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["days"]:
        limits = " | ".join(f"{digits(value / 1e6, 2)} M" for value in row["per_day"].values())
        lines.append(
            f"| {row['machine']} | {row['backbone']} | {100 * row['share']:.0f} % | {limits} "
            f"| **{digits(row['images'] / 1e6, 2)} M** | {row['least']} |"
        )
    return "\n".join(lines)


def digits(value: float, count: int) -> str:
    """A number rounded to ``count`` significant digits, without an exponent."""
    return f"{float(f'{value:.{count}g}'):,.6g}"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--cycles", type=float, default=None, help="clock of a core in GHz; default: from /proc/cpuinfo"
    )
    parser.add_argument("--write", action="store_true", help="write the tables into docs/performance.md")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the share of one core's peak
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "support", n=24, size=256, shares=(1, 1, 1))
        support = ultraad.draw_support(folder / "support", shots=1, seed=0)
        counts = [count(label, ultraad.load_backbone(name), support) for label, name in BACKBONES.items()]
        file = files(folder / "files")
    peak = 1e9 * (args.cycles or clock()) * 32
    shares = {c["backbone"]: c["per_second_here"] / peak for c in counts}
    found = {
        "machine": machine(),
        "core_peak": peak,
        "counts": counts,
        "files": file,
        "machines": [asdict(m) for m in MACHINES],
        "days": days(counts, file, here=shares),
    }
    print(json.dumps(found, indent=1))
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(found, indent=1) + "\n")
    if args.write:
        write(PAGE, "counts", markdown(found))


def clock() -> float:
    """Clock of the first core of this machine in GHz, from /proc/cpuinfo.

    Raises:
        SystemExit: If it is not there.
    """
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    mhz = [float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")]
    if not mhz or math.isnan(mhz[0]):
        msg = "/proc/cpuinfo has no clock rate; give it with --cycles"
        raise SystemExit(msg)
    return mhz[0] / 1000


if __name__ == "__main__":
    main()
