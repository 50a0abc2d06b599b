"""Class probabilities: scaling against oracles, prevalence against Bayes' rule, and when a class is left open."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

import ultraad
from tests.adapted import adapted
from ultraad.cli import main
from ultraad.errors import ConfigError
from ultraad.metrics.calibration import classwise_calibration_error, negative_log_likelihood
from ultraad.model import probabilities
from ultraad.model.abstain import is_unsure, parse
from ultraad.model.probabilities import Scaling, at_prevalence, fit, read_prevalence, told
from ultraad.model.record import facts_of
from ultraad.types import InScope, Prediction

CLASSES = ("normal", "benign", "malignant")


def drawn(n, *, slope=1.0, offsets=(0, 0, 0), seed=0):
    """(probabilities (n 3) that are off by a slope and offsets, labels (n,))."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, (n, 3))
    y = np.array([rng.choice(3, p=p) for p in softmax(z, axis=1)])
    return softmax((z - offsets) / slope, axis=1), y


def parts(n, k=4):
    return [list(range(i, n, k)) for i in range(k)]


def test_the_slope_is_that_of_a_search_and_the_offsets_are_logistic_regressions():
    p, y = drawn(300, slope=0.4)
    z = np.log(p)
    best = minimize_scalar(lambda s: -np.log(softmax(s * z, axis=1)[np.arange(300), y]).sum(), bounds=(0.05, 5))
    assert probabilities._fitted(z, y, "temperature", 1e-9)[0] == pytest.approx(best.x, rel=1e-3)
    two, label = p[:, :2] / p[:, :2].sum(1, keepdims=True), (p[:, 1] > np.random.default_rng(0).random(300)).astype(int)
    platt = LogisticRegression(C=np.inf).fit(np.log(two[:, 1:] / two[:, :1]), label)
    slope, offsets = probabilities._fitted(np.log(two), label, "offsets", 1e-9)
    assert slope == pytest.approx(platt.coef_[0, 0], rel=1e-3)
    assert offsets[1] - offsets[0] == pytest.approx(platt.intercept_[0], abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "off"), [("temperature", {"slope": 0.3}), ("offsets", {"slope": 0.5, "offsets": (1.5, 0, -1.5)})]
)
def test_what_is_off_is_put_right_on_new_images(kind, off):
    p, y = drawn(480, **off)
    found = fit(p, y, parts(480), classes=CLASSES)
    assert found.kind == kind
    fresh, truth = drawn(4000, **off, seed=1)
    scaled = np.array([[*found(dict(zip(CLASSES, row, strict=True))).values()] for row in fresh])
    assert classwise_calibration_error(scaled, truth)[0] < 0.04 < classwise_calibration_error(fresh, truth)[0] / 2
    assert found.nll[1] < found.nll[0]


def test_true_probabilities_stay_as_they_are():
    kinds = [fit(*drawn(n, seed=seed), parts(n), classes=CLASSES).kind for n in (12, 48) for seed in range(20)]
    assert kinds.count("none") >= 32
    one = fit(*drawn(48, seed=kinds[20:].index("none")), parts(48), classes=CLASSES)
    probs = {"normal": 0.2, "benign": 0.5, "malignant": 0.3}
    assert one(probs) == probs


def test_few_images_move_the_slope_less_than_many():
    slopes = [
        np.mean([abs(np.log(probabilities._fitted(np.log(p), y, "temperature", 10.0)[0])) for p, y in draws])
        for n in (12, 48, 192)
        for draws in [[drawn(n, slope=0.3, seed=seed) for seed in range(8)]]
    ]
    assert slopes == sorted(slopes)
    assert slopes[0] < 0.8 * slopes[2]


def test_without_a_class_or_folds_nothing_is_scaled():
    p, y = drawn(40)
    assert fit(p, np.minimum(y, 1), parts(40), classes=CLASSES) is None
    assert fit(p, y, [list(range(40))], classes=CLASSES) is None


def test_prevalence_is_bayes_rule():
    x = np.linspace(-3, 5, 9)

    def posterior(lesions):
        a, b = (1 - lesions) * norm.pdf(x), lesions * norm.pdf(x, 2)
        return a / (a + b)

    for p, wanted in zip(posterior(0.6), posterior(0.1), strict=True):
        shares = {"normal": 0.4, "lesion": 0.6}
        moved = at_prevalence({"normal": p, "lesion": 1 - p}, 0.1, normal_class="normal", shares=shares)
        assert moved["normal"] == pytest.approx(wanted)
        assert sum(moved.values()) == pytest.approx(1)


