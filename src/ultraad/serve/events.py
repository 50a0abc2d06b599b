"""Server-sent events: what happens in the project, to every open page."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from threading import Lock
from typing import Any

from pydantic import BaseModel

KEEP_ALIVE = 15.0  # seconds between comments, so that neither side takes the connection for dead
_WAITING = 1000  # most events that wait for a page that does not read; it is then told to begin again

Event = tuple[str, Any]
"""(name, JSON)."""


class Hub:
    """Passes events from any thread to every listener."""

    def __init__(self) -> None:
        self.start = secrets.token_hex(8)
        self._lock = Lock()
        self._listeners: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Queue[Event | None]]] = {}
        self._count = 0

    def tell(self, name: str, what: BaseModel | dict[str, Any]) -> None:
        """Send an event to every page."""
        body = what.model_dump(mode="json", by_alias=True) if isinstance(what, BaseModel) else what
        self._put((name, body))

    def close(self) -> None:
        """End every stream."""
        self._put(None)

    def _put(self, event: Event | None) -> None:
        with self._lock:
            listeners = list(self._listeners.values())
        for loop, queue in listeners:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_offer, queue, event)

    async def listen(self, hello: Callable[[], dict[str, Any]]) -> AsyncIterator[str]:
        """The stream of one page, beginning with ``hello``.

        Args:
            hello: Gives the state at the moment from which on events are sent.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue(_WAITING)
        with self._lock:
            self._count += 1
            number = self._count
            self._listeners[number] = (asyncio.get_running_loop(), queue)
        sent = 0
        try:
            yield _text(f"{self.start}-{sent}", ("hello", {**hello(), "start": self.start}))
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), KEEP_ALIVE)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                if event is None:
                    return
                sent += 1
                yield _text(f"{self.start}-{sent}", event)
        finally:
            with self._lock:
                del self._listeners[number]


def _offer(queue: asyncio.Queue[Event | None], event: Event | None) -> None:
    if queue.full():  # the page has not read for long: end its stream, and it connects again
        while not queue.empty():
            queue.get_nowait()
        event = None
    queue.put_nowait(event)


def _text(number: str, event: Event) -> str:
    name, body = event
    return f"id: {number}\nevent: {name}\ndata: {json.dumps(body, separators=(',', ':'))}\n\n"
