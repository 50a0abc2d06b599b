"""Videos and cameras in a run: a row per frame, an overlay video, and the promises that hold for images."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import picture, save
from tests.videos import H264, camera, frames_of, number_of, write_video
from ultraad.cli import main
from ultraad.errors import ConfigError, DataError
from ultraad.io import read_image
from ultraad.io.overlay import overlay
from ultraad.model.adapt import zero_shot
from ultraad.model.model import Model
from ultraad.results.folder import read_errors, read_rows, read_run
from ultraad.runs.predict import predict
from ultraad.runs.video import OverlayVideo


@pytest.fixture(scope="module")
def model() -> Model:
    return zero_shot(backbone="tiny")


@pytest.fixture(autouse=True)
def page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first test looks at the report, which takes half of the time of a run here."""
    if "folder_of_images" not in request.node.name:
        monkeypatch.setattr("ultraad.runs.predict.render", lambda folder: folder)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.avi", 10)


def code(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["predict", "zero-shot", "--backbone", "tiny", "--device", "cpu", *map(str, words)])
    return end.value.code if isinstance(end.value.code, int) else 0


def interrupting(at: int) -> Callable[[int, int], None]:
    """A progress after which somebody presses Ctrl-C."""

    def tell(done: int, _: int) -> None:
        if done >= at:
            raise KeyboardInterrupt

    return tell


