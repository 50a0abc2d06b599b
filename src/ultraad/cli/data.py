"""``ultraad data``: check a data set before using it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ultraad.cli.console import progress, say, table
from ultraad.cli.help import Command, Commands
from ultraad.cli.options import Layout, ResizeMasks

app = typer.Typer(
    cls=Commands,
    help="Check data sets, list their layouts, and copy the shipped images.\n\nExample: ultraad data check BUS-UCLM",
    no_args_is_help=True,
)


@app.command(cls=Command)
def check(
    folder: Annotated[str, typer.Argument(help="Root of the data set, or its URL: s3://bucket/folder.")],
    *,
    layout: Layout = "auto",
    resize_masks: ResizeMasks = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Find unreadable files, masks that do not fit, duplicates across classes and patients, and label shortcuts.

    Exits with 1 if there are errors.

    Example: ultraad data check BUS-UCLM
    """
    from ultraad.data.audit import audit

    with progress() as tell:
        report = audit(
            folder,
            layout=layout,
            resize_masks=resize_masks,
            progress=lambda done, total: tell("check", done, total),
        )
    if as_json:
        say(json.dumps(report.model_dump(mode="json"), indent=2, ensure_ascii=False))
    else:
        for line in report.lines():
            say(line)
    if report.has_errors:
        raise typer.Exit(1)


@app.command(cls=Command)
def samples(*, output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")] = Path("samples")) -> None:
    """Copy the real images that ship with ultraad: 48 of BUS-BRA, with masks and licence.

    Example: ultraad data samples -o samples
    """
    from ultraad.data.samples import copy_samples

    folder = copy_samples(output)
    say(f"48 images of 24 patients in {folder}; cite BUS-BRA, see {folder / 'NOTICE.md'}")


@app.command("list", cls=Command)
def list_layouts(
    name: Annotated[str | None, typer.Argument(help="Show one layout in full.")] = None,
) -> None:
    """List the layouts with their licences, or show one with the folder it expects and what to cite.

    Example: ultraad data list busi
    """
    from ultraad.data import sources

    if name is None:
        table(
            ("layout", "what", "licence"),
            [(n, sources.get(n).title, sources.get(n).licence) for n in sources.available()],
        )
        say("\n'ultraad data list NAME' shows the folder that a layout expects, and what to cite.")
        return
    source = sources.get(name)
    say(f"{source.name}: {source.title}\n\n{source.layout.strip(chr(10))}\n")
    say(f"patients: {source.group_rule}\nlicence:  {source.licence}")
    if source.citation:
        say(f"cite:     {source.citation}")
