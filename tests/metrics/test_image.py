from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, recall_score, roc_auc_score

from ultraad.errors import DataError
from ultraad.metrics.image import FORMULAS, image_curves, image_metrics


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    y = rng.random(150) < 0.6
    return rng.normal(y * 1.0).round(1), y


def test_equals_scikit_learn(case):
    s, y = case
    got = image_metrics(s, y, threshold=0.5, resamples=0)
    assert list(got) == list(FORMULAS)
    assert got["image_auroc"].value == pytest.approx(roc_auc_score(y, s))
    assert got["image_ap"].value == pytest.approx(average_precision_score(y, s))
    assert got["image_accuracy"].value == pytest.approx(accuracy_score(y, s >= 0.5))
    assert got["image_sensitivity"].value == pytest.approx(recall_score(y, s >= 0.5))
    assert got["image_specificity"].value == pytest.approx(recall_score(~y, s < 0.5))
    assert got["image_sensitivity"].n + got["image_specificity"].n == got["image_auroc"].n == 150


def test_sensitivity_by_hand():
    # ten normal images 0..9, the positives at 8.5 (one normal above) and 0.5 (nine above)
    s, y = [*range(10), 8.5, 0.5], [False] * 10 + [True] * 2
    got = image_metrics(s, y, resamples=0)
    assert got["sensitivity_at_90"].value == 0.5
    assert got["sensitivity_at_95"].value == 0.0  # a real 0: the highest score is a normal image


def test_intervals_hold_the_value(case):
    for m in image_metrics(*case, threshold=0.5, resamples=300).values():
        assert m.low < m.value < m.high


def test_undefined_is_none_with_a_reason(case):
    s, _ = case
    normal = image_metrics(s, np.zeros(150, bool), threshold=0.0)
    assert normal["image_auroc"].value is None
    assert normal["image_auroc"].reason == "no anomalous image"
    assert normal["image_sensitivity"].value is None
    assert normal["image_specificity"].value == pytest.approx((s < 0).mean())
    lesions = image_metrics(s, np.ones(150, bool))
    assert lesions["image_auroc"].reason == "no normal image"
    for key in ("image_auroc", "image_ap", "image_f1_oracle", "sensitivity_at_90", "image_specificity"):
        assert lesions[key].value is None, key
        assert (lesions[key].low, lesions[key].high, lesions[key].reason) == (None, None, "no normal image")
    assert lesions["image_accuracy"].reason == "no stored image threshold"
    none = image_metrics([], [])
    assert list(none) == list(FORMULAS)
    assert all(m.value is None and m.reason and m.n == 0 for m in none.values())
    assert image_curves([], []) == {}


def test_lengths_must_agree():
    with pytest.raises(DataError, match="one length"):
        image_metrics([0.1, 0.2], [True])