def test_a_folder_of_images_and_videos(model: Model, tmp_path: Path) -> None:
    image = save(tmp_path / "in" / "a.png", picture(1, lesion=True)[0])
    clip = write_video(tmp_path / "in" / "series" / "clip.avi", 10)
    out = tmp_path / "out"
    done = predict(model, tmp_path / "in", out)
    assert (done.predicted, done.failed) == (11, {})
    rows = list(read_rows(out))
    assert [row.id for row in rows] == [image.as_posix(), *(f"{clip.as_posix()}#{i}" for i in range(10))]
    assert rows[0].seconds is None
    assert rows[0].overlay is not None
    assert rows[0].map is not None
    for row, frame in zip(rows[1:], frames_of(clip), strict=True):
        assert row.image == clip.as_posix()
        assert row.seconds == round(0.04 * row.frame, 6)
        assert (row.map, row.overlay, row.mask) == (None, None, None)
        alone = model.predict(frame)
        assert row.score == pytest.approx(alone.score, abs=1e-5)
        assert row.abnormal == (row.score >= model.calibration.image_threshold)
    with (out / "predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [line["seconds"] for line in table] == ["", *(str(round(0.04 * i, 6)) for i in range(10))]
    (facts,) = done.videos
    run = json.loads((out / "run.json").read_text())
    assert run["data"] == {"paths": [str(tmp_path / "in")], "images": 1, "videos": 1}
    assert run["videos"][0]["overlay"] == facts.overlay
    flagged = [row.seconds for row in rows[1:] if row.abnormal]
    assert (facts.frames, facts.abnormal, facts.seconds) == (10, len(flagged), 0.36)
    assert (facts.first, facts.last) == ((flagged[0], flagged[-1]) if flagged else (None, None))
    assert facts.peak is not None
    assert facts.peak.score == max(row.score for row in rows[1:])
    best = frames_of(clip)[facts.peak.frame]
    drawn = overlay(best, model.predict(best).map, threshold=model.calibration.pixel_threshold)
    np.testing.assert_allclose(read_image(out / facts.peak.overlay).astype(int), drawn, atol=1)
    shown = frames_of(out / facts.overlay)
    assert len(shown) == 10
    inner = slice(4, -4)  # without the outline, whose colour the codec spreads over two pixels
    assert np.abs(shown[facts.peak.frame].astype(int) - drawn)[inner, inner].mean() < 8
    assert sorted(p.name for p in (out / "maps").iterdir()) == [Path(rows[0].map).name]
    page = (out / "report.html").read_text()
    assert "It was run on 1 image and 10 frames of 1 video" in page
    assert "Scores of series/clip.avi over time" in page


def test_what_is_saved_of_each_frame(model: Model, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(model, clip, out, every=5, save=["masks", "contours", "boxes", "maps"])
    rows = list(read_rows(out))
    assert [row.frame for row in rows] == [0, 5]
    for row in rows:
        assert row.lesions is not None
        for path in (row.mask, row.contours, row.map):
            assert (out / path).is_file()
    lesions = json.loads((out / "coco.json").read_text())
    assert [image["frame"] for image in lesions["images"]] == [0, 5]
    assert not (out / "overlays").exists()
    assert json.loads((out / "run.json").read_text())["videos"][0].get("overlay") is None


def test_a_resumed_run_skips_what_is_done(model: Model, clip: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    predict(model, clip, whole, batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        predict(model, clip, out, batch_size=2, progress=interrupting(5))
    before = (out / "predictions.jsonl").read_text()
    assert 4 <= before.count("\n") < 10
    assert list((out / "overlays").iterdir()) == [], "an unfinished video is not there"
    (out / "overlays" / ".clip.mp4.0a1b2c3d.tmp.mp4").write_bytes(b"of a killed run")
    done = predict(model, clip, out, batch_size=2)
    assert (done.predicted, done.skipped) == (10 - before.count("\n"), before.count("\n"))
    text = (out / "predictions.jsonl").read_text()
    assert text.startswith(before)
    assert text == (whole / "predictions.jsonl").read_text()
    (made,), (wanted,) = (sorted((f / "overlays").glob("*.mp4")) for f in (out, whole))
    assert made.read_bytes() == wanted.read_bytes()
    assert len(list((out / "overlays").iterdir())) == 2
    again = predict(model, clip, out)
    assert (again.predicted, again.skipped, again.failed) == (0, 10, {})
    assert again.videos == done.videos


def test_a_resumed_run_without_overlays_predicts_no_frame_twice(
    model: Model, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted: list[str] = []
    whole = Model._predict
    monkeypatch.setattr(Model, "_predict", lambda self, x, ids: predicted.extend(ids) or whole(self, x, ids))
    predict(model, clip, tmp_path / "out", every=3, save=[])
    done = predict(model, clip, tmp_path / "out", save=[])
    assert (done.predicted, done.skipped) == (6, 4)
    assert sorted(predicted) == sorted(set(predicted))
    assert len(predicted) == 10


def test_a_replaced_video_is_predicted_again_and_the_outcome_lists_the_videos_of_this_run(
    model: Model, clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other, out = write_video(tmp_path / "other.avi", 3), tmp_path / "out"
    predict(model, [clip, other], out, save=[])
    write_video(clip, 6)
    with caplog.at_level(logging.WARNING, logger="ultraad"):
        done = predict(model, clip, out, save=[])
    assert (done.predicted, done.skipped) == (6, 0)
    assert "10 file(s) were replaced since they were predicted" in caplog.text
    assert len(list(read_rows(out))) == 6 + 3
    assert [video.name for video in done.videos] == [clip.as_posix()]
    run = read_run(out)
    assert run is not None
    assert sorted((video.name, video.frames) for video in run.videos) == [(clip.as_posix(), 6), (other.as_posix(), 3)]
    clip.write_bytes(b"no video any more")
    assert predict(model, clip, out, save=[]).videos == ()


def test_a_frame_that_cannot_be_scored_is_its_own_failure(
    model: Model, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Model._predict

    def fussy(self, inputs, ids):
        if any(id_.endswith("#3") for id_ in ids):
            raise RuntimeError("no such operation")
        return whole(self, inputs, ids)

    monkeypatch.setattr(Model, "_predict", fussy)
    done = predict(model, clip, tmp_path / "out", save=[])
    assert (done.predicted, list(done.failed)) == (9, [f"{clip.as_posix()}#3"])
    assert read_errors(tmp_path / "out")[0][1].endswith("#3 could not be scored: RuntimeError: no such operation")


def test_an_overlay_video_that_cannot_be_written_costs_itself_only(model: Model, clip: Path, tmp_path: Path) -> None:
    name = OverlayVideo(tmp_path, clip.as_posix(), rate=25, real_time=False).path
    predict(model, clip, tmp_path / "out", every=9, save=[])
    (tmp_path / "out" / name / "x").mkdir(parents=True)
    done = predict(model, clip, tmp_path / "out")
    assert (done.predicted, done.skipped) == (8, 2)
    assert "cannot be written" in done.failed[clip.as_posix()]
    assert done.videos[0].overlay is None


def test_exit_codes_and_the_screen(clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(H264.read_bytes()[:3000])
    assert code(clip, "-o", tmp_path / "some", "--save", "none") == 0
    out, err = capfd.readouterr()
    assert f"{clip.as_posix()}: 10 frames to 0.36 s" in out
    assert err == ""
    assert code(clip, bad, "-o", tmp_path / "some", "--save", "none") == 3, "what is done is not read again"
    out, err = capfd.readouterr()
    assert "10 were there already" in out
    assert "bad.mp4 is cut off: it ends after" in err
    assert "FFMPEG" not in out + err
    bad.write_bytes(b"no video")
    assert code(bad, "-o", tmp_path / "none") == 1
    assert code(clip, "-o", tmp_path / "none", "--every", 0) == 2
    assert code("camera:0", clip, "-o", tmp_path / "none") == 1
    assert "camera:0 is a camera, which runs until it is stopped; give it alone" in capfd.readouterr().err


def test_ctrl_c_in_a_video_is_130(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ultraad.runs.video._Job._tell", lambda *_: interrupting(0)(1, 1))
    assert code(clip, "-o", tmp_path / "out", "--save", "none") == 130
    assert "finished images and frames are in" in capfd.readouterr().err
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "interrupted"


def test_ctrl_c_before_the_overlay_video_is_finished_leaves_nothing(
    model: Model, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OverlayVideo, "finish", lambda _: interrupting(0)(1, 1))
    with pytest.raises(KeyboardInterrupt):
        predict(model, clip, tmp_path / "out", every=3)
    assert list((tmp_path / "out" / "overlays").iterdir()) == []
    monkeypatch.undo()
    assert predict(model, clip, tmp_path / "out", every=3).skipped == 4
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 2


def test_numbers_that_mean_nothing_are_refused(model: Model, clip: Path, tmp_path: Path) -> None:
    for option in ({"every": 0}, {"seconds": 0}, {"seconds": float("nan")}):
        with pytest.raises(ConfigError, match="wanted a"):
            predict(model, clip, tmp_path / "out", **option)


def test_ctrl_c_is_the_end_of_a_camera(model: Model, tmp_path: Path) -> None:
    with camera(None) as url:
        secret = url.replace("://", "://user:secret@") + "?key=secret"
        done = predict(model, secret, tmp_path / "out", progress=interrupting(5))
        name = url
        with pytest.raises(DataError, match=r"holds a recording of .+ already"):
            predict(model, secret, tmp_path / "out")
    assert done.predicted >= 5
    assert done.failed == {}
    rows = list(read_rows(tmp_path / "out"))
    assert all(row.id == f"{name}#{row.frame}" and row.image == name for row in rows)
    numbers = [row.frame for row in rows]
    assert numbers == sorted(set(numbers))
    assert [row.seconds for row in rows] == sorted(row.seconds for row in rows)
    assert numbers[0] > 0 or rows[0].seconds == 0, "on a busy machine, the first frame is dropped, too"
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["videos"][0]["dropped"] == numbers[-1] + 1 - len(rows)
    assert not any(b"secret" in p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    shown = frames_of(tmp_path / "out" / done.videos[0].overlay)
    rate = done.videos[0].rate
    assert len(shown) == pytest.approx(rows[-1].seconds * rate, abs=2), "it runs in real time"
    assert number_of(shown[0]) in range(-3, 48)


def test_a_camera_for_some_seconds(model: Model, tmp_path: Path) -> None:
    with camera(None) as url:
        done = predict(model, url, tmp_path / "out", seconds=0.3, every=2, save=[])
    rows = list(read_rows(tmp_path / "out"))
    assert done.failed == {}
    assert 1 <= len(rows) == done.predicted
    assert all(row.frame % 2 == 0 and row.seconds < 0.3 for row in rows)
    gone = predict(model, url, tmp_path / "gone")
    assert (gone.predicted, list(gone.failed)) == (0, [url])
