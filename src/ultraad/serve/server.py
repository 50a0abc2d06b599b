"""Run the server: choose a port, print the address that opens the page, and end cleanly."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ultraad.errors import ConfigError, MissingExtraError
from ultraad.fan import FanChoice
from ultraad.model.pack import files_of

if TYPE_CHECKING:
    from ultraad.serve.desk import Desk

PORT = 8417
LOCAL = "127.0.0.1"
_ALL = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Settings:
    """How to serve.

    Attributes:
        project: Folder of the project.
        data: Folder or file to import, unless it was imported before; None for none.
        model: Folder of the model to begin with; None for zero-shot.
        backbone: Name of the backbone to begin with.
        device: As ``ultraad adapt --device``.
        host: Address to listen on.
        port: None for that of the project's last start, or the next free one.
        api_docs: Describe the API at ``/api/openapi.json``.
        fan: How models see pictures; None: as at the project's last start, else as the model to begin with does.
    """

    project: Path
    data: Path | None = None
    model: Path | None = None
    backbone: str = "embedded"
    device: str = "cpu"
    host: str = LOCAL
    port: int | None = None
    api_docs: bool = False
    fan: FanChoice | None = None

    def ports(self, last: int | None) -> list[int]:
        """The ports to try: the wanted one; without, that of the last start, the usual one, any."""
        return [self.port] if self.port is not None else [*filter(None, [last]), PORT, 0]

    @property
    def local(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def serve(settings: Settings, *, ready: Callable[[str], None]) -> None:
    """Serve until the process is interrupted.

    Args:
        settings: How.
        ready: Called with the address that opens the page, once, when it can be opened.

    Raises:
        MissingExtraError: If FastAPI or uvicorn is not installed.
        ConfigError: If the port is taken or the address is not one of this machine.
        BundleError: If the model to begin with is none, or damaged.
        DataError: If the folder is no project, or another server has opened it.
    """
    with needs_server():
        from ultraad.serve.app import make_app
        from ultraad.serve.running import run
    from ultraad.serve.desk import Desk
    from ultraad.serve.guard import Keys

    if settings.model is not None:
        files_of(settings.model)
    first = None if settings.model is None else str(settings.model.resolve())
    desk = Desk(settings.project, backbone=settings.backbone, first=first, device=settings.device, fan=settings.fan)
    try:
        desk.references = settings.local
        listening = listen(settings.host, settings.ports(desk.project.database.setting("port")))
        port = int(listening.getsockname()[1])
        if settings.port is None:
            desk.project.database.set(port=port)
        keys = Keys(port)
        hosts = _hosts(settings, port)
        app = make_app(desk, keys, hosts=hosts, api_docs=settings.api_docs)
        if settings.data is not None:
            _import_once(desk, settings.data)
        desk.start()
        run(app, listening, ready=lambda: ready(f"http://{hosts[0]}/#code={keys.new_code()}"), end=desk.hub.close)
    finally:
        desk.close()


@contextmanager
def needs_server() -> Iterator[None]:
    """Says how to get what serves pages, where an import in the block does not find it.

    Raises:
        MissingExtraError: If FastAPI or uvicorn is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] not in ("fastapi", "uvicorn", "starlette", "python_multipart"):
            raise
        msg = f"the page needs {e.name}; install it with: pip install 'ultraad[serve]'"
        raise MissingExtraError(msg) from e


def listen(host: str, wanted: Sequence[int]) -> socket.socket:
    """A listening socket on the first of the wanted ports that is free; 0 is any.

    Raises:
        ConfigError: If none is free, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in wanted:
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio wants it for TCP_NODELAY
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
        except OSError as e:
            listening.close()
            if port == wanted[-1]:
                msg = f"cannot listen on {host}:{port}: {e.strerror or e}; choose another --port or --host"
                raise ConfigError(msg) from e
        else:
            return listening
    raise AssertionError


def local_hosts(port: int) -> list[str]:
    """The values of the Host header that mean a server which listens to this machine alone."""
    return [f"{LOCAL}:{port}", f"localhost:{port}", f"[::1]:{port}"]


def _hosts(settings: Settings, port: int) -> list[str]:
    """The values of the Host header that mean this server; the one to print first."""
    local = local_hosts(port)
    if settings.local:
        first = f"[{settings.host}]:{port}" if ":" in settings.host else f"{settings.host}:{port}"
        return list(dict.fromkeys([first, *local]))
    names = [settings.host]
    if settings.host in _ALL:
        name = socket.gethostname()
        names = [name, *_addresses(name)]
    return [f"[{n}]:{port}" if ":" in n else f"{n}:{port}" for n in names] + local


def _addresses(name: str) -> list[str]:
    try:
        return list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(name, None)))
    except OSError:
        return []


def _import_once(desk: Desk, data: Path) -> None:
    """Import a folder unless it was imported before."""
    if not data.exists():
        msg = f"{data} does not exist; give the folder with the images"
        raise ConfigError(msg)
    root = data.resolve()
    if any((p.source or "").endswith(f":{root}") for p in desk.project.pictures.values()):
        return
    desk.importer.folder(str(root), layout="auto", use_marks=False)
