"""``ultraad methods``, ``backbones``, ``simulate``, ``demo`` and ``doctor``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultraad.cli.console import Commands, describe, heading, progress, say, table, warn
from ultraad.cli.options import DEFAULT_BACKBONE, BackboneName, Layout, NormalClass, Seed

if TYPE_CHECKING:
    from ultraad.config import Option
    from ultraad.methods._base import Method

backbones = typer.Typer(cls=Commands, help="List, fetch and verify backbones.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(methods)
    app.add_typer(backbones, name="backbones")
    app.command()(simulate)
    app.command()(demo)
    app.command()(doctor)


def methods(name: Annotated[str | None, typer.Argument(help="Show one method with all its options.")] = None) -> None:
    """List the methods and what each needs, or show one with its options, their defaults and where they come from."""
    from ultraad.cli import guide
    from ultraad.methods import get

    if name is not None:
        _show_method(get(name))
        return
    for group, members in guide.grouped().items():
        heading(group)
        say()
        for info in (method.info for method in members):
            facts = (info.idea, f"needs {guide.needs(info)}", f"gives {guide.gives(info)}", info.paper)
            describe([(info.name, "\n".join(filter(None, facts)))], column=18, indent=2)
            say()
    say("'ultraad methods NAME' shows one with all its options.")


def _show_method(method: type[Method]) -> None:
    from ultraad.cli import guide
    from ultraad.config import options
    from ultraad.model.calibration import CalibrationConfig

    info = method.info
    heading(info.title)
    say()
    facts = {
        "idea": info.idea,
        "paper": f"{info.paper}\n{info.url}",
        "reference": f"{info.reference} ({info.licence})",
        "needs": guide.needs(info),
        "gives": guide.gives(info),
        "learned": info.learned,
        "deviations": "\n".join(f"- {deviation}" for deviation in info.deviations),
    }
    describe([(term, text) for term, text in facts.items() if text], column=12)
    thresholds = [replace(o, key=f"calibration.{o.key}") for o in options(CalibrationConfig)]
    for section, members in {**guide.sections(method), "Thresholds.": thresholds}.items():
        say()
        heading(section or "Options, for --set KEY=VALUE.")
        say()
        describe([_entry(o) for o in members], column=32, indent=2)


def _entry(option: Option) -> tuple[str, str]:
    """Key and default, and what there is to say; a long default moves to the text."""
    from ultraad.cli import guide

    default, text = guide.value(option.default), f"{option.values}\n{option.description}"
    if len(default) > 40:
        return option.key, f"{default}\n{text}"
    return f"{option.key} = {default}", text


@backbones.command("list")
def list_backbones() -> None:
    """List known backbones and whether their weights are on this machine."""
    from ultraad.backbones._weights import listing

    rows = [(w.name, "yes" if w.path or w.name == "tiny" else "no", w.note) for w in listing()]
    table(("backbone", "here", "what"), rows)
    say("\nOthers: open_clip:<model>/<tag>, open_clip:hf-hub:<id>, open_clip:local-dir:<folder>, or a file.")


@backbones.command()
def fetch(name: Annotated[str, typer.Argument(help="open_clip:<model>/<tag> or open_clip:hf-hub:<id>.")]) -> None:
    """Download weights and verify them; the only command that uses the network."""
    from ultraad.backbones._weights import fetch as download

    say(f"{name} is here: {download(name)}")


@backbones.command()
def verify(name: Annotated[str, typer.Argument(help="A backbone, or a weights file.")] = DEFAULT_BACKBONE) -> None:
    """Check weights against their known sha256."""
    from ultraad.backbones._weights import verify as check

    path, digest = check(name)
    say(f"{path}\nsha256 {digest}")


@backbones.command()
def export(
    name: Annotated[str, typer.Argument(help="Only 'embedded'; the others are open_clip's own already.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")],
) -> None:
    """Write the embedded tower for plain open_clip: weights, a file that builds it without ultraad, the model card."""
    from ultraad.backbones.embedded import export as write
    from ultraad.errors import ConfigError
    from ultraad.io.files import ensure_writable

    if name != DEFAULT_BACKBONE:
        msg = (
            f"{name!r} cannot be exported; only {DEFAULT_BACKBONE!r} is made here, open_clip loads the others by itself"
        )
        raise ConfigError(msg)
    written = write(ensure_writable(output))
    say("\n".join(f"{path}  {path.stat().st_size:,} bytes" for path in written))
    say("next: python -c 'from embedded_tower import load; load(\"open_clip_model.safetensors\")', in that folder")


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
    from ultraad.cli.demo import run
    from ultraad.cli.models import show_metrics

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
