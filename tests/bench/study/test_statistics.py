"""Means, intervals, paired tests and ranks against scipy, scikit-learn and slow sums."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.bench.fake import CLASSES, Spec, change, write_bench
from ultraad.bench.results import BenchFolder
from ultraad.bench.row import ImageLine
from ultraad.bench.study.statistics import Key, Paired, Study
from ultraad.metrics.bootstrap import clusters, counts, interval, replicates
from ultraad.metrics.classes import class_metrics
from ultraad.metrics.compare import Difference, auroc_of, resampled_difference

SPEC = Spec(
    tests=("busi", "udiat"),
    methods=("ultraad", "tip_adapter", "patch_core"),
    shots=(4,),
    seeds=(0, 1, 2),
    images=24,
    failing=(("patch_core", 4, 1),),
)
KEY = Key("embedded", "busi", "honest", "ultraad", 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bench(tmp_path_factory.mktemp("bench") / "results", SPEC)


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    return Study(BenchFolder.open(folder))


def lines(study: Study, key: Key) -> dict[int, list[ImageLine]]:
    return {seed: study.folder.predictions(row) for seed, row in study.ok(key).items()}


def truth(some: list[ImageLine]) -> np.ndarray:
    return np.array([x.anomalous for x in some])


def scores(some: list[ImageLine]) -> np.ndarray:
    return np.array([x.score for x in some])


def test_everything_is_in_the_order_of_the_recipe(study: Study) -> None:
    assert study.labels == list(SPEC.methods)
    assert study.tests == ["busi", "udiat", "buszs"]
    assert (study.shots, study.protocols, study.backbones, study.reference) == (
        [4],
        ["honest"],
        ["embedded"],
        "ultraad",
    )


def test_values_equal_sklearn_and_means_are_over_seeds(study: Study) -> None:
    for metric, oracle in (("image_auroc", roc_auc_score), ("image_ap", average_precision_score)):
        expected = [oracle(truth(x), scores(x)) for x in lines(study, KEY).values()]
        cell = study.cell(KEY, metric)
        assert list(cell.values.values()) == pytest.approx(expected)
        assert cell.mean == pytest.approx(np.mean(expected))
        assert cell.sd == pytest.approx(np.std(expected, ddof=1))
        assert (cell.n, cell.reason) == (24, None)


def test_a_missing_number_has_a_reason(study: Study) -> None:
    def reason(label: str, metric: str, test: str = "busi") -> str | None:
        return study.cell(replace(KEY, label=label, test=test), metric).reason

    assert reason("tip_adapter", "pixel_auroc") == "the method has no map"
    assert reason("patch_core", "class_auroc_macro") == "the method does not grade"
    assert reason("ultraad", "image_auroc", "buszs") == "the data set is not public"
    assert reason("patch_core", "image_auroc") == "seed 1: MemoryError: 3 GB <wanted>"
    assert study.cell(replace(KEY, label="patch_core"), "image_auroc").values.keys() == {0, 2}
    assert study.cell(replace(KEY, shots=99), "image_auroc").reason == "not in the recipe"


def mann_whitney(fits: list[list[ImageLine]]) -> tuple[np.ndarray, np.ndarray]:
    """(kernel averaged over fits (n n), truth): share of fits in which image i scores above image j."""
    above = [(s[:, None] > s) + 0.5 * (s[:, None] == s) for s in map(scores, fits)]
    return np.mean(above, axis=0), truth(fits[0])


def weighed(kernel: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC for each row of image weights (b n), averaged over fits."""
    p, n = weights * y, weights * ~y
    with np.errstate(invalid="ignore"):
        return ((p @ kernel) * n).sum(1) / (p.sum(1) * n.sum(1))


def membership(some: list[ImageLine]) -> np.ndarray:
    """(units n): which images are drawn together."""
    units = [x.group or x.id for x in some]
    return np.array([[u == unit for u in units] for unit in dict.fromkeys(units)], dtype=float)


