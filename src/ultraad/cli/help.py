"""What ``--help`` prints: commands in the order of work under short headings, options, and one example at the end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    _Base = TyperCommand
else:
    _Base = object

_UsageError: Any = typer.BadParameter.__base__  # typer brings its own Click and does not export this class
_METAVARS = {"path": "PATH", "str": "NAME", "int": "N", "int range": "N", "float": "N", "float range": "N"}


_WANTED = {
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
}  # by the kinds of pydantic


def _fault(fault: dict[str, Any], message: str) -> str:
    """A fault that pydantic found in a value: what was found, and what was wanted."""
    wanted = _WANTED.get(fault["type"])
    if wanted is None:
        return message.removeprefix("Value error, ")
    return f"got {fault['input']}, wanted {wanted.format(**fault.get('ctx', {}))}"


class _Help(_Base):
    """Help of a command or a group. The line ``Example: ...`` that ends its docstring is printed last."""

    def __init__(self, *args: Any, help: str | None = None, **kwargs: Any) -> None:  # noqa: A002
        text, _, example = (help or "").partition("Example:")
        super().__init__(*args, **{**kwargs, "help": text.strip(), "epilog": example.strip() or None})

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words; an unknown option is answered as an unknown command is."""
        try:
            rest: list[str] = super().parse_args(ctx, args)
        except _UsageError as e:
            if getattr(e, "possibilities", None):
                e.message += f". Did you mean {', '.join(map(repr, e.possibilities))}?"
                e.possibilities = None
            if faults := getattr(e.__cause__, "errors", None):  # of pydantic, which newer versions of typer check with
                e.message = _fault(faults()[0], e.message)
            raise
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Arguments in the usage line: ``MODEL``, or ``[SUPPORT]`` if it may be left out."""
        arguments = [p for p in self.get_params(ctx) if p.param_type_name == "argument"]
        return ["[OPTIONS]", *(argument(p) if p.required else f"[{argument(p)}]" for p in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments and options as two lists."""
        rows: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        params: list[Any] = [p for p in self.get_params(ctx) if not getattr(p, "hidden", False)]
        for param in params:
            _, text = param.get_help_record(ctx)
            if param.param_type_name == "argument":
                rows["Arguments"].append((argument(param), text))
            else:
                text = re.sub(r"([\d.]+)<=x<=([\d.]+)", r"\1 to \2", text.replace("x>=", "at least "))
                rows["Options"].append((option(param, ctx), text))
        _sections(formatter, rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """The example, on a line of its own that is never wrapped."""
        if self.epilog:
            with formatter.section("Example"):
                formatter.write(f"  {self.epilog}\n")


class Command(_Help, TyperCommand):
    """One command."""


class Commands(_Help, TyperGroup):
    """A group of commands. Its help shows in full what each command does, under the command's ``rich_help_panel``."""

    order: Sequence[str] = ()
    """Names of the commands in the order of the help; the order in which they were added if empty."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the help."""
        return list(self.order) or super().list_commands(ctx)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """``COMMAND`` at the end of the usage line."""
        return [*super().collect_usage_pieces(ctx), "COMMAND ..."]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Commands first, then the options of the group."""
        rows: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.commands[name]
            panel = command.rich_help_panel if isinstance(command.rich_help_panel, str) else "Commands"
            rows.setdefault(panel, []).append((name, command.get_short_help_str(limit=1000)))
        _sections(formatter, rows)
        super().format_options(ctx, formatter)


def argument(param: Any) -> str:
    """An argument in help and usage: ``MODEL``, ``PATHS...``."""
    return f"{param.metavar or param.name.upper()}{'...' * (param.nargs != 1)}"


def option(param: Any, ctx: Any) -> str:
    """An option in help: ``-o, --output PATH``, ``--seed N``, ``--device auto|cpu``."""
    term: str = param.get_help_record(ctx)[0]
    return re.sub(r"<(.+?)>", lambda m: _METAVARS.get(m[1], m[1]), term)


def _sections(formatter: Any, rows: dict[str, list[tuple[str, str]]]) -> None:
    width = max((len(term) for lists in rows.values() for term, _ in lists), default=0)
    for title, terms in rows.items():
        if terms:
            with formatter.section(title):
                formatter.write_dl([(term.ljust(min(width, 30)), text) for term, text in terms])
