"""The fan of a probe in runs: what a model sees, where its map is, and what results say about it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.dicom.made import region, run_of, write_us
from tests.fans import SIZE, overlap, rectangle, sector, shown, with_text
from tests.helpers import save
from ultraad.data.fans import FanWatch, find_in, in_fans, with_fan
from ultraad.data.preprocess import Preprocess
from ultraad.data.samples import samples_of
from ultraad.data.support import draw_support, load_support, save_support
from ultraad.dicom.saving import write_objects
from ultraad.errors import ConfigError
from ultraad.io import read_image
from ultraad.io.maps import read_map
from ultraad.model.adapt import adapt, with_thresholds, zero_shot
from ultraad.model.model import Model, load
from ultraad.model.record import facts_of
from ultraad.node.intake import Watch
from ultraad.node.node import Node, Setup
from ultraad.node.send import Sender
from ultraad.results.folder import read_rows
from ultraad.runs.evaluate import evaluate
from ultraad.runs.predict import predict
from ultraad.types import PreprocessConfig, Sample

FAN = sector()
QUICK = {"train.epochs": 1, "train.views": 1}
HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def model() -> Model:
    return zero_shot(backbone="tiny")


def cine(path: Path, frames: np.ndarray, **tags: object) -> Path:
    """A grey DICOM cine of frames (n h w 3)."""
    write_us(path, frames=len(frames), size=frames.shape[1:3], **tags)
    ds = pydicom.dcmread(path)
    ds.PixelData = np.ascontiguousarray(frames[..., 0]).tobytes()
    ds.save_as(path)
    return path


@pytest.mark.parametrize("mode", ["squash", "pad"])
def test_the_input_is_black_and_the_map_is_0_outside(mode: str) -> None:
    preprocess = Preprocess(PreprocessConfig(size=96, mean=HALF, std=HALF, mode=mode))
    picture = shown(FAN)
    found = find_in(with_text(picture), None)
    seen, geometry = preprocess.picture(with_text(picture), None, found)
    inside = found.mask(SIZE)
    np.testing.assert_array_equal(seen, preprocess.picture(picture * inside[..., None])[0])
    map_ = geometry.invert(np.ones((12, 12), np.float32))
    np.testing.assert_array_equal(map_ > 0, inside)
    assert preprocess.picture(with_text(picture))[0].max() == seen.max() or (seen != 0).any()


def test_text_outside_the_fan_changes_no_score(model: Model) -> None:
    picture = shown(FAN)
    bare, lettered = (model.predict(p, fan="auto") for p in (picture, with_text(picture)))
    assert bare.score == lettered.score
    np.testing.assert_array_equal(bare.map, lettered.map)
    assert not bare.map[~find_in(picture, None).mask(SIZE)].any()
    off = model.predict(with_text(picture))
    assert off.score != lettered.score
    assert off.map[~FAN.mask(SIZE)].any()
    with pytest.raises(ConfigError, match="fan 'on': choose from auto, off"):
        model.predict(picture, fan="on")


def test_a_fan_is_looked_for_in_the_region() -> None:
    screen = np.full((300, 420, 3), 90, np.uint8)
    screen[30:270, 50:370] = shown(FAN)
    found = find_in(screen, (50, 30, 320, 240))
    assert found.kind == "curved array"
    assert overlap(found.mask((300, 420))[30:270, 50:370], FAN.mask(SIZE)) > 0.95
    assert not found.mask((300, 420))[:30].any()
    assert find_in(screen, None).kind in ("whole", "none")


def test_the_frames_of_a_cine_share_a_fan(tmp_path: Path) -> None:
    frames = np.stack([shown(FAN, seed=n) for n in range(5)])
    for n, frame in enumerate(frames):
        frame[:, : 60 * n] = 0
    path = cine(tmp_path / "a.dcm", frames)
    samples = in_fans(samples_of([path]), "auto")
    fans = {with_fan(s, read_image(s.image, frame=s.frame)).fan for s in samples}
    assert len(fans) == 1
    assert overlap(fans.pop().mask(SIZE), FAN.mask(SIZE)) > 0.95
    assert {s.fan for s in in_fans(samples, "off")} == {None}


def test_frames_that_arrive_one_by_one_teach_the_fan(model: Model) -> None:
    frames = [shown(FAN, seed=n) for n in range(4)]
    frames[0][:, 100:] = 0
    watch = FanWatch("auto")
    kinds = [watch.see(frame).kind for frame in frames]
    assert kinds == ["none", "curved array", "curved array", "curved array"]
    assert FanWatch("off").see(frames[0]) is None
    live = list(model.stream(iter(frames), fan="auto"))
    assert live[0].prediction.map[~FAN.mask(SIZE)].any()
    assert not live[3].prediction.map[~watch.now.mask(SIZE)].any()
    assert watch.see(shown(rectangle((0, 0, 90, 90)), size=(90, 90))).kind == "whole"  # the source changed its size


def test_a_run_says_which_fan_was_seen_and_is_not_continued_without(
    tmp_path: Path, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path / "in" / "fan.png", shown(FAN))
    save(tmp_path / "in" / "odd.png", np.maximum(shown(FAN), shown(FAN)[::-1]))
    save(tmp_path / "in" / "whole.png", shown(rectangle((0, 0, *SIZE[::-1]))))
    out = tmp_path / "out"
    options = {"pixel_threshold": 0.3, "save": ["masks", "boxes"]}
    assert predict(model, tmp_path / "in", out, fan="auto", **options).predicted == 3
    rows = {Path(row.image).stem: row for row in read_rows(out)}
    assert {name: row.fan.kind for name, row in rows.items()} == {
        "fan": "curved array",
        "odd": "none",
        "whole": "whole",
    }
    assert "no fan of the probe is certain in 1 picture(s)" in caplog.text
    assert predict(model, tmp_path / "in", out, fan="auto", **options).skipped == 3
    again = predict(model, tmp_path / "in", out, **options)
    assert again.predicted == 3
    assert {row.fan for row in read_rows(out)} == {None}


def test_lesions_and_objects_stay_in_the_fan(tmp_path: Path, model: Model) -> None:
    path = cine(
        tmp_path / "a.dcm",
        np.stack([shown(FAN, seed=n) for n in range(2)]),
        regions=[region((0, 0, 320, 240), (0.2, 0.2))],
    )
    done = predict(
        model, path, tmp_path / "out", pixel_threshold=0.301, save=["dicom"], objects=["seg", "sr"], fan="auto"
    )
    assert done.without_objects == {}
    (segmentation,) = (tmp_path / "out" / "dicom").glob("*-seg.dcm")
    pixels = pydicom.dcmread(segmentation).pixel_array.astype(bool)
    row = next(read_rows(tmp_path / "out"))
    assert pixels.any()
    assert not (pixels & ~row.fan.mask(SIZE)).any()


def test_a_fan_changes_the_uids_of_objects(tmp_path: Path, model: Model) -> None:
    path = cine(tmp_path / "a.dcm", np.stack([shown(FAN)] * 2))
    found = set()
    for fan in ("auto", "off"):
        predict(model, path, tmp_path / fan, save=["dicom"], objects=["sr"], fan=fan)
        (report,) = (tmp_path / fan / "dicom").glob("*-sr.dcm")
        found.add(pydicom.dcmread(report).SOPInstanceUID)
    assert len(found) == 2


def test_support_sets_keep_the_choice_and_evaluation_counts_the_whole_picture(tmp_path: Path, model: Model) -> None:
    for n, kind in enumerate(("normal", "benign")):
        save(tmp_path / "set" / kind / "a.png", shown(FAN, seed=n))
    support = draw_support(tmp_path / "set", shots=1, fan="auto")
    assert {s.fan for s in support.samples} == {"auto"}
    save_support(support, tmp_path / "support.json")
    assert load_support(tmp_path / "support.json") == support
    assert {s.fan for s in draw_support(tmp_path / "set", shots=1).samples} == {None}
    for fan in ("auto", "off"):
        evaluate(model, tmp_path / "set", fan=fan, bootstrap=0, output=tmp_path / fan)
        assert {row.fan is None for row in read_rows(tmp_path / fan)} == {fan == "off"}


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of pictures in which a fan stands on black with text around it."""
    root = tmp_path_factory.mktemp("marked")
    for n, kind in enumerate(("normal", "benign")):
        for m in range(2):
            save(root / kind / f"{m}.png", with_text(shown(FAN, seed=2 * n + m)))
    return root