def scipy_interval(members: np.ndarray, statistic) -> tuple[float, float]:
    """Percentile interval of a function of image weights (b n), units being drawn."""

    def of_drawn(drawn: np.ndarray, axis: int) -> np.ndarray:
        counts = (drawn[..., None] == np.arange(len(members))).sum(-2)  # (... units)
        return statistic(np.atleast_2d(counts) @ members).reshape(drawn.shape[:-1])

    found = stats.bootstrap(
        (np.arange(len(members)),), of_drawn, n_resamples=4000, method="percentile", vectorized=True, rng=1, batch=500
    )
    return found.confidence_interval.low, found.confidence_interval.high


@pytest.mark.parametrize(("test", "units"), [("busi", 24), ("udiat", 6)])  # images alone, and patients
def test_interval_of_the_mean_over_seeds_equals_scipy(study: Study, test: str, units: int) -> None:
    key = replace(KEY, test=test)
    fits = list(lines(study, key).values())
    kernel, y = mann_whitney(fits)
    members = membership(fits[0])
    assert len(members) == units
    cell = study.cell(key, "image_auroc")
    assert weighed(kernel, y, np.ones((1, y.size)))[0] == pytest.approx(cell.mean)
    expected = scipy_interval(members, lambda w: weighed(kernel, y, w))
    assert (cell.low, cell.high) == pytest.approx(expected, abs=0.015)


def test_interval_of_a_pixel_metric_contains_the_exact_mean(study: Study) -> None:
    cell = study.cell(KEY, "pixel_ap")
    assert cell.low is not None
    assert cell.low < cell.mean < cell.high
    tables = [study.folder.pixels(row) for row in study.ok(KEY).values()]
    assert tables[0].groups == tables[1].groups
    low, high = scipy_interval(np.eye(24), lambda w: np.mean([t.compute(w)["pixel_ap"] for t in tables], axis=0))
    assert cell.high - cell.low == pytest.approx(high - low, rel=0.08)


def brute_delong(all_scores: list[np.ndarray], y: np.ndarray, contrast: np.ndarray) -> tuple[float, float]:
    """Value and variance of a contrast of AUROCs, the kernel written out for every pair."""
    kernels = [(s[y][:, None] > s[~y]) + 0.5 * (s[y][:, None] == s[~y]) for s in all_scores]
    together = sum(c * k for c, k in zip(contrast, kernels, strict=True))  # (P N)
    variance = together.mean(1).var(ddof=1) / y.sum() + together.mean(0).var(ddof=1) / (~y).sum()
    return together.mean(), variance


def test_images_without_patients_are_tested_by_delong(study: Study) -> None:
    other = replace(KEY, label="patch_core")
    found = study.against_reference(KEY, "image_auroc")["patch_core"]
    a, b = lines(study, other), lines(study, KEY)
    assert found.seeds == (0, 2)  # seed 1 failed: only what both have is paired
    value, variance = brute_delong(
        [scores(x[s]) for x in (a, b) for s in found.seeds], truth(b[0]), np.array([0.5, 0.5, -0.5, -0.5])
    )
    assert found.how == "DeLong"
    assert found.difference.value == pytest.approx(value)
    assert found.difference.high - value == pytest.approx(1.96 * variance**0.5, rel=1e-4)
    assert found.difference.p == pytest.approx(2 * stats.norm.sf(abs(value) / variance**0.5))


def test_patients_are_drawn_together_in_the_paired_bootstrap(study: Study) -> None:
    key = replace(KEY, test="udiat")
    found = study.against_reference(key, "image_auroc")["tip_adapter"]
    assert found.how == "bootstrap of patients"
    a, b = (list(lines(study, replace(key, label=x)).values()) for x in ("tip_adapter", "ultraad"))
    (first, y), (second, _) = mann_whitney(a), mann_whitney(b)
    expected = scipy_interval(membership(b[0]), lambda w: weighed(first - second, y, w))
    assert found.difference.value == pytest.approx(weighed(first - second, y, np.ones((1, y.size)))[0])
    assert (found.difference.low, found.difference.high) == pytest.approx(expected, abs=0.015)


