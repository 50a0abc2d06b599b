"""Pixel thresholds that control the missed share of a lesion: by simulation, by hand, and on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ultraad
from tests.adapted import adapted
from ultraad.cli import main
from ultraad.errors import ConfigError
from ultraad.metrics.conformal import count_threshold, risk_threshold
from ultraad.metrics.froc import COUNTED, STEPS, false_levels
from ultraad.model.calibration import SHARES, Calibration, HeldOut, _quantiles, fixed
from ultraad.model.operating_point import divided
from ultraad.model.pixel_risk import pixel_point


def lesions(n, rng):
    """Map values (n 400) of the pixels of lesions; some lesions are much fainter than others."""
    return 1 / (1 + np.exp(-rng.normal(rng.normal(0.5, 1.5, (n, 1)), 1.0, (n, 400))))


def stored(maps):
    return np.quantile(maps, SHARES, axis=1, method="inverted_cdf").T


def calibration(values):
    held_out = [
        HeldOut(id=str(i), score=0.5, anomalous=True, lesion_map=tuple(row)) for i, row in enumerate(values.tolist())
    ]
    return Calibration(image_threshold=0.5, pixel_threshold=0.5, rule="", folds=4, held_out=tuple(held_out))


@pytest.mark.parametrize(("n", "level"), [(8, 0.2), (24, 0.1)])
def test_new_lesions_miss_no_more_than_promised_and_not_much_less(n, level):
    """400 draws of a support set; its mean over draws is controlled, not each of them."""
    rng = np.random.default_rng(0)
    fresh = lesions(300, rng)
    found = [risk_threshold(stored(lesions(n, rng)), level=level)[0] for _ in range(400)]
    missed = [float((fresh < t).mean()) for t in found]
    assert level - 1 / (n + 1) - 0.03 < np.mean(missed) < level + 0.01
    assert max(missed) > level, "single support sets miss more: the promise is an average"


def test_without_the_correction_small_support_sets_miss_too_much():
    rng = np.random.default_rng(0)
    fresh = lesions(300, rng)
    plain = [np.quantile(lesions(8, rng), 0.2) for _ in range(400)]
    assert np.mean([(fresh < t).mean() for t in plain]) > 0.2


def test_the_threshold_by_hand():
    values = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])  # at shares 0, 1/2, 1
    assert risk_threshold(values, level=0.5) == (0.4, pytest.approx(1 / 3))  # (1 + 0 + 0 + 1) / 4
    assert risk_threshold(values, level=0.75) == (0.7, pytest.approx(2 / 3))
    assert risk_threshold(values, level=0.25) == (0.1, 0.0)
    assert risk_threshold(values, level=0.24) is None


def test_stored_shares_never_hide_a_missed_pixel():
    rng = np.random.default_rng(0)
    found = rng.random((30, 30), dtype=np.float32)
    mask = rng.random((30, 30)) < 0.3
    kept = _quantiles(found, mask)
    assert len(kept) == len(SHARES)
    assert all((found[mask] < value).mean() <= share for value, share in zip(kept, SHARES, strict=True))
    assert _quantiles(found, np.zeros_like(mask)) is None
    assert _quantiles(None, mask) is None


def test_too_few_lesions_say_what_they_can_promise():
    rng = np.random.default_rng(0)
    few = calibration(stored(lesions(8, rng)))
    with pytest.raises(ConfigError, match=r"with 8 held-out lesions no promise below 12 % .* at least 9 lesions"):
        pixel_point(few, "fnr=0.1")
    point = pixel_point(few, "fnr=0.2")
    assert point.threshold == risk_threshold(stored(lesions(8, np.random.default_rng(0))), level=0.2)[0]
    assert point.rule == "fnr<=0.2 on 8 held-out lesions"
    assert "on average" in point.note
    plain = few.model_copy(update={"held_out": (HeldOut(id="a", score=0.5, anomalous=True),)})
    with pytest.raises(ConfigError, match="no maps of held-out lesions"):
        pixel_point(plain, "fnr=0.2")
    with pytest.raises(ConfigError, match="no held-out scores"):
        pixel_point(fixed(has_map=True, note="zero-shot"), "fnr=0.2")


def counts(n, rng):
    """Numbers of false lesions (n 100) at each step: each appears below its peak, and joins another further down."""
    there = np.arange(12) < rng.poisson(rng.gamma(0.8, 2.5, n))[:, None]  # (n 12)
    peak = rng.beta(1.2, 2.5, (n, 12)) * rng.uniform(0.4, 1.0, (n, 1))
    joined = peak - rng.exponential(0.25, (n, 12))
    steps = np.array(STEPS)[:, None, None]
    return ((steps <= peak) & (steps > joined) & there).sum(-1).T


def falling(numbers):
    """Their running maximum from the highest step down, capped."""
    return np.minimum(np.maximum.accumulate(numbers[:, ::-1], 1)[:, ::-1], COUNTED)


def kept(numbers):
    """The values that are stored: the highest step with more than 0, 1, 2 false lesions."""
    more = numbers[:, None] > np.arange(COUNTED)[:, None]  # (n 3 100)
    return np.where(more, STEPS, -1.0).max(2)


@pytest.mark.parametrize(("n", "level"), [(12, 0.5), (48, 0.25), (48, 1.0)])
def test_new_images_have_no_more_false_lesions_than_promised(n, level):
    rng = np.random.default_rng(0)
    fresh = counts(2000, rng)
    assert (np.diff(fresh, axis=1) > 0).any(), "the numbers rise and fall"
    found = [count_threshold(kept(counts(n, rng)), STEPS, level=level)[0] for _ in range(400)]
    at = [STEPS.index(t) for t in found]
    running = falling(fresh)
    risk = np.mean([running[:, k].mean() for k in at])
    assert level - (COUNTED + 1) / (n + 1) < risk < level + 0.01
    assert np.mean([np.minimum(fresh[:, k], COUNTED).mean() for k in at]) <= risk
    assert max(running[:, k].mean() for k in at) > level, "single support sets have more: it is an average"


def test_without_the_correction_small_support_sets_make_up_too_many():
    rng = np.random.default_rng(0)
    fresh, got = counts(2000, rng), []
    for _ in range(400):
        left = (kept(counts(12, rng))[..., None] >= np.array(STEPS)).sum((0, 1)) / 12
        got.append(falling(fresh)[:, np.flatnonzero(left <= 0.5)[0]].mean())
    assert np.mean(got) > 0.5


def test_the_lowest_threshold_by_hand():
    steps = (0.1, 0.2, 0.3, 0.4)
    values = [[0.3, 0.1, -1], [0.2, 0.2, -1], [-1, -1, -1], [0.4, -1, -1], [-1, -1, -1]]
    assert count_threshold(values, steps, level=1.0) == (0.3, pytest.approx(2 / 5))  # (2 + 3) / 6
    assert count_threshold(values, steps, level=1.2) == (0.2, pytest.approx(4 / 5))  # (4 + 3) / 6
    assert count_threshold(values, steps, level=0.6) is None  # one is left at 0.4: (1 + 3) / 6
    assert count_threshold(values[:3], steps, level=0.7) is None  # 3 / 4 at the best


def test_false_lesions_are_counted_from_the_highest_threshold_down():
    found = np.zeros((40, 40), np.float32)
    found[2:8, 2:8], found[2:8, 12:18], found[30:38, 30:38] = 0.9, 0.7, 0.8
    found[4, 8:12] = 0.3  # below 0.3 the first two are one
    mask = np.zeros((40, 40), bool)
    mask[30:38, 30:38] = True
    assert false_levels(found, mask) == (0.9, 0.7, -1.0)
    assert false_levels(found, ~mask) == (0.8, -1.0, -1.0)
    assert false_levels(np.zeros_like(found), mask) == (-1.0, -1.0, -1.0)


def test_too_few_images_say_how_many_false_lesions_they_can_promise():
    def images(*rows):
        held = tuple(HeldOut(id=str(i), score=0.5, anomalous=False, false_lesions=row) for i, row in enumerate(rows))
        return Calibration(image_threshold=0.5, pixel_threshold=0.5, rule="", folds=4, held_out=held)

    few = images(*[(0.3, -1, -1)] * 4)
    with pytest.raises(ConfigError, match=r"with 4 held-out images no promise below 0.6 false .* at least 5"):
        pixel_point(few, "fppi=0.5")
    point = pixel_point(few, "fppi=0.7")
    assert (point.threshold, point.rule) == (0.31, "fppi<=0.7 on 4 held-out images")
    with pytest.raises(ConfigError, match="at no threshold do the 4 held-out images have so few"):
        pixel_point(images(*[(1.0, 1.0, 1.0)] * 4), "fppi=0.7")
    with pytest.raises(ConfigError, match="no maps of held-out images"):
        pixel_point(calibration(stored(lesions(8, np.random.default_rng(0)))), "fppi=0.5")


def test_one_point_for_images_and_one_for_pixels():
    assert divided("sens=0.95,fnr=0.2") == ("sens=0.95", "fnr=0.2")
    assert divided("fnr=0.2") == (None, "fnr=0.2")
    assert divided("youden") == ("youden", None)
    assert divided("spec=0.9,fppi=0.5") == ("spec=0.9", "fppi=0.5")
    assert divided(None) == (None, None)
    for wrong in ("sens=0.9,spec=0.9", "fnr=0.1,fnr=0.2", "fnr=0.1,fppi=0.5"):
        with pytest.raises(ConfigError, match="at most one for images and one for pixels"):
            divided(wrong)
    for wrong in ("fnr=0", "fnr=1", "fnr", "fppi=0", "fppi=3"):
        with pytest.raises(ConfigError, match="share of a lesion's pixels"):
            divided(wrong)


def test_a_run_uses_both_points(folder_dir, tmp_path, capsys):
    model = adapted(folder_dir)
    saved = model.save(tmp_path / "model")
    assert pixel_point(ultraad.load(saved).calibration, "fppi=2").rule == "fppi<=2 on 6 held-out images"
    wanted = pixel_point(model.calibration, "fnr=0.5")
    assert pixel_point(ultraad.load(saved).calibration, "fnr=0.5") == wanted
    words = ["predict", str(saved), str(folder_dir / "benign"), "-o", str(tmp_path / "out"), "--device", "cpu"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--operating-point", "sens=0.9,fnr=0.5"])
    assert not end.value.code
    run = json.loads((tmp_path / "out" / "run.json").read_text())["thresholds"]
    assert (run["pixel"], run["pixel_rule"]) == (wanted.threshold, wanted.rule)
    assert run["image"] == model.operating_point("sens=0.9").threshold
    assert wanted.note in run["notes"]
    assert f"pixel threshold {wanted.threshold:.4f}: fnr<=0.5 on 4 held-out lesions" in capsys.readouterr().out
    for clash in (["--pixel-threshold", "0.5"], ["--operating-point", "fnr=2"]):
        with pytest.raises(SystemExit) as end:
            main([*words, "--operating-point", "fnr=0.5", *clash])
        assert end.value.code == 2
