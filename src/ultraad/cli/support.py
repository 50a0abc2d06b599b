"""``ultraad support``: draw the few images a model is adapted on, and record which they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultraad.cli.console import say, table
from ultraad.cli.help import Command, Commands
from ultraad.cli.options import Fan, Fans, Layout, Names, NormalClass, Region, Regions, ResizeMasks, Seed, split_names

if TYPE_CHECKING:
    from ultraad.types import SupportSet

app = typer.Typer(
    cls=Commands,
    help="Draw a support set: the few labelled images a model is adapted on."
    "\n\nExample: ultraad support draw BUS-UCLM -o support.json",
    no_args_is_help=True,
)


@app.command(cls=Command)
def draw(
    folder: Annotated[str, typer.Argument(help="Root of the data set, or its URL: s3://bucket/folder.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file to write.")],
    shots: Annotated[int, typer.Option(min=1, help="Images per class.")] = 4,
    seed: Seed = 0,
    layout: Layout = "auto",
    per_patient: Annotated[
        bool, typer.Option("--per-patient", help="Take one image of each patient before a second of any.")
    ] = False,
    exclude_tags: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Leave out images with these tags, e.g. marks,doppler.")
    ] = None,
    exclude_patients: Annotated[str | None, typer.Option(metavar="A,B,...", help="Leave out these patients.")] = None,
    classes: Names = None,
    normal_class: NormalClass = None,
    split: Annotated[str, typer.Option(help="Published split to draw from; 'all' ignores splits.")] = "train",
    resize_masks: ResizeMasks = False,
    region: Regions = Region.auto,
    fan: Fans = Fan.off,
    against: Annotated[
        str | None, typer.Option(help="Data set for the evaluation: stop if it shares images or patients.")
    ] = None,
) -> None:
    """Draw images of each class. With the same seed, the images for 4 shots are among those for 8.

    The data set may hold normal images only, or lesions only; the command then says what the support set is enough for.

    Example: ultraad support draw BUS-UCLM -o support.json --shots 8
    """
    from ultraad.data import sources
    from ultraad.data.support import check_leakage, draw_support, save_support

    support = draw_support(
        folder,
        shots=shots,
        seed=seed,
        layout=layout,
        per_patient=per_patient,
        exclude_tags=split_names(exclude_tags),
        exclude_groups=split_names(exclude_patients),
        split=None if split == "all" else split,
        classes=split_names(classes) or None,
        normal_class=normal_class,
        resize_masks=resize_masks,
        region=region.value,
        fan=fan.value,
    )
    if against is not None:
        root, evaluated = sources.locate(against)
        check_leakage(support, sources.scan(root, layout=evaluated), layout=evaluated)
    save_support(support, output)
    _show(support)
    method = " --method NAME" if all(s.label == support.normal_class for s in support.samples) else ""
    say(f"\nwritten to {output}; next: ultraad adapt {output} -o MODEL{method}")


@app.command(cls=Command)
def show(
    file: Annotated[Path, typer.Argument(help="File from 'ultraad support draw'.")],
    *,
    root: Annotated[str | None, typer.Option(help="Where the data set is now, if it was moved.")] = None,
) -> None:
    """Show a support set after checking that its image files have not changed.

    Example: ultraad support show support.json
    """
    from ultraad.data.support import load_support

    _show(load_support(file, root=root))


def _show(support: SupportSet) -> None:
    from ultraad.methods import _guide as guide

    table(
        ("class", "image", "patient", "masks", "tags"),
        [(s.label, s.id, s.group, len(s.masks), ", ".join(sorted(s.tags)) or None) for s in support.samples],
    )
    say(
        f"\n{len(support.samples)} images, {support.shots} per class, '{support.normal_class}' means no lesion, "
        f"seed {support.seed}\nsource {support.source}\ndigest {support.digest}"
    )
    for line in guide.uses(support):
        say(line)