def test_lesion_classes_keep_their_proportion():
    probs = {"normal": 0.2, "benign": 0.6, "malignant": 0.2}
    moved = at_prevalence(probs, 0.1, normal_class="normal", shares=None)
    assert moved["benign"] / moved["malignant"] == pytest.approx(3)
    assert moved["normal"] > 0.7
    assert at_prevalence(probs, 2 / 3, normal_class="normal", shares=None) == pytest.approx(probs)


def test_shares_of_classes_are_bayes_rule():
    probs, shares = {"normal": 0.2, "benign": 0.5, "malignant": 0.3}, {"normal": 0.5, "benign": 0.3, "malignant": 0.2}
    moved = at_prevalence(probs, {"benign": 0.1, "malignant": 0.05}, normal_class="normal", shares=shares)
    odds = np.array([0.2 * 0.85 / 0.5, 0.5 * 0.1 / 0.3, 0.3 * 0.05 / 0.2])
    assert [*moved.values()] == pytest.approx(odds / odds.sum())
    none_normal = at_prevalence(probs, {"benign": 0.6, "malignant": 0.4}, normal_class="normal", shares=shares)
    assert none_normal["normal"] == pytest.approx(0)
    sure = at_prevalence({"normal": 1.0, "lesion": 0.0}, {"lesion": 1.0}, normal_class="normal", shares=None)
    assert sure == {"normal": 0.0, "lesion": 1.0}  # what was said to be impossible is, and the rest sums to 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("0.1", 0.1), ("benign=0.2, malignant=0.05", {"benign": 0.2, "malignant": 0.05}), ("lesion=1", {"lesion": 1.0})],
)
def test_a_prevalence_is_read_as_it_is_written(text, wanted):
    assert read_prevalence(text) == wanted
    assert read_prevalence(told(wanted)) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("few", "wanted a share such as 0.1"),
        ("0.1,0.2", "wanted one share of lesions, or each class once"),
        ("benign=0.1,0.2", "wanted one share of lesions, or each class once"),
        ("benign=0.1,benign=0.2", "wanted one share of lesions, or each class once"),
        ("benign=0.7,malignant=0.7", "that sum to 1, or to at most 1"),
        ("benign=-0.1", "wanted shares in"),
        ("benign=nan", "wanted shares in"),
    ],
)
def test_a_prevalence_that_cannot_be_read_is_refused(text, said):
    with pytest.raises(ConfigError, match=said):
        read_prevalence(text)


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"benign": 0.1, "cyst": 0.1}, "the model has no class 'cyst'; it has normal, benign, malignant"),
        ({"benign": 0.1}, "normal, malignant are left out"),
        ({"normal": 0.1, "benign": 0.1, "malignant": 0.1}, "wanted shares in"),
    ],
)
def test_shares_must_fit_the_classes(shares, said):
    with pytest.raises(ConfigError, match=said):
        ultraad.zero_shot(backbone="tiny").at_prevalence(shares)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, float("nan")])
def test_a_prevalence_that_is_none_is_refused(value):
    with pytest.raises(ConfigError, match="wanted the share of images that show a lesion"):
        ultraad.zero_shot(backbone="tiny").at_prevalence(value)


@pytest.mark.parametrize("rule", ["cost=0", "cost=1", "cost=x", "sets=2", "0.2", ""])
def test_a_rule_that_is_none_is_refused(rule):
    with pytest.raises(ConfigError, match=r"wanted cost=C"):
        parse(rule)


def test_an_answer_that_costs_more_than_none_is_left_open():
    found = Prediction("a", 0.9, None, {"normal": 0.1, "benign": 0.7, "malignant": 0.2}, "ultraad")
    assert is_unsure(found, "cost=0.2") is True
    assert is_unsure(found, "cost=0.4") is False
    assert is_unsure(found, None) is None
    assert is_unsure(replace(found, probs=None), "cost=0.2") is None
    outside = InScope(ok=False, reference=0.002, support=None, words="out of scope")
    assert is_unsure(replace(found, in_scope=outside), "cost=0.4") is True


