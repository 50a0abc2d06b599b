"""The shape of the source in numbers: circles, arrows back up, loose modules, lines, look-ups by string.

    python -m perf.house                      # this tree
    python -m perf.house --src OTHER/src/ultraad

An arrow back up is an import against the order of the rooms in tests/test_architecture.py. Only for this tree: an older
one has other rooms.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from tests.test_architecture import LAYERS, SRC, allowed, circles, imports, modules

LOOK_UP = re.compile(r"\[[\"'][a-z_0-9]+[\"']\]|\.get\([\"'][a-z_0-9]+[\"']")
PAGES = (".py", ".j2", ".css", ".js")


def arrows_up(python: list[Path]) -> int:
    """Imports at run time against the order of the rooms."""
    found = 0
    for path in python:
        here = path.relative_to(SRC).parts[0].removesuffix(".py")
        used = {m.split(".")[1] for m in imports(path) if m.startswith("ultraad.")} & set[str]().union(*LAYERS)
        found += len(used - allowed(here))
    return found


def lines(paths: list[Path]) -> int:
    return sum(len(p.read_text(encoding="utf-8").splitlines()) for p in paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--src", type=Path, default=SRC)
    src = parser.parse_args().src
    python = sorted(src.rglob("*.py"))
    pages = [p for room in ("bench", "report") for p in (src / room).rglob("*") if p.suffix in PAGES]
    bench = "".join(p.read_text(encoding="utf-8") for p in (src / "bench").rglob("*.py"))
    longest = max(python, key=lambda p: lines([p]))
    rows = {
        "circles between modules": len(circles(modules(src))),
        "arrows back up": arrows_up(python) if src == SRC else "not counted: other rooms",
        "loose modules": len(list(src.glob("*.py"))) - 1,
        "lines of Python in src": lines(python),
        "lines in bench/ and report/, Python": lines([p for p in pages if p.suffix == ".py"]),
        "lines in bench/ and report/, templates and styles too": lines(pages),
        "look-ups by string in bench/": len(LOOK_UP.findall(bench)),
        "longest file": f"{longest.relative_to(src)}, {lines([longest])} lines",
    }
    for what, value in rows.items():
        print(f"{what:<55} {value}")


if __name__ == "__main__":
    main()
