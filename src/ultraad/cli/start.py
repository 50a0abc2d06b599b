"""``ultraad demo``, ``simulate`` and ``doctor``: what works without data of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultraad.cli.console import progress, say, show_metrics, warn
from ultraad.cli.options import DEFAULT_BACKBONE, BackboneName, Layout, NormalClass, Seed


def demo(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything the demo makes.")] = Path(
        "demo-output"
    ),
    data: Annotated[
        str | None, typer.Option(help="Your own labelled data set. Default: the real images that ship with ultraad.")
    ] = None,
    simulated: Annotated[bool, typer.Option("--simulated", help="Simulated images, with normal ones.")] = False,
    layout: Layout = "auto",
    normal_class: NormalClass = None,
    backbone: BackboneName = DEFAULT_BACKBONE,
    seed: Seed = 0,
) -> None:
    """Run every step once: data, support set, adaptation, prediction, evaluation, report.

    Example: ultraad demo -o demo-output
    """
    from ultraad.cli.demo import run

    with progress() as tell:
        done = run(
            output,
            data=data,
            simulated=simulated,
            layout=layout,
            normal_class=normal_class,
            backbone=backbone,
            seed=seed,
            progress=tell,
        )
    if data is None and not simulated:
        from ultraad.data.samples import samples

        say(f"data      48 real images of 24 patients; cite BUS-BRA, see {samples() / 'NOTICE.md'}")
    for line in done.lines:
        say(line)
    say()
    show_metrics(done.metrics)
    say(f"\nreport    {done.report}\noverlays  {done.report.parent / 'overlays'}\nmodel     {done.model}")
    say("For research only; not a medical device.")


def simulate(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the data set.")],
    number: Annotated[int, typer.Option("--number", "-n", min=1, max=1_000_000, help="Number of images.")] = 100,
    size: Annotated[int, typer.Option(min=64, max=4096, help="Height and width in pixels.")] = 256,
    seed: Seed = 0,
) -> None:
    """Make a data set of simulated breast-ultrasound images with exact masks.

    Example: ultraad simulate -o simulated -n 60
    """
    from ultraad.simulate import write_dataset

    write_dataset(output, n=number, seed=seed, size=size)
    say(f"{number} simulated images in {output}; next: ultraad support draw {output} -o support.json")


def doctor() -> None:
    """Check the installation: versions, devices, weights, disk space, and a self-test.

    Exits with 1 if something is broken.

    Example: ultraad doctor
    """
    from ultraad.cli.doctor import checks

    broken = False
    for check in checks():
        broken |= check.status == "broken"
        line = f"{check.status:<7} {check.name:<10} {check.detail}"
        if check.status == "ok":
            say(line)
        else:
            warn(line, style="red" if check.status == "broken" else "yellow")
    if broken:
        raise typer.Exit(1)
