"""Printing: results to stdout, everything else to stderr.

rich is loaded by what prints with it: it takes as long as all that ``ultraad --help`` needs.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.console import Console


class Commands(TyperGroup):
    """A group of commands whose help says of each what it does, on as many lines as that takes."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401  # Click's, which typer brings itself
        """List the commands; Click would cut what they do to one line each."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(limit=1000)) for name, command in commands if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _console(*, stderr: bool = False) -> Console:
    """Prints lines as they are: never wrapped, never read as markup, so that they can be piped and copied."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def say(text: str = "", *, style: str | None = None) -> None:
    """A line on stdout."""
    _console().print(text, style=style)


def warn(text: str, *, style: str = "yellow") -> None:
    """A line on stderr."""
    _console(stderr=True).print(text, style=style)


def complain(error: Exception) -> None:
    """One clear message for an error."""
    warn(f"error: {error}", style="bold red")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """A table on stdout; columns that begin with ``#`` hold numbers, and None is shown as a dash."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        grid.add_column(name.removeprefix("#"), justify="right" if name.startswith("#") else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
    wide = None if Console().is_terminal else 200  # a pipe has no width to fit into
    Console(highlight=False, emoji=False, width=wide).print(grid)


_WIDEST = 100  # characters; longer lines are hard to read


def heading(text: str) -> None:
    """A bold paragraph on stdout, wrapped to the window."""
    import textwrap

    say(textwrap.fill(text, min(_console().width, _WIDEST), break_long_words=False), style="bold")


def describe(rows: Iterable[tuple[str, str]], *, column: int, indent: int = 0) -> None:
    """Terms on the left, what they mean on the right, wrapped to the window; a long term has a line of its own.

    Args:
        rows: (term, text); a text of several lines keeps them.
        column: Where the texts begin.
        indent: Where the terms begin.
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
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on stderr while it is a terminal; gives ``tell(what, done, total)``, one bar for each ``what``."""
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

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield tell


class _Warnings(logging.Handler):
    """The library's warnings as lines on stderr, each line once."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{record.levelname.lower()}: {record.getMessage()}"
        if line not in self._said:
            self._said.add(line)
            warn(line)


def warnings_to_stderr() -> None:
    """Show the library's warnings; its own code never touches handlers or levels."""
    log = logging.getLogger("ultraad")
    for handler in [h for h in log.handlers if isinstance(h, _Warnings)]:
        log.removeHandler(handler)  # of an earlier command in this process; the next one says everything anew
    log.addHandler(_Warnings(logging.WARNING))
    root = logging.getLogger()
    if not root.handlers:  # open_clip logs through the root, which would install a second printer of everything
        root.addHandler(logging.NullHandler())