def test_cost_of_true_probabilities_is_least_with_the_rule():
    p, y = drawn(4000)
    wrong = p.argmax(1) != y
    for cost in (0.1, 0.3, 0.5):

        def total(limit, cost=cost):
            unsure = 1 - p.max(1) > limit
            return cost * unsure.mean() + (wrong & ~unsure).mean()

        assert total(cost) <= min(total(limit) for limit in (cost / 2, cost * 1.5, 0.0, 1.0)) + 0.005


def test_a_model_scales_its_probabilities_and_nothing_else(folder_dir, tmp_path):
    model = adapted(folder_dir)
    image = sorted((folder_dir / "benign").glob("*.png"))[0]
    scaling = Scaling(
        kind="offsets", slope=0.5, offsets=dict.fromkeys(model.classes, 0.0), prior=1.0, images=6, nll=(1.0, 0.9),
        shares=dict.fromkeys(model.classes, 1 / len(model.classes)),
    )  # fmt: skip
    plain = model.calibration.model_copy(update={"scaling": None})
    model.calibration = plain
    before, digest = model.predict(image), model.digest
    model.calibration = plain.model_copy(update={"scaling": scaling})
    after = model.predict(image)
    assert after.score == before.score
    assert (after.map == before.map).all()
    assert after.probs == pytest.approx(scaling(before.probs))
    assert model.digest != digest
    assert ultraad.load(model.save(tmp_path / "model")).predict(image).probs == after.probs
    moved = model.at_prevalence(0.01).predict(image)
    assert moved.score == before.score
    assert moved.probs[model.normal_class] > after.probs[model.normal_class]
    assert model.predict(image).probs == after.probs, "the model itself is not changed"


def test_held_out_support_images_keep_class_and_probabilities(folder_dir):
    model = adapted(folder_dir)
    for one in model.calibration.held_out:
        assert one.label in model.classes
        assert sum(one.probs.values()) == pytest.approx(1, abs=1e-4)
    likelihood = negative_log_likelihood(
        np.array([[*one.probs.values()] for one in model.calibration.held_out]),
        np.array([model.classes.index(one.label) for one in model.calibration.held_out]),
    )[0]
    assert model.calibration.scaling.nll[0] == pytest.approx(likelihood, rel=1e-3)
    old = model.describe().model_dump(mode="json")
    for one in old["calibration"]["held_out"]:
        one.pop("label"), one.pop("probs"), one.pop("false_lesions")
    del old["calibration"]["scaling"]
    kept = facts_of(old)["calibration"]["held_out"][0]
    assert set(kept) == {"id", "score", "anomalous", "group"}, "the digest of an earlier model is that of its own facts"


def test_a_run_at_a_prevalence_with_open_classes(folder_dir, tmp_path, capsys):
    words = ["predict", "zero-shot", str(folder_dir / "benign"), "-o", str(tmp_path / "out"), "--backbone", "tiny"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--device", "cpu", "--prevalence", "0.05", "--abstain", "cost=0.01"])
    assert not end.value.code
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    plain = ultraad.zero_shot(backbone="tiny")
    for row in rows:
        assert row["probs"] == pytest.approx(plain.at_prevalence(0.05).predict(row["image"]).probs, abs=1e-5)
        assert row["unsure"] == (1 - max(row["probs"].values()) > 0.01)
    assert f"{sum(r['unsure'] for r in rows)} of them are unsure at cost=0.01" in capsys.readouterr().err
    table = [*csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines())]
    assert [r["unsure"] for r in table] == [str(r["unsure"]) for r in rows]
    run = json.loads((tmp_path / "out" / "run.json").read_text())["thresholds"]
    assert (run["prevalence"], run["abstain"]) == (0.05, "cost=0.01")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "where, of the images, 5 % show a lesion" in page
    assert "is left open (cost=0.01)" in page or "are left open (cost=0.01)" in page or "left open (cost=0.01)" in page
    with pytest.raises(SystemExit) as end:
        main([*words[:4], str(tmp_path / "classes"), *words[5:], "--prevalence", "benign=0.2,malignant=0.05"])
    assert not end.value.code
    run = json.loads((tmp_path / "classes" / "run.json").read_text())["thresholds"]
    assert run["prevalence"] == {"benign": 0.2, "malignant": 0.05}
    assert "20 % are benign, 5 % are malignant" in (tmp_path / "classes" / "report.html").read_text()
    for wrong in (["--prevalence", "1"], ["--abstain", "never"]):
        with pytest.raises(SystemExit) as end:
            main([*words, *wrong])
        assert end.value.code == 2
