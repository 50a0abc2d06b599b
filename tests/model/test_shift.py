"""Weighted prediction sets: coverage under a known covariate shift, what they cost, and the way through a model."""

from __future__ import annotations

import math

import numpy as np
import pytest

import ultraad
from tests.adapted import adapted
from ultraad.cli import main
from ultraad.errors import ConfigError
from ultraad.metrics.conformal import effective_number, quantile, weighted_quantile
from ultraad.model import retune as retuning
from ultraad.model.shift import Shift, shift_of
from ultraad.simulate import write_dataset

LEVEL = 0.9


def images(n, mean, rng):
    """(log distance (n,), nonconformity (n,) of the true class): the model knows less of what is further away."""
    x = rng.normal(mean, 1.0, n)
    return x, rng.beta(1.0 + np.exp(0.8 * x), 4.0, n)


def simulated(draws, *, n=48, m=100, shift=1.0):
    """Mean coverage and limit on new images: without weights, with the true ones, and with those of shift_of."""
    rng, found, worth = np.random.default_rng(0), [], []
    for _ in range(draws):
        x, own = images(n, 0.0, rng)
        seen, _ = images(m, shift, rng)  # unlabelled images of the new scanner
        fresh, true = images(40, shift, rng)
        known = Shift(intercept=-(shift**2) / 2, slope=shift, distances=tuple(x), images=m, effective=1.0)
        fitted = shift_of(x.tolist(), seen.tolist())
        worth.append(fitted.effective)
        limits = [np.full(40, quantile(own, LEVEL))]
        for one in (known, fitted):
            w = one.ratio(x)
            limits.append(np.array([weighted_quantile(own, w, v, LEVEL) for v in one.ratio(fresh)]))
        found.append([((true <= limit).mean(), np.minimum(limit, 1).mean()) for limit in limits])
    return np.mean(found, axis=0), float(np.mean(worth))


def test_coverage_under_a_known_shift():
    (plain, true, fitted), worth = simulated(200)
    assert plain[0] < 0.82, "without weights the promise is broken"
    assert true[0] > LEVEL - 0.01
    assert fitted[0] > LEVEL - 0.02
    assert fitted[1] > plain[1], "wider limits are the price"
    assert 48 / math.e / 2 < worth < 48, "exp(1) is the factor of normal distributions one spread apart"


@pytest.mark.slow
def test_coverage_under_a_known_shift_over_a_thousand_draws():
    for n in (24, 48):
        (plain, true, fitted), _ = simulated(1000, n=n)
        assert plain[0] < 0.83
        assert true[0] > LEVEL - 0.005
        assert fitted[0] > LEVEL - 0.015


def test_without_a_shift_nothing_is_paid():
    (plain, _, fitted), worth = simulated(200, shift=0.0)
    assert abs(fitted[0] - plain[0]) < 0.02
    assert worth > 40


def test_equal_weights_are_the_plain_quantile():
    rng = np.random.default_rng(0)
    for n in (5, 9, 20):
        own = rng.random(n)
        for level in (0.5, 0.8, 0.9):
            assert weighted_quantile(own, np.full(n, 3.0), 3.0, level) == quantile(own, level)


def test_the_weighted_quantile_is_its_definition():
    rng = np.random.default_rng(1)
    for _ in range(50):
        own, w, weight = rng.random(12), rng.exponential(size=12), float(rng.exponential())
        found = weighted_quantile(own, w, weight, 0.8)
        enough = [s for s in own if w[own <= s].sum() / (w.sum() + weight) >= 0.8]
        assert found == (min(enough) if enough else math.inf)


def test_the_effective_number_is_that_of_kish():
    assert effective_number([2.0] * 7) == pytest.approx(7)
    assert effective_number([1.0, 0, 0]) == pytest.approx(1)
    assert effective_number([3.0, 1.0]) == pytest.approx(16 / 10)


def test_the_ratio_is_found():
    """Of two normal distributions with one spread the logarithm of the ratio is a line: slope 1.5, 0 in the middle."""
    rng = np.random.default_rng(0)
    found = shift_of(rng.normal(0, 1, 4000).tolist(), rng.normal(1.5, 1, 6000).tolist())
    assert found.slope == pytest.approx(1.5, abs=0.1)
    assert found.intercept + found.slope * 0.75 == pytest.approx(0, abs=0.1)


def test_scanners_that_do_not_overlap_leave_nothing():
    rng = np.random.default_rng(0)
    far = shift_of(rng.normal(0, 1, 24).tolist(), rng.normal(20, 1, 50).tolist())
    assert far.effective < 0.5
    assert np.isfinite(far.ratio([-1e6, 1e6])).all()


def test_a_retuned_model_makes_sets_for_its_scanner(folder_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(retuning, "FEWEST", 4)
    model = adapted(folder_dir)
    saved = model.save(tmp_path / "model")
    with pytest.raises(ConfigError, match="run 'ultraad retune MODEL IMAGES -o NEW'"):
        model.with_sets("shift=0.5")
    with pytest.raises(SystemExit) as end:
        main(["retune", str(saved), str(folder_dir), "-o", str(tmp_path / "kept"), "--way", "keep", "--device", "cpu"])
    assert not end.value.code
    assert "for --sets shift=LEVEL the 6 held-out images are worth" in capsys.readouterr().out
    other = ultraad.load(tmp_path / "kept")
    assert other.calibration.image_threshold == model.calibration.image_threshold
    shift, path = other.calibration.transfer.shift, next(folder_dir.rglob("*.png"))
    plain, found = other.predict(path), other.with_sets("shift=0.5").predict(path)
    own = [1 - one.probs[one.label] for one in other.calibration.held_out]
    weight = float(shift.ratio([plain.in_scope.distance])[0])
    limit = weighted_quantile(own, shift.ratio(shift.distances), weight, 0.5)
    other.calibration = other.calibration.model_copy(update={"scaling": None})  # sets are of probabilities before it
    probs = other.predict(path).probs
    assert found.prediction_set == tuple(name for name, p in probs.items() if 1 - p <= limit)


def test_a_scanner_that_is_too_different_is_refused(folder_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(retuning, "FEWEST", 4)
    other = retuning.retune(adapted(folder_dir), write_dataset(tmp_path / "new", n=6, size=64), way="keep")
    with pytest.raises(ConfigError, match=r"worth 0.0 on the new scanner, .* no promise above 0 % can be made"):
        other.with_sets("shift=0.5")


def test_the_distances_of_the_support_images_are_those_of_new_images(folder_dir):
    """One for each, so that the held-out ones are found by their ids."""
    model = adapted(folder_dir)
    assert len(model.scope.own_log_distances) == len(model.support)
    assert {one.id for one in model.calibration.held_out} <= {print_.id for print_, _ in model.support}
    prediction = model.predict(next(folder_dir.rglob("*.png")))
    assert prediction.in_scope.distance is not None
