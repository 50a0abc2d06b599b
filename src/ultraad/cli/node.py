"""``ultraad node``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ultraad.cli.console import say, warn
from ultraad.cli.options import (
    FanOf,
    OperatingPoint,
    PixelThreshold,
    Region,
    Regions,
    Sets,
    Smooth,
    Threshold,
    split_names,
)
from ultraad.cli.predictor import with_model
from ultraad.model.predictor import Predictor


@with_model
def node(
    load: Callable[[], Predictor],
    *,
    folder: Annotated[Path, typer.Option("--folder", help="Folder of the queue: what came, and what has to go.")],
    aet: Annotated[str, typer.Option(help="AE title of this node.")] = "ULTRAAD",
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Listen at this port, e.g. 11112.")] = None,
    host: Annotated[str, typer.Option(help="Listen at this address; the default is this machine alone.")] = "127.0.0.1",
    allow: Annotated[
        list[str] | None, typer.Option(metavar="AET", help="Only this AE title may call. Can be repeated.")
    ] = None,
    store: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AET@HOST:PORT|URL",
            help="Send results to this node (tls:AET@... with TLS) or DICOMweb service. Can be repeated.",
        ),
    ] = None,
    watch: Annotated[Path | None, typer.Option(help="Take DICOM files from this folder.")] = None,
    watch_dicomweb: Annotated[
        str | None, typer.Option(metavar="URL", help="Take ultrasound images from this DICOMweb service.")
    ] = None,
    watch_days: Annotated[int, typer.Option(min=1, help="With --watch-dicomweb: of so many days, today included.")] = 1,
    objects: Annotated[
        str, typer.Option(metavar="A,B,...", help="Which objects: seg, labelmap, fractional, sr, pr, sc, ko.")
    ] = "seg,sr,pr,sc,ko",
    threshold: Threshold = None,
    pixel_threshold: PixelThreshold = None,
    operating_point: OperatingPoint = None,
    sets: Sets = None,
    region: Regions = Region.auto,
    fan: FanOf = None,
    smooth: Smooth = 0.0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep images and runs after everything was sent.")] = False,
    log_patients: Annotated[
        bool,
        typer.Option("--log-patients", help="Name the patient of each image in audit.jsonl; by default, UIDs only."),
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds without an answer that end an association.")] = 60.0,
    most_associations: Annotated[int, typer.Option(min=1, help="Associations at the same time.")] = 10,
    most_megabytes: Annotated[int, typer.Option(min=1, help="Of one image.")] = 512,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file of this node's certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
    tls_authority: Annotated[
        Path | None, typer.Option(help="PEM file of the authority whose certificates are accepted.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Stop when nothing waits any more; for scripts.")] = False,
) -> None:
    """Receive DICOM images, predict them, and store the results at other nodes. For research only.

    An image is acknowledged when it is on the disk. A node that was killed goes on where it was. --port, --watch and
    --watch-dicomweb say where images come from. Stop it with Ctrl-C or SIGTERM.

    Example: ultraad node model --folder node --port 11112 --store PACS@127.0.0.1:4242
    """
    from ultraad.errors import ConfigError
    from ultraad.model.runtimes import require

    model = load()
    require("pynetdicom", extra="dicom")
    require("dicomweb_client", extra="dicom")
    require("highdicom", extra="dicom")
    from ultraad.node.intake import Door, Watch
    from ultraad.node.node import Node, Setup, peers_by_title
    from ultraad.node.peers import Peer, checked_aet, client_tls, peer_of, server_tls, web_peer_of
    from ultraad.node.send import Sender
    from ultraad.node.web import WebWatch

    peers = tuple(map(peer_of, store or ()))
    if (tls_certificate is None) != (tls_key is None):
        msg = "--tls-certificate and --tls-key belong together; give both or none"
        raise ConfigError(msg)
    tls = server_tls(tls_certificate, tls_key, tls_authority) if tls_certificate and tls_key else None
    outgoing = (
        client_tls(tls_certificate, tls_key, tls_authority)
        if any(isinstance(p, Peer) and p.tls for p in peers)
        else None
    )
    door = None
    if port is not None:
        door = Door(
            aet=checked_aet(aet),
            host=host,
            port=port,
            allowed=tuple(map(checked_aet, allow or ())),
            most_bytes=most_megabytes * 2**20,
            most_associations=most_associations,
            timeout=timeout,
            tls=tls,
            peers=peers_by_title(peers),
            peer_tls=outgoing,
        )
    options = {
        "threshold": threshold,
        "pixel_threshold": pixel_threshold,
        "operating_point": operating_point,
        "sets": sets,
        "region": region.value,
        "fan": None if fan is None else fan.value,
        "smooth": smooth,
        "objects": split_names(objects),
    }
    places: list[Watch | WebWatch] = []
    if watch is not None:
        places.append(Watch(watch))
    if watch_dicomweb is not None:
        places.append(WebWatch(web_peer_of(watch_dicomweb), days=watch_days, timeout=timeout))
    sender = Sender(checked_aet(aet), timeout, outgoing, keep=keep)
    setup = Setup(folder, door, sender, peers=peers, watch=tuple(places), options=options, name_patients=log_patients)
    try:
        with Node(model, setup) as running:
            where = f"{aet} listens at {host}:{running.port}" if door else f"{aet} listens to nobody"
            say(f"{where}; results go to {', '.join(p.name for p in peers) or 'nobody: they stay in ' + str(folder)}")
            while not running.wait(0.2) and not (once and running.idle()):
                pass
            _tell(running.queue.counts(), running.queue.reasons())
    except KeyboardInterrupt:
        say("stopped; the next start goes on where it was")


def _tell(counts: dict[str, int], reasons: dict[str, str]) -> None:
    for state, number in counts.items():
        say(f"{state}: {number}")
    for uid, reason in reasons.items():
        warn(f"  {uid}: {reason}")
