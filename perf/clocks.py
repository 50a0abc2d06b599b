"""Clocks that jump by decades between the steps of a work, and within one; and thousands of tiny images.

Run it from the root of the repository; it writes its tables into docs/robustness.md, and fails if a promise is broken:

    python -m perf.clocks             # some three minutes on one core
    python -m perf.clocks --tiny      # only the tiny images

The clock of the system is turned by libfaketime (Debian: ``apt-get install libfaketime``): the commands run with it,
while the files that they write have the true time. Monotonic clocks are left alone, as the system leaves them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LIBRARY = "libfaketime.so.1"
CLOCK = "FAKETIME_TIMESTAMP_FILE"
PAST, FUTURE = "2001-02-03 04:05:06", "2037-06-05 04:03:02"
TINY = 3000
_SMALLEST = 8  # pixels on a side, ultraad.io.raster.check_size


def turn(clock: str) -> None:
    """Let the system have this time from now on; "" for its own."""
    Path(os.environ[CLOCK]).write_text(f"@{clock}\n" if clock else "+0\n")


def year() -> int:
    """Of the clock as a process sees it."""
    return datetime.fromtimestamp(time.time(), UTC).year


def steps(folder: Path) -> list[tuple[str, str]]:
    """(what was done, what came out) of every case; a text that begins with ``**`` is a broken promise."""
    from perf.disturb import Moment, content, differing, lines, run  # imports everything
    from perf.interrupted import COMMANDS, QUICK, make_inputs
    from perf.interrupted import TINY as BACKBONE

    make_inputs(folder)
    out = folder / "out"

    def whole(words: Sequence[str]) -> dict[str, Any]:
        turn("")
        shutil.rmtree(out, ignore_errors=True)
        assert (done := run(words, folder)).code == 0, done.said
        return content(out)

    def interrupt() -> None:
        os.killpg(0, signal.SIGINT)

    found = []

    def judge(what: str, wanted: dict[str, Any], *checks: tuple[bool, str]) -> None:
        faults = [text for fine, text in checks if not fine]
        faults += [f"differs: {name}" for name in differing(wanted, content(out))]
        found.append((what, f"**{'; '.join(faults)}**" if faults else "the same results"))
        print(*found[-1], sep=": ", flush=True)

    for title, moment in (
        ("predict", Moment("", "ultraad.results.folder:append_line", 4)),
        ("bench run", Moment("", "ultraad.bench.results:append_line", 2)),
    ):
        command = COMMANDS[title]
        wanted = whole(command.words)
        for first, second in ((FUTURE, PAST), (PAST, FUTURE)):
            shutil.rmtree(out)
            turn(first)
            assert run(command.words, folder, lambda m=moment: m.wait(interrupt)).code == 130
            before = lines(out / command.done)
            turn(second)
            done = run(command.words, folder)
            after = lines(out / command.done)
            direction = "back" if second == PAST else "forward"
            text = f"`{title}`, interrupted, clock {direction} by 36 years, continued"
            judge(
                text,
                wanted,
                (done.code == 0, done.said[-200:]),
                (bool(before) and after[: len(before)] == before, "finished work was done again"),
            )
        turn(PAST)
        done = run(command.words, folder)
        same = lines(out / command.done) == after and done.code == 0
        judge(f"`{title}` again on finished results, clock back", wanted, (same, "done again"))

    wanted = whole(COMMANDS["predict"].words)
    shutil.rmtree(out)
    done = run(COMMANDS["predict"].words, folder, jumping)
    judge("`predict`, clock back and forward at each picture", wanted, (done.code == 0, done.said[-200:]))

    replaced = folder / "in" / "3.png"
    kept = replaced.read_bytes()
    replaced.write_bytes((folder / "in" / "4.png").read_bytes())
    os.utime(replaced, (981173106, 981173106))  # PAST
    turn(PAST)
    done = run(COMMANDS["predict"].words, folder)
    again = "1 predicted" in done.said and "replaced" in done.said
    result = "that file was predicted again, with a warning" if again else f"**{done.said}**"
    found.append(("`predict` after a file was replaced by one of 2001", result))
    replaced.write_bytes(kept)

    wanted = whole(("adapt", "support.json", "-o", "out", *BACKBONE, *QUICK))
    for clock, name in ((PAST, "2001"), (FUTURE, "2037")):
        shutil.rmtree(out)
        turn(clock)
        done = run(("adapt", "support.json", "-o", "out", *BACKBONE, *QUICK), folder)
        judge(f"`adapt` in {name}", wanted, (done.code == 0, done.said[-200:]))
    turn(PAST)
    done = run(("evaluate", "out", "other", "-o", "results", "--device", "cpu", "--bootstrap", "20"), folder)
    record = json.loads((folder / "results" / "run.json").read_text()) if done.code == 0 else {}
    fine = record.get("status") == "complete" and record.get("started", "").startswith("2001")
    found.append(("`evaluate` in 2001 with that model of 2037", "complete" if fine else f"**{done.said[-300:]}**"))
    return found


def jumping() -> None:
    """Let the clock of this process jump at each picture that is written."""
    from ultraad.results import saving

    write, calls = saving.write_image, [0]

    def jump(*given: object) -> object:
        calls[0] += 1
        turn((PAST, FUTURE)[calls[0] % 2])
        assert year() in (2001, 2037)
        return write(*given)

    saving.write_image = jump


def tiny(folder: Path) -> list[tuple[str, str]]:
    """What ``predict`` says about thousands of pictures of 1 x 1 to 8 x 8 pixels, and of 8 x 8 to 16 x 16."""
    import numpy as np
    from perf.disturb import run

    from ultraad.io.files import write_image
    from ultraad.results.folder import read_errors, read_rows

    draw, found = np.random.default_rng(0), []
    for least, most in ((1, _SMALLEST), (_SMALLEST, 2 * _SMALLEST)):
        (folder / "tiny").mkdir()
        side, usable = most - least + 1, 0
        for i in range(TINY):
            h, w = least + i % side, least + i // side % side
            write_image(folder / "tiny" / f"{i:04d}.png", draw.integers(0, 256, (h, w), dtype=np.uint8))
            usable += min(h, w) >= _SMALLEST
        started = time.perf_counter()
        done = run(("predict", "zero-shot", "--backbone", "tiny", "--device", "cpu", "tiny", "-o", "out"), folder)
        seconds = time.perf_counter() - started
        out = folder / "out"
        rows, errors = sum(1 for _ in read_rows(out)), read_errors(out)
        reasons = Counter("smaller than 8 pixels on a side" if "at least 8 x 8" in why else why for _, why in errors)
        pictures = [sum(1 for _ in (out / name).iterdir()) for name in ("overlays", "maps")]
        size = (out / "report.html").stat().st_size
        fine = rows == usable and len(errors) == TINY - usable and len(reasons) <= 1 and pictures == [rows, rows]
        fine &= done.code == (3 if errors else 0) and "Traceback" not in done.said and len(done.said.splitlines()) < 30
        text = f"{rows} predicted, {len(errors)} refused by name, exit code {done.code}; {size / 1e3:.0f} kB of report"
        text += f"; {seconds:.0f} s"
        what = f"{TINY} pictures of {least} x {least} to {most} x {most} pixels"
        found.append((what, text if fine else f"**{text}: {done.said[-500:]}**"))
        print(*found[-1], sep=": ", flush=True)
        shutil.rmtree(folder / "tiny")
        shutil.rmtree(out)
    return found


def with_library(folder: Path) -> int:
    """Run this command again in an environment whose clock can be turned."""
    paths = sorted(Path("/usr/lib").glob(f"*/faketime/{LIBRARY}"))
    if not paths:
        print("libfaketime is not installed; the table of the clocks stays as it is")
        return 0
    clock = folder / "clock"
    clock.write_text("+0\n")
    fake = {CLOCK: str(clock), "LD_PRELOAD": str(paths[0]), "FAKETIME_NO_CACHE": "1", "NO_FAKE_STAT": "1"}
    fake |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1"}
    return subprocess.run([sys.executable, "-m", "perf.clocks"], env={**os.environ, **fake}, check=False).returncode


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="only the tiny images")
    only_tiny = parser.parse_args().tiny
    tables: list[tuple[str, str, Callable[[Path], list[tuple[str, str]]]]] = [("tiny", "pictures", tiny)]
    if CLOCK in os.environ:
        tables = [("clocks", "what was done", steps)]
    faults = 0
    for name, head, make in tables:
        from perf.disturb import write_table

        with tempfile.TemporaryDirectory() as folder:
            rows = make(Path(folder))
        if CLOCK in os.environ:
            turn("")
        write_table(name, [(head, "result"), *rows])
        faults += sum(result.startswith("**") for _, result in rows)
    if CLOCK not in os.environ and not only_tiny:
        with tempfile.TemporaryDirectory() as folder:
            faults += with_library(Path(folder))
    sys.exit(f"{faults} promise(s) are broken" if faults else 0)


if __name__ == "__main__":
    main()
