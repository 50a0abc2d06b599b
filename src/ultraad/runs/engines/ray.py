"""Run tasks on a Ray cluster (extra ``[ray]``).

Every machine needs ultraad, and the data and output folders under the same paths. Only the driver writes rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar

from ultraad.errors import MissingExtraError
from ultraad.runs.engines.local import Lost

T = TypeVar("T")
R = TypeVar("R")

_RETRIES = 3  # of a task whose process or machine was lost


class Ray:
    """An engine on a Ray cluster; a context manager that disconnects at the end.

    If the process or machine of a task is lost, Ray starts the task again elsewhere, up to three times.

    Args:
        address: Address of a running cluster, or ``"auto"``; None starts one on this machine.
        threads: Processors for each task.
        gpus: GPUs for each task; may be a fraction.

    Raises:
        MissingExtraError: If Ray is not installed.
    """

    def __init__(self, *, address: str | None, threads: int, gpus: float = 0.0) -> None:
        try:
            import ray
        except ModuleNotFoundError as e:
            msg = "the engine 'ray' needs an extra package: pip install 'ultraad[ray]'"
            raise MissingExtraError(msg) from e
        self._ray: Any = ray
        self._own = not ray.is_initialized()
        if self._own:
            ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
        self._needs = {"num_cpus": threads, "num_gpus": gpus, "max_retries": _RETRIES}

    def __enter__(self) -> Ray:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own:
            self._ray.shutdown()

    def _room(self) -> int:
        """Tasks that the cluster is given at a time: twice what it can run, however many machines it has now."""
        return max(4, 2 * int(self._ray.cluster_resources().get("CPU", 1) / self._needs["num_cpus"]))

    def map(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[T, R | Lost]]:
        """See :class:`ultraad.runs.engines.local.Engine`."""

        def ultraad_task(task: T) -> R:  # Ray shows the name of this function
            return work(task)

        remote = self._ray.remote(**self._needs)(ultraad_task)
        waiting, running = iter(tasks), dict[Any, T]()
        while True:
            for task in islice(waiting, self._room() - len(running)):
                running[remote.remote(task)] = task
            if not running:
                return
            (done, *_), _ = self._ray.wait(list(running), num_returns=1)
            task = running.pop(done)
            try:
                yield task, self._ray.get(done)
            except (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.NodeDiedError) as e:
                yield task, Lost(f"its process or machine was lost {_RETRIES + 1} times: {type(e).__name__}")
