"""Images on a store: a server of the S3 protocol on this machine, read with pyarrow."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.runs.test_shards import content
from tests.store import KEY, SECRET, Store, serving, url
from tests.videos import write_video
from ultraad.cli import app
from ultraad.errors import ConfigError, DataError
from ultraad.io import find_images, store_copy
from ultraad.io.store_walk import walk_store
from ultraad.model.adapt import zero_shot
from ultraad.results.folder import read_errors, read_rows, read_run
from ultraad.runs import copies
from ultraad.runs.engines.local import Serial
from ultraad.runs.evaluate import evaluate
from ultraad.runs.evaluate_shards import evaluate_shards
from ultraad.runs.predict import predict
from ultraad.runs.shards import predict_shards
from ultraad.simulate import write_dataset

pytest.importorskip("pyarrow")

TINY = partial(zero_shot, backbone="tiny")
OPTIONS = {"engine": Serial(), "shard": 4, "batch_size": 4}


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bucket ``scans`` with 14 images, masks and other objects in folders; the names are no easy ones."""
    root = tmp_path_factory.mktemp("buckets")
    write_dataset(root / "scans" / "set", n=14, size=48)
    folder = root / "scans" / "set" / "more & other"
    folder.mkdir()
    for number in (10, 2):
        (folder / f"ü ({number}).png").write_bytes(_picture(number))
    (folder / ".hidden.png").write_bytes(_picture(3))
    (folder / "notes.txt").write_text("notes")
    return root


def _picture(seed: int) -> bytes:
    with tempfile.TemporaryFile() as file:
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 48), dtype=np.uint8)).save(file, "png")
        file.seek(0)
        return file.read()


@pytest.fixture(scope="module")
def store(buckets: Path) -> Iterator[Store]:
    with serving(buckets) as running:
        yield running


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, which is empty after each test."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def _without_places(folder: Path) -> list[dict[str, object]]:
    """The rows without what names the file."""
    return [{k: v for k, v in row.items() if k not in ("id", "image", "group")} for row in content(folder)]


def test_rows_are_those_of_the_same_folder_on_disk(
    store: Store, buckets: Path, tmp_path: Path, temporary: Path
) -> None:
    before = store.pages
    outcome = predict_shards(TINY, f"s3://scans/set{store.query}", tmp_path / "out", **OPTIONS)
    predict(TINY(), buckets / "scans" / "set", tmp_path / "disk", batch_size=4)
    assert (outcome.predicted, outcome.failed, outcome.lost) == (16, 0, {})
    assert store.pages - before > 8, "a listing has several pages"
    assert _without_places(tmp_path / "out") == _without_places(tmp_path / "disk")
    on_disk = [url(Path(row.image).relative_to(buckets).as_posix()) for row in read_rows(tmp_path / "disk")]
    assert [row.id for row in read_rows(tmp_path / "out")] == on_disk
    assert [row.image for row in read_rows(tmp_path / "out")] == on_disk
    assert not list(temporary.iterdir()), "copies are removed"


def test_nothing_of_a_connection_is_written(store: Store, tmp_path: Path) -> None:
    source = f"s3://{KEY}:{SECRET}@scans/set/none{store.query}"
    with pytest.raises(DataError, match=r"^s3://scans/set/none does not exist"):
        predict_shards(TINY, source, tmp_path / "out", **OPTIONS)
    listed = tmp_path / "list.txt"
    found = f"s3://{KEY}:{SECRET}@scans/set/more%20&%20other/%C3%BC%20(2).png{store.query}"
    listed.write_text(f"{found}\ns3://{KEY}:{SECRET}@scans/gone.png{store.query}\n")
    outcome = predict_shards(TINY, listed, tmp_path / "listed", **OPTIONS)
    assert (outcome.predicted, outcome.failed) == (1, 1)
    for path in [*(tmp_path / "out").rglob("*"), *(tmp_path / "listed").rglob("*")]:
        text = path.read_bytes().decode(errors="replace") if path.is_file() else ""
        assert not [word for word in (KEY, SECRET, "endpoint_override", "temporary") if word in text], path