@pytest.fixture(scope="module")
def adapted(marked: Path) -> Model:
    return adapt(draw_support(marked, shots=2, fan="auto"), backbone="tiny", options=QUICK, calibrate=False)


def test_a_model_sees_new_images_as_it_saw_its_support_set_and_its_record_says_so(
    tmp_path: Path, adapted: Model, caplog: pytest.LogCaptureFixture
) -> None:
    picture = with_text(shown(FAN, seed=9))
    outside = ~find_in(picture, None).mask(SIZE)
    save(tmp_path / "in" / "a.png", picture)
    assert adapted.describe().fan == "auto"
    folder = adapted.save(tmp_path / "model")
    assert '"fan": "auto"' in (folder / "config.json").read_text()
    assert "only its pixels were seen" in (folder / "README.md").read_text()
    model = load(folder, backbone=adapted.backbone)
    assert model.digest == adapted.digest
    assert with_thresholds(model, draw_support(tmp_path_of(adapted), shots=2, fan="auto")).fan == "auto"
    wanted, whole = model.predict(picture, fan="auto"), model.predict(picture, fan="off")
    assert wanted.score != whole.score
    (many,) = model.predict_many([tmp_path / "in" / "a.png"])
    (live,) = model.stream(iter([picture]))
    for found in (model.predict(picture), many.prediction, live.prediction):
        assert found.score == wanted.score
        assert not found.map[outside].any()
    predict(model, tmp_path / "in", tmp_path / "out")
    (row,) = read_rows(tmp_path / "out")
    assert (row.fan.kind, row.score) == ("curved array", wanted.score)
    assert not read_map(tmp_path / "out" / row.map)[outside].any()
    assert "--fan" not in caplog.text
    predict(model, tmp_path / "in", tmp_path / "out", fan="off")
    (row,) = read_rows(tmp_path / "out")
    assert (row.fan, row.score) == (None, whole.score)
    assert "saw the images it learned from with --fan auto, and these are seen with --fan off" in caplog.text


