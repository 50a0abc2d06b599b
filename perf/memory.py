"""Peak memory of ``predict`` on 10, 1000 and 10000 images: it should not depend on their number.

    python -m perf.memory                # takes minutes: it decodes and writes 11010 small images
    python -m perf.memory --limit 1000

Each number of images runs in its own process; the operating system reports its largest resident set at the end. Images
are small and the backbone is ``tiny``, so that memory kept per image is visible.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from perf.timing import Row, arguments, finish

from ultraad.io.files import write_image
from ultraad.simulate import simulate

NUMBERS = (10, 1000, 10_000)
DISTINCT = 10
CHILD = """
import json, resource, sys
import torch
import ultraad
from ultraad.runs.predict import predict
torch.set_num_threads(int(sys.argv[3]))
done = predict(ultraad.zero_shot(backbone="tiny"), [sys.argv[1]], sys.argv[2])
unit = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(json.dumps({"images": done.predicted, "peak": peak, "seconds": done.seconds}))
"""


def peak(folder: Path, number: int, *, threads: int) -> dict[str, float]:
    """Images, peak memory in bytes and seconds of a process that predicts this many images."""
    files = folder / f"{number}"
    files.mkdir()
    for i in range(min(number, DISTINCT)):
        write_image(files / f"{i:05d}.png", simulate(i, size=128).image)
    for i in range(DISTINCT, number):
        os.link(files / f"{i % DISTINCT:05d}.png", files / f"{i:05d}.png")
    command = [sys.executable, "-c", CHILD, str(files), str(folder / f"results-{number}"), str(threads)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if found["images"] != number:
        msg = f"{found['images']} of {number} images were predicted"
        raise RuntimeError(msg)
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--limit", type=int, default=NUMBERS[-1], help="most images")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {n: peak(Path(folder), n, threads=args.threads or 1) for n in NUMBERS if n <= args.limit}
    least = found[NUMBERS[0]]["peak"]
    rows = [
        Row(
            f"peak memory of predict, {number} images",
            f"{NUMBERS[0]} images",
            "overhead",
            run["peak"] / least,
            must=1.1,
            detail={
                "MiB": round(run["peak"] / 2**20),
                "bytes_per_image": round((run["peak"] - least) / (number - NUMBERS[0])),
                "seconds": round(run["seconds"], 1),
            },
        )
        for number, run in found.items()
        if number > NUMBERS[0]
    ]
    finish(rows, args.output)


if __name__ == "__main__":
    main()
