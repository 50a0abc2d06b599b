from __future__ import annotations

import json
import os
import signal
import threading
import time
import warnings
from functools import partial
from pathlib import Path

import pytest

from tests.bench.run.test_ray import _busy
from ultraad.errors import ConfigError, DataError
from ultraad.model.adapt import zero_shot
from ultraad.results.folder import read_errors, read_rows, read_run
from ultraad.results.row import ImageRow
from ultraad.runs.engines.local import Serial
from ultraad.runs.predict import predict
from ultraad.runs.shards import predict_shards
from ultraad.simulate import write_dataset

TINY = partial(zero_shot, backbone="tiny")
SHARDED = ("map", "overlay")  # paths of pictures


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 18 images, one file that is no image, and one that does not exist."""
    root = tmp_path_factory.mktemp("scans")
    write_dataset(root / "set", n=18, size=48)
    (root / "broken.png").write_bytes(b"no picture")
    names = sorted(p.relative_to(root).as_posix() for p in (root / "set").rglob("*.png") if "mask" not in p.name)
    (root / "list.txt").write_text("\n".join([*names, "broken.png", "gone.png"]), encoding="utf-8")
    return root / "list.txt"


def content(folder: Path) -> list[dict[str, object]]:
    """The rows without the places of pictures."""
    return [{k: v for k, v in row.to_dict().items() if k not in SHARDED} for row in read_rows(folder)]


@pytest.fixture(scope="module")
def done(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded") / "out"
    outcome = predict_shards(TINY, images, folder, engine=Serial(), shard=4, batch_size=4)
    assert (outcome.predicted, outcome.skipped, outcome.failed, outcome.lost) == (18, 0, 2, {})
    return folder


def test_rows_are_those_of_one_run_to_the_last_digit(images: Path, done: Path, tmp_path: Path) -> None:
    names = [images.parent / n for n in images.read_text(encoding="utf-8").splitlines()[:18]]
    predict(TINY(), names, tmp_path / "one", batch_size=4)
    assert content(done) == content(tmp_path / "one")
    assert all((done / path).is_file() for row in read_rows(done) for path in (row.map, row.overlay) if path)
    run = read_run(done)
    assert run is not None
    assert (run.status, run.images, run.failed) == ("complete", 18, 2)
    assert "report" in (done / "report.html").read_text(encoding="utf-8")


def test_overlays_of_the_highest_scores_are_those_of_all_shards(images: Path, done: Path, tmp_path: Path) -> None:
    engine, words = Serial(), {"overlays": "top:3", "maps": "grid"}
    predict_shards(TINY, images, tmp_path / "out", engine=engine, shard=4, batch_size=4, **words)
    wanted = sorted(read_rows(done), key=lambda row: -row.score)[:3]
    named = [row for row in read_rows(tmp_path / "out") if row.overlay]
    assert {row.id for row in named} == {row.id for row in wanted}
    assert all((tmp_path / "out" / row.overlay).is_file() for row in named if row.overlay)
    assert content(done) == content(tmp_path / "out")


def test_files_that_cannot_be_read_end_nothing(done: Path) -> None:
    reasons = dict(read_errors(done))
    assert {Path(id_).name for id_ in reasons} == {"broken.png", "gone.png"}
    assert any("does not exist" in reason for reason in reasons.values())


def test_the_table_is_there_as_parquet(done: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(done / "predictions.parquet").to_pylist()
    assert [(r["id"], r["score"], dict(r["probs"])) for r in rows] == [
        (r.id, r.score, r.probs) for r in read_rows(done)
    ]


def test_the_same_command_continues_where_it_stopped(images: Path, tmp_path: Path) -> None:
    class Stopped(Serial):
        def map(self, work, tasks):  # type: ignore[no-untyped-def]
            for number, task in enumerate(tasks):
                if number == 2:
                    raise KeyboardInterrupt
                yield task, work(task)

    with pytest.raises(KeyboardInterrupt):
        predict_shards(TINY, images, tmp_path / "out", engine=Stopped(), shard=4, batch_size=4)
    run = read_run(tmp_path / "out")
    assert run is not None
    assert (run.status, run.images) == ("interrupted", 8)
    asked: list[int] = []

    class Counting(Serial):
        def map(self, work, tasks):  # type: ignore[no-untyped-def]
            for task in tasks:
                asked.append(task.number)
                yield task, work(task)

    outcome = predict_shards(TINY, images, tmp_path / "out", engine=Counting(), shard=4, batch_size=4)
    assert asked == [2, 3, 4]
    assert (outcome.predicted, outcome.skipped) == (18, 8)
    asked.clear()
    again = predict_shards(TINY, images, tmp_path / "out", engine=Counting(), shard=4, batch_size=4)
    assert asked == [4], "only the shard with files that could not be read is tried again"
    assert again.predicted == 18


def test_another_model_and_a_shard_that_tears_batches_are_refused(images: Path, done: Path) -> None:
    other = partial(zero_shot, backbone="tiny:uneven")
    with pytest.raises(DataError, match="holds results of another model"):
        predict_shards(other, images, done, engine=Serial(), shard=4, batch_size=4)
    with pytest.raises(ConfigError, match="shard=6: wanted a multiple of the batch size, 4"):
        predict_shards(TINY, images, done, engine=Serial(), shard=6, batch_size=4)


def test_a_shard_whose_model_cannot_be_loaded_is_named_and_tried_again(images: Path, tmp_path: Path) -> None:
    class Lossy(Serial):
        def map(self, work, tasks):  # type: ignore[no-untyped-def]
            for task in tasks:
                folder = Path(task.folder)
                folder.parent.mkdir(exist_ok=True)
                if task.number == 1:
                    folder.write_text("a file in the way", encoding="utf-8")
                yield task, work(task)

    outcome = predict_shards(TINY, images, tmp_path / "out", engine=Lossy(), shard=4, batch_size=4)
    assert list(outcome.lost) == [1]
    assert "a file is in its place" in outcome.lost[1]
    (tmp_path / "out" / "shards" / "00000001").unlink()
    assert predict_shards(TINY, images, tmp_path / "out", engine=Serial(), shard=4, batch_size=4).predicted == 18


def test_a_list_that_changed_leaves_nothing_of_the_former(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [(images.parent / n).as_posix() for n in images.read_text(encoding="utf-8").splitlines()[:10]]
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(names), encoding="utf-8")
    predict_shards(TINY, listed, tmp_path / "out", engine=Serial(), shard=4, batch_size=4)
    listed.write_text("\n".join([*names[:4], *names[8:]]), encoding="utf-8")
    outcome = predict_shards(TINY, listed, tmp_path / "out", engine=Serial(), shard=4, batch_size=4)
    assert (outcome.predicted, outcome.skipped) == (6, 4)
    assert [row.id for row in read_rows(tmp_path / "out")] == [*names[:4], *names[8:]]
    assert "shard 1: the list names other images now" in caplog.text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_nodes_with_killed_workers_give_the_same_rows(images: Path, done: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from ultraad.runs.engines.ray import Ray

    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not over.is_set() and len(killed) < 3:
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
                outcome = predict_shards(TINY, images, tmp_path / "ray", engine=engine, shard=4, batch_size=4)
        finally:
            over.set()
            thread.join()
            ray.shutdown()
            nodes.shutdown()
    assert killed
    assert (outcome.predicted, outcome.failed, outcome.lost) == (18, 2, {})
    assert content(tmp_path / "ray") == content(done)
    assert json.loads((tmp_path / "ray" / "run.json").read_text(encoding="utf-8"))["status"] == "complete"


def test_rows_have_the_places_of_their_pictures(done: Path) -> None:
    row: ImageRow = next(read_rows(done))
    assert row.overlay is not None
    assert row.overlay.startswith("shards/00000000/overlays/")
