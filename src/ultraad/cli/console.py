"""Printing: results to stdout, everything else to stderr."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


def say(text: str = "", *, style: str | None = None) -> None:
    """A line on stdout, never wrapped and never read as markup, so that it can be piped and copied."""
    Console(highlight=False, markup=False, emoji=False, soft_wrap=True).print(text, style=style)


def warn(text: str, *, style: str = "yellow") -> None:
    """A line on stderr."""
    Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True).print(text, style=style)


def complain(error: Exception) -> None:
    """One clear message for an error."""
    warn(f"error: {error}", style="bold red")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """A table on stdout; columns that begin with ``#`` hold numbers, and None is shown as a dash."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        grid.add_column(name.removeprefix("#"), justify="right" if name.startswith("#") else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
    wide = None if Console().is_terminal else 200  # a pipe has no width to fit into
    Console(highlight=False, emoji=False, width=wide).print(grid)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on stderr while it is a terminal; gives ``tell(what, done, total)``, one bar for each ``what``."""
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
    """The library's warnings as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(f"{record.levelname.lower()}: {record.getMessage()}")


def warnings_to_stderr() -> None:
    """Show the library's warnings; its own code never touches handlers or levels."""
    log = logging.getLogger("ultraad")
    if not any(isinstance(handler, _Warnings) for handler in log.handlers):
        log.addHandler(_Warnings(logging.WARNING))
