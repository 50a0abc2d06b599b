"""``ultraad bench run``, ``report`` and ``compare``."""

from __future__ import annotations

from contextlib import nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ultraad.cli.console import Commands, progress, say, warn
from ultraad.cli.options import Device, Devices
from ultraad.errors import ConfigError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ultraad.bench.recipe import Recipe

app = typer.Typer(
    cls=Commands, help="Compare methods: a recipe in, a folder of results and a report out.", no_args_is_help=True
)

_Folder = Annotated[Path, typer.Argument(metavar="RESULTS", help="What 'ultraad bench run' wrote.")]
_SHOWN = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "class_auroc_macro": "class AUROC"}


class EngineName(str, Enum):  # noqa: UP042  # StrEnum's repr would be shown in the help
    """Who runs the jobs."""

    local = "local"
    ray = "ray"


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="YAML; see recipes/.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    data: Annotated[Path | None, typer.Option(help="Folder that holds the recipe's data sets.")] = None,
    root: Annotated[
        list[str] | None,
        typer.Option("--root", metavar="NAME=DIR", help="Where one of the recipe's data sets is; repeatable."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a key of the recipe, e.g. seeds=[0]; repeatable."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Jobs at a time; as many as there are processors if not given.")
    ] = None,
    engine: Annotated[EngineName, typer.Option(help="ray: on a Ray cluster, extra 'ray'.")] = EngineName.local,
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster, or 'auto'; one is started here if not given.")
    ] = None,
    gpus: Annotated[float, typer.Option(min=0, help="With ray: GPUs that a job takes, e.g. 0.25.")] = 0.0,
    device: Devices = Device.auto,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Try rows again that failed before.")] = False,
    share: Annotated[bool, typer.Option(help="Encode images once for all jobs, on disk in the results folder.")] = True,
    keep_features: Annotated[
        bool, typer.Option("--keep-features", help="Leave the encoded images in the results folder.")
    ] = False,
) -> None:
    """Run a recipe; run it again to go on where it stopped.

    Finished rows are kept whatever happens. A row that fails is listed at the end and the rest goes on; exits with 1
    if any row failed.
    """
    from ultraad.bench.recipe import read_recipe
    from ultraad.bench.run.driver import run as run_recipe
    from ultraad.config import parse_assignments

    chosen = read_recipe(recipe, changes=parse_assignments(changes or ()))
    with progress() as tell, _engine(engine, chosen, address=address, gpus=gpus) as other:
        try:
            done = run_recipe(
                chosen,
                output,
                base=data,
                roots=dict(map(_pair, root or ())),
                jobs=jobs,
                engine=other,
                device=device.value,
                retry_errors=retry_errors,
                share=share,
                keep_features=keep_features,
                path=recipe,
                progress=tell,
                on_row=_show,
            )
        except KeyboardInterrupt:
            warn(f"interrupted. What is done is kept in {output}; run the same command again to go on", style="bold")
            raise typer.Exit(130) from None
    counts = ", ".join(f"{n} {status}" for status, n in sorted(done.counts.items()))
    say(f"{counts or 'no rows'} ({done.skipped} were there already) in {done.seconds:.0f} s; results in {output}")
    if done.counts.get("error"):
        warn(f"rows failed: see {output}/errors, and try them again with --retry-errors")
        raise typer.Exit(1)


@app.command()
def report(folder: _Folder) -> None:
    """Write the report of a results folder: HTML, and the tables as Markdown, LaTeX and CSV."""
    from ultraad.bench.study.page import render

    say(f"report written to {render(folder)}")


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A results folder.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it as an HTML page, too.")] = None,
) -> None:
    """Show what differs between two results folders."""
    from ultraad.bench.study.compare import compare as difference
    from ultraad.io.files import write_text

    found = difference(first, second)
    say(str(found))
    if output is not None:
        write_text(output, found.html())
        say(f"\nwritten to {output}")


def _engine(name: EngineName, recipe: Recipe, *, address: str | None, gpus: float) -> AbstractContextManager[Any]:
    if name is EngineName.local:
        return nullcontext()
    from ultraad.bench.run.ray import Ray

    return Ray(address=address, threads=recipe.threads, gpus=gpus)


def _pair(word: str) -> tuple[str, Path]:
    name, equals, folder = word.partition("=")
    if not (name and equals and folder):
        msg = f"cannot understand --root {word!r}; wanted NAME=DIR, e.g. --root busi=data/BUSI"
        raise ConfigError(msg)
    return name, Path(folder)


def _show(row: dict[str, Any]) -> None:
    """One line for a new row."""
    where = f"{row['label']}, {row['shots']} shots, seed {row['seed']}, {row['protocol']}, {row['test']['name']}"
    if row["status"] != "ok":
        warn(f"{where}: {row['reason']}")
        return
    values = {title: row["metrics"][key]["value"] for key, title in _SHOWN.items()}
    shown = "  ".join(f"{title} {100 * value:.1f}" for title, value in values.items() if value is not None)
    say(f"{where}: {shown}")
