"""The same jobs on a Ray cluster of two nodes, started on this machine; lost tasks run again."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from pathlib import Path

import pytest

from tests.bench.run.test_driver import REAL, TWO, table
from ultraad.bench.results import BenchFolder
from ultraad.bench.run.driver import run
from ultraad.errors import MissingExtraError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with one processor each; the driver is connected to them."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        ray.init(address=nodes.address, log_to_driver=False)
        yield ray
        ray.shutdown()
        nodes.shutdown()


@pytest.fixture
def grid(recipe):
    return recipe(methods=[*TWO, REAL], seeds=[0, 1, 2])


def test_ray_gives_the_same_results_to_the_last_bit(cluster, grid, data, tmp_path):
    from ultraad.runs.engines.ray import Ray

    run(grid, tmp_path / "local", base=data, jobs=1)
    with Ray(address=None, threads=1) as engine:
        outcome = run(grid, tmp_path / "ray", base=data, engine=engine)
    assert outcome.counts == {"ok": 9}
    assert len(cluster.nodes()) == 2
    assert table(tmp_path / "ray") == table(tmp_path / "local")


def test_a_killed_worker_loses_no_row(cluster, grid, data, tmp_path):
    """Workers are killed from outside while the grid runs; Ray starts their tasks again."""
    from ultraad.runs.engines.ray import Ray

    killed: list[int] = []
    done = threading.Event()

    def kill() -> None:
        while not done.is_set() and len(killed) < 2:
            busy = [w for w in _busy() if w not in killed]
            if busy and (tmp_path / "ray" / "results.jsonl").exists():
                os.kill(busy[0], signal.SIGKILL)
                killed.append(busy[0])
            time.sleep(0.5)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        with Ray(address=None, threads=1) as engine:
            outcome = run(grid, tmp_path / "ray", base=data, engine=engine)
    finally:
        done.set()
        thread.join()
    assert killed
    assert outcome.counts == {"ok": 9}
    run(grid, tmp_path / "local", base=data, jobs=1)
    assert table(tmp_path / "ray") == table(tmp_path / "local")
    assert BenchFolder.open(tmp_path / "ray").bench.status == "complete"


def _busy() -> list[int]:
    """Processes of this machine that run a job: Ray names a worker after its task."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_text(errors="replace")
            except OSError:
                continue
            if title.startswith("ray::") and "ultraad_task" in title:
                found.append(int(entry.name))
    return found


def test_without_ray_the_message_says_what_to_install(monkeypatch):
    import builtins

    from ultraad.runs.engines.ray import Ray

    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "ray":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'ultraad\[ray\]'"):
        Ray(address=None, threads=1)
