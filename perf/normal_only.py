"""What can be learned from normal images alone, and what four marked lesions are worth: one table.

    python -m perf.normal_only DATA/BUS-UCLM DATA/Dataset_BUSI_with_GT -o perf/results/normal_only.jsonl
    python -m perf.normal_only ... --methods sagan ccd --shots 16 --draws 1        # a piece of it
    python -m perf.normal_only --table perf/results/normal_only.jsonl              # print what there is

Every method that normal images are enough for learns from k of the first data set's training patients, and UltraAD
from the same k with two benign and two malignant lesions. Tested on the test patients of the first data set and on all
of the second, at the defaults. No threshold is fitted. A cell is a method, a k and a draw; it runs in its own process,
so that its peak memory is its own, and its row is appended when it is done. Cells that are in the file are skipped, so
a run can be stopped and started again. With all normal images, draws differ by the seed of the training alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

import ultraad
from ultraad import methods
from ultraad.data.support import content_hash, digest
from ultraad.io.files import append_line, json_lines
from ultraad.methods._needs import Holding
from ultraad.types import Sample, SupportSet

METRICS = {"image_auroc": "I", "pixel_auroc": "P", "pixel_ap": "AP", "aupro": "AUPRO"}
WITH_LESIONS = "ultraad+4"
ALL = "all"
SHOTS = ("4", "16", "64", ALL)


def normal_methods() -> list[str]:
    """Methods that normal images are enough for."""
    held = Holding({"normal": 2, "lesion": 0}, "normal")
    found = [methods.get(name) for name in methods.available()]
    return [m.info.name for m in found if not m.missing(held, m.Config(), auxiliary=False)]


def normals(root: Path) -> list[Sample]:
    """Normal images of the training patients."""
    return [s for s in ultraad.scan(root) if s.label == "normal" and s.split != "test"]


def support_of(root: Path, shots: str, draw: int, *, lesions: bool) -> SupportSet:
    """The normal images of one cell, and four lesions if asked for."""
    count = len(normals(root)) if shots == ALL else int(shots)
    drawn = ultraad.draw_support(root, shots=count, seed=draw, classes=["normal"])
    if not lesions:
        return drawn
    marked = ultraad.draw_support(root, shots=2, seed=draw)
    samples = (*drawn.samples, *(s for s in marked.samples if s.label != "normal"))
    code = digest((s.id for s in samples), map(content_hash, samples))
    return replace(marked, samples=samples, shots=count, digest=code)


def cell(first: Path, second: Path, method: str, shots: str, draw: int) -> dict[str, Any]:
    """One row."""
    torch.set_num_threads(1)
    lesions = method == WITH_LESIONS
    name = "ultraad" if lesions else method
    support = support_of(first, shots, draw, lesions=lesions)
    backbone = ultraad.load_backbone("embedded")
    before = time.process_time()
    model = ultraad.adapt(support, method=name, backbone=backbone, seed=draw, calibrate=False)
    cpu = time.process_time() - before  # reading the images included; other jobs on the machine are not
    row: dict[str, Any] = {"method": method, "shots": shots, "draw": draw, "images": len(support.samples)}
    row |= {"weights": backbone.weights, "cpu_seconds": round(cpu, 1), "seconds": model.origin.seconds}
    row |= {"values": sum(model.origin.learned.values())}
    row["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    for root, split in ((first, "test"), (second, None)):
        found = ultraad.evaluate(model, root, split=split, bootstrap=0)
        row[root.name] = {key: found["metrics"][key]["value"] for key in METRICS}
    return row


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Mean and standard deviation over the draws, in %, as a Markdown table."""
    sets = [key for key, value in rows[0].items() if isinstance(value, dict)]
    heads = [f"{name} {short}" for name in sets for short in METRICS.values()]
    yield f"| normal images | method | {' | '.join(heads)} | adapt, s of a core | peak, MB | draws |"
    yield "| ---: | --- |" + " ---: |" * (len(heads) + 3)
    for shots in SHOTS:
        for method in sorted({r["method"] for r in rows}):
            cells = [r for r in rows if (r["method"], r["shots"]) == (method, shots)]
            if cells:
                values = [_spread([r[name][key] for r in cells]) for name in sets for key in METRICS]
                seconds, peak = mean(r["cpu_seconds"] for r in cells), max(r["peak_mb"] for r in cells)
                count = f"{shots} ({cells[0]['images']})" if shots == ALL else shots
                parts = [count, f"`{method}`", *values, f"{seconds:.0f}", f"{peak}", f"{len(cells)}"]
                yield f"| {' | '.join(parts)} |"


def _spread(values: list[float | None]) -> str:
    known = [100 * v for v in values if v is not None]
    if not known:
        return "-"
    return f"{mean(known):.1f} ± {stdev(known):.1f}" if len(known) > 1 else f"{known[0]:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="*", help="the set to learn from, and another one to test on")
    parser.add_argument("-o", "--output", type=Path, help="JSON lines; rows that are there are not measured again")
    parser.add_argument("--methods", nargs="+", default=[*normal_methods(), WITH_LESIONS])
    parser.add_argument("--shots", nargs="+", default=list(SHOTS), help=f"normal images; {ALL}: all of them")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--table", type=Path, help="print the table of this file and stop")
    parser.add_argument("--cell", nargs=3, metavar=("METHOD", "SHOTS", "DRAW"), help="measure one cell and print it")
    given = parser.parse_args()
    if given.table:
        print("\n".join(table([row for _, row in json_lines(given.table)])))
        return
    if len(given.data) != 2 or not (given.output or given.cell):
        parser.error("wanted two data sets, and -o FILE or --cell")
    if given.cell:
        method, shots, draw = given.cell
        print(json.dumps(cell(*given.data, method, shots, int(draw))))
        return
    known = [row for _, row in json_lines(given.output)]
    weights = ultraad.load_backbone("embedded").weights
    if any(r.get("weights") != weights for r in known):
        parser.error(f"{given.output} has rows of other weights of the backbone; give another file")
    done = {(r["method"], r["shots"], r["draw"]) for r in known}
    wanted = [(m, k, d) for d in range(given.draws) for k in given.shots for m in given.methods]
    for number, key in enumerate(wanted, start=1):
        if key in done:
            continue
        words = [sys.executable, "-m", "perf.normal_only", *map(str, given.data), "--cell", *map(str, key)]
        found = subprocess.run(words, check=False, capture_output=True, text=True)
        if found.returncode:
            print(f"{number}/{len(wanted)} {key} failed: {found.stderr.strip().splitlines()[-1]}", flush=True)
            continue
        append_line(given.output, found.stdout.strip().splitlines()[-1])
        print(f"{number}/{len(wanted)} {found.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()
