"""Memory of a process that adapts and predicts again and again, as a server does: it should stay flat.

    python -m perf.cycles --cycles 200

Prints the resident set after the first cycle and after every tenth part of the rest. Needs /proc (Linux).
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

import torch

import ultraad
from ultraad.simulate import write_dataset


def resident() -> float:
    """Resident set of this process in MB."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--backbone", default="tiny")
    parser.add_argument("--method", default="ultraad")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("ultraad").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(folder, n=24, size=64)
        support, image = ultraad.draw_support(folder, shots=2), ultraad.scan(folder)[0]
        for cycle in range(1, args.cycles + 1):
            ultraad.adapt(support, method=args.method, backbone=args.backbone, calibrate=False).predict(image)
            if cycle == 1 or cycle % max(1, args.cycles // 10) == 0:
                print(f"{cycle:5d} cycles  {resident():7.1f} MB", flush=True)


if __name__ == "__main__":
    main()
