"""Smoothing over time: by hand, causal, the same for files and cameras, and the same after an interruption."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.dicom.made import write_us
from tests.helpers import picture, save
from ultraad.errors import ConfigError, DataError
from ultraad.metrics.key_frames import key_frames
from ultraad.model.adapt import zero_shot
from ultraad.model.model import Model
from ultraad.results.folder import PREDICTIONS, read_rows, read_run
from ultraad.runs.predict import predict
from ultraad.runs.smoothing import Smoother, smoothed
from ultraad.types import Prediction, Result, Sample


@pytest.fixture(scope="module")
def model() -> Model:
    return zero_shot(backbone="tiny")


def found(score: float, *, side: int = 4) -> Prediction:
    probs = {"normal": 1 - score, "benign": score}
    return Prediction("a", score, np.full((side, side), score, np.float32), probs, "m")


def test_a_step_rises_by_the_exponential_whatever_the_times_are() -> None:
    smoother = Smoother(0.5)
    assert smoother.next(found(0.0), 0.0).score == 0.0
    for at in (0.04, 0.3, 1.0):
        now = smoother.next(found(1.0), at)
        assert now.score == pytest.approx(1 - math.exp(-at / 0.5), abs=1e-6)
        np.testing.assert_allclose(now.map, now.score, atol=1e-6)
        assert now.probs == pytest.approx({"normal": 1 - now.score, "benign": now.score})


def test_a_frame_depends_on_those_before_only() -> None:
    scores = [0.1, 0.9, 0.4, 0.8]

    def run(values: list[float]) -> list[float]:
        smoother = Smoother(0.2)
        return [smoother.next(found(v), 0.04 * n).score for n, v in enumerate(values)]

    assert run(scores)[:3] == run([*scores[:3], 0.0])[:3]
    assert run(scores)[3] != run([*scores[:3], 0.0])[3]


def test_nothing_changes_without_a_time_constant_and_a_new_size_begins_anew() -> None:
    one = found(0.7)
    assert Smoother(0.0).next(one, 1.0) is one
    smoother = Smoother(1.0)
    smoother.next(found(0.0), 0.0)
    np.testing.assert_array_equal(smoother.next(found(1.0, side=6), 0.1).map, np.float32(1.0))


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_time_constant_that_is_none_is_refused(model: Model, tmp_path: Path, seconds: float) -> None:
    with pytest.raises(ConfigError, match="wanted a time constant in seconds, at least 0"):
        predict(model, tmp_path, tmp_path / "out", smooth=seconds)


def test_each_file_begins_anew_and_stills_are_unchanged(tmp_path: Path) -> None:
    cines = [write_us(tmp_path / f"{n}.dcm", frames=3) for n in range(2)]
    still = save(tmp_path / "still.png", picture(1, lesion=False)[0])
    image = np.zeros((4, 4, 3), np.uint8)

    def results():
        for path in cines:
            for frame, score in enumerate((0.0, 1.0, 1.0)):
                yield Result(Sample(f"{path}#{frame}", path, frame=frame), image, found(score), None)
        for score in (0.0, 1.0):
            yield Result(Sample("still", still), image, found(score), None)

    scores = [result.prediction.score for result in smoothed(results(), 0.1)]
    rise = [0.0, 1 - math.exp(-0.4), 1 - math.exp(-0.8)]  # FrameTime is 40 ms
    assert scores == pytest.approx([*rise, *rise, 0.0, 1.0])


def flicker(path: Path) -> Path:
    """A cine of 6 frames, of which every other is bright."""
    write_us(path, frames=6)
    ds = pydicom.dcmread(path)
    pixels = ds.pixel_array.copy()
    pixels[::2] //= 4
    ds.PixelData = pixels.tobytes()
    ds.save_as(path)
    return path


def test_a_run_is_smoothed_says_so_and_is_the_same_after_an_interruption(tmp_path: Path, model: Model) -> None:
    cine = flicker(tmp_path / "a.dcm")
    for name, smooth in (("plain", 0.0), ("smooth", 0.2), ("torn", 0.2)):
        predict(model, cine, tmp_path / name, smooth=smooth)
    plain, smooth = ([row.score for row in read_rows(tmp_path / name)] for name in ("plain", "smooth"))
    assert np.abs(np.diff(smooth)).max() < np.abs(np.diff(plain)).max()
    share = 1 - math.exp(-0.04 / 0.2)
    assert smooth[1] == pytest.approx(plain[0] + share * (plain[1] - plain[0]), abs=1e-6)
    assert read_run(tmp_path / "smooth").thresholds.smooth == 0.2
    lines = (tmp_path / "torn" / PREDICTIONS).read_text().splitlines(keepends=True)
    (tmp_path / "torn" / PREDICTIONS).write_text("".join(lines[:3]))
    done = predict(model, cine, tmp_path / "torn", smooth=0.2)
    assert (done.predicted, done.skipped) == (3, 3)
    assert [row.score for row in read_rows(tmp_path / "torn")] == smooth
    with pytest.raises(DataError, match="holds results at other thresholds"):
        predict(model, cine, tmp_path / "torn")


def test_key_frames_are_the_best_ones_a_second_apart() -> None:
    scores = [(n, 0.5 + 0.01 * (n % 30)) for n in range(100)]
    assert key_frames(scores, seconds=0.04) == (4, 29, 59, 89)
    assert key_frames(scores, seconds=None) == (4, 29, 59, 89)  # 25 frames
    assert len(key_frames(scores, seconds=0.5)) == 5
    assert key_frames([], seconds=0.04) == ()
