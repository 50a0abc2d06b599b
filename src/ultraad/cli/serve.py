"""``ultraad serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultraad.cli.console import say, warn
from ultraad.cli.options import DEFAULT_BACKBONE, BackboneName, Device, Devices, Fan


def serve(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder with images to mark, or of a project. Default: an empty project.")
    ] = None,
    *,
    project: Annotated[
        Path | None,
        typer.Option(help="Folder of the project; made if it is not there. Default: FOLDER-ultraad beside FOLDER."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model to begin with. Default: zero-shot, from text alone.")
    ] = None,
    backbone: BackboneName = DEFAULT_BACKBONE,
    device: Devices = Device.auto,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Default: that of the project's last start, or 8417.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any other than the default lets other machines connect.")
    ] = "127.0.0.1",
    fan: Annotated[
        Fan | None,
        typer.Option(
            help="How models see pictures, as of 'ultraad predict'. Default: as at the last start, else as MODEL; off."
        ),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    api_docs: Annotated[
        bool, typer.Option("--api-docs", help="Describe the API for programs at /api/openapi.json.")
    ] = False,
) -> None:
    """Open the page: mark a few images, adapt, look at the results, correct, and take the model away.

    Everything is kept in the folder of the project and stays on this machine. The printed address works once; it is
    for the browser that opens it first. Ctrl-C ends the server; nothing that was marked is lost.

    Example: ultraad serve scans
    """
    from ultraad.serve.server import Settings, serve

    data, where = _places(folder, project)
    settings = Settings(
        where, data, model, backbone, device.value, host, port, api_docs, None if fan is None else fan.value
    )
    if not settings.local:
        warn(
            f"warning: other machines can connect to {host}, and what they send and get is not encrypted; "
            "use this only in a network that you trust, or behind a proxy with TLS"
        )

    def ready(address: str) -> None:
        say(f"project: {where}")
        say(f"open once: {address}", style="bold")
        say("for research only; Ctrl-C ends the server")
        if browser:
            import webbrowser

            webbrowser.open(address)

    try:
        serve(settings, ready=ready)
    except KeyboardInterrupt:  # the usual end
        say(f"ended; everything is in {where}")


def _places(folder: Path | None, project: Path | None) -> tuple[Path | None, Path]:
    """(images to import, folder of the project)."""
    from ultraad.serve.database import FILE

    if folder is not None and (folder / FILE).is_file() and project is None:
        return None, folder
    if project is None:
        project = (
            Path("ultraad-project")
            if folder is None
            else folder.absolute().with_name(f"{folder.absolute().name}-ultraad")
        )
    return folder, project
