"""Thresholds for another scanner: what each way recovers and what it does not, and the way through a model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit, logit

import ultraad
from tests.adapted import adapted
from tests.helpers import write_busi
from ultraad.cli import main
from ultraad.errors import ConfigError, DataError
from ultraad.model import retune as retuning
from ultraad.model.calibration import fixed
from ultraad.model.operating_point import at, operating_point
from ultraad.model.record import facts_of
from ultraad.model.retune import retune
from ultraad.model.shift import Transfer
from ultraad.model.transfer import PRIOR, WAYS, interval, moved
from ultraad.simulate import write_dataset


def scores(normal, lesion, rng, *, shift=0.0, scale=1.0):
    """Scores of so many normal and lesion images of a scanner, whose log-odds are normal around -1.5 and 1.5."""
    z = np.r_[rng.normal(-1.5, 1, normal), rng.normal(1.5, 1, lesion)]
    return expit(shift + scale * z)


def held_out(rng, n=400):
    s = scores(n, n, rng)
    return s[:n], s[n:]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (1.5, 1.0), (-1.0, 0.6), (0.5, 1.7)])
def test_every_way_finds_shift_and_scale_at_the_same_share_of_lesions(way, shift, scale):
    rng = np.random.default_rng(0)
    fresh = scores(1000, 1000, rng, shift=shift, scale=scale)
    for threshold in (0.3, 0.5):
        found = moved(threshold, *held_out(rng), fresh, way=way, prevalence=0.5)
        assert logit(found) == pytest.approx(shift + scale * logit(threshold), abs=0.25)


@pytest.mark.parametrize("lesions", [200, 1800])
def test_only_the_mixture_bears_another_share_of_lesions(lesions):
    rng = np.random.default_rng(0)
    fresh = scores(2000 - lesions, lesions, rng, shift=1.0)
    off = {way: abs(logit(moved(0.5, *held_out(rng), fresh, way=way, prevalence=0.5)) - 1.0) for way in WAYS}
    assert off["mixture"] < 0.25
    assert min(off["quantile"], off["moments"]) > 0.8
    known = moved(0.5, *held_out(rng), fresh, way="quantile", prevalence=lesions / 2000)
    assert logit(known) == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("way", WAYS)
def test_a_higher_threshold_stays_higher(way):
    rng = np.random.default_rng(0)
    normal, lesion = held_out(rng, 8)
    fresh = scores(30, 20, rng, shift=1)
    found = [moved(t, normal, lesion, fresh, way=way, prevalence=0.5) for t in np.linspace(0, 1, 11)]
    assert (np.diff(found) >= 0).all()
    assert found[0] >= 0
    assert found[-1] <= 1


def test_few_images_move_the_mixture_little():
    rng = np.random.default_rng(0)
    normal, lesion = held_out(rng)
    few, many = (
        np.mean([logit(moved(0.5, normal, lesion, scores(n, n, rng, shift=2), way="mixture", prevalence=0.5))
                 for _ in range(10)])
        for n in (2, 200)
    )  # fmt: skip
    assert few < many
    assert many == pytest.approx(2, abs=0.3)
    assert PRIOR > 4


def test_the_interval_narrows_with_images_and_holds_the_value():
    rng = np.random.default_rng(0)
    normal, lesion = held_out(rng, 12)
    widths = []
    for n in (20, 500):
        fresh = scores(n, n, rng, shift=1)
        value = moved(0.5, normal, lesion, fresh, way="moments", prevalence=0.5)
        low, high = interval(0.5, normal, lesion, fresh, way="moments", prevalence=0.5, seed=0)
        assert low < value < high
        widths.append(high - low)
    assert widths[1] < widths[0]


def test_a_model_is_moved_and_says_so(folder_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(retuning, "FEWEST", 4)
    model = adapted(folder_dir)
    saved = model.save(tmp_path / "model")
    images = write_dataset(tmp_path / "new", n=6, size=64)
    with pytest.raises(SystemExit) as end:
        main(["retune", str(saved), str(images), "-o", str(tmp_path / "moved"), "--device", "cpu"])
    assert not end.value.code
    assert "by 6 unlabelled images (mixture)" in capsys.readouterr().out
    other = ultraad.load(tmp_path / "moved")
    record = other.calibration.transfer
    assert record.before == model.calibration.image_threshold
    assert record.low <= other.calibration.image_threshold <= record.high
    assert other.digest != model.digest
    path = next(images.rglob("*.png"))
    assert other.predict(path).score == model.predict(path).score
    assert other.calibration.pixel_threshold == model.calibration.pixel_threshold
    assert retune(model, images, seed=0).calibration == other.calibration
    assert retune(model, images, operating_point="sens=0.9").calibration.transfer.rule.startswith("sensitivity>=0.9")
    with pytest.raises(ConfigError, match="was moved to another scanner before"):
        retune(other, images)
    with pytest.raises(ConfigError, match="its held-out scores are those of the first scanner"):
        operating_point(other.calibration, "sens=0.9")
    assert at(other.calibration, 0.5, rule="given").sensitivity is None
    assert "transfer" not in facts_of(model.describe().model_dump(mode="json"))["calibration"]


def test_what_cannot_be_moved_is_refused(folder_dir, tmp_path):
    model = adapted(folder_dir)
    images = write_dataset(tmp_path / "new", n=6, size=64)
    with pytest.raises(DataError, match=r"6 of 6 images can be used \(0 out of scope\), wanted at least 20"):
        retune(model, images)
    with pytest.raises(ConfigError, match="wanted one of quantile, moments, mixture, keep"):
        retune(model, images, way="magic")
    lesions = tuple(one for one in model.calibration.held_out if one.anomalous)
    model.calibration = model.calibration.model_copy(update={"held_out": lesions})
    with pytest.raises(ConfigError, match="no normal image was held out"):
        retune(model, images)
    model.calibration = fixed(has_map=True, note="zero-shot")
    with pytest.raises(ConfigError, match="no held-out scores"):
        retune(model, images)


def test_an_evaluation_compares_what_was_promised_with_what_is_got(folder_dir, tmp_path):
    model = adapted(folder_dir)
    found = ultraad.evaluate(model, write_busi(tmp_path / "busi"), bootstrap=0, output=tmp_path / "out")
    promised = at(model.calibration, model.calibration.image_threshold, rule="")
    gap, metrics = found["transfer_gap"], found["metrics"]
    assert gap["sensitivity"] == {
        "held_out": promised.sensitivity.value, "measured": metrics["image_sensitivity"]["value"]
    }  # fmt: skip
    assert gap["specificity"]["measured"] == metrics["image_specificity"]["value"]
    assert gap["dice"] == {"stored": metrics["dice"]["value"], "oracle": metrics["dice_oracle"]["value"]}
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["transfer_gap"] == gap
    assert any("held-out support images" in note and "here and" in note for note in found["notes"])
    record = Transfer(way="mixture", rule="", before=model.calibration.image_threshold, low=0.9, high=1.0, images=20)
    model.calibration = model.calibration.model_copy(update={"transfer": record, "image_threshold": 0.99})
    moved_gap = ultraad.evaluate(model, tmp_path / "busi", bootstrap=0)["transfer_gap"]
    assert moved_gap["sensitivity"]["held_out"] == gap["sensitivity"]["held_out"], "promised before it was moved"
    plain = ultraad.evaluate(ultraad.zero_shot(backbone="tiny"), write_busi(tmp_path / "busi"), bootstrap=0)
    assert "sensitivity" not in plain["transfer_gap"]
