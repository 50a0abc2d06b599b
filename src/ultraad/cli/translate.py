"""``ultraad translate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultraad.cli.console import SOME_FAILED, list_failures, progress, say, warn
from ultraad.cli.options import Device, Devices


def translate(
    source: Annotated[str, typer.Argument(metavar="FROM", help="Data set to translate, in any layout.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Data set whose look is wanted; no masks are read.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder for the translated data set.")],
    by: Annotated[
        str,
        typer.Option(
            metavar="WAY",
            help="histogram: the grey values of TO; moments: their mean and deviation; fourier: the amplitude of low "
            "frequencies; cycle: trains a small network for minutes.",
        ),
    ] = "histogram",
    beta: Annotated[
        float, typer.Option(min=0, max=0.5, help="For fourier: highest frequency, as a share of the shorter side.")
    ] = 0.01,
    most: Annotated[int, typer.Option(min=1, help="Pictures of TO that are looked at.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of these pictures, and of the training.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="For cycle: an option of the network. Can be repeated."),
    ] = None,
    device: Devices = Device.auto,
) -> None:
    """Write a data set in the look of another scanner, without pairs of images.

    Pictures keep their names, and masks and tables are copied, so that the result is used like FROM. Black stays black.
    Run again to go on after an interruption. Exits with 3 if some pictures could not be read.

    --by cycle trains a cycle-consistent network first; --set changes its size (steps=..., side=..., width=...).
    OUT-cycle then holds the network, report.html on how far to trust it, certainty.csv, and a map of the expected error
    of each picture.

    Example: ultraad translate DATA/BUS-UCLM DATA/BUS-BRA -o looks-like-bus-bra
    """
    from ultraad.config import parse_assignments
    from ultraad.errors import ConfigError
    from ultraad.registry import did_you_mean
    from ultraad.translate import WAYS, translate

    way = next((w for w in WAYS if w == by), None)
    if way is None:
        msg = f"--by {by} is unknown{did_you_mean(by, WAYS) or ';'} wanted {', '.join(WAYS)}"
        raise ConfigError(msg)
    with progress() as tell:
        try:
            done = translate(
                source,
                target,
                output,
                way=way,
                beta=beta,
                most=most,
                seed=seed,
                options=parse_assignments(settings or ()),
                device=device.value,
                progress=tell,
                announce=warn,
            )
        except KeyboardInterrupt:
            warn("interrupted; run the same command again to resume", style="bold")
            raise typer.Exit(130) from None
    list_failures(done.failed, limit=len(done.failed), what="picture(s) were not translated")
    kept = f", {done.kept} were there already" if done.kept else ""
    say(f"{done.pictures} pictures written{kept}, {done.copied} other files copied to {output}")
    if way == "cycle":
        beside = output.with_name(f"{output.name}-cycle")
        say(f"certainty of each picture: {beside / 'certainty.csv'}")
        page = beside / "report.html"
        if page.is_file():
            say(f"how far to trust it, and what it may invent: {page}")
        else:
            warn("too few held-out pictures to calibrate its uncertainty, so there is no report")
    if done.failed:
        raise typer.Exit(SOME_FAILED if done.pictures + done.kept else 1)
