from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, roc_auc_score

from ultraad.errors import DataError
from ultraad.metrics import classes as grading
from ultraad.metrics.classes import class_metrics

CLASSES = ("normal", "benign", "malignant")


def case(n=200, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    z = rng.normal(size=(n, 3)) + 1.2 * np.eye(3)[y]
    p = np.exp(z)
    return p / p.sum(1, keepdims=True), y


def metrics(p, y, classes=CLASSES, resamples=0, sets=None):
    return class_metrics(p, y, classes=classes, normal_class="normal", sets=sets, resamples=resamples)


def test_equals_scikit_learn():
    p, y = case()
    got = metrics(p, y)
    assert got["class_auroc_macro"].value == pytest.approx(roc_auc_score(y, p, multi_class="ovr"))
    assert got["class_auroc_weighted"].value == pytest.approx(
        roc_auc_score(y, p, multi_class="ovr", average="weighted")
    )
    assert got["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(y, p.argmax(1)))
    assert got["macro_f1"].value == pytest.approx(f1_score(y, p.argmax(1), average="macro"))
    lesion = y > 0
    share = p[lesion, 2] / (p[lesion, 1] + p[lesion, 2])
    assert got["benign_malignant_auroc"].value == pytest.approx(roc_auc_score(y[lesion] == 2, share))
    assert got["benign_malignant_auroc"].n == lesion.sum()
    np.testing.assert_array_equal(
        grading.confusion_matrix(p, y, classes=3), confusion_matrix(y, p.argmax(1), labels=[0, 1, 2])
    )


def test_brier_by_hand():
    got = metrics([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], [0, 1, 1])["brier"].value
    assert got == pytest.approx((0.5 + 0 + 2) / 3)


def test_malignant_is_positive_whatever_the_order_of_classes():
    p, y = case()
    swap = [0, 2, 1]
    a = metrics(p, y)["benign_malignant_auroc"].value
    b = metrics(p[:, swap], np.array(swap)[y], classes=("normal", "malignant", "benign"))["benign_malignant_auroc"]
    assert b.value == pytest.approx(a)


def test_other_pairs_are_named_after_their_classes():
    p, y = case()
    got = metrics(p, y, classes=("normal", "cyst", "tumour"))
    assert got["cyst_tumour_auroc"].value == pytest.approx(metrics(p, y)["benign_malignant_auroc"].value)
    assert "benign_malignant_auroc" not in got
    two = metrics([[0.2, 0.8], [0.6, 0.4]], [1, 0], classes=("normal", "lesion"))
    assert two["benign_malignant_auroc"].value is None
    assert "exactly two abnormal classes" in two["benign_malignant_auroc"].reason
    assert two["class_auroc_macro"].value == 1.0


def test_an_absent_class_is_left_out_and_named():
    p, y = case()
    keep = y > 0
    got = metrics(p[keep], y[keep])
    expected = np.mean([roc_auc_score(y[keep] == k, p[keep, k]) for k in (1, 2)])
    assert got["class_auroc_macro"].value == pytest.approx(expected)
    assert "normal" in got["class_auroc_macro"].reason
    recalls = [(p[y == k].argmax(1) == k).mean() for k in (1, 2)]
    assert got["balanced_accuracy"].value == pytest.approx(np.mean(recalls))


def test_undefined_is_none_with_a_reason():
    p, y = case()
    one = metrics(p[y == 0], y[y == 0], resamples=10)
    assert one["class_auroc_macro"].value is None
    assert one["class_auroc_macro"].reason == "only one class occurs"
    assert one["benign_malignant_auroc"].reason == "no image of class benign or malignant"
    assert one["brier"].value is not None
    none = metrics(np.zeros((0, 3)), np.zeros(0, int))
    assert all(m.value is None and m.reason for m in none.values())
    assert list(none) == list(one)


def test_a_lesion_given_no_chance_by_either_class_is_undecided():
    p = np.array([[1.0, 0, 0], [0, 0.3, 0.7], [0, 0.7, 0.3]])
    assert metrics(p, [2, 1, 1])["benign_malignant_auroc"].value == 0.5


def test_intervals_hold_the_value():
    p, y = case()
    for m in metrics(p, y, resamples=300, sets=p > 0.3).values():
        assert m.low < m.value < m.high


@pytest.mark.parametrize(
    ("p", "y"),
    [
        ([[0.5, 0.5]], [0]),
        ([[2.0, -1.0, 0.0]], [0]),
        ([[1.0, 2.0, 3.0]], [0]),
        ([[np.nan, 0.5, 0.5]], [0]),
        ([[0.2, 0.3, 0.5]], [3]),
        ([[0.2, 0.3, 0.5]], [-1]),
    ],
)
def test_bad_input_is_refused(p, y):
    with pytest.raises(DataError):
        metrics(np.array(p), y)
