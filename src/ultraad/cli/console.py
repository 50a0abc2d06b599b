"""Printing: results to stdout, everything else to stderr.

rich is imported by the functions that use it: importing it takes as long as all of ``ultraad --help``.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ultraad.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from rich.console import Console

_LAYOUT = "\n\t"  # control characters of our own texts
SOME_FAILED = 3
"""Exit code of a command that is done although some of its inputs failed."""


def _console(*, stderr: bool = False) -> Console:
    """Prints lines unchanged, without wrapping or markup, so that they can be piped and copied."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def say(text: str = "", *, style: str | None = None) -> None:
    """A line on stdout."""
    _console().print(printable(text, keep=_LAYOUT), style=style)


def warn(text: str, *, style: str = "yellow") -> None:
    """A line on stderr."""
    _console(stderr=True).print(printable(text, keep=_LAYOUT), style=style)


def complain(error: Exception) -> None:
    """One clear message for an error."""
    warn(f"error: {error}", style="bold red")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """A table on stdout. A column whose name begins with ``#`` is right-aligned; None is shown as a dash."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        grid.add_column(name.removeprefix("#"), justify="right" if name.startswith("#") else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text("-" if cell is None else printable(str(cell), keep=_LAYOUT)) for cell in row))
    wide = None if Console().is_terminal else 200  # a pipe has no width
    Console(highlight=False, emoji=False, width=wide).print(grid)


def interval(value: float | None, low: float | None, high: float | None) -> str | None:
    """A metric with its interval, ``"0.812 [0.764, 0.859]"``; None if it is not defined."""
    if value is None:
        return None
    return f"{value:.3f}" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def show_metrics(found: dict[str, Any]) -> None:
    """The metrics of an evaluation as a table; an undefined metric shows its reason."""
    rows = [
        (key, interval(m["value"], m["low"], m["high"]), m["n"], m["reason"]) for key, m in found["metrics"].items()
    ]
    table(("metric", "value [95 % interval]", "#images", "remark"), rows)


def show_subgroups(found: dict[str, Any]) -> None:
    """The subgroups of an evaluation, the worst first; nothing if none were asked for."""
    from ultraad.metrics.catalogue import short
    from ultraad.metrics.subgroups import meaning_of_p, people, shown

    for fact, part in found.get("subgroups", {}).items():
        groups = part["subgroups"]
        keys = shown([{key: m["value"] for key, m in group["metrics"].items()} for group in groups])
        say(f"by {fact}" + (f", the worst {short(part['ordered_by'])} first" if part["ordered_by"] else ""))
        rows, of = [], list[tuple[int, int]]()
        bare = dict[str, list[str]]()
        for group in groups:
            cells = []
            of.append((group["patients"], group["without_patient"]))
            for key in keys:
                m, gap = group["metrics"][key], group["differences"].get(key)
                value = interval(m["value"], m["low"], m["high"])
                cells.append(value if value is None or gap is None else f"{value} p={gap['p']:.3f}")
                if "no interval" in (m["reason"] or ""):
                    bare.setdefault(f"{short(key)}: {m['reason']}", []).append(group["value"])
            rows.append((group["value"], group["images"], people(*of[-1]), *cells))
        table((fact, "#images", "#patients", *map(short, keys)), rows)
        say(f"p: {meaning_of_p(of)}")
        for why, values in bare.items():
            say(f"{why} ({', '.join(values)})")


def show_thresholds(folder: Path) -> None:
    """The thresholds of the run in a folder, if others were chosen than those stored in the model."""
    from ultraad.results.folder import read_run

    run = read_run(folder)
    if run is None:
        return
    used = run.thresholds
    if used.image_rule is not None:
        say(f"image threshold {used.image:.4f}: {used.image_rule}")
        for name, kind, rate in (
            ("sensitivity", "lesion", used.sensitivity),
            ("specificity", "normal", used.specificity),
        ):
            if rate is not None:
                say(f"  {name} {interval(rate.value, rate.low, rate.high)} on {rate.n} held-out {kind} support images")
    if used.pixel_rule is not None:
        say(f"pixel threshold {used.pixel:.4f}: {used.pixel_rule}")
    for note in used.notes:
        warn(f"note: {note}")


def tell_interrupted(folder: Path, what: str, *, record: str) -> None:
    """Say that a run was interrupted, and where to find what is finished.

    Args:
        folder: Of the run.
        what: What it does one after the other, in the plural.
        record: The file in the folder that has a line for each finished one.
    """
    lines = folder / record
    if lines.is_file() and lines.stat().st_size:
        text = f"interrupted; finished {what} are in {folder}. Run the same command again to resume"
    else:
        text = f"interrupted before any {what} were finished. To begin anew, run the same command again"
    warn(text, style="bold")


def list_failures(
    failed: dict[str, str], limit: int = 20, *, what: str = "image(s) could not be used", rest: str = "errors.jsonl"
) -> None:
    """The first images that could not be used, with the reasons, on stderr; ``rest`` is the file that has them all."""
    if failed:
        warn(f"{len(failed)} {what}:")
    for id_, reason in list(failed.items())[:limit]:
        warn(f"  {id_}: {reason}")
    if len(failed) > limit:
        warn(f"  ... and {len(failed) - limit} more, in {rest}")


_WIDEST = 100  # characters; longer lines are hard to read


def heading(text: str) -> None:
    """A bold paragraph on stdout, wrapped to the window."""
    import textwrap

    say(textwrap.fill(text, min(_console().width, _WIDEST), break_long_words=False), style="bold")


def describe(rows: Iterable[tuple[str, str]], *, column: int, indent: int = 0) -> None:
    """Terms on the left, texts on the right, wrapped to the window; a long term has a line of its own.

    Args:
        rows: (term, text); line breaks in a text are kept.
        column: Column in which the texts begin.
        indent: Column in which the terms begin.
    """
    import textwrap

    width = max(column + 20, min(_console().width, _WIDEST))
    for term, text in rows:
        head, margin = " " * indent + term, " " * column
        wrap = textwrap.TextWrapper(width - column, break_long_words=False, break_on_hyphens=False)
        lines = []
        for part in text.splitlines() or [""]:
            wrap.subsequent_indent = "  " if part.startswith("- ") else ""
            lines += wrap.wrap(part) or [""]
        if len(head) + 2 > column:
            say(head)
            head = ""
        for line in lines:
            say(f"{head.ljust(column)}{line}".rstrip())
            head = margin


@contextmanager
def progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Progress bars on stderr if it is a terminal. Yields ``tell(what, done, total)``, one bar per ``what``.

    A total of None is unknown.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<15}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield tell


class _Warnings(logging.Handler):
    """Prints the library's warnings on stderr, each line once."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{record.levelname.lower()}: {record.getMessage()}"
        if line not in self._said:
            self._said.add(line)
            warn(line)


def warnings_to_stderr() -> None:
    """Print the library's warnings. The library itself never changes handlers or levels."""
    log = logging.getLogger("ultraad")
    for handler in [h for h in log.handlers if isinstance(h, _Warnings)]:
        log.removeHandler(handler)  # from an earlier command in this process; the next one prints each warning again
    log.addHandler(_Warnings(logging.WARNING))
    root = logging.getLogger()
    if not root.handlers:  # open_clip logs through the root logger, which would print every line twice
        root.addHandler(logging.NullHandler())
