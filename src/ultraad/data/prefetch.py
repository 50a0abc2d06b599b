"""Load samples in threads, a few steps ahead of the code that uses them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import current_thread
from typing import TypeVar

from ultraad.errors import DataError
from ultraad.io.faults import in_this_run

S = TypeVar("S")
T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """Threads of a generator.

    Args:
        count: How many.
        name: Of the threads.
        initializer: Called in each thread first.
    """

    def __init__(self, count: int, *, name: str, initializer: Callable[[], object] | None = None) -> None:
        super().__init__(count, thread_name_prefix=name, initializer=initializer)
        self._name = name

    def end(self) -> None:
        """Cancel what has not begun, and wait for the rest.

        The garbage collector may end a generator in any thread. One of these cannot wait for itself and returns at
        once.
        """
        self.shutdown(wait=not current_thread().name.startswith(self._name), cancel_futures=True)


def prefetch(
    samples: Iterable[S],
    load: Callable[[S], T],
    *,
    batch_size: int,
    on_error: Callable[[S, DataError], None] | None = None,
    workers: int = 2,
) -> Generator[list[T], None, None]:
    """Load any number of samples in threads; at most two batches are held in memory.

    The threads end when the iterator is exhausted, closed or garbage-collected.

    Args:
        samples: What to load; results keep this order.
        load: Called in a thread.
        batch_size: Samples per list; the last may be shorter. A skipped file does not make a list shorter.
        on_error: Called in the consumer's thread for each sample that cannot be read, which is then skipped; None
            raises.
        workers: Number of threads.

    Yields:
        Lists of what ``load`` returned.

    Raises:
        DataError: If a sample cannot be read and there is no ``on_error``.
    """
    queue, load = iter(samples), in_this_run(load)
    ready: list[T] = []
    pending: deque[tuple[S, Future[T]]] = deque()
    pool = Threads(workers, name="ultraad-loader")
    try:
        while True:
            for sample in islice(queue, 2 * batch_size - len(pending)):
                pending.append((sample, pool.submit(load, sample)))
            if not pending:
                break
            sample, future = pending.popleft()
            try:
                ready.append(future.result())
            except DataError as e:
                if on_error is None:
                    raise
                on_error(sample, e)
                continue
            if len(ready) == batch_size:
                yield ready
                ready = []
        if ready:
            yield ready
    finally:
        pool.end()
