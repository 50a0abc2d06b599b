"""``ultraad methods``, ``backbones``, ``simulate``, ``demo`` and ``doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultraad.cli.console import progress, say, table, warn
from ultraad.cli.options import DEFAULT_BACKBONE, BackboneName, Layout, NormalClass, Seed

backbones = typer.Typer(help="List, fetch and verify backbones.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(methods)
    app.add_typer(backbones, name="backbones")
    app.command()(simulate)
    app.command()(demo)
    app.command()(doctor)


def methods(name: Annotated[str | None, typer.Argument(help="Show one method with all its options.")] = None) -> None:
    """List the methods, or show one with its options, their defaults and where they come from."""
    from ultraad.calibrate import CalibrationConfig
    from ultraad.config import options
    from ultraad.methods import available, get

    if name is None:
        infos = [get(n).info for n in available()]
        table(
            ("method", "title", "paper", "gives"),
            [(i.name, i.title, i.paper, ", ".join(sorted(i.outputs))) for i in infos],
        )
        say("\n'ultraad methods NAME' shows its options.")
        return
    method = get(name)
    info = method.info
    say(f"{info.title}\n\npaper      {info.paper}, {info.url}\nreference  {info.reference}\nlicence    {info.licence}")
    for deviation in info.deviations:
        say(f"deviation  {deviation}")
    say()
    rows = [(o.key, o.default, o.type, o.description) for o in options(method.Config)]
    rows += [(f"calibration.{o.key}", o.default, o.type, o.description) for o in options(CalibrationConfig)]
    table(("option", "default", "type", "meaning"), rows)


@backbones.command("list")
def list_backbones() -> None:
    """List known backbones and whether their weights are on this machine."""
    from ultraad.backbones.weights import listing

    rows = [(w.name, "yes" if w.path or w.name == "tiny" else "no", w.note) for w in listing()]
    table(("backbone", "here", "what"), rows)
    say("\nOthers: open_clip:<model>/<tag>, open_clip:hf-hub:<id>, open_clip:local-dir:<folder>, or a file.")


@backbones.command()
def fetch(name: Annotated[str, typer.Argument(help="open_clip:<model>/<tag> or open_clip:hf-hub:<id>.")]) -> None:
    """Download weights and verify them; the only command that uses the network."""
    from ultraad.backbones.weights import fetch as download

    say(f"{name} is here: {download(name)}")


@backbones.command()
def verify(name: Annotated[str, typer.Argument(help="A backbone, or a weights file.")] = DEFAULT_BACKBONE) -> None:
    """Check weights against their known sha256."""
    from ultraad.backbones.weights import verify as check

    path, digest = check(name)
    say(f"{path}\nsha256 {digest}")


def simulate(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the data set.")],
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Images.")] = 100,
    size: Annotated[int, typer.Option(min=64, help="Side in pixels.")] = 256,
    seed: Seed = 0,
) -> None:
    """Draw a data set of simulated breast-ultrasound images with exact masks."""
    from ultraad.simulate import write_dataset

    write_dataset(output, n=number, seed=seed, size=size)
    say(f"{number} simulated images in {output}; next: ultraad support draw {output} -o support.json")


def demo(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything the demo makes.")] = Path(
        "demo-output"
    ),
    data: Annotated[
        Path | None, typer.Option(help="Your own labelled data set; simulated images if not given.")
    ] = None,
    layout: Layout = "auto",
    normal_class: NormalClass = None,
    backbone: BackboneName = DEFAULT_BACKBONE,
    seed: Seed = 0,
) -> None:
    """The whole story: data, support set, adaptation, prediction, evaluation, report."""
    from ultraad.cli.models import show_metrics
    from ultraad.demo import run

    with progress() as tell:
        story = run(
            output, data=data, layout=layout, normal_class=normal_class, backbone=backbone, seed=seed, progress=tell
        )
    for line in story.lines:
        say(line)
    say()
    show_metrics(story.metrics)
    say(f"\nreport    {story.report}\noverlays  {story.report.parent / 'overlays'}\nmodel     {story.model}")
    say("For research only; no medical device.")


def doctor() -> None:
    """Check versions, devices, weights, disk, and run a self-test. Exits with 1 if something is broken."""
    from ultraad.doctor import checks

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
