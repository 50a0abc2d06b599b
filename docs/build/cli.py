"""docs/cli.md from the commands themselves: ``python -m docs.build.cli`` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from ultraad.cli import app

PAGE = Path(__file__).parents[1] / "cli.md"


def text() -> str:
    """docs/cli.md: every command with its arguments and options, from the commands themselves."""
    parts = [
        "# Command line\n\nWritten by `python -m docs.build.cli`; do not edit. "
        "Exit codes: 0 done; 1 an error that the message\nexplains, or a check that failed; 2 a wrong option; "
        "130 interrupted. `ULTRAAD_DEBUG=1` shows the traceback behind\nan error. "
        "Results go to stdout, everything else to stderr.\n"
    ]
    for words, command in _leaves([], typer.main.get_command(app)):
        parts.append(f"## ultraad {' '.join(words)}\n\n{_sentence(command.help or '')}\n")
        rows = [_row(p) for p in command.params if "--help" not in p.opts]
        if rows:
            parts.append("| option | default | meaning |\n| --- | --- | --- |\n" + "".join(rows))
    return "\n".join(parts)


def _leaves(words: list[str], command: Any) -> Iterator[tuple[list[str], Any]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _leaves([*words, name], inner)
    else:
        yield words, command


def _sentence(words: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in words.split("\n\n"))


def _row(p: Any) -> str:
    if p.param_type_name == "argument":
        names = f"`{p.metavar or p.name.upper()}`"
    else:
        names = ", ".join(f"`{o}`" for o in [*p.opts, *p.secondary_opts])
    default = "required" if p.required else "-" if p.default is None or p.default is False else f"`{_value(p.default)}`"
    return f"| {names} | {default} | {_sentence(p.help or '')} |\n"


def _value(default: Any) -> str:
    value = getattr(default, "value", default)
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
