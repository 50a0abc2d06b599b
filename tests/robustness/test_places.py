"""Where results may lie: they never hide, replace or remove what a user has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.adapted import adapted
from tests.helpers import picture, save, write_bus_uclm
from ultraad.backbones._towers import TOWERS
from ultraad.backbones._weights import sha256
from ultraad.backbones.embedded import export
from ultraad.bench.recipe import read_recipe
from ultraad.bench.run import driver
from ultraad.cli import main
from ultraad.data.support import content_hash, draw_support, load_support, save_support
from ultraad.data.support.leakage import Fingerprint, leaking
from ultraad.errors import DataError
from ultraad.model import retune
from ultraad.model.adapt import zero_shot
from ultraad.model.model import Model
from ultraad.results.folder import read_rows
from ultraad.runs.evaluate import evaluate
from ultraad.runs.predict import predict
from ultraad.simulate import dataset
from ultraad.types import Sample

QUIET = {"bootstrap": 0}


@pytest.fixture(scope="module")
def model() -> Model:
    return zero_shot(backbone="tiny")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set with a folder ``masks`` of its own, in a folder."""
    return write_bus_uclm(tmp_path / "all" / "set", patients=("ALWI", "MENE"), each=3)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("place", ["all/set", "all/set/images", "all", "link"])
@pytest.mark.parametrize("run", [predict, evaluate])
def test_results_among_the_images_are_refused(
    run: Callable[..., object], place: str, model: Model, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(data)
    before = contents(tmp_path)
    with pytest.raises(DataError, match=r"holds data of this run|already holds masks"):
        run(model, data, output=tmp_path / place)
    assert contents(tmp_path) == before


def test_a_new_folder_in_the_data_set_is_fine(model: Model, data: Path) -> None:
    for _ in range(2):
        assert evaluate(model, data, output=data / "results", **QUIET)["n"]["images"] == 6


@pytest.mark.parametrize("name", ["masks/a.png", "maps/a-0123abcd.png", "report.html", "metrics.json", "coco.json"])
def test_what_ultraad_did_not_write_is_neither_replaced_nor_removed(
    name: str, model: Model, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    mine = out / name
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(DataError, match=f"already holds {name.partition('/')[0]}, but no results"):
        evaluate(model, data, output=out, **QUIET)
    shutil.rmtree(out)
    evaluate(model, data, output=out, **QUIET)
    later = out / "masks" / "b.png"
    later.parent.mkdir(exist_ok=True)
    later.write_bytes(b"mine")
    (out / "notes.txt").write_bytes(b"mine")
    evaluate(model, data, output=out, **QUIET)
    assert later.read_bytes() == (out / "notes.txt").read_bytes() == b"mine"
    named = {row.overlay for row in read_rows(out)}
    assert {f"overlays/{p.name}" for p in (out / "overlays").iterdir()} == named, "those of the earlier run are gone"


def test_a_support_set_replaces_no_other_file(data: Path) -> None:
    support = draw_support(data, shots=1)
    with pytest.raises(DataError, match=r"INFO\.csv exists and is not a support set"):
        save_support(support, data / "INFO.csv")
    for seed in (0, 1):
        support = draw_support(data, shots=1, seed=seed)
        save_support(support, data.parent / "support.json")
        assert load_support(data.parent / "support.json") == support


@pytest.mark.parametrize("name", ["README.md", "embedded_tower.py", "open_clip_model.safetensors"])
def test_an_export_replaces_earlier_exports_and_no_other_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("own")
    with pytest.raises(DataError, match=f"already holds {name}, but not of an export .* new folder"):
        export(tmp_path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {name: "own"}
    (tmp_path / name).unlink()
    export(tmp_path, "embedded-simulated")
    (tmp_path / "notes.txt").write_text("own")
    written = export(tmp_path, "embedded")
    assert (tmp_path / "README.md").read_bytes() == TOWERS["embedded"].card.read_bytes()
    assert sha256(tmp_path / "open_clip_model.safetensors") == sha256(TOWERS["embedded"].weights)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in written} | {"notes.txt"}
    (tmp_path / "README.md").write_text("own")
    with pytest.raises(DataError, match=r"already holds README\.md"):
        export(tmp_path)


@pytest.mark.parametrize("name", ["model", "new/../model", "link", "model/new"])
def test_the_model_that_is_moved_is_not_replaced(
    name: str, folder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(retune, "FEWEST", 4)
    saved = adapted(folder_dir).save(tmp_path / "model")
    (tmp_path / "link").symlink_to(saved)
    images = dataset.write_dataset(tmp_path / "new", n=6, size=64)
    before = {path: path.read_bytes() for path in saved.iterdir()}
    with pytest.raises(SystemExit) as end:
        main(["retune", str(saved), str(images), "-o", str(tmp_path / name), "--device", "cpu"])
    assert end.value.code == 1
    assert "give the new one another folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in saved.iterdir()} == before


@pytest.mark.parametrize("place", ["all", "all/set", "all/set/images"])
def test_a_benchmark_among_its_data_is_refused(place: str, data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: r\ntitle: R\ndata: {a: {root: set, layout: bus_uclm, title: A}}\nadapt: {on: a}\ntest: [a]\n"
        "backbones: [tiny]\nmethods: [tip_adapter]\nshots: [1]\nseeds: [0]\n"
    )
    before = contents(data)
    with pytest.raises(DataError, match="holds data of this run"):
        driver.run(read_recipe(recipe), tmp_path / place, base=data.parent)
    assert {name: c for name, c in contents(data).items() if not name.endswith(".running")} == before


@pytest.mark.parametrize("year", [-2e8, 0, 4e9])
def test_times_of_files_do_not_matter(year: float, model: Model, tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / "in" / f"{i}.png", picture(i, lesion=False)[0])
    assert predict(model, tmp_path / "in", tmp_path / "out").predicted == 3
    for path in tmp_path.rglob("*"):
        os.utime(path, (year, year))
    again = predict(model, tmp_path / "in", tmp_path / "out")
    assert (again.predicted, again.skipped) == (0, 3)


def test_a_replaced_file_of_the_same_size_and_time_is_noticed_within_a_process(model: Model, tmp_path: Path) -> None:
    path, pictures = tmp_path / "in" / "a.bmp", [picture(i, lesion=False)[0] for i in (1, 2)]
    path.parent.mkdir()
    for i, pixels in enumerate(pictures):
        fresh = path.with_name("fresh.bmp")
        Image.fromarray(pixels).save(fresh)
        os.utime(fresh, (1e9, 1e9))
        fresh.replace(path)  # as a copy that keeps times, or after the clock went back
        sample = Sample(id="a", image=path)
        learned = Fingerprint("b", None, content_hash(sample), "folder:elsewhere")
        assert leaking([learned], [sample]) == [sample]
        done = predict(model, path.parent, tmp_path / "out")
        assert (done.predicted, done.skipped) == (1, 0), f"picture {i}"


def test_an_interrupted_simulation_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def interrupted(*given: object, **more: object) -> object:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return dataset_simulate(*given, **more)

    dataset_simulate = dataset.simulate
    monkeypatch.setattr(dataset, "simulate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dataset.write_dataset(tmp_path / "there", n=4, size=64)
    with pytest.raises(DataError, match="is not empty and does not contain this simulated data set"):
        dataset.write_dataset(tmp_path / "there", n=5, size=64)
    dataset.write_dataset(tmp_path / "there", n=4, size=64)
    dataset.write_dataset(tmp_path / "reference", n=4, size=64)
    assert contents(tmp_path / "there") == contents(tmp_path / "reference")
