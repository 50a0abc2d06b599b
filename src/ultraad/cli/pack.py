"""``ultraad pack`` and ``ultraad unpack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultraad.cli.console import say


def pack(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model, adapted or exported.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; its name ends in .ultraad.")],
) -> None:
    """Write a model as one file to send: a plain zip of its files, the same bytes for the same model.

    Example: ultraad pack model breast.ultraad
    """
    from ultraad.model.pack import pack as write

    written = write(model, file)
    say(f"packed {model} as {written} ({written.stat().st_size / 1e6:.1f} MB)")
    say(f"next, where it arrives: ultraad unpack {written.name} {written.stem}")


def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="From 'ultraad pack'.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The model's new folder; must not exist.")],
) -> None:
    """Write a packed model as a folder. Its files are checked; a file that would leave the folder is refused.

    Example: ultraad unpack breast.ultraad model
    """
    from ultraad.model.pack import unpack as write

    write(file, folder)
    say(f"unpacked {file} to {folder}")
    say(f"next: ultraad predict {folder} IMAGES -o results")
