"""Which images get an overlay, and what a choice of them leaves on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ultraad.errors import ConfigError
from ultraad.io import read_image
from ultraad.io.maps import read_map
from ultraad.model.adapt import zero_shot
from ultraad.model.model import Model
from ultraad.results.folder import read_rows
from ultraad.results.row import ImageRow
from ultraad.results.saving import Saving, chosen
from ultraad.results.top import Top
from ultraad.runs.predict import predict
from ultraad.simulate import write_dataset


@pytest.fixture(scope="module")
def model() -> Model:
    return zero_shot(backbone="tiny")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("set")
    write_dataset(root, n=15, size=48)
    return sorted(p for p in root.rglob("*.png") if "mask" not in p.name)


@pytest.fixture(scope="module")
def full(model: Model, images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full") / "out"
    predict(model, images, folder)
    return folder


def ranked(folder: Path) -> list[ImageRow]:
    return sorted(read_rows(folder), key=lambda row: -row.score)


def drawn(folder: Path) -> set[str]:
    """The ids of the rows with an overlay; the folder has these pictures and no other."""
    rows = [row for row in read_rows(folder) if row.overlay]
    assert {row.overlay for row in rows} == {f"overlays/{p.name}" for p in (folder / "overlays").glob("*")}
    return {row.id for row in rows}


def same_but_pictures(a: Path, b: Path) -> bool:
    left = {"overlay": None, "map": None}
    return [r.model_copy(update=left) for r in read_rows(a)] == [r.model_copy(update=left) for r in read_rows(b)]


@pytest.mark.parametrize("seed", range(5))
def test_top_keeps_the_highest_of_any_order(seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 30, 200) / 30  # with ties: the first come first
    top, taken = Top(7), set()
    for number, score in enumerate(scores):
        if top.takes(str(number), float(score)):
            taken.add(str(number))
    wanted = sorted(range(200), key=lambda i: (-scores[i], i))[:7]
    assert taken - top.left == set(map(str, wanted))


def test_overlays_of_the_highest_scores_only(model, images, full, tmp_path) -> None:
    predict(model, images, tmp_path / "out", overlays="top:4", maps="none")
    assert drawn(tmp_path / "out") == {row.id for row in ranked(full)[:4]}
    assert not (tmp_path / "out" / "maps").exists()
    assert same_but_pictures(tmp_path / "out", full)
    for row in ranked(tmp_path / "out")[:4]:
        np.testing.assert_array_equal(read_image(tmp_path / "out" / row.overlay), read_image(full / row.overlay))


def test_a_run_that_stopped_ends_with_the_same_overlays(model, images, full, tmp_path) -> None:
    predict(model, images[:6], tmp_path / "out", overlays="top:4", maps="none")
    done = predict(model, images, tmp_path / "out", overlays="top:4", maps="none")
    assert done.skipped == 6
    assert drawn(tmp_path / "out") == {row.id for row in ranked(full)[:4]}


def test_more_overlays_draw_those_that_are_missing(model, images, full, tmp_path, caplog) -> None:
    predict(model, images, tmp_path / "out", overlays="top:2", maps="none")
    done = predict(model, images, tmp_path / "out", overlays="top:5", maps="none")
    assert done.predicted - done.skipped <= 3 or done.predicted == 3
    assert "3 image(s) were predicted without all" in caplog.text
    assert drawn(tmp_path / "out") == {row.id for row in ranked(full)[:5]}


def test_overlays_of_abnormal_images_only(model, images, full, tmp_path) -> None:
    cut = ranked(full)[7].score
    predict(model, images, tmp_path / "out", overlays="abnormal", maps="none", threshold=cut)
    assert drawn(tmp_path / "out") == {row.id for row in ranked(full)[:8]}


def test_grids_read_as_the_full_maps(model, images, full, tmp_path) -> None:
    predict(model, images, tmp_path / "out", overlays="none", maps="grid")
    assert not (tmp_path / "out" / "overlays").exists()
    assert same_but_pictures(tmp_path / "out", full)
    for a, b in zip(read_rows(tmp_path / "out"), read_rows(full), strict=True):
        assert a.map.endswith(".npz")
        np.testing.assert_array_equal(read_map(tmp_path / "out" / a.map), read_map(full / b.map))
    again = predict(model, images, tmp_path / "out", overlays="none", maps="grid")
    assert again.skipped == len(images)
    whole = predict(model, images, tmp_path / "out", overlays="none")  # full maps are more than grids
    assert (whole.skipped, [row.map for row in read_rows(tmp_path / "out")]) == (0, [r.map for r in read_rows(full)])


def test_words_of_the_choice() -> None:
    assert chosen(None) == Saving(frozenset({"overlays", "maps"}))
    assert chosen([]) == Saving(frozenset())
    assert chosen(["boxes"], overlays="top:9", maps="grid") == Saving(
        frozenset({"boxes", "overlays", "maps"}), overlays="top", top=9, maps="grid"
    )
    assert chosen(["dicom"], maps="grid").names == {"dicom", "boxes", "maps"}
    for words, told in (
        ({"overlays": "top:0"}, "top:N with N at least 1"),
        ({"overlays": "some"}, "choose from none, abnormal"),
        ({"overlays": ""}, "choose from none, abnormal"),
        ({"maps": "small"}, "choose from none, grid, full"),
        ({"save": ["maps"], "maps": "none"}, "choose one of them"),
        ({"save": ["dicom"], "maps": "none"}, "dicom is made of them"),
    ):
        with pytest.raises(ConfigError, match=told):
            chosen(**{"save": None, **words})


def test_smoothed_maps_have_no_grid(model, images, tmp_path) -> None:
    with pytest.raises(ConfigError, match="maps='full'"):
        predict(model, images, tmp_path / "out", maps="grid", smooth=0.2)
