"""Parts of perf.interrupted and perf.clocks: commands in forked processes that act at a moment, and what they leave."""

from __future__ import annotations

import csv
import functools
import hashlib
import importlib
import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: a process with threads cannot be forked safely

import ultraad.bench.run.driver
import ultraad.cli
import ultraad.data.support
import ultraad.dicom.saving
import ultraad.methods.ultraad
import ultraad.model.bundle
import ultraad.runs.evaluate
import ultraad.runs.predict  # so that a fork need not import it
from ultraad.io.files import write_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "robustness.md"
_AFTER_KILL = 20.0  # seconds in which the processes that a killed one started have to end
_NEVER = {  # times, sizes and places, which differ from run to run
    *(
        "seconds",
        "started",
        "finished",
        "images_per_second",
        "adapt_seconds",
        "predict_ms",
        "encode_ms",
        "evaluate_seconds",
    ),
    *("peak_memory_mb", "peak_device_mb", "versions", "machine", "path"),
}


@dataclass(frozen=True)
class Moment:
    """A moment of a command: before the ``nth`` call of a function, or of its progress with the name of a step."""

    what: str
    call: str
    nth: int = 1
    where: str = ""  # in the string of the first argument, for functions that write files

    def wait(self, act: Callable[[], None]) -> None:
        """Let this process act at that moment."""
        module, _, rest = self.call.partition(":")
        owner: Any = importlib.import_module(module)
        *holders, name = rest.split(".")
        for holder in holders:
            owner = getattr(owner, holder)
        original, calls = getattr(owner, name), [0]

        @functools.wraps(original)
        def watched(*given: Any, **more: Any) -> Any:  # noqa: ANN401
            if self.where in str(given[0] if given else ""):
                calls[0] += 1
                if calls[0] == self.nth:
                    act()
            return original(*given, **more)

        setattr(owner, name, watched)


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit code (negative: signal), what it printed, and processes of its that live on."""

    code: int
    said: str
    alive: bool


def run(words: Sequence[str], folder: Path, prepare: Callable[[], None] = lambda: None) -> Ended:
    """Run ``ultraad`` with these words in a forked process, in a folder."""
    said = folder / ".said"
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os.chdir(folder)
            prepare()
            ultraad.cli.main(list(words))
            code = 0
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else int(e.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    alive, until = True, time.monotonic() + _AFTER_KILL
    while alive and time.monotonic() < until:
        try:
            os.killpg(pid, 0)
            time.sleep(0.2)
        except ProcessLookupError:
            alive = False
    if alive:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    text = said.read_text(errors="replace")
    said.unlink()
    return Ended(os.waitstatus_to_exitcode(status), text, alive)


# ---- what is compared -----------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:  # noqa: ANN401
    """JSON without what differs from run to run: times and places."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items() if key not in _NEVER and not key.startswith("ms_")}
    return [plain(v) for v in value] if isinstance(value, list) else value


def lines(file: Path) -> list[str]:
    """The whole lines of a file; none if it is not there."""
    text = file.read_text() if file.is_file() else ""
    return [line for line in text.split("\n")[:-1] if line]


def content(folder: Path) -> dict[str, Any]:
    """{path: what it holds} of a folder of results or a model, in a form that is the same for every run."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".json":
            found[name] = plain(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            found[name] = sorted((plain(json.loads(line)) for line in lines(path)), key=lambda row: str(row.get("id")))
        elif path.suffix == ".csv":
            found[name] = [[number(cell) for cell in line] for line in csv.reader(path.read_text().splitlines())]
        elif path.suffix not in {".html", ".md", ".running", ".lock"}:  # pages hold times
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = None
    return found


def number(cell: str) -> str | float:
    """A cell as a number, if it is one."""
    try:
        return float(cell)
    except ValueError:
        return cell


def same(a: Any, b: Any) -> bool:  # noqa: ANN401
    """Equality; numbers may differ by 1e-6, as images that are predicted in other batches do."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, abs_tol=1e-6)
    return bool(a == b)


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """The files that are not the same in two folders."""
    return sorted(name for name in a.keys() | b.keys() if not (name in a and name in b and same(a[name], b[name])))


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders in and beside a place."""
    return [p.name for p in folder.rglob(".*") if p.name.endswith((".tmp", ".new", ".tmp.mp4"))]


def write_table(name: str, rows: Sequence[Sequence[object]], *, only: str | None = None) -> None:
    """Put a Markdown table between the markers of the page; the first row is its head.

    Args:
        name: Of the markers.
        rows: The table.
        only: Replace only the rows of the page whose first cell is this one.
    """
    page, begin, end = PAGE.read_text(encoding="utf-8"), f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
    head, _, rest = page.partition(begin)
    former, found, tail = rest.partition(end)
    assert found, f"{PAGE} has no markers for {name}"
    text = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    if only is not None:
        there = former.splitlines()
        first = next(i for i, line in enumerate(there) if line.startswith(f"| {only} |"))
        text = [*there[:first], *text[1:], *(line for line in there[first:] if not line.startswith(f"| {only} |"))]
    else:
        text.insert(1, "| " + " | ".join("---" for _ in rows[0]) + " |")
    write_text(PAGE, head + begin + "\n".join(text) + end + tail)
