"""An exported model against PyTorch: the same adapted UltraAD on ``embedded``, the same pictures, the same threads.

    python -m perf.exported -o perf/results/exported.json

float32 in ONNX Runtime and OpenVINO, and int8 where it exists and is accurate enough. Needs 'ultraad[export,openvino]'.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from perf.timing import Row, arguments, compared, finish, in_turns

import ultraad
from ultraad.errors import ExportError, MissingExtraError
from ultraad.export.write import export
from ultraad.model.model import Model
from ultraad.simulate import simulate, write_dataset

FORMS = (("onnx", False), ("onnx", True), ("openvino", False))
BATCHES = (1, 8)


def adapted(folder: Path) -> Model:
    """UltraAD with its defaults, adapted from 8 simulated images of each class."""
    write_dataset(folder, n=60, seed=0, size=224)
    return ultraad.adapt(ultraad.draw_support(folder, shots=8), calibrate=False)


def rows(model: Model, folder: Path) -> list[Row]:
    """One row for each form of the model and each batch size."""
    pictures = np.stack([model.preprocess.picture(simulate(seed).image)[0] for seed in range(max(BATCHES))])
    images = torch.stack([model.preprocess.image(simulate(seed).image)[0] for seed in range(max(BATCHES))])
    found = []
    for runtime, int8 in FORMS:
        name = f"{runtime} {'int8' if int8 else 'float32'}"
        try:
            made = export(model, folder / name, runtime=runtime, int8=int8)
        except (ExportError, MissingExtraError) as e:
            print(f"no row for {name}: {e}")
            continue
        for batch in BATCHES:
            with torch.inference_mode():
                seconds = in_turns(
                    lambda batch=batch, made=made: made.run(pictures[:batch]),
                    lambda batch=batch: model.method.score(images[:batch]),
                    turns=15,
                )
            parity = {key: float(f"{value:.2g}") for key, value in made.config.exported.parity.items()}
            found.append(
                compared(
                    f"exported UltraAD, {name}, batch {batch}",
                    "PyTorch, the same model",
                    seconds,
                    kind="speedup",
                    parity=parity,
                )
            )
    return found


def main() -> None:
    args = arguments(__doc__).parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        finish(rows(adapted(Path(folder) / "data"), Path(folder)), args.output)


if __name__ == "__main__":
    main()
