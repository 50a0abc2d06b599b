"""``ultraad bench run``, ``recipes``, ``report`` and ``compare``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ultraad.cli.console import progress, say, table, tell_interrupted, warn
from ultraad.cli.help import Command, Commands
from ultraad.cli.options import Device, Devices, EngineName, engine_of
from ultraad.errors import ConfigError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ultraad.bench.recipe import Recipe
    from ultraad.bench.row import Row

app = typer.Typer(
    cls=Commands,
    help="Compare methods on your data by a recipe, and write a report."
    "\n\nExample: ultraad bench run quick --data DATA -o results",
    no_args_is_help=True,
)

_Folder = Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder from 'ultraad bench run'.")]


@app.command(cls=Command)
def run(
    recipe: Annotated[str, typer.Argument(help="A name from 'ultraad bench recipes', or a YAML file.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    data: Annotated[Path | None, typer.Option(help="Folder with the data sets of the recipe.")] = None,
    root: Annotated[
        list[str] | None,
        typer.Option("--root", metavar="NAME=DIR", help="Folder of one data set of the recipe. Can be repeated."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Replace a key of the recipe, e.g. seeds=0,1. Can be repeated."
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Jobs at a time. Default: one for each processor.")] = None,
    engine: Annotated[
        EngineName, typer.Option(help="ray: on a Ray cluster; needs the extra 'ray'.")
    ] = EngineName.local,
    address: Annotated[
        str | None, typer.Option(help="Address of the Ray cluster, or 'auto'. Default: start one on this machine.")
    ] = None,
    gpus: Annotated[float, typer.Option(min=0, help="With ray: GPUs for each job, e.g. 0.25.")] = 0.0,
    device: Devices = Device.auto,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Run failed rows again.")] = False,
    share: Annotated[
        bool, typer.Option(help="Encode each image once for all jobs; kept on disk in the results folder.")
    ] = True,
    keep_features: Annotated[
        bool, typer.Option("--keep-features", help="Keep the encoded images in the results folder.")
    ] = False,
) -> None:
    """Run a recipe; the same command continues an interrupted run.

    Finished rows are always kept. If a row fails, the others still run; the exit code is then 1.

    Example: ultraad bench run quick --data DATA -o results
    """
    from ultraad.bench.recipe import read_recipe
    from ultraad.bench.results import RESULTS
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
                path=Path(recipe),
                progress=tell,
                on_row=_show,
            )
        except KeyboardInterrupt:
            tell_interrupted(output, "rows", record=RESULTS)
            raise typer.Exit(130) from None
    counts = ", ".join(f"{n} {status}" for status, n in sorted(done.counts.items()))
    say(f"{counts or 'no rows'} ({done.skipped} from an earlier run) in {done.seconds:.0f} s; results in {output}")
    if done.counts.get("error"):
        warn(f"some rows failed: see {output}/errors; run them again with --retry-errors")
        raise typer.Exit(1)


@app.command(cls=Command)
def recipes() -> None:
    """List the recipes that ship with the package.

    Example: ultraad bench recipes
    """
    from ultraad.bench.recipe import read_recipe, shipped

    table(("name", "title"), [(name, read_recipe(name).title) for name in shipped()])


@app.command(cls=Command)
def report(folder: _Folder) -> None:
    """Write the report of a results folder as HTML, and its tables as Markdown, LaTeX and CSV.

    Example: ultraad bench report results
    """
    from ultraad.bench.study.page import render

    say(f"report written to {render(folder)}")


@app.command(cls=Command)
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A results folder.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another results folder.")],
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the comparison as an HTML page.")
    ] = None,
) -> None:
    """Show the differences between two results folders.

    Example: ultraad bench compare results-before results-after
    """
    from ultraad.bench.study.compare import compare as difference
    from ultraad.io.files import write_text

    found = difference(first, second)
    say(str(found))
    if output is not None:
        write_text(output, found.html())
        say(f"\nwritten to {output}")


def _engine(name: EngineName, recipe: Recipe, *, address: str | None, gpus: float) -> AbstractContextManager[Any]:
    if name is EngineName.local:
        return nullcontext()  # the driver's own, which is as many processes as the recipe wants
    return engine_of(name, processes=1, threads=recipe.threads, address=address, gpus=gpus)


def _pair(word: str) -> tuple[str, Path]:
    name, equals, folder = word.partition("=")
    if not (name and equals and folder):
        msg = f"got --root {word!r}; wanted NAME=DIR, e.g. --root busi=data/BUSI"
        raise ConfigError(msg)
    return name, Path(folder)


def _show(row: Row) -> None:
    """Print one line for a finished row."""
    where = f"{row.label}, {row.shots} shots, seed {row.seed}, {row.protocol}, {row.test.name}"
    if row.status != "ok":
        warn(f"{where}: {row.reason}")
        return
    from ultraad.metrics.catalogue import MAIN, short, spec

    values = {key: row.value(key) for key in MAIN}
    shown = [f"{short(key)} {spec(key).text(value)}" for key, value in values.items() if value is not None]
    say(f"{where}: {'  '.join(shown)}")
