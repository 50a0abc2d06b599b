"""``ultraad backbones``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultraad.cli.console import SOME_FAILED, say, table, warn
from ultraad.cli.help import Command, Commands
from ultraad.cli.options import DEFAULT_BACKBONE

app = typer.Typer(
    cls=Commands,
    help="List, download and verify backbones.\n\nExample: ultraad backbones list",
    no_args_is_help=True,
)


@app.command("list", cls=Command)
def list_backbones() -> None:
    """List known backbones and whether their weights are on this machine.

    Example: ultraad backbones list
    """
    from ultraad.backbones._weights import listing

    rows = [(w.name, "yes" if w.path or w.name == "tiny" else "no", w.note) for w in listing()]
    table(("backbone", "here", "what"), rows)
    say("\nOthers: open_clip:<model>/<tag>, open_clip:hf-hub:<id>, open_clip:local-dir:<folder>, or a file.")


@app.command(cls=Command)
def fetch(name: Annotated[str, typer.Argument(help="open_clip:<model>/<tag> or open_clip:hf-hub:<id>.")]) -> None:
    """Download weights and verify them; no other command downloads weights.

    Example: ultraad backbones fetch open_clip:ViT-L-14-336-quickgelu/openai
    """
    from ultraad.backbones._weights import fetch as download

    say(f"{name} is here: {download(name)}")


@app.command(cls=Command)
def verify(name: Annotated[str, typer.Argument(help="A backbone, or a weights file.")] = DEFAULT_BACKBONE) -> None:
    """Check weights against their known sha256.

    Known are those of the backbones that ship, of files in the hub cache, and of files with a record beside them
    (w.sha256 beside w.safetensors). Exits with 1 if they are damaged, or the file holds no weights; with 3 if no sha256
    is known, so that nothing was compared.

    Example: ultraad backbones verify embedded
    """
    from ultraad.backbones._weights import verify as check

    found = check(name)
    say(f"{found.path}\nsha256 {found.sha256}")
    if found.known_from is None:
        beside = found.path.with_suffix(".sha256").name
        warn(
            f"not verified: no sha256 is known for this file, so nothing was compared. Compare the one above with that "
            f"of the source, or put it into {beside} beside the file"
        )
        raise typer.Exit(SOME_FAILED)
    say(f"verified: this is the known sha256 ({found.known_from})")


@app.command(cls=Command)
def export(
    name: Annotated[str, typer.Argument(help="A backbone that ships with ultraad; open_clip loads all others itself.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")],
) -> None:
    """Write a shipped backbone for plain open_clip: weights, a file that builds it without ultraad, a model card.

    Example: ultraad backbones export embedded -o tower
    """
    from ultraad.backbones.embedded import export as write
    from ultraad.io.files import ensure_writable

    written = write(ensure_writable(output), name)
    say("\n".join(f"{path}  {path.stat().st_size:,} bytes" for path in written))
    say("next: python -c 'from embedded_tower import load; load(\"open_clip_model.safetensors\")', in that folder")
