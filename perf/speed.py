"""Every speed comparison, each in its own process, and one table of all results.

    python -m perf.speed                              # what 'make speed' runs
    python -m perf.speed --only predict,adapt         # some parts; other rows of the table are from earlier runs
    python -m perf.speed --full --write               # longer runs; the table goes into docs/performance.md
    python -m perf.speed --data BUS-UCLM BUSI         # real data, for the accuracy that bfloat16 costs
    python -m perf.speed --peer PYTHON                # an interpreter with anomalib, for WinCLIP

Rows are kept in perf/results/speed, one file for each part. A part that fails is named at the end and keeps its earlier
rows. A part whose peer is not installed says what to install and has no rows.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf.timing import Row
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "perf" / "results" / "speed"
PAGE = ROOT / "docs" / "performance.md"
COLUMNS = ("what", "against, in the same run", "ratio", "must", "aim", "met")
SIGNS = {"overhead": "<= {:g}x", "speedup": ">= {:g}x", "rate": ">= {:g}/s", "report": ">= {:g}"}
UNITS = {"overhead": "x", "speedup": "x faster", "rate": "/s", "report": ""}


@dataclass(frozen=True)
class Part:
    """A module of this folder.

    Attributes:
        name: Of the module.
        quick: Its options in the usual run.
        full: Its options in a longer run.
        threads: OMP_NUM_THREADS, for comparisons on a single core; None: all cores.
    """

    name: str
    quick: tuple[str, ...] = ()
    full: tuple[str, ...] = ()
    threads: int | None = None


PARTS = (
    Part("predict", quick=("--quick",)),
    Part("dtype"),
    Part("end_to_end", quick=("--number", "64"), full=("--number", "1000", "--paper")),
    Part("memory"),
    Part("cine"),
    Part("adapt"),
    Part("winclip"),
    Part("naive", full=("--full",)),
    Part("metrics", full=("--images", "780", "--turns", "1"), threads=1),
    Part("shared"),
    Part("startup"),
    Part("exported"),
)
NAMES = tuple(part.name for part in PARTS)


def run(part: Part, arguments: list[str], folder: Path) -> str | None:
    """Run one part and keep its rows; return what went wrong, or None."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"{part.name}.part"
    fresh.unlink(missing_ok=True)
    env = dict(os.environ) if part.threads is None else {**os.environ, "OMP_NUM_THREADS": str(part.threads)}
    command = [sys.executable, "-m", f"perf.{part.name}", "-o", str(fresh), *arguments]
    code = subprocess.run(command, cwd=ROOT, env=env, check=False).returncode
    rows = json.loads(fresh.read_text())["rows"] if fresh.exists() else []
    if code == 0 and rows:
        fresh.replace(folder / f"{part.name}.json")
    fresh.unlink(missing_ok=True)
    return None if code == 0 else f"perf.{part.name} ended with {code}; its own words are above"


def kept(folder: Path) -> tuple[list[Row], list[str]]:
    """All kept rows, in the order of the parts, and the machines they were measured on."""
    rows: list[Row] = []
    machines: dict[str, None] = {}
    for part in PARTS:
        path = folder / f"{part.name}.json"
        if path.exists():
            found = json.loads(path.read_text())
            rows += [Row(**{key: value for key, value in row.items() if key != "met"}) for row in found["rows"]]
            machines[describe(found["machine"])] = None
    return rows, list(machines)


def describe(machine: dict[str, Any]) -> str:
    """A machine in words."""
    cores = "1 core" if machine["cores"] == 1 else f"{machine['cores']} cores"
    return f"{machine['cpu']}, {cores}, Python {machine['python']}, PyTorch {machine['torch']}"


def cells(row: Row) -> tuple[str, ...]:
    """A row as the table shows it."""
    spread = "" if row.low is None or row.high is None else f" [{row.low:.3g}, {row.high:.3g}]"
    goals = ["-" if goal is None else SIGNS[row.kind].format(goal) for goal in (row.must, row.aim)]
    met = {True: "yes", False: "no", None: "-"}[row.met]
    return row.what, row.against, f"{row.value:.3g}{UNITS[row.kind]}{spread}", *goals, met


def show(rows: list[Row], machines: list[str]) -> None:
    """Print the table."""
    table = Table(caption="; ".join(machines), show_lines=True)
    for name in COLUMNS:
        table.add_column(name, justify="left", overflow="fold")
    for row in rows:
        table.add_row(*cells(row), style="red" if row.met is False else None)
    Console().print(table)


def markdown(rows: list[Row], machines: list[str]) -> str:
    """The table for docs/performance.md."""
    lines = ["| " + " | ".join(line) + " |" for line in (COLUMNS, ["---"] * len(COLUMNS), *map(cells, rows))]
    return "\n".join([*lines, "", f"Measured on {'; '.join(machines)}. In brackets: smallest and largest turn."])


def write(page: Path, name: str, text: str) -> None:
    """Put text between two markers of a page.

    Raises:
        SystemExit: If the page has no such markers.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    old = page.read_text(encoding="utf-8")
    new, found = re.subn(f"{start}.*?{end}", lambda _: f"{start}\n{text}\n{end}", old, flags=re.S)
    if not found:
        msg = f"{page} has no place for this: wanted {start} and {end} in it"
        raise SystemExit(msg)
    page.write_text(new, encoding="utf-8")


def chosen(words: str | None) -> list[Part]:
    """The parts that ``--only`` names; without it, all parts.

    Raises:
        SystemExit: If there is no such part.
    """
    names = NAMES if words is None else tuple(filter(None, words.split(",")))
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        msg = f"no part is called {', '.join(unknown)}; there are: {', '.join(NAMES)}"
        raise SystemExit(msg)
    return [part for part in PARTS if part.name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="A,B", help=f"parts, of {', '.join(NAMES)}; '' only prints what is kept")
    parser.add_argument("--full", action="store_true", help="longer runs, for parts that have them")
    parser.add_argument("--write", action="store_true", help="write the table into docs/performance.md")
    parser.add_argument(
        "--data", nargs=2, metavar=("UCLM", "BUSI"), help="folders of the data sets; without them, dtype is skipped"
    )
    parser.add_argument("--peer", help="Python with anomalib; default: this one")
    args = parser.parse_args()
    given = {"dtype": args.data or [], "winclip": ["--peer", args.peer] if args.peer else []}
    failed = []
    for part in chosen(args.only):
        if part.name == "dtype" and not args.data:
            print("dtype: left out; it needs real data, given with --data")
            continue
        print(f"{part.name} ...", flush=True)
        wrong = run(part, [*given.get(part.name, ()), *(part.full if args.full else part.quick)], KEPT)
        failed += [wrong] if wrong else []
    rows, machines = kept(KEPT)
    show(rows, machines)
    if args.write:
        write(PAGE, "speed", markdown(rows, machines))
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
