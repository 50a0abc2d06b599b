"""The command line. Thin: parse, call, print. Heavy packages are imported by the command that needs them.

Exit codes: 0 done; 1 an error that the message explains, or a check that failed; 2 a wrong option; 130 interrupted.
``ULTRAAD_DEBUG=1`` shows the traceback behind an error message.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ultraad import __version__
from ultraad.cli import bench, data, export, models, support, tools
from ultraad.cli.console import Commands, complain, warnings_to_stderr
from ultraad.errors import MissingExtraError, UltraadError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["app", "main"]

app = typer.Typer(
    name="ultraad",
    cls=Commands,
    help="Few-shot CLIP for ultrasound: localise lesions, detect abnormal images, grade them. For research only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # plain help: rich would double the time it takes
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.add_typer(data.app, name="data")
app.add_typer(support.app, name="support")
app.add_typer(bench.app, name="bench")
models.register(app)
export.register(app)
tools.register(app)


def _print_version(wanted: bool) -> None:  # typer's callback
    if wanted:
        typer.echo(f"ultraad {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[  # noqa: ARG001  # its callback does the work
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    warnings_to_stderr()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code.

    Args:
        arguments: Words after ``ultraad``; those of the process if None.
    """
    try:
        app(args=None if arguments is None else list(arguments), prog_name="ultraad")
    except UltraadError as e:
        if os.environ.get("ULTRAAD_DEBUG") == "1":
            raise
        complain(e)
        sys.exit(1)
    except ModuleNotFoundError as e:
        if e.name != "torch" or os.environ.get("ULTRAAD_DEBUG") == "1":
            raise
        msg = "torch is not installed here; without it, only 'predict' and 'evaluate' with an exported model work"
        complain(MissingExtraError(f"{msg}. Install ultraad with its dependencies, or see docs/export.md"))
        sys.exit(1)
