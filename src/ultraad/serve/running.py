"""uvicorn, with three things added: it says when it can be reached, can be told to stop, and then ends open streams."""

from __future__ import annotations

import socket
from collections.abc import Callable
from threading import Event

import uvicorn

from ultraad.serve.guard import App

_SECONDS = 2  # for open streams to end


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, *, ready: Callable[[], None], end: Callable[[], None], stop: Event
    ) -> None:
        super().__init__(config)
        self._ready, self._end, self._stop = ready, end, stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._stop.is_set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._end()  # else it waits for pages that listen forever
        await super().shutdown(sockets)


def run(
    app: App,
    listening: socket.socket,
    *,
    ready: Callable[[], None],
    end: Callable[[], None] = lambda: None,
    stop: Event | None = None,
) -> None:
    """Serve until the process gets SIGINT or SIGTERM, or is told to stop.

    Args:
        app: The guarded application.
        listening: A bound socket.
        ready: Called when connections are accepted.
        end: Called when the server begins to stop.
        stop: Set to stop it.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=_SECONDS,
        h11_max_incomplete_event_size=1 << 16,
    )
    _Server(config, ready=ready, end=end, stop=stop or Event()).run(sockets=[listening])