def test_pixel_differences_are_exact_and_paired_by_image(study: Study) -> None:
    found = study.against_reference(KEY, "pixel_auroc")["patch_core"]
    rows = [study.ok(replace(KEY, label=x)) for x in ("patch_core", "ultraad")]
    exact = [np.mean([r[s].value("pixel_auroc") for s in (0, 2)]) for r in rows]
    assert found.difference.value == pytest.approx(exact[0] - exact[1])
    assert found.how == "bootstrap of images"
    tables = [[study.folder.pixels(r[s]) for s in (0, 2)] for r in rows]

    def coarse(weights: np.ndarray) -> np.ndarray:
        means = [np.mean([t.compute(weights)["pixel_auroc"] for t in side], axis=0) for side in tables]
        return means[0] - means[1]

    low, high = scipy_interval(np.eye(24), coarse)
    assert found.difference.high - found.difference.low == pytest.approx(high - low, rel=0.08)


def test_p_values_of_a_column_are_corrected_by_holm(study: Study) -> None:
    found = study.against_reference(KEY, "image_auroc")
    low, high = sorted(found.values(), key=lambda t: t.difference.p)
    assert low.adjusted == pytest.approx(min(1, 2 * low.difference.p))
    assert high.adjusted == pytest.approx(max(high.difference.p, low.adjusted))


@pytest.mark.parametrize(
    ("value", "low", "high", "p", "higher_is_better", "verdict"),
    [
        (0.1, 0.05, 0.15, 0.01, True, "better"),
        (-0.1, -0.15, -0.05, 0.01, True, "worse"),
        (0.1, 0.05, 0.15, 0.01, False, "worse"),
        (0.1, 0.05, 0.15, 0.06, True, "undecided"),  # after Holm
        (0.1, -0.01, 0.15, 0.01, True, "undecided"),  # the interval holds 0
        (0.1, 0.0, 0.15, 0.01, True, "undecided"),
    ],
)
def test_a_win_needs_the_corrected_p_value_and_the_interval(value, low, high, p, higher_is_better, verdict) -> None:
    assert Paired(Difference(value, low, high, p), p, "", (0,), 9, higher_is_better).verdict == verdict


def test_only_images_of_both_rows_are_paired(folder: Path, tmp_path: Path) -> None:
    write_bench(
        tmp_path / "r", replace(SPEC, tests=("busi",), methods=("ultraad", "patch_core"), seeds=(0,), failing=())
    )
    results = BenchFolder.open(tmp_path / "r")
    row = Study(results).ok(KEY)[0]
    path = tmp_path / "r" / row.files.predictions
    kept = [line for line in path.read_text().splitlines() if json.loads(line)["id"] not in ("benign/benign (1).png",)]
    path.write_text("\n".join(reversed(kept)) + "\n")  # the order does not matter either
    study = Study(results)
    found = study.compare(replace(KEY, label="patch_core"), KEY, "image_auroc")
    some = {x.id: x for x in lines(study, replace(KEY, label="patch_core"))[0]}
    ours = lines(study, KEY)[0]
    y = truth(ours)
    theirs = np.array([some[x.id].score for x in ours])
    assert found.n == 23
    assert found.difference.value == pytest.approx(roc_auc_score(y, theirs) - roc_auc_score(y, scores(ours)))