def test_a_list_on_the_store_names_missing_and_broken_objects(store: Store, buckets: Path, tmp_path: Path) -> None:
    names = sorted(p.relative_to(buckets / "scans").as_posix() for p in (buckets / "scans/set/normal").glob("*.png"))
    (buckets / "scans" / "broken.png").write_bytes(b"no picture")
    rows = [*names[:2], "gone.png", "broken.png", f"s3://scans/{names[2]}", "set/../broken.png"]
    (buckets / "scans" / "list.csv").write_text("\n".join(["image", *rows]))
    outcome = predict_shards(TINY, f"s3://scans/list.csv{store.query}", tmp_path / "out", **OPTIONS)
    assert (outcome.predicted, outcome.failed, outcome.lost) == (3, 3, {})
    assert [row.id for row in read_rows(tmp_path / "out")] == [f"s3://scans/{name}" for name in names[:3]]
    reasons = dict(read_errors(tmp_path / "out"))
    assert reasons["s3://scans/gone.png"] == "s3://scans/gone.png does not exist; check bucket and key"
    assert reasons["s3://scans/broken.png"].startswith("s3://scans/broken.png is not an image")


def test_a_parquet_list_on_the_store_is_read(store: Store, buckets: Path, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    (buckets / "lists").mkdir()
    names = list(walk_store(f"s3://scans/set{store.query}"))[:3]
    table = pyarrow.table({"image": [name.partition("?")[0] for name in names]})
    parquet.write_table(table, buckets / "lists" / "three.parquet")
    outcome = predict_shards(TINY, f"s3://lists/three.parquet{store.query}", tmp_path / "out", **OPTIONS)
    assert (outcome.predicted, outcome.failed) == (3, 0)


def test_an_interrupted_run_goes_on(store: Store, tmp_path: Path, temporary: Path) -> None:
    class Stopped(Serial):
        def map(self, work, tasks):  # type: ignore[no-untyped-def]
            for number, task in enumerate(tasks):
                if number == 2:
                    raise KeyboardInterrupt
                yield task, work(task)

    source = f"s3://scans/set{store.query}"
    with pytest.raises(KeyboardInterrupt):
        predict_shards(TINY, source, tmp_path / "out", **{**OPTIONS, "engine": Stopped()})
    run = read_run(tmp_path / "out")
    assert run is not None
    assert (run.status, run.images, run.data and run.data.paths) == ("interrupted", 8, ("s3://scans/set",))
    store.read.clear()
    outcome = predict_shards(TINY, source, tmp_path / "out", **OPTIONS)
    assert (outcome.predicted, outcome.skipped) == (16, 8)
    assert len(store.read) == 8, "objects of finished shards are not read again"
    names = [row.id for row in read_rows(tmp_path / "out")]
    assert len(names) == len(set(names)) == 16


def test_copies_of_a_killed_process_are_removed(store: Store, tmp_path: Path, temporary: Path) -> None:
    (temporary / f"{copies._prefix(tmp_path / 'out', '00000003')}abc").mkdir()
    (temporary / "of-others").mkdir()
    predict_shards(TINY, f"s3://scans/set/normal{store.query}", tmp_path / "out", **OPTIONS)
    assert [path.name for path in temporary.iterdir()] == ["of-others"]


def test_an_object_in_the_place_of_another_is_predicted_again(store: Store, buckets: Path, tmp_path: Path) -> None:
    folder = buckets / "changing"
    folder.mkdir()
    (folder / "a.png").write_bytes(_picture(1))
    (folder / "b.png").write_bytes(b"broken")
    source = f"s3://changing{store.query}"
    predict_shards(TINY, source, tmp_path / "out", **OPTIONS)
    first = [row.score for row in read_rows(tmp_path / "out")]
    (folder / "a.png").write_bytes(_picture(2))
    (folder / "b.png").write_bytes(_picture(1))
    predict_shards(TINY, source, tmp_path / "out", **OPTIONS)
    scores = {row.id: row.score for row in read_rows(tmp_path / "out")}
    assert scores["s3://changing/b.png"] == pytest.approx(first[0])
    assert scores["s3://changing/a.png"] != pytest.approx(first[0])


def test_urls_of_files_and_frames(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((48, 48), 40 * i, np.uint8)) for i in range(4)]
    (tmp_path / "a folder").mkdir()
    frames[0].save(tmp_path / "a folder" / "cine.tif", save_all=True, append_images=frames[1:])
    source = (tmp_path / "a folder").as_uri()
    predict_shards(TINY, source, tmp_path / "out", every=2, **OPTIONS)
    assert [row.id for row in read_rows(tmp_path / "out")] == [f"{source}/cine.tif#0", f"{source}/cine.tif#2"]
    predict_shards(TINY, tmp_path / "a folder", tmp_path / "path", every=2, **OPTIONS)
    assert _without_places(tmp_path / "out") == _without_places(tmp_path / "path")


