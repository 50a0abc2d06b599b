"""The threads of a node: one listens, one predicts, one for each peer sends, one watches a folder."""

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
from ultraad.node.intake import Door, Watch, listen, watching
from ultraad.node.peers import Peer
from ultraad.node.queue import Queue
from ultraad.node.send import Sender, send_due
from ultraad.node.work import Job, work
from ultraad.runs.job import thresholds_of

_log = logging.getLogger(__name__)

_PAUSE = 1.0  # seconds between two looks at what is due


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything that a node needs.

    Attributes:
        folder: Of the queue.
        door: Who may come in; None to listen to nobody.
        sender: How objects go out.
        peers: Who gets them.
        watch: A folder to take files from; None for none.
        options: Arguments of :func:`ultraad.runs.predict.predict`.
    """

    folder: Path
    door: Door | None
    sender: Sender
    peers: tuple[Peer, ...] = ()
    watch: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)


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
        if setup.door is None and setup.watch is None:
            msg = "nothing can come in: give a port to listen at, or a folder to watch"
            raise ConfigError(msg)
        if setup.watch is not None and not setup.watch.is_dir():
            msg = f"{setup.watch} is no folder, so it cannot be watched"
            raise ConfigError(msg)
        objects = checked(setup.options.get("objects", USUAL))
        cuts = ("threshold", "pixel_threshold", "operating_point")
        chosen = thresholds_of(model, **{name: setup.options.get(name) for name in cuts})
        if chosen.pixel is None:
            msg = f"{model.describe().method} draws no maps, so it has no DICOM objects to send; take another method"
            raise ConfigError(msg)
        self._job = Job(model, tuple(peer.name for peer in setup.peers), {**setup.options, "objects": objects})
        self._setup = setup
        self._stop = threading.Event()
        self._server: ThreadedAssociationServer | None = None
        self._threads: list[threading.Thread] = []
        self.queue = Queue(setup.folder)
        self.port: int | None = None

    def __enter__(self) -> Node:
        try:
            if self._setup.door is not None:
                self._server = listen(self.queue, self._setup.door)
                self.port = int(self._server.server_address[1])
        except ConfigError:
            self.queue.close()
            raise
        self.queue.note("started", model=self._job.model.digest, port=self.port)
        self._start("predict", lambda: work(self.queue, self._job, stopped=self._stop.is_set))
        for peer in self._setup.peers:
            self._start(f"send {peer.aet}", self._sending(peer))
        if self._setup.watch is not None:
            watch = Watch(self._setup.watch)
            self._start("watch", lambda: watching(watch, self.queue, stopped=self._stop.is_set))
        return self

    def _sending(self, peer: Peer) -> Callable[[], object]:
        return lambda: send_due(self.queue, peer, self._setup.sender, stopped=self._stop.is_set)

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
            self.queue.changed.wait(_PAUSE)
            self.queue.changed.clear()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the node is stopped; False if the time is up before."""
        return self._stop.wait(seconds)

    def idle(self) -> bool:
        """Whether nothing waits for a prediction or a peer."""
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


def peers_by_title(peers: Sequence[Peer]) -> dict[str, Peer]:
    """{AE title: peer}.

    Raises:
        ConfigError: If two peers have one title.
    """
    found: dict[str, Peer] = {}
    for peer in peers:
        if peer.aet in found:
            msg = f"two peers are called {peer.aet}: {found[peer.aet].name} and {peer.name}; an AE title is one node"
            raise ConfigError(msg)
        found[peer.aet] = peer
    return found
