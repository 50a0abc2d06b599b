"""Ctrl-C and kill -9 in every phase of adapt, predict, evaluate and bench, on the real command line.

Run it from the root of the repository; it writes its table into docs/robustness.md, and fails if a promise is broken:

    python -m perf.interrupted                     # some five minutes on one core
    python -m perf.interrupted --only predict      # replaces only these rows

Each command is a process in a session of its own, forked from this one, which has imported everything. It gets the
signal from the system at a moment that is a call of a function: Ctrl-C goes to its whole group, as from a terminal,
kill -9 to the process alone. Then the same command runs again, and its results are held against those of a run that
nobody disturbed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from perf.disturb import Moment, content, differing, leftovers, lines, run, write_table

from ultraad.data.support import draw_support, save_support
from ultraad.io.files import write_image
from ultraad.simulate import simulate, write_dataset


@dataclass(frozen=True)
class Command:
    """A command of the table.

    Attributes:
        words: Of the command line; its output is the folder ``out``.
        moments: When it is disturbed.
        done: File in ``out`` whose lines are finished work; empty if there is no such file.
        before: Words of a command that runs first, each time.
    """

    words: tuple[str, ...]
    moments: tuple[Moment, ...]
    done: str = ""
    before: tuple[str, ...] = ()


TINY = ("--backbone", "tiny", "--device", "cpu")
QUICK = ("--set", "train.epochs=2", "--set", "calibration.folds=2")
ZERO = ("zero-shot", *TINY)
_SAVED = ("--save", "overlays,maps,boxes", "--batch-size", "2")
_BENCH = ("bench", "run", "recipe.yaml", "--data", ".", "-o", "out", "--device", "cpu")
_IN_BENCH = (
    Moment("images are encoded", "ultraad.bench.run.driver:encode"),
    Moment("the third fit", "ultraad.methods._base:Method.fit", 3),
    Moment("files of the second row are written", "ultraad.io.files:_replace", 1, "predictions"),
    Moment("the second row is written", "ultraad.bench.results:append_line", 2),
    Moment("the run is closed", "ultraad.bench.results:BenchFolder.update", 2),
)
COMMANDS = {
    "adapt": Command(
        ("adapt", "support.json", "-o", "out", *TINY, *QUICK, "--seed", "1"),
        (
            Moment("images are read", "ultraad.model.adapt:load_batch"),
            Moment("learning", "ultraad.methods._base:Method.fit"),
            Moment("cross-validation", "ultraad.methods._base:Method.fit", 2),
            Moment("a file of the model is written", "pathlib:Path.replace", 2, ".tmp"),
            Moment("the earlier model is moved away", "pathlib:Path.rename", 1),
            Moment("the new model takes its place", "pathlib:Path.rename", 2),
        ),
        before=("adapt", "support.json", "-o", "out", *TINY, *QUICK, "--seed", "0"),
    ),
    "predict": Command(
        ("predict", *ZERO, "in", "-o", "out", *_SAVED),
        (
            Moment("files are looked for", "ultraad.runs.predict:find_media"),
            Moment("the fifth image is decoded", "ultraad.io.raster:read_raster", 5),
            Moment("the model works", "ultraad.model.model:Model._predict", 3),
            Moment("a picture is written", "pathlib:Path.replace", 9, ".png"),
            Moment("a row is written", "ultraad.results.folder:append_line", 4),
            Moment("a frame of a video", "ultraad.runs.video:_Job._keep", 5),
            Moment("the overlay video is finished", "ultraad.results.overlay_video:OverlayVideo.finish"),
            Moment("tables are written", "ultraad.results.folder:RunFolder._write_tables"),
            Moment("the report is drawn", "ultraad.runs.predict:render"),
        ),
        done="predictions.jsonl",
    ),
    "evaluate": Command(
        ("evaluate", *ZERO, "set", "-o", "out", "--bootstrap", "50", "--batch-size", "2"),
        (
            Moment("files are looked for", "ultraad.data.sources:scan"),
            Moment("the model works", "ultraad.model.model:Model._predict", 3),
            Moment("a row is written", "ultraad.results.folder:append_line", 4),
            Moment("metrics are computed", "ultraad.metrics.summary:Evaluation.result"),
            Moment("metrics are written", "pathlib:Path.replace", 1, "metrics.json"),
            Moment("the report is drawn", "ultraad.runs.evaluate:render"),
        ),
        done="predictions.jsonl",
    ),
    "bench run": Command((*_BENCH, "--jobs", "1"), _IN_BENCH, done="results.jsonl"),
    "bench run, two processes": Command(
        (*_BENCH, "--jobs", "2"),
        (
            Moment("the first row is written", "ultraad.bench.results:append_line", 1),
            Moment("the third row is written", "ultraad.bench.results:append_line", 3),
        ),
        done="results.jsonl",
    ),
}
RECIPE = """name: r
title: R
data: {a: {root: set, layout: synthetic, title: A}, b: {root: other, layout: synthetic, title: B}}
adapt: {on: a}
test: [b]
backbones: [tiny]
methods: [tip_adapter, winclip]
shots: [1, 2]
seeds: [0]
bootstrap: 10
"""


def make_inputs(folder: Path) -> None:
    """The data of all commands."""
    write_dataset(folder / "set", n=30, size=64)
    write_dataset(folder / "other", n=12, size=64, seed=1)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "in").mkdir()
    for i in range(8):
        write_image(folder / "in" / f"{i}.png", simulate(i, size=64).image)
    writer = cv2.VideoWriter(
        str(folder / "in" / "v.avi"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 64)
    )
    for i in range(10):
        writer.write(simulate(100 + i, size=64).image)
    writer.release()
    save_support(draw_support(folder / "set", shots=4), folder / "support.json")


def short(said: str) -> str:
    """The end of what a command printed, in one line."""
    return " ".join(said.split())[-200:]


def disturbed(
    command: Command, moment: Moment, kind: signal.Signals, folder: Path, whole: dict[str, Any]
) -> dict[str, Any]:
    """Disturb a command at a moment, run it again, and tell what was kept."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    out = folder / "out"
    if command.before:
        assert run(command.before, folder).code == 0
    earlier = content(out)
    hit = folder / ".hit"
    hit.unlink(missing_ok=True)

    def act() -> None:
        hit.touch()
        if kind == signal.SIGINT:
            os.killpg(0, kind)
        else:
            os.kill(os.getpid(), kind)

    first = run(command.words, folder, lambda: moment.wait(act))
    if not hit.exists():
        return {"kept": 0, "of": 0, "left": 0, "faults": [f"the moment did not come: {short(first.said)}"]}
    hit.unlink()
    kept = lines(out / command.done) if command.done else []
    left = leftovers(folder)
    faults = [f"exit {first.code}"] * (first.code != (130 if kind == signal.SIGINT else -kind))
    faults += ["a traceback"] * ("Traceback" in first.said) + ["processes that live on"] * first.alive
    faults += [f"left {left}"] * (kind == signal.SIGINT and bool(left))
    if command.before and out.exists() and all(differing(content(out), model) for model in (earlier, whole)):
        faults.append("neither the earlier model nor the new one")
    again = run(command.words, folder)
    faults += [f"again: exit {again.code}: {short(again.said)}"] * (again.code != 0)
    faults += [f"left at the end {leftovers(folder)}"] * bool(leftovers(folder))
    after = lines(out / command.done) if command.done else []
    resumed = command.words[0] != "evaluate"
    if resumed and after[: len(kept)] != kept:
        faults.append("finished work was done again")
    found = content(out)
    faults += [f"differs: {', '.join(names)}" for names in [differing(whole, found)] if names]
    return {"kept": len(kept), "of": len(after), "left": len(left), "faults": faults}


