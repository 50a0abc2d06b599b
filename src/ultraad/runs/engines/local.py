"""Run tasks on this machine: one after another in this process, or several at a time in processes of their own."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_TRIES = 2  # a process may be killed when memory runs out


@dataclass(frozen=True, slots=True)
class Lost:
    """The result of a task whose process died at every try (killed, out of memory)."""

    reason: str


class Engine(Protocol):
    """Runs independent tasks."""

    def map(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[T, R | Lost]]:
        """Run ``work`` on every task; yield (task, result) pairs as they finish, in any order.

        Args:
            work: Picklable; raises nothing but KeyboardInterrupt.
            tasks: Independent of each other; asked for when there is room for them, so that there may be any number.
        """
        ...  # pragma: no cover


class Serial:
    """One task after another, in this process."""

    def map(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[T, R | Lost]]:
        """See :class:`Engine`."""
        for task in tasks:
            yield task, work(task)

    def close(self) -> None:
        """Nothing to end."""


class Processes:
    """Several tasks at a time, each in a process with a fresh interpreter. The next ``map`` uses the processes again.

    If a process dies, only its task is lost and is tried once more. Call :meth:`close` at the end.

    Args:
        count: Processes, at least 1.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._workers: list[_Worker] = []
        self._idle: list[_Worker] = []

    def map(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[T, R | Lost]]:
        """See :class:`Engine`."""
        fresh = ((task, 1) for task in tasks)  # with the number of the try
        again: deque[tuple[T, int]] = deque()
        busy: dict[Connection, tuple[_Worker, T, int]] = {}
        try:
            while True:
                while len(busy) < self.count and (turn := again.popleft() if again else next(fresh, None)) is not None:
                    worker = self._idle.pop() if self._idle else self._start()
                    task, number = turn
                    try:
                        worker.connection.send((work, task))
                    except OSError:  # it died while idle
                        worker.end()
                        again.appendleft(turn)
                        continue
                    busy[worker.connection] = (worker, task, number)
                if not busy:
                    return
                ready = wait(list(busy))
                for connection in [c for c in busy if c in ready]:
                    worker, task, number = busy.pop(connection)
                    try:
                        result: R = worker.connection.recv()
                    except (EOFError, OSError):
                        worker.end()
                        if number < _TRIES:
                            again.append((task, number + 1))
                        else:
                            yield task, Lost(f"its process died, {_TRIES} times (killed, or out of memory?)")
                    else:
                        self._idle.append(worker)
                        yield task, result
        finally:
            for worker, _, _ in busy.values():
                worker.end()

    def close(self) -> None:
        """End all processes, also busy ones."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()
        self._idle.clear()

    def _start(self) -> _Worker:
        self._workers.append(_Worker())
        return self._workers[-1]


class _Worker:
    """A process and the connection to it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()  # only the process holds that end now, so its death is an end of file here

    def end(self) -> None:
        """Stop it; may be called again."""
        self.connection.close()
        self._process.terminate()
        self._process.join()


def _serve(connection: Connection[Any, Any]) -> None:
    """Run tasks until there are no more. Ignore Ctrl-C, which the parent handles, and exit when the parent does.

    Warnings are not printed: they are about files and would repeat for every job. Rows list the images left out.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger().addHandler(logging.NullHandler())
    parent = multiprocessing.parent_process()
    assert parent is not None

    def exit_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()
    while True:
        try:
            work, task = connection.recv()
        except EOFError:
            return
        connection.send(work(task))
