"""Sets of classes: coverage by simulation, and two other packages as oracles where they are installed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from ultraad.errors import ConfigError, DataError
from ultraad.metrics.conformal import (
    best_level,
    covered,
    cv_plus_sets,
    mondrian_sets,
    nonconformity,
    quantile,
    split_sets,
)

SCORES = ("rest", "sum")


def population(n, rng):
    """(images (n 4), labels (n,)) of three classes of unequal size that overlap."""
    y = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    return rng.normal(0, 1, (n, 4)) + 1.3 * np.eye(3, 4)[y], y


def wrong_probs(x, rng):
    """Probabilities of a fixed, overconfident and biased model: coverage must not need true ones."""
    return softmax(4 * x[:, :3] + [0.8, 0, -0.5] + 0.1 * rng.normal(size=(len(x), 3)), axis=1)


def own(probs, y, score):
    return nonconformity(probs, score=score)[np.arange(len(y)), y]


def test_the_quantile_is_an_order_statistic():
    values = np.array([5.0, 1, 3, 2, 4, 6, 7, 8, 9])
    assert quantile(values, 0.9) == 9  # ceil(10 * 0.9) = 9
    assert quantile(values, 0.91) == math.inf
    assert quantile(values, 0.5) == 5
    assert best_level(4) == 0.8
    assert quantile(values[:4], 0.8) == 5
    assert quantile(values[:4], 0.81) == math.inf


def test_sums_are_those_of_the_more_probable_classes():
    p = np.array([[0.2, 0.5, 0.3]])
    np.testing.assert_allclose(nonconformity(p, score="sum"), [[1.0, 0.5, 0.8]])
    np.testing.assert_allclose(nonconformity(p, score="rest"), [[0.8, 0.5, 0.7]])


@pytest.mark.parametrize("score", SCORES)
def test_split_sets_hold_the_true_class_as_promised(score):
    """300 draws: the mean is beta distributed around ceil((n + 1) level) / (n + 1)."""
    rng, found, by_class = np.random.default_rng(0), [], []
    for _ in range(300):
        x, y = population(60, rng)
        fresh, truth = population(60, rng)
        p, q = wrong_probs(x, rng), nonconformity(wrong_probs(fresh, rng), score=score)
        found.append(covered(split_sets(own(p, y, score), q, level=0.9), truth)[0])
        sets = mondrian_sets(own(p, y, score), y, q, level=0.8)
        by_class.append([sets[truth == k, k].mean() if (truth == k).any() else np.nan for k in range(3)])
    assert 0.9 - 0.01 < np.mean(found) < 55 / 61 + 0.015
    assert (np.nanmean(by_class, axis=0) > 0.8 - 0.02).all()


def test_too_few_images_name_every_class():
    rng = np.random.default_rng(0)
    x, y = population(8, rng)
    q = nonconformity(wrong_probs(population(20, rng)[0], rng), score="rest")
    assert split_sets(own(wrong_probs(x, rng), y, "rest"), q, level=0.9).all()
    assert not split_sets(own(wrong_probs(x, rng), y, "rest"), q, level=0.85).all()


def fitted(x, y):
    return LogisticRegression(C=1e4, max_iter=300).fit(
        np.r_[x, np.eye(3, 4)], np.r_[y, [0, 1, 2]]
    )  # every class occurs


def draw_of(rng, score, n=24, k=4, level=0.9):
    """(coverage, size) of CV+, of split, of a model of all images with held-out scores, and with those of its own."""
    x, y = population(n, rng)
    fresh, truth = population(80, rng)
    folds = [list(range(i, n, k)) for i in range(k)]
    scores, measured = np.zeros(n), []
    for part in folds:
        rest = np.setdiff1d(np.arange(n), part)
        model = fitted(x[rest], y[rest])
        scores[part] = own(model.predict_proba(x[part]), y[part], score)
        measured.append(nonconformity(model.predict_proba(fresh), score=score))
    half = fitted(x[::2], y[::2])
    split = split_sets(
        own(half.predict_proba(x[1::2]), y[1::2], score),
        nonconformity(half.predict_proba(fresh), score=score),
        level=level,
    )
    whole = fitted(x, y)
    measured_by_whole = nonconformity(whole.predict_proba(fresh), score=score)
    held_out = split_sets(scores, measured_by_whole, level=level)
    seen = split_sets(own(whole.predict_proba(x), y, score), measured_by_whole, level=level)
    plus = cv_plus_sets(scores, folds, measured, level=level)
    return [covered(sets, truth) for sets in (plus, split, held_out, seen)]


@pytest.mark.slow
@pytest.mark.parametrize("score", SCORES)
def test_coverage_over_a_thousand_draws(score):
    """What is promised holds; calibrating on images that the model was fitted on does not."""
    rng = np.random.default_rng(0)
    plus, split, held_out, seen = np.mean([draw_of(rng, score) for _ in range(1000)], axis=0)
    assert plus[0] > 0.89
    assert split[0] > 0.89
    assert held_out[0] > 0.89
    assert seen[0] < 0.85


def test_cv_plus_with_one_image_per_fold_is_its_definition():
    rng = np.random.default_rng(0)
    x, y = population(12, rng)
    fresh, _ = population(5, rng)
    scores, measured = rng.random(12), [rng.random((5, 3)) for _ in range(12)]
    sets = cv_plus_sets(scores, [[i] for i in range(12)], measured, level=0.7)
    for m in range(5):
        for k in range(3):
            less = sum(scores[i] < measured[i][m, k] for i in range(12))
            assert sets[m, k] == (less < 0.7 * 13)
    assert len(x) == len(y) == 12
    assert len(fresh) == 5


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="wanted the share of sets"):
        quantile([1.0], 1.0)
    with pytest.raises(DataError, match="hold each of 3 images once"):
        cv_plus_sets([1.0, 2, 3], [[0], [1]], [np.zeros((1, 2))] * 2, level=0.9)


@pytest.mark.parametrize("score", SCORES)
def test_sets_are_those_of_crepes(score):
    crepes = pytest.importorskip("crepes")
    rng = np.random.default_rng(0)
    (x, y), (fresh, _) = population(80, rng), population(50, rng)
    p, q = wrong_probs(x, rng), nonconformity(wrong_probs(fresh, rng), score=score)
    oracle = crepes.ConformalClassifier().fit(own(p, y, score), seed=0)
    wanted = oracle.predict_set(q, confidence=0.9, smoothing=False)
    np.testing.assert_array_equal(split_sets(own(p, y, score), q, level=0.9), wanted)
    by_class = crepes.ConformalClassifier().fit(own(p, y, score), bins=y, seed=0)
    wanted = np.stack(
        [by_class.predict_set(q[:, [k]], np.full(50, k), confidence=0.8, smoothing=False)[:, 0] for k in range(3)],
        axis=1,
    )
    np.testing.assert_array_equal(mondrian_sets(own(p, y, score), y, q, level=0.8), wanted)


def test_split_sets_are_those_of_mapie():
    classification = pytest.importorskip("mapie.classification")
    rng = np.random.default_rng(0)
    (x, y), (z, label), (fresh, _) = population(90, rng), population(60, rng), population(50, rng)
    model = fitted(x, y)
    oracle = classification.SplitConformalClassifier(
        model, confidence_level=0.9, conformity_score="lac", prefit=True, random_state=0
    ).conformalize(z, label)
    _, wanted = oracle.predict_set(fresh)
    q = nonconformity(model.predict_proba(fresh), score="rest")
    found = split_sets(own(model.predict_proba(z), label, "rest"), q, level=0.9)
    np.testing.assert_array_equal(found, wanted[..., 0])
