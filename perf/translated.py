"""Whether adapting on translated images moves UltraAD on another scanner, and whether their certainty helps.

    python -m perf.translated DATA/BUS-UCLM DATA/BUS-BRA DATA/Dataset_BUSI_with_GT --work FOLDER \
        -o perf/results/translated.jsonl
    python -m perf.translated --table perf/results/translated.jsonl

BUS-UCLM is translated into the look of BUS-BRA by every way of ``ultraad translate``: the images that a draw may take,
which also train the network (80 % of their patients). The look is that of the cases of
BUS-BRA that pretraining saw; the others, every fifth case, are tested on, beside the same pictures with the lesion
painted out (:mod:`perf.shots`). BUSI is only reported: no picture of it was looked at.

The supports of one draw are the same images in every look. UltraAD's loss takes no weights, so certainty chooses: twice
as many images are drawn, and of each class the more, or the less, certain half is taken; as a control the same
choice is made among untranslated images. ``with originals`` is a support of both versions of each image.

Everything goes on after an interruption: the translations, and each line of the output.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from perf.backbone import CLASSES, held_out
from perf.shots import Set, measured, painted

import ultraad
from ultraad.data.loader import load_batch
from ultraad.data.preprocess import Preprocess
from ultraad.io.files import append_line, json_lines, write_text
from ultraad.methods.ultraad import UltraAD
from ultraad.translate import WAYS, translate
from ultraad.types import Sample

ORIGINAL = "original"
SUPPORTS = (
    ORIGINAL,
    *WAYS,
    "cycle, more certain half",
    "cycle, less certain half",
    "original, the same choice as more certain",
    "histogram, with originals",
    "cycle, with originals",
)
METRICS = ("P", "I", "C", "BM")


def look(bus_bra: Path, folder: Path) -> Path:
    """A folder with links to the pictures of BUS-BRA whose look is taken over."""
    for sample in ultraad.scan(bus_bra):
        if not held_out(sample):
            link = folder / str(sample.label) / sample.image.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(sample.image.resolve())
    return folder


def pool(uclm: Path, folder: Path, *, shots: int, draws: int) -> Path:
    """A folder with links to the images that a draw may take, with their masks: all that need to be translated."""
    drawn = [ultraad.draw_support(uclm, shots=2 * shots, seed=draw, split=None).samples for draw in range(draws)]
    samples = {s.id: s for some in drawn for s in some}.values()
    for sample in samples:
        for path in (sample.image, *(m for m in sample.masks if isinstance(m, Path))):
            link = folder / path.relative_to(uclm)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(path)
    head, *lines = (uclm / "INFO.csv").read_text(encoding="utf-8-sig").splitlines()
    names = {s.image.name for s in samples}
    kept = [line for line in lines if line.split(";")[0] in names]
    write_text(folder / "INFO.csv", "\n".join([head, *kept]) + "\n")
    return folder


def translations(uclm: Path, bus_bra: Path, work: Path) -> dict[str, dict[str, Sample]]:
    """{way: {id: translated sample}}."""
    target = look(bus_bra, work / "look")
    found = {ORIGINAL: {s.id: s for s in ultraad.scan(uclm)}}
    for way in reversed(WAYS):  # the one that is trained first
        before = time.process_time()
        done = translate(uclm, target, work / way, way=way, announce=print, progress=_told())
        found[way] = {s.id: s for s in ultraad.scan(work / way)}
        print(f"{way}: {done.pictures} pictures, {time.process_time() - before:.0f} s of a core", flush=True)
    return found


def _told() -> Callable[[str, int, int | None], None]:
    """Progress as a line at every tenth."""
    last: dict[str, int] = {}

    def tell(what: str, done: int, total: int | None) -> None:
        tenth = 10 * done // (total or 1)
        if last.get(what) != tenth:
            last[what] = tenth
            print(f"{time.strftime('%H:%M:%S')} {what} {done}/{total}", flush=True)

    return tell


def certainty(work: Path, uclm: Path) -> dict[str, float]:
    """{sample id: certainty} from the table of the trained way."""
    with (work / "cycle-cycle" / "certainty.csv").open() as table:
        by_picture = {row["image"]: float(row["certainty"]) for row in csv.DictReader(table)}
    return {s.id: by_picture[s.image.relative_to(uclm).as_posix()] for s in ultraad.scan(uclm)}


def support(
    kind: str, uclm: Path, sets: dict[str, dict[str, Sample]], sure: dict[str, float], *, shots: int, draw: int
) -> list[Sample]:
    """The samples of one support."""
    way, _, choice = kind.partition(", ")

    def drawn(way: str, count: int) -> list[Sample]:
        order = ultraad.draw_support(uclm, shots=count, seed=draw, split=None).samples
        return [sets[way][s.id] for s in order]

    if not choice:
        return drawn(way, shots)
    if choice == "with originals":
        both = [replace(s, id=f"{w}/{s.id}") for w in (ORIGINAL, way) for s in drawn(w, shots)]
        return sorted(both, key=lambda s: CLASSES.index(str(s.label)))
    twice = drawn(way, 2 * shots)
    sign = 1 if "less" in choice else -1
    ranked = sorted(twice, key=lambda s: (CLASSES.index(str(s.label)), sign * sure[s.id]))
    return [s for i, s in enumerate(ranked) if i % (2 * shots) < shots]


def measure(args: argparse.Namespace) -> None:
    """Write a line for every support that has none."""
    torch.set_num_threads(1)
    args.uclm, args.work = args.uclm.resolve(), args.work.resolve()
    some = pool(args.uclm, args.work / "pool", shots=max(args.shots), draws=args.draws)
    sets = translations(some, args.bus_bra, args.work)
    sure = certainty(args.work, some)
    backbone = ultraad.load_backbone("embedded")
    known = [r for _, r in json_lines(args.output)]
    if any(r.get("weights") != backbone.weights for r in known):
        msg = f"{args.output} has rows of other weights of the backbone; give another file"
        raise SystemExit(msg)
    lesions = [s for s in ultraad.scan(args.bus_bra) if held_out(s)]
    tests = {
        "BUS-BRA": Set.load([*lesions, *painted(lesions, args.work / "painted")], backbone),
        "BUSI": Set.load(ultraad.scan(args.busi), backbone),
    }
    done = {(r["support"], r["shots"], r["draw"]) for r in known}
    for draw in range(args.draws):
        for shots in args.shots:
            for kind in (k for k in SUPPORTS if (k, shots, draw) not in done):
                samples = support(kind, args.uclm, sets, sure, shots=shots, draw=draw)
                batch = load_batch(samples, Preprocess(backbone.preprocess), classes=CLASSES, normal_class="normal")
                method = UltraAD(backbone, None, classes=CLASSES, normal_class="normal")
                before = time.process_time()
                method.fit(batch, seed=draw)
                row: dict[str, Any] = {"support": kind, "shots": shots, "draw": draw, "images": len(samples)}
                row["weights"] = backbone.weights
                row["fit_cpu_seconds"] = round(time.process_time() - before, 1)
                for name, test in tests.items():
                    found = measured(method, test, np.arange(len(test.samples)))
                    row[name] = {key: None if value is None else round(value, 2) for key, value in found.items()}
                append_line(args.output, json.dumps(row))
                print(json.dumps(row), flush=True)
                backbone.cache.clear()


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The originals in %, and of all others the mean change with its standard deviation over draws, as Markdown."""
    heads = [f"{name} {metric}" for name in ("BUS-BRA", "BUSI") for metric in METRICS]
    yield f"| shots | support | {' | '.join(heads)} |"
    yield "| ---: | --- |" + " ---: |" * len(heads)
    for shots in sorted({r["shots"] for r in rows}):
        base = {r["draw"]: r for r in rows if (r["support"], r["shots"]) == (ORIGINAL, shots)}
        for kind in SUPPORTS:
            cells = []
            here = [r for r in rows if (r["support"], r["shots"]) == (kind, shots)]
            for name in ("BUS-BRA", "BUSI"):
                for metric in METRICS:
                    own = [
                        r[name][metric] - (0 if kind == ORIGINAL else base[r["draw"]][name][metric])
                        for r in here
                        if kind == ORIGINAL or r["draw"] in base
                    ]
                    sign = "" if kind == ORIGINAL else "+"
                    spread = f" ± {stdev(own):.2f}" if len(own) > 1 else ""
                    cells.append(f"{mean(own):{sign}.2f}{spread}" if own else "-")
            yield f"| {shots} | {kind} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("uclm", type=Path, nargs="?")
    parser.add_argument("bus_bra", type=Path, nargs="?")
    parser.add_argument("busi", type=Path, nargs="?")
    parser.add_argument("--work", type=Path, help="folder for translated data sets, kept to go on")
    parser.add_argument("-o", "--output", type=Path, help="JSON lines; those that are there are not measured again")
    parser.add_argument("--shots", type=int, nargs="+", default=(4, 16))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--table", type=Path, help="print what a file holds")
    args = parser.parse_args()
    logging.getLogger("ultraad").setLevel(logging.ERROR)
    if args.table is None:
        if None in (args.uclm, args.bus_bra, args.busi, args.work, args.output):
            parser.error("give three data sets, --work and -o; or --table FILE")
        measure(args)
    print("\n".join(table([r for _, r in json_lines(args.table or args.output)])))


if __name__ == "__main__":
    main()
