"""The command line: parse, call, print. A command imports heavy packages when it runs.

Exit codes: 0 all done; 3 done, but some inputs failed; 1 nothing could be done, a check failed, or an option does not
fit the model, the method or the data; 2 a wrong command, option or value; 130 interrupted (Ctrl-C or SIGTERM).
``ULTRAAD_DEBUG=1`` shows the traceback of an error.
"""

from __future__ import annotations

import io
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

_INTERRUPTED = "interrupted; to go on, run the same command again"

try:  # the first second of a command
    import typer

    from ultraad import __version__
    from ultraad.cli import (
        adapt,
        backbones,
        bench,
        data,
        deidentify,
        dicom,
        evaluate,
        export,
        hub,
        methods,
        node,
        pack,
        predict,
        retune,
        serve,
        start,
        support,
        translate,
    )
    from ultraad.cli.console import complain, warn, warnings_to_stderr
    from ultraad.cli.help import Command, Commands
    from ultraad.errors import DataError, MissingExtraError, UltraadError
except KeyboardInterrupt:
    sys.stderr.write(f"{_INTERRUPTED}\n")
    sys.exit(130)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["app", "as_click", "main"]

_GROUPS: dict[str, dict[str, Callable[..., None] | typer.Typer]] = {
    "Try it": {"demo": start.demo, "simulate": start.simulate},
    "Mark and adapt in the browser": {"serve": serve.serve},
    "Prepare": {
        "data": data.app,
        "deidentify": deidentify.deidentify,
        "translate": translate.translate,
        "support": support.app,
    },
    "Adapt and use": {
        "adapt": adapt.adapt,
        "predict": predict.predict,
        "evaluate": evaluate.evaluate,
        "retune": retune.retune,
        "export": export.export,
        "pack": pack.pack,
        "unpack": pack.unpack,
        "push": hub.push,
        "pull": hub.pull,
        "dicom": dicom.app,
        "node": node.node,
    },
    "Compare": {"bench": bench.app},
    "Look up": {"methods": methods.methods, "backbones": backbones.app, "doctor": start.doctor},
}
"""Headings of the help, and the commands under each in the order of work."""


class _Root(Commands):
    """The group of all commands."""

    order = tuple(name for members in _GROUPS.values() for name in members)


app = typer.Typer(
    name="ultraad",
    cls=_Root,
    help="Few-shot CLIP for ultrasound: localise lesions, detect abnormal images, grade them. For research only."
    "\n\nExit codes: 0 all done; 3 done, but some inputs failed; 1 nothing could be done, a check failed, or an option "
    "does not fit the model, the method or the data; 2 a wrong command, option or value; 130 interrupted."
    "\n\nExample: ultraad demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # plain help: rich would double the time it takes
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for _heading, _members in _GROUPS.items():
    for _name, _member in _members.items():
        if isinstance(_member, typer.Typer):
            app.add_typer(_member, name=_name, rich_help_panel=_heading)
        else:
            app.command(_name, cls=Command, rich_help_panel=_heading)(_member)


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


def _stop_on_sigterm() -> None:
    """Let SIGTERM end a command like Ctrl-C: finished work is kept, and the exit code is 130."""
    import signal
    import threading

    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _write_what_can_be_written() -> None:
    """Let letters that the terminal or pipe has no code for be escapes, rather than the end of the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@cache
def as_click() -> Callable[..., Any]:
    """The whole command line as one command of Click, made once in a process."""
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its exit code.

    Args:
        arguments: Words after ``ultraad``; from ``sys.argv`` if None.
    """
    _stop_on_sigterm()
    _write_what_can_be_written()
    try:
        as_click()(args=None if arguments is None else list(arguments), prog_name="ultraad")
    except KeyboardInterrupt:
        warn(_INTERRUPTED, style="bold")
        sys.exit(130)
    except SystemExit as e:
        exit_ = e.__context__  # typer's; a command that has told what is finished raised it without a cause
        if e.code == 130 and exit_ is not None and isinstance(exit_.__cause__, KeyboardInterrupt):
            warn(_INTERRUPTED, style="bold")
        raise
    except UltraadError as e:
        if os.environ.get("ULTRAAD_DEBUG") == "1":
            raise
        complain(e)
        sys.exit(1)
    except OSError as e:
        if os.environ.get("ULTRAAD_DEBUG") == "1":
            raise
        where = "" if e.filename is None else f"{e.filename}: "
        complain(DataError(f"{where}{e.strerror or e}; check the path, its permissions and the free space there"))
        sys.exit(1)
    except ModuleNotFoundError as e:
        if e.name != "torch" or os.environ.get("ULTRAAD_DEBUG") == "1":
            raise
        msg = (
            "torch is not installed here; without it, 'predict' and 'evaluate' work with an exported model or zero-shot"
        )
        complain(MissingExtraError(f"{msg} as it ships, and nothing else does. To get it: pip install ultraad"))
        sys.exit(1)