def tmp_path_of(model: Model) -> Path:
    """The data set that a model learned from."""
    return Path(model.origin.source.partition(":")[2])


def test_models_that_see_whole_pictures_keep_the_digest_of_earlier_versions(marked: Path, adapted: Model) -> None:
    off = adapt(draw_support(marked, shots=2), backbone=adapted.backbone, options=QUICK, calibrate=False)
    assert off.describe().fan == "off"
    described = off.describe().model_dump(mode="json")
    earlier = {key: value for key, value in described.items() if key != "fan"}
    assert facts_of(described) == facts_of(earlier)
    off.fan = "auto"
    assert facts_of(off.describe().model_dump(mode="json")) != facts_of(described)


def test_evaluation_and_zero_shot_follow_the_record(marked: Path, tmp_path: Path, model: Model) -> None:
    told = zero_shot(backbone=model.backbone, fan="auto")
    for fan, name in ((None, "own"), ("auto", "auto"), ("off", "off")):
        evaluate(told, marked, fan=fan, bootstrap=0, output=tmp_path / name)
    scores = {n: {row.id: row.score for row in read_rows(tmp_path / n)} for n in ("own", "auto", "off")}
    assert scores["own"] == scores["auto"] != scores["off"]


def test_a_support_set_that_is_seen_in_two_ways_is_told(marked: Path, adapted: Model) -> None:
    support = draw_support(marked, shots=2, fan="auto")
    first, *rest = support.samples
    mixed = replace(support, samples=(replace(first, fan=None), *rest))
    model = adapt(mixed, backbone=adapted.backbone, options=QUICK, calibrate=False)
    assert model.fan == "off"
    assert any(note.startswith("3 of 4 support images were seen in the fan") for note in model.origin.notes)


def test_a_node_sees_images_as_the_model_does(adapted: Model, tmp_path: Path) -> None:
    cine(tmp_path / "in" / "a.dcm", np.stack([shown(FAN)] * 2))
    setup = Setup(
        tmp_path / "node", None, Sender("ULTRAAD", 5, None, keep=True), watch=(Watch(tmp_path / "in"),),
        options={"objects": ["sr"], "fan": None},
    )  # fmt: skip
    with Node(adapted, setup) as node:
        end = time.monotonic() + 120
        while not node.queue.counts().get("images done") and time.monotonic() < end:
            time.sleep(0.05)
    (report,) = (tmp_path / "node").rglob("*-sr.dcm")
    text = "\n".join(str(element.value) for element in pydicom.dcmread(report).iterall() if element.VR != "SQ")
    assert "fan of a curved array, no lesion outside of it" in text


def test_objects_of_runs_without_fans_keep_their_uids(tmp_path: Path) -> None:
    path = write_us(tmp_path / "a.dcm")
    run_of(tmp_path / "out", [path])
    write_objects(tmp_path / "out", ["ko"])
    (selection,) = (tmp_path / "out" / "dicom").glob("*-ko.dcm")
    assert pydicom.dcmread(selection).SOPInstanceUID.startswith("2.25.")
    assert Sample("a", path).fan is None