def kept(found: dict[str, Any], command: Command) -> str:
    """A cell of the table."""
    rows = f"{found['kept']} of {found['of']}" if command.done else "-"
    return "**" + "; ".join(found["faults"]) + "**" if found["faults"] else rows


def main() -> None:
    """Disturb every command at every moment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=COMMANDS, help="only this command")
    only = parser.parse_args().only
    rows: list[tuple[str, ...]] = [
        ("command", "moment", "rows kept after Ctrl-C", "after kill -9", "temporary files that a kill left")
    ]
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder)
        for title, command in COMMANDS.items():
            if only not in (None, title):
                continue
            shutil.rmtree(folder / "out", ignore_errors=True)
            undisturbed = run(command.words, folder)
            assert undisturbed.code == 0, undisturbed.said
            whole = content(folder / "out")
            for moment in command.moments:
                found = {k: disturbed(command, moment, k, folder, whole) for k in (signal.SIGINT, signal.SIGKILL)}
                faults += sum(len(f["faults"]) for f in found.values())
                cells = [kept(f, command) for f in found.values()]
                rows.append((f"`{title}`", moment.what, *cells, str(found[signal.SIGKILL]["left"])))
                print(" | ".join(rows[-1]), flush=True)
    write_table("interrupted", rows, only=None if only is None else f"`{only}`")
    sys.exit(f"{faults} promise(s) are broken" if faults else 0)


if __name__ == "__main__":
    main()
