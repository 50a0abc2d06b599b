"""What ``ultraad evaluate zero-shot`` prints for each real set, as docs/zero-shot.md shows it.

Run it from the root of the repository where the sets are; a set that is missing keeps the text that the page has:

    python -m perf.zero_shot_texts DATA
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from ultraad.cli.console import SOME_FAILED
from ultraad.io.files import write_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "zero-shot.md"
OPTIONS = {  # folder below DATA, and what the command needs beside it
    "BUS-UCLM": (),
    "Dataset_BUSI_with_GT": (),
    "BUS-BRA": ("--backbone", "embedded-simulated"),
    "liver": ("--texts", "liver"),
}


def shown(data: Path, name: str) -> str:
    """The command and everything that it prints, as a block of the page."""
    words = ["evaluate", "zero-shot", name, *OPTIONS[name], "--bootstrap", "200"]
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run(
            [sys.executable, "-m", "ultraad.cli", *words, "-o", out],
            cwd=data,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
    if done.returncode not in (0, SOME_FAILED):
        sys.exit(f"{name}: {done.stdout}")
    text = re.sub(r"[ \t]+$", "", done.stdout.replace(out, "results"), flags=re.M).strip()
    return f"```\n$ ultraad {' '.join(words)} -o results\n{text}\n\nexit code {done.returncode}\n```"


def main() -> None:
    """Replace the texts between the markers of the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the data sets")
    data = parser.parse_args().data
    page = PAGE.read_text(encoding="utf-8")
    for name in OPTIONS:
        if not (data / name).is_dir():
            print(f"{name} is not in {data}; its text stays")
            continue
        begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        head, _, rest = page.partition(begin)
        _, found, tail = rest.partition(end)
        assert found, f"{PAGE} has no markers for {name}"
        page = head + begin + shown(data, name) + end + tail
        write_text(PAGE, page)


if __name__ == "__main__":
    main()
