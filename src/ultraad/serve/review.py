"""The page of a review of ``ultraad deidentify``: every box and every picture, decided by mouse or keyboard.

It is served to this machine alone, behind the same guard as ``ultraad serve``. Each decision is in the review's
``boxes.csv`` before it is answered, so a browser or a server that is killed loses nothing that the page called saved.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING

from ultraad.serve.server import LOCAL, listen, local_hosts, needs_server

if TYPE_CHECKING:
    from ultraad.dicom.deidentify.review import Review

PORT = 8418


def decide_on_page(review: Review, *, port: int | None = None, ready: Callable[[str], None]) -> bool:
    """Serve the page until a person has decided about every file, and says so.

    Args:
        review: Everything was looked at.
        port: None for the usual one, or the next that is free.
        ready: Called with the address that opens the page, once.

    Returns:
        True: about every file was decided, and the person answers for it.

    Raises:
        MissingExtraError: If FastAPI or uvicorn is not installed.
        ConfigError: If the port is taken.
        KeyboardInterrupt: If the command is interrupted; decisions are kept.
    """
    with needs_server():
        from ultraad.serve.review_app import make_review_app
        from ultraad.serve.running import run
    from ultraad.serve.guard import Keys

    listening = listen(LOCAL, [PORT, 0] if port is None else [port])
    port = int(listening.getsockname()[1])
    keys, done = Keys(port), Event()
    hosts = local_hosts(port)
    app = make_review_app(review, keys, hosts=hosts, done=done)
    run(app, listening, ready=lambda: ready(f"http://{hosts[0]}/#code={keys.new_code()}"), stop=done)
    return done.is_set()
