"""Metrics of shards are those of one run, to the last digit, wherever they were predicted and after any stop."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.bench.run.test_ray import _busy
from tests.helpers import save
from ultraad.data import sources
from ultraad.errors import ConfigError, DataError
from ultraad.model.adapt import zero_shot
from ultraad.results.folder import read_errors, read_rows, read_run
from ultraad.runs.engines.local import Processes, Serial
from ultraad.runs.evaluate import evaluate
from ultraad.runs.evaluate_shards import evaluate_shards
from ultraad.simulate import write_dataset

TINY = partial(zero_shot, backbone="tiny")
WORDS: dict[str, Any] = {"bootstrap": 50, "batch_size": 4, "by": ["class"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 21 images: one cannot be read, and one mask does not fit."""
    root = tmp_path_factory.mktemp("data") / "set"
    write_dataset(root, n=21, size=48)
    samples = sources.scan(root)
    samples[-1].image.write_bytes(b"no picture")  # the last: the batches of the others stay
    (mask,) = next(s for s in samples if s.masks).masks
    assert isinstance(mask, Path)
    save(mask, np.zeros((40, 40), np.uint8))
    return root


@pytest.fixture(scope="module")
def one(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The evaluation in one process, with one thread."""
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("one") / "out"
    return evaluate(TINY(), data, output=output, **WORDS), output


def rows(folder: Path) -> list[dict[str, object]]:
    return [row.model_copy(update={"map": None, "overlay": None}).to_dict() for row in read_rows(folder)]


def check(found: dict[str, Any], folder: Path, one: tuple[dict[str, Any], Path]) -> None:
    """Metrics, curves, subgroups, failures, rows and the page are those of one process."""
    wanted, output = one
    assert set(found.pop("failed")) == set(wanted["failed"])
    assert found == {key: value for key, value in wanted.items() if key != "failed"}
    assert (folder / "metrics.json").read_bytes() == (output / "metrics.json").read_bytes()
    assert rows(folder) == rows(output)
    run, of_one = read_run(folder), read_run(output)
    assert run is not None
    assert of_one is not None
    assert (run.command, run.status, run.images, run.failed) == ("evaluate", "complete", of_one.images, of_one.failed)
    assert (run.data, run.leakage) == (of_one.data, of_one.leakage)
    assert {id_ for id_, _ in read_errors(folder)} == {id_ for id_, _ in read_errors(output)}
    assert "Pixel AUROC" in (folder / "report.html").read_text(encoding="utf-8")


def test_shards_of_this_process(data, one, tmp_path) -> None:
    assert len(one[0]["failed"]) == 1
    check(evaluate_shards(TINY, data, tmp_path / "out", engine=Serial(), shard=8, **WORDS), tmp_path / "out", one)


def test_shards_of_two_processes(data, one, tmp_path) -> None:
    engine = Processes(2)
    try:
        found = evaluate_shards(TINY, data, tmp_path / "out", engine=engine, shard=4, **WORDS)
    finally:
        engine.close()
    check(found, tmp_path / "out", one)


def test_a_stopped_run_goes_on(data, one, tmp_path) -> None:
    done: list[int] = []

    class Once(Serial):
        def map(self, work, tasks):  # type: ignore[no-untyped-def]
            for task in tasks:
                if len(done) == 2:
                    done.append(-1)
                    raise KeyboardInterrupt
                done.append(task.number)
                yield task, work(task)

    with pytest.raises(KeyboardInterrupt):
        evaluate_shards(TINY, data, tmp_path / "out", engine=Once(), shard=8, **WORDS)
    run = read_run(tmp_path / "out")
    assert run is not None
    assert run.status == "interrupted"
    found = evaluate_shards(TINY, data, tmp_path / "out", engine=Once(), shard=8, **WORDS)
    check(found, tmp_path / "out", one)
    assert done[:3] == [0, 1, -1]
    assert done.count(1) == 1, "a finished shard is not looked at again"
    other = evaluate_shards(TINY, data, tmp_path / "out", engine=Once(), shard=8, **(WORDS | {"by": []}))
    assert "subgroups" not in other


def test_a_label_that_changed_is_measured_again(data, tmp_path) -> None:
    samples = sources.scan(data)
    engine, words = Serial(), {"bootstrap": 0, "batch_size": 4}
    evaluate_shards(TINY, samples, tmp_path / "out", engine=engine, shard=8, **words)
    fewer = [s for s in samples if s.label != "benign"]
    found = evaluate_shards(TINY, fewer, tmp_path / "out", engine=engine, shard=8, **words)
    assert found["n"]["images"] == len(fewer) - 1  # one cannot be read
    assert found["metrics"] == evaluate(TINY(), fewer, **words)["metrics"]


def test_a_lost_shard_gives_no_metrics(data, tmp_path) -> None:
    class Lossy(Serial):
        def map(self, work, tasks):  # type: ignore[no-untyped-def]
            for task in tasks:
                folder = Path(task.folder)
                folder.parent.mkdir(exist_ok=True)
                if task.number == 1:
                    folder.write_text("a file in the way", encoding="utf-8")
                yield task, work(task)

    with pytest.raises(DataError, match=r"1 shard.s. were not predicted, and metrics need all images: 1"):
        evaluate_shards(TINY, data, tmp_path / "out", engine=Lossy(), shard=8, **WORDS)
    assert not (tmp_path / "out" / "metrics.json").exists()
    with pytest.raises(ConfigError, match="shard=6"):
        evaluate_shards(TINY, data, tmp_path / "out", engine=Serial(), shard=6, **WORDS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_nodes_with_killed_workers(data, one, tmp_path) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from ultraad.runs.engines.ray import Ray

    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not over.is_set() and len(killed) < 2:
            for process in [w for w in _busy() if w not in killed][:1]:
                os.kill(process, signal.SIGKILL)
                killed.append(process)
            time.sleep(1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        ray.init(address=nodes.address, log_to_driver=False)
        thread = threading.Thread(target=kill)
        try:
            thread.start()
            with Ray(address=None, threads=1) as engine:
                found = evaluate_shards(TINY, data, tmp_path / "ray", engine=engine, shard=4, **WORDS)
        finally:
            over.set()
            thread.join()
            ray.shutdown()
            nodes.shutdown()
    assert killed
    check(found, tmp_path / "ray", one)
    assert json.loads((tmp_path / "ray" / "run.json").read_text(encoding="utf-8"))["status"] == "complete"
