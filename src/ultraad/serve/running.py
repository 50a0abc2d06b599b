"""uvicorn, with two things added: it says when it can be reached, and it ends the streams of events when it stops."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, *, ready: Callable[[], None], end: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready, self._end = ready, end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._end()  # else it waits for pages that listen forever
        await super().shutdown(sockets)


def run(
    config: uvicorn.Config, listening: socket.socket, *, ready: Callable[[], None], end: Callable[[], None]
) -> None:
    """Serve until the process gets SIGINT or SIGTERM.

    Args:
        config: Of uvicorn.
        listening: A bound socket.
        ready: Called when connections are accepted.
        end: Called when the server begins to stop.
    """
    _Server(config, ready=ready, end=end).run(sockets=[listening])
