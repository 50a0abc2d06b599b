"""Sockets that pynetdicom (3.0) leaves open.

If a peer ends a connection first, ``shutdown`` of our socket fails, and pynetdicom then skips its ``close``
(``AssociationSocket._shutdown_socket``). The file descriptor stays until the garbage collector comes, which a node that
runs for months should not rely on.
"""

from __future__ import annotations

import socket
from threading import Lock
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association


def closing() -> list[Any]:
    """Event handlers that close the socket of every association when its connection ends."""
    opened: dict[Association, socket.socket] = {}
    lock = Lock()  # each association has threads of its own

    def remember(event: evt.Event) -> None:
        held = event.assoc.dul.socket
        if held is not None and held.socket is not None:
            with lock:
                opened[event.assoc] = held.socket

    def close(event: evt.Event) -> None:
        with lock:
            held = opened.pop(event.assoc, None)
        if held is not None:
            held.close()

    return [(evt.EVT_CONN_OPEN, remember), (evt.EVT_CONN_CLOSE, close)]
