"""``ultraad push`` and ``ultraad pull``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultraad.cli.console import say


def push(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model, adapted or exported.")],
    to: Annotated[str, typer.Argument(metavar="hub:OWNER/NAME", help="The repository on the hub; made if needed.")],
    *,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a new repository.")] = False,
    licence: Annotated[
        str | None, typer.Option(metavar="ID", help="Licence of the model for its card, e.g. cc-by-4.0.")
    ] = None,
) -> None:
    """Send a model to a hub, huggingface.co by default: its files and its card, in one commit. It holds no images.

    A new repository is private without --public. The token is that of 'hf auth login' or HF_TOKEN.

    Example: ultraad push model hub:clinic/breast
    """
    from ultraad.model import hub

    sent = hub.push(model, hub.address(to), public=public, licence=licence)
    say(f"pushed {model} to {sent}")
    say(f"next, anywhere: ultraad pull {sent} {sent.name.rpartition('/')[2]}")


def pull(
    what: Annotated[
        str,
        typer.Argument(metavar="hub:OWNER/NAME@REVISION", help="A commit, a tag or a branch; the newest without @."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The model's new folder; must not exist.")],
) -> None:
    """Fetch a model from a hub. Each file is checked against the sha256 in the model's record.

    Example: ultraad pull hub:clinic/breast@v1 model
    """
    from ultraad.model import hub

    got = hub.pull(hub.address(what), folder)
    say(f"pulled {got} to {folder}")
    say(f"next: ultraad predict {folder} IMAGES -o results")
