from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from ultraad.metrics.bootstrap import clusters
from ultraad.metrics.compare import Difference, auroc_of, holm, paired_bootstrap
from ultraad.metrics.image import statistics as image_statistics
from ultraad.metrics.subgroups import UNKNOWN, adjusted, differences, meaning_of_p, people
from ultraad.metrics.summary import Evaluation
from ultraad.rng import seeded

CLASSES = ("normal", "benign", "malignant")


def evaluation(devices: list[str | None], *, gain: dict[str | None, float]) -> tuple[Evaluation, dict[str, str]]:
    """Ten images of each device; lesions of a device score higher than its normal images by its gain."""
    rng, found, values = seeded(0, "subgroups"), Evaluation(CLASSES, "normal", image_threshold=0.5), {}
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:4, 2:4] = True
    for device in devices:
        for i in range(20):
            lesion, id_ = i % 2 == 0, f"{device}-{i}"
            score = float(rng.normal(0.5 + gain[device] * (0.25 if lesion else -0.25), 0.2))
            kind = "malignant" if lesion else "normal"
            p = min(max(score, 0.01), 0.99)
            found.add(
                id=id_,
                score=score,
                anomalous=lesion,
                probs={"normal": 1 - p, "benign": 0.0, "malignant": p},
                label=kind,
                group=f"{device} {i // 2}",
                map=mask * 0.9 if gain[device] > 0 else (~mask) * np.float32(0.9),
                mask=mask if lesion else None,
            )
            if device is not None:
                values[id_] = device
    return found, values


def test_a_subgroup_has_the_metrics_of_an_evaluation_of_its_own() -> None:
    whole, values = evaluation(["a", "b"], gain={"a": 2, "b": 0.5})
    alone, _ = evaluation(["a"], gain={"a": 2})
    part = next(
        s for s in whole.subgroups({"device": values}, bootstrap=50)["device"]["subgroups"] if s["value"] == "a"
    )
    expected = alone.result(bootstrap=50)["metrics"]
    for key in ("image_auroc", "image_sensitivity", "class_ece", "balanced_accuracy"):
        assert part["metrics"][key] == expected[key]
    assert part["metrics"]["peak_in_lesion"]["value"] == expected["peak_in_lesion"]["value"] == 1
    assert (part["images"], part["patients"]) == (20, 10)


def test_the_worst_subgroup_is_first_and_images_without_a_value_are_one() -> None:
    whole, values = evaluation(["good", "bad", None], gain={"good": 4, "bad": 0, None: 1})
    found = whole.subgroups({"device": values}, bootstrap=0)["device"]
    assert found["ordered_by"] == "image_auroc"
    assert [s["value"] for s in found["subgroups"]] == ["bad", UNKNOWN, "good"]
    assert all(s["differences"] == {} for s in found["subgroups"]), "without resamples there is no test"


def test_intervals_are_paired_bootstraps_on_shared_patients() -> None:
    whole, values = evaluation(["a", "b", "c"], gain={"a": 3, "b": 0, "c": 3})
    found = whole.subgroups({"device": values}, bootstrap=200, seed=5)["device"]["subgroups"]
    rows = list(whole._rows.items())
    scores, truth = np.array([r.score for _, r in rows]), np.array([bool(r.anomalous) for _, r in rows])
    auroc, cluster = auroc_of(scores, truth), clusters([r.group for _, r in rows])
    for part in found:
        inside = np.array([values[id_] == part["value"] for id_, _ in rows])
        want = paired_bootstrap(
            lambda w, inside=inside: auroc(w * inside),
            lambda w, inside=inside: auroc(w * ~inside),
            cluster,
            resamples=200,
            seed=5,
        )
        got = part["differences"]["image_auroc"]
        assert (got["value"], got["low"], got["high"]) == pytest.approx((want.value, want.low, want.high))
    assert found[0]["value"] == "b"
    assert found[0]["differences"]["image_auroc"]["p"] < 0.05


def test_the_p_value_is_that_of_a_permutation_of_patients() -> None:
    """All 20 ways to deal three of six patients, one by one, against the random permutations."""
    right = np.array([1, 1, 1, 1, 0, 0], dtype=bool)
    statistics = image_statistics(np.where(right, 0.9, 0.1), np.ones(6, dtype=bool), threshold=0.5)
    member = np.array([1, 1, 1, 0, 0, 0], dtype=bool)
    patients = [f"patient {i}" for i in range(6)]
    got = differences(statistics, patients, member, resamples=3000, seed=0)["image_sensitivity"]
    gaps = [right[list(c)].mean() - np.delete(right, c).mean() for c in combinations(range(6), 3)]
    tail = np.mean([g >= got.value - 1e-12 for g in gaps])
    assert got.value == pytest.approx(2 / 3)
    assert got.p == pytest.approx(2 * tail, abs=0.05)


def test_a_subgroup_of_one_patient_is_not_compared() -> None:
    statistics = image_statistics(np.linspace(0, 1, 12), np.arange(12) % 2 == 1, threshold=0.5)
    member = np.arange(12) < 4
    alone = differences(statistics, list("aaaabbbbcccc"), member, resamples=50, seed=0)
    assert alone == {}
    half = differences(statistics, list("abacbcabcabc"), member, resamples=50, seed=0)  # one patient's normal images
    assert set(half) == set(statistics.n) - {"image_specificity"}


def test_images_of_unknown_patient_are_no_patients() -> None:
    whole, values = Evaluation(CLASSES, "normal"), {}
    for i, group in enumerate(["p", "p", "q", None, None, None, None]):
        whole.add(id=str(i), score=0.1 * i, anomalous=i % 2 == 1, group=group)
        values[str(i)] = "new" if i > 4 else "old"
    old, new = sorted(whole.subgroups({"age": values}, bootstrap=9)["age"]["subgroups"], key=lambda s: -s["images"])
    assert [(s["images"], s["patients"], s["without_patient"]) for s in (old, new)] == [(5, 2, 2), (2, 0, 2)]
    assert [people(*of) for of in ((2, 0), (2, 9), (0, 9))] == ["2", "2 + 9 unknown", "unknown"]
    assert meaning_of_p([(2, 0)]).startswith("permutation test of patients against")
    assert meaning_of_p([(2, 0), (0, 3)]).startswith("permutation test of patients and of images of unknown patient ag")
    assert meaning_of_p([(0, 3)]).startswith("permutation test of images, as no patient is known, against")


def test_p_values_are_adjusted_for_the_number_of_subgroups() -> None:
    raw = [{"auc": Difference(0.1, 0, 0.2, p)} for p in (0.01, 0.04, 0.03)]
    assert [d["auc"].p for d in adjusted([*raw, {}])[:3]] == pytest.approx(holm([0.01, 0.04, 0.03]))


def test_subgroups_of_one_kind_of_scanner_rarely_differ() -> None:
    """Without a difference, the smallest adjusted p-value of three subgroups is below 0.1 in a tenth of the draws."""
    hits = 0
    for draw in range(15):
        rng, whole, values = seeded(draw, "null"), Evaluation(CLASSES, "normal"), {}
        for i in range(90):
            whole.add(id=str(i), score=float(rng.normal(i % 2, 1)), anomalous=i % 2 == 1, group=str(i))
            values[str(i)] = "abc"[int(rng.integers(3))]
        parts = whole.subgroups({"device": values}, bootstrap=99)["device"]["subgroups"]
        hits += min(s["differences"]["image_auroc"]["p"] for s in parts) < 0.1
    assert hits <= 5, hits
