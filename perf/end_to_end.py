"""``ultraad predict`` on PNG files, from the file to the report, against the bare image tower on the same images.

    python -m perf.end_to_end                    # 200 files of 500 x 600 pixels
    python -m perf.end_to_end --number 1000 --paper

Ours is ``ultraad.runs.predict`` in this process, with an adapted model in memory: find the files, read, preprocess,
encode, map to the original pixels, overlay, 16-bit map, rows, table, report. The peer is only open_clip's
``encode_image``: images preprocessed beforehand, in memory, with the same batch size and threads. One more row runs the
command in its own process, so that starting Python and loading the model count too.

    python -m perf.end_to_end --rates            # only images a second of zero-shot, by what is saved

These rows have processor time (user and system) of an image beside the rate, since that is what a busy machine leaves
of a measurement. The graph is the one that ships, in ONNX Runtime (``--runtime onnx``) and, where the processor and the
installation have it, in OpenVINO (``--runtime openvino --dtype bfloat16``).
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch
from perf.timing import Row, arguments, compared, finish, in_turns
from PIL import Image

import ultraad
from ultraad.errors import ConfigError, MissingExtraError
from ultraad.io import read_image
from ultraad.model import exported
from ultraad.model.model import Model
from ultraad.model.predictor import Predictor
from ultraad.runs.predict import predict
from ultraad.simulate import simulate, write_dataset

HEIGHT, WIDTH = 500, 600  # the usual size in BUSI
DISTINCT = 24  # different pictures; the other files are links to them
MIDDLE, PAPER = "open_clip:ViT-B-16", "open_clip:ViT-L-14-336-quickgelu"  # random weights
SAVED = (
    {"overlays": "all", "maps": "full"},
    {"overlays": "all", "maps": "none"},
    {"overlays": "abnormal", "maps": "grid"},
    {"overlays": "none", "maps": "grid"},
    {"overlays": "none", "maps": "none"},
)
PEER = "bare open_clip encode_image, same images, batches and threads"


def write_files(folder: Path, number: int) -> None:
    """PNG files with the compression that most programs use."""
    folder.mkdir()
    for i in range(min(number, DISTINCT)):
        Image.fromarray(simulate(i, size=WIDTH).image[:HEIGHT]).save(folder / f"{i:05d}.png")
    for i in range(DISTINCT, number):
        os.link(folder / f"{i % DISTINCT:05d}.png", folder / f"{i:05d}.png")


def adapted(folder: Path, backbone: str, size: int | None) -> Model:
    """A model whose learned parts all take part in a prediction; what they learned does not matter here."""
    write_dataset(folder, n=24, size=128)
    support = ultraad.draw_support(folder, shots=4, seed=0)
    options = {"train.epochs": 1, "train.views": 1}
    return ultraad.adapt(support, backbone=backbone, size=size, options=options, calibrate=False)


def compare(model: Model, files: list[Path], folder: Path, *, batch_size: int, turns: int) -> list[Row]:
    """One row for the run in this process, one for the command."""
    tower = model.backbone.model
    images = torch.stack([model.preprocess.image(read_image(path))[0] for path in files[:DISTINCT]])
    batches = torch.arange(len(files)).remainder(len(images)).split(batch_size)

    def ours() -> None:
        predict(model, [files[0].parent], folder / "results", resume=False, batch_size=batch_size)

    @torch.no_grad()
    def peer() -> None:
        for batch in batches:
            tower.encode_image(images[batch])

    seconds = in_turns(ours, peer, turns=turns)
    name = f"{model.backbone.name} at {model.backbone.size} pixels"
    row = compared(
        f"predict {len(files)} PNG files of {WIDTH} x {HEIGHT}, {name}, batch {batch_size}",
        PEER,
        seconds,
        kind="overhead",
        must=1.5,
        aim=1.2,
        ours_images_per_second=round(len(files) / min(a for a, _ in seconds), 1),
        peer_images_per_second=round(len(files) / min(b for _, b in seconds), 1),
    )
    model.save(folder / "model")
    command = [sys.executable, "-m", "ultraad.cli", "predict", folder / "model", files[0].parent]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    start = time.perf_counter()
    subprocess.run(
        [*map(str, command), "--output", str(folder / "command"), "--batch-size", str(batch_size)],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **threads},
    )
    whole = time.perf_counter() - start
    fastest = min(b for _, b in seconds)
    detail = {"ours_s": round(whole, 2), "peer_s": round(fastest, 2)}
    return [
        row,
        Row(f"the same as a command: start, model, files ({name})", PEER, "report", whole / fastest, detail=detail),
    ]


def rates(files: list[Path], folder: Path, *, batch_size: int, turns: int) -> list[Row]:
    """Images a second of zero-shot by each runtime, for each of :data:`SAVED`."""
    rows, threads = [], torch.get_num_threads()
    models: dict[str, Predictor] = {
        "PyTorch": ultraad.zero_shot(),
        "ONNX Runtime": exported.zero_shot(threads=threads),
    }
    with suppress(ConfigError, MissingExtraError):  # not every machine has it
        models["OpenVINO in bfloat16"] = exported.zero_shot(threads=threads, runtime="openvino", dtype="bfloat16")
    for runtime, model in models.items():
        for saved in SAVED:
            wall, processor = list[float](), list[float]()
            for turn in range(turns + 1):
                shutil.rmtree(folder / "results", ignore_errors=True)
                before, started = os.times(), time.perf_counter()
                paths = [files[0].parent]
                predict(model, paths, folder / "results", resume=False, batch_size=batch_size, **saved)
                after = os.times()
                if turn:  # the first warms up
                    wall.append(len(files) / (time.perf_counter() - started))
                    processor.append(1000 * (after.user + after.system - before.user - before.system) / len(files))
            words = ", ".join(f"{name} {value}" for name, value in saved.items())
            detail = {"cpu_ms": round(statistics.median(processor), 1), "cpu_ms_least": round(min(processor), 1)}
            what = f"predict {len(files)} PNG files of {WIDTH} x {HEIGHT}, zero-shot, {runtime}, {words}"
            found = statistics.median(wall)
            rows.append(Row(what, "images a second", "rate", found, min(wall), max(wall), detail=detail))
            finish(rows[-1:], None)
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--number", type=int, default=200, help="files")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--paper", action="store_true", help=f"16 of the files with {PAPER}, too")
    parser.add_argument("--rates", action="store_true", help="only images a second, by what is saved")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.rates:
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder) / "files", args.number)
            files = sorted((Path(folder) / "files").iterdir())
            found = rates(files, Path(folder), batch_size=args.batch_size, turns=args.turns)
        if args.output is not None:
            finish(found, args.output)
        return
    settings = [
        ("embedded", None, args.number),
        ("embedded", 224, args.number),
        (MIDDLE, None, min(args.number, 48)),
    ]
    if args.paper:
        settings.append((PAPER, None, 16))
    rows = []
    for backbone, size, number in settings:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_files(root / "files", number)
            model = adapted(root / "support", backbone, size)
            files = sorted((root / "files").iterdir())
            rows += compare(model, files, root, batch_size=args.batch_size, turns=args.turns)
    finish(rows, args.output)


if __name__ == "__main__":
    main()