def test_a_folder_is_walked_as_on_disk(store: Store, buckets: Path) -> None:
    root = buckets / "scans" / "set"
    on_disk = [url(path.relative_to(buckets).as_posix()) for path in find_images(root)]
    assert [name.partition("?")[0] for name in walk_store(f"s3://scans/set{store.query}")] == on_disk
    assert list(walk_store(root.as_uri())) == [name.replace("s3://scans/set", root.as_uri()) for name in on_disk]


def test_what_cannot_be_read_is_named(store: Store, tmp_path: Path) -> None:
    def fails(name: str) -> str:
        with pytest.raises(DataError) as found:
            predict_shards(TINY, name, tmp_path / "out", **OPTIONS)
        return str(found.value)

    assert fails(f"s3://nowhere/set{store.query}").startswith(
        "s3://nowhere/set cannot be read: there is no such bucket; check its name"
    )
    denied = fails(f"s3://someone:{SECRET}@scans/set{store.query}")
    assert "access is denied; check the credentials" in denied
    assert SECRET not in denied
    assert "no images can be read from https://; wanted s3://" in fails("https://host/folder?token=secret")
    assert "secret" not in fails("s3://scans/set?token=secret")
    with pytest.raises(ConfigError, match="no DICOM objects are made of images on a store"):
        predict_shards(TINY, "s3://scans/set", tmp_path / "out", save=["dicom"], **OPTIONS)


def test_a_store_that_is_away_ends_its_shard_soon(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_copy, "_AWAY", 1)  # pyarrow tries each object for seconds
    with socket.socket() as free:  # nobody listens there
        free.bind(("127.0.0.1", 0))
        query = f"?endpoint_override=127.0.0.1:{free.getsockname()[1]}&scheme=http&region=us-east-1"
        listed = tmp_path / "list.txt"
        listed.write_text(f"s3://scans/a.png{query}")
        outcome = predict_shards(TINY, listed, tmp_path / "out", **OPTIONS)
    assert list(outcome.lost) == [0]
    assert "s3://scans/a.png cannot be read: the store cannot be reached; check the network" in outcome.lost[0]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of copies."""
    monkeypatch.setenv(store_copy.CACHE, str(tmp_path / ".cache"))
    return tmp_path / ".cache"


def test_an_evaluation_is_that_of_the_same_folder_on_disk(store: Store, buckets: Path, cache: Path) -> None:
    source = f"s3://scans/set{store.query}"
    wanted = evaluate(TINY(), buckets / "scans" / "set", bootstrap=50)
    assert wanted["n"]["images"] == 16
    assert evaluate(TINY(), source, bootstrap=50) == wanted
    store.read.clear()
    sharded = evaluate_shards(
        TINY, source, cache.parent / "out", engine=Serial(), shard=4, batch_size=4, bootstrap=50, split=None
    )
    assert sharded["metrics"].keys() == wanted["metrics"].keys()
    assert sharded["n"] == wanted["n"]
    assert not store.read, "the copy is used again"


def test_every_verb_takes_a_url(store: Store, cache: Path, tmp_path: Path) -> None:
    source = f"s3://scans/set{store.query}"

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, [*words])
        assert done.exit_code == 0, done.output
        return done.output

    support, model = str(tmp_path / "support.json"), str(tmp_path / "model")
    run("support", "draw", source, "-o", support, "--shots", "1", "--classes", "normal,benign,malignant")
    run("adapt", support, "--root", source, "-o", model, "--backbone", "tiny", "--set", "train.epochs=1")
    run("evaluate", model, source, "-o", str(tmp_path / "results"), "--drop-support", "--bootstrap", "50")
    measured = read_run(tmp_path / "results")
    assert measured is not None
    assert measured.leakage is not None
    assert (measured.images + measured.leakage.dropped, measured.leakage.dropped >= 3) == (16, True)
    assert "16 images" in run("data", "check", source)
    run("predict", model, source, "-o", str(tmp_path / "predicted"))
    assert len(list(read_rows(tmp_path / "predicted"))) == 16
    assert json.loads((tmp_path / "predicted" / "run.json").read_text())["data"]["paths"] == ["s3://scans/set"]


def test_a_video_on_a_store_is_predicted(store: Store, buckets: Path, cache: Path, tmp_path: Path) -> None:
    (buckets / "films").mkdir()
    write_video(buckets / "films" / "a clip.avi", frames=6)
    predict(TINY(), f"s3://films/a%20clip.avi{store.query}", tmp_path / "out")
    predict(TINY(), buckets / "films" / "a clip.avi", tmp_path / "disk")
    rows, wanted = (list(read_rows(tmp_path / name)) for name in ("out", "disk"))
    assert len(rows) == 6
    assert [row.score for row in rows] == [row.score for row in wanted]