@pytest.fixture(scope="module")
def rotating(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two seeds that leave out other images (and patients): 8 of 24 are in both, each has 8 of its own.

    The reference ranks the shared images without error and knows nothing of the others; patch_core makes one error,
    among the shared ones.
    """
    spec = replace(SPEC, methods=("ultraad", "patch_core"), seeds=(0, 1), failing=())
    folder = write_bench(tmp_path_factory.mktemp("rotating") / "r", spec)

    def edit(row: dict) -> None:
        if row["status"] != "ok":
            return
        path, kept = folder / row["files"]["predictions"], []
        for i, line in enumerate(map(json.loads, path.read_text().splitlines())):
            if i < 8 or (i < 16) == (row["seed"] == 0):
                score = 0.9 if line["anomalous"] else 0.1
                if row["method"] == "patch_core":
                    score = {0: 0.45, 1: 0.4}.get(i, score)
                elif i >= 8:
                    score = 0.5
                kept.append(line | {"score": score})
        path.write_text("".join(json.dumps(x) + "\n" for x in kept))
        exact = roc_auc_score([x["anomalous"] for x in kept], [x["score"] for x in kept])
        row["metrics"]["image_auroc"].update(value=exact, n=len(kept))

    change(folder, edit)
    return Study(BenchFolder.open(folder))


def on_resamples(fits: list[list[ImageLine]]) -> np.ndarray:
    """Mean AUROC over fits on each resample of the units of all of them; each fit is weighed on its own images."""
    images = list({x.id: x for some in fits for x in some}.values())
    place = {x.id: i for i, x in enumerate(images)}
    members = membership(images)
    weights = counts(len(members), resamples=2000, seed=0) @ members
    own = [weights[:, [place[x.id] for x in some]] for some in fits]
    return np.mean([weighed(*mann_whitney([some]), w) for some, w in zip(fits, own, strict=True)], axis=0)


@pytest.mark.parametrize("test", ["busi", "udiat"])  # images alone, and patients
def test_a_difference_is_that_of_the_means_where_seeds_leave_out_other_images(rotating: Study, test: str) -> None:
    """On the images that all seeds have, the sign would be the other."""
    key = replace(KEY, test=test)
    other = replace(key, label="patch_core")
    found = rotating.against_reference(key, "image_auroc")["patch_core"]
    difference = rotating.cell(other, "image_auroc").mean - rotating.cell(key, "image_auroc").mean
    assert difference > 0
    assert found.difference.value == pytest.approx(difference)
    assert (found.n, found.seeds) == (24, (0, 1))
    assert found.difference.low < difference < found.difference.high


@pytest.mark.parametrize("test", ["busi", "udiat"])
def test_patients_of_all_seeds_are_drawn(rotating: Study, test: str) -> None:
    key = replace(KEY, test=test)
    cell, drawn = rotating.cell(key, "image_auroc"), on_resamples(list(lines(rotating, key).values()))
    assert (cell.low, cell.high) == pytest.approx(interval(drawn))
    if test == "udiat":  # the other by DeLong
        other = replace(key, label="patch_core")
        found = rotating.compare(other, key, "image_auroc").difference
        expected = interval(on_resamples(list(lines(rotating, other).values())) - drawn)
        assert (found.low, found.high) == pytest.approx(expected)


@pytest.mark.parametrize("test", ["busi", "udiat"])
def test_the_same_images_in_all_seeds_are_resampled_as_those_of_one_evaluation(study: Study, test: str) -> None:
    key, other = (replace(KEY, test=test, label=x) for x in ("ultraad", "tip_adapter"))

    def drawn(key: Key) -> np.ndarray:
        fits = lines(study, key).values()
        computes = [(auroc_of(scores(f), truth(f)), clusters([x.group for x in f])) for f in fits]
        return np.mean(
            [replicates(lambda w, c=c: {"": c(w)}, units, resamples=2000, seed=0)[""] for c, units in computes], axis=0
        )

    cell = study.cell(key, "image_auroc")
    assert (cell.low, cell.high) == pytest.approx(interval(drawn(key)), abs=1e-12)
    if test == "udiat":  # the other by DeLong, see above
        found = study.compare(other, key, "image_auroc").difference
        expected = resampled_difference(found.value, drawn(other) - drawn(key))
        assert (found.low, found.high, found.p) == pytest.approx((expected.low, expected.high, expected.p), abs=1e-12)


@pytest.mark.parametrize("metric", ["ece", "class_ece"])
def test_the_interval_of_a_calibration_error_lies_around_it(study: Study, metric: str, tmp_path: Path) -> None:
    for label in ("ultraad", "tip_adapter"):
        for test in ("busi", "udiat"):
            cell = study.cell(replace(KEY, label=label, test=test), metric)
            assert cell.low < cell.mean < cell.high
    one = Study(BenchFolder.open(write_bench(tmp_path / "r", replace(SPEC, seeds=(0,), failing=()))))
    cell, (fit,) = one.cell(KEY, metric), lines(one, KEY).values()
    probs = [[x.probs[c] for c in CLASSES] for x in fit]
    labels = [CLASSES.index(x.label) for x in fit]
    alone = class_metrics(probs, labels, classes=CLASSES, normal_class="normal", resamples=2000)[metric]
    assert (cell.mean, cell.low, cell.high) == pytest.approx((alone.value, alone.low, alone.high))  # as of evaluate


def test_rows_that_cannot_be_paired_are_not_compared(study: Study) -> None:
    assert study.compare(replace(KEY, label="tip_adapter"), KEY, "pixel_auroc") is None
    assert study.against_reference(replace(KEY, test="buszs"), "image_auroc") == {}
    assert study.against_reference(KEY, "class_auroc_macro").keys() == {"tip_adapter"}


def test_lower_calibration_errors_are_better(study: Study) -> None:
    found = study.against_reference(KEY, "ece")["tip_adapter"]
    assert not found.higher_is_better


def test_ranks_need_three_data_sets_and_use_means(study: Study, tmp_path: Path) -> None:
    assert study.ranks("embedded", "honest", 4, "image_auroc") == "needs 3 data sets or more, found 2"
    spec = Spec(tests=("a", "b", "c"), private=(), shots=(4,), seeds=(0,), images=9, failing=())
    many = Study(BenchFolder.open(write_bench(tmp_path / "three", spec)))
    found = many.ranks("embedded", "honest", 4, "image_auroc")
    means = [
        [many.cell(Key("embedded", t, "honest", x, 4), "image_auroc").mean for x in many.labels]
        for t in ("a", "b", "c")
    ]
    assert found.statistic == pytest.approx(stats.friedmanchisquare(*np.array(means).T).statistic)
    expected = stats.rankdata(-np.array(means), axis=1).mean(0)
    assert found.mean == {x: pytest.approx(r) for x, r in zip(many.labels, expected, strict=True)}
    assert "found 2" in many.ranks("embedded", "honest", 4, "class_auroc_macro")


def test_parts_of_one_data_set_count_once_in_ranks(tmp_path: Path) -> None:
    spec = Spec(tests=("a", "b", "c"), private=(), shots=(4,), seeds=(0,), images=9, failing=())
    folder = write_bench(tmp_path / "parts", spec)
    change(folder, lambda row: row["test"].update(set="a"))
    assert "found 1" in Study(BenchFolder.open(folder)).ranks("embedded", "honest", 4, "image_auroc")


def test_backbones_of_one_name_are_distinguished_by_size(tmp_path: Path) -> None:
    spec = Spec(tests=("busi",), private=(), methods=("ultraad",), shots=(4,), seeds=(0, 1), images=6, failing=())
    folder = write_bench(tmp_path / "r", spec)
    bench = json.loads((folder / "bench.json").read_text())
    (backbone,) = bench["recipe"]["backbones"]
    bench["recipe"]["backbones"].append({**backbone, "size": 336})
    (folder / "bench.json").write_text(json.dumps(bench))
    change(folder, lambda row: row["backbone"].update(size=224 + 112 * row["seed"]))
    assert Study(BenchFolder.open(folder)).backbones == ["embedded, 224 px, float32", "embedded, 336 px, float32"]
