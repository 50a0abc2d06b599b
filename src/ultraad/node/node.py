"""The threads of a node: one listens, one predicts, one sends to each peer, one looks into each watched place."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pynetdicom.transport import ThreadedAssociationServer

from ultraad.dicom.objects import USUAL, checked
from ultraad.errors import Caught, ConfigError, brief
from ultraad.model.predictor import Predictor
from ultraad.node.intake import Door, Watch, listen
from ultraad.node.peers import Peer, WebPeer
from ultraad.node.queue import Queue
from ultraad.node.send import Sender, send_due
from ultraad.node.web import WebWatch
from ultraad.node.work import Job, work
from ultraad.runs.job import thresholds_of

_log = logging.getLogger(__name__)

_PAUSE = 1.0  # seconds between two looks at what is due
_AFTER_ERROR = 10  # pauses after an error
_LOOK = 2.0  # seconds between two looks at a watched place


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything that a node needs.

    Attributes:
        folder: Of the queue.
        door: Who may come in; None to listen to nobody.
        sender: How objects go out.
        peers: Who gets them.
        watch: Folders and DICOMweb services to take images from.
        options: Arguments of :func:`ultraad.runs.predict.predict`.
        name_patients: Whether the audit log names patients.
    """

    folder: Path
    door: Door | None
    sender: Sender
    peers: tuple[Peer | WebPeer, ...] = ()
    watch: tuple[Watch | WebWatch, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    name_patients: bool = False


class Node:
    """A running node. Use it as a context: it starts at the beginning of the block and stops at its end.

    Args:
        model: Any model.
        setup: Everything else.

    Raises:
        ConfigError: If nothing can come in, or a setting is wrong.
        DataError: If the folder cannot be used.

    Attributes:
        queue: Its queue.
        port: The port it listens at; None if it does not.
    """

    def __init__(self, model: Predictor, setup: Setup) -> None:
        if setup.door is None and not setup.watch:
            msg = "nothing can come in: give a port to listen at, or a folder or DICOMweb service to watch"
            raise ConfigError(msg)
        objects = checked(setup.options.get("objects", USUAL))
        cuts = ("threshold", "pixel_threshold", "operating_point", "sets")
        chosen = thresholds_of(model, **{name: setup.options.get(name) for name in cuts})
        if chosen.pixel is None:
            msg = f"{model.describe().method} draws no maps, so it has no DICOM objects to send; take another method"
            raise ConfigError(msg)
        self._job = Job(model, tuple(peer.name for peer in setup.peers), {**setup.options, "objects": objects})
        self._setup = setup
        self._stop = threading.Event()
        self._server: ThreadedAssociationServer | None = None
        self._threads: list[threading.Thread] = []
        self._looked: set[int] = set()
        self.queue = Queue(setup.folder, name_patients=setup.name_patients)
        self.port: int | None = None

    def __enter__(self) -> Node:
        whole = False
        try:
            self._open()
            whole = True
        finally:
            if not whole:  # no port, or interrupted on the way
                self.stop()
        return self

    def _open(self) -> None:
        if self._setup.door is not None:
            self._server = listen(self.queue, self._setup.door)
            self.port = int(self._server.server_address[1])
        self.queue.note("started", model=self._job.model.digest, port=self.port)
        self._start("predict", lambda: work(self.queue, self._job, stopped=self._stop.is_set))
        for peer in self._setup.peers:
            self._start(f"send {peer.name}", self._sending(peer))
        for number, watch in enumerate(self._setup.watch):
            self._start(f"watch {number}", self._watching(watch))

    def _sending(self, peer: Peer | WebPeer) -> Callable[[], object]:
        return lambda: send_due(self.queue, peer, self._setup.sender, stopped=self._stop.is_set)

    def _watching(self, watch: Watch | WebWatch) -> Callable[[], object]:
        def look() -> None:
            self._looked.discard(id(watch))
            watch.look(self.queue)
            self._looked.add(id(watch))
            self._stop.wait(_LOOK)

        return look

    def _start(self, name: str, turn: Callable[[], object]) -> None:
        thread = threading.Thread(target=self._loop, args=(name, turn), name=f"ultraad-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _loop(self, name: str, turn: Callable[[], object]) -> None:
        while not self._stop.is_set():
            with Caught() as caught:
                turn()
            if caught.error is not None:  # a full disk, for instance: the node goes on, and tries again
                _log.warning("%s: %s", name, brief(caught.error))
                self._stop.wait(_AFTER_ERROR * _PAUSE)
            self.queue.changed.wait(_PAUSE)
            self.queue.changed.clear()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the node is stopped; False if the time is up before."""
        return self._stop.wait(seconds)

    def idle(self) -> bool:
        """Whether every watched place was looked at, and nothing waits for a prediction or a peer."""
        if len(self._looked) < len(self._setup.watch):
            return False
        counts = self.queue.counts()
        return not any(counts.get(what) for what in ("images received", "objects waiting", "objects sending"))

    def stop(self) -> None:
        """Take no more, finish the image and the object in work, and release the folder."""
        self._stop.set()
        self.queue.changed.set()
        if self._server is not None:
            self._server.shutdown()
        for thread in self._threads:
            thread.join()
        self.queue.note("stopped", **{key.replace(" ", "_"): n for key, n in self.queue.counts().items()})
        self.queue.close()

    def __exit__(self, *error: object) -> None:
        self.stop()


def peers_by_title(peers: Sequence[Peer | WebPeer]) -> dict[str, Peer]:
    """{AE title: peer} of those that have one.

    Raises:
        ConfigError: If two peers have one title.
    """
    found: dict[str, Peer] = {}
    for peer in peers:
        if isinstance(peer, WebPeer):
            continue
        if peer.aet in found:
            msg = f"two peers are called {peer.aet}: {found[peer.aet].name} and {peer.name}; an AE title is one node"
            raise ConfigError(msg)
        found[peer.aet] = peer
    return found
