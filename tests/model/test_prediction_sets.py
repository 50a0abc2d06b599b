"""Prediction sets: which classes they name, what is refused, and the way through files, screen and report."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from scipy.stats import beta

import ultraad
from tests.adapted import adapted
from tests.helpers import write_busi
from ultraad.cli import main
from ultraad.errors import ConfigError
from ultraad.metrics.conformal import mondrian_sets, nonconformity, split_sets
from ultraad.metrics.summary import Evaluation
from ultraad.model.abstain import check_abstain, is_unsure
from ultraad.model.calibration import Calibration, HeldOut, fixed
from ultraad.model.prediction_sets import parse, sets_of
from ultraad.types import InScope, Prediction

CLASSES = ("normal", "benign", "malignant")


def held_out(counts, seed=0, *, patients=None):
    """(calibration, nonconformity (n,), labels (n,)) of so many random images of each class."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(3), counts)
    p = rng.dirichlet(np.ones(3), y.size) * 0.5 + 0.5 * np.eye(3)[y]
    images = tuple(
        HeldOut(
            id=str(i), score=0.5, anomalous=k > 0, label=CLASSES[k],
            probs=dict(zip(CLASSES, row.tolist(), strict=True)),
            group=None if patients is None else f"p{i % patients}",
        )
        for i, (k, row) in enumerate(zip(y.tolist(), p, strict=True))
    )  # fmt: skip
    calibration = Calibration(image_threshold=0.5, pixel_threshold=None, rule="youden", folds=4, held_out=images)
    return calibration, nonconformity(p, score="rest")[np.arange(y.size), y], y


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_the_sets_are_those_of_the_metrics(level):
    calibration, own, y = held_out((16, 12, 10))
    fresh = np.random.default_rng(1).dirichlet(np.ones(3), 50)
    measured = nonconformity(fresh, score="rest")
    for wanted, sets in (
        (f"{level}", split_sets(own, measured, level=level)),
        (f"class={level}", mondrian_sets(own, y, measured, level=level)),
    ):
        found = sets_of(calibration, wanted, classes=CLASSES)
        for row, expected in zip(fresh, sets, strict=True):
            named = found(dict(zip(CLASSES, row.tolist(), strict=True)))
            assert named == tuple(c for c, there in zip(CLASSES, expected, strict=True) if there)


@pytest.mark.parametrize("text", ["0", "1", "1.5", "90", "sens=0.9", "class=", "class=1", ""])
def test_a_level_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="wanted the share of sets that hold the true class"):
        parse(text)


def test_too_few_images_say_what_they_can_promise():
    calibration, _, _ = held_out((4, 4, 4))
    with pytest.raises(ConfigError, match=r"with 4 held-out images of normal no promise above 80 % .* at least 9"):
        sets_of(calibration, "class=0.9", classes=CLASSES)
    assert sets_of(calibration, "class=0.8", classes=CLASSES)
    assert sets_of(calibration, "0.9", classes=CLASSES)
    with pytest.raises(ConfigError, match=r"with 12 held-out images no promise above 92 % can be made"):
        sets_of(calibration, "0.95", classes=CLASSES)


def test_the_note_has_the_interval_of_coverage_and_the_patients():
    found = sets_of(held_out((4, 4, 4), patients=6)[0], "0.9", classes=CLASSES)
    low, high = map(int, re.search(r"between (\d+) and (\d+) %", found.note).groups())
    draw = beta(12, 1).ppf([0.025, 0.975]) * 100  # the 12th of 12 is taken
    assert (low, high) == (int(draw[0]), int(np.ceil(draw[1])))
    assert "show 6 patients" in found.note


def test_models_without_held_out_probabilities_are_told_apart():
    with pytest.raises(ConfigError, match=r"no held-out scores to fit it on \(zero-shot\)\. Leave it out"):
        sets_of(fixed(has_map=True, note="zero-shot"), "0.9", classes=CLASSES)
    calibration, _, _ = held_out((4, 4, 4))
    for label, why in (("benign", "does not grade"), (None, "earlier version")):
        images = tuple(one.model_copy(update={"probs": None, "label": label}) for one in calibration.held_out)
        with pytest.raises(ConfigError, match=why):
            sets_of(calibration.model_copy(update={"held_out": images}), "0.9", classes=CLASSES)
    with pytest.raises(ConfigError, match="no support image of malignant was held out"):
        sets_of(held_out((4, 4, 0))[0], "0.8", classes=CLASSES)


def test_a_class_is_left_open_unless_the_set_names_exactly_one():
    def one(*named, scope=None):
        return Prediction("a", 0.9, None, dict.fromkeys(CLASSES, 1 / 3), "ultraad", scope, named)

    assert [is_unsure(one(*named), "size=1") for named in ((), ("benign",), CLASSES)] == [True, False, True]
    assert is_unsure(one(*CLASSES), "size=3") is False
    assert is_unsure(one("benign", scope=InScope(ok=False, reference=0.0, support=None, words="")), "size=1") is True
    assert is_unsure(Prediction("a", 0.9, None, None, "ultraad"), "size=1") is None
    with pytest.raises(ConfigError, match="choose their level"):
        check_abstain("size=1", None)


def test_coverage_and_size_are_counted():
    e = Evaluation(CLASSES, "normal")
    for i, (label, named) in enumerate(
        [("normal", ("normal",)), ("benign", ("benign", "malignant")), ("malignant", ()), ("benign", ("normal",))]
    ):
        probs = dict.fromkeys(CLASSES, 1 / 3)
        e.add(id=str(i), score=0.5, anomalous=None, label=label, probs=probs, prediction_set=named)
    found = e.result(bootstrap=50)["metrics"]
    assert (found["set_coverage"]["value"], found["set_size"]["value"]) == (0.5, 1.0)
    assert found["set_coverage"]["low"] < 0.5 < found["set_coverage"]["high"]


def test_a_run_with_sets_writes_and_measures_them(folder_dir, tmp_path, capsys):
    model = adapted(folder_dir)
    saved = model.save(tmp_path / "model")
    data = write_busi(tmp_path / "busi")
    words = ["evaluate", str(saved), str(data), "-o", str(tmp_path / "out"), "--bootstrap", "20"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--sets", "0.8", "--abstain", "size=1", "--device", "cpu"])
    assert not end.value.code
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    plain, with_sets = ultraad.load(saved), ultraad.load(saved).with_sets("0.8")
    assert plain.predict(rows[0]["image"]).prediction_set is None
    for row in rows:
        assert tuple(row["prediction_set"]) == with_sets.predict(row["image"]).prediction_set
        assert row["unsure"] == (len(row["prediction_set"]) != 1)
    table = [*csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines())]
    assert [r["prediction_set"] for r in table] == [" | ".join(r["prediction_set"]) for r in rows]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]
    assert metrics["set_size"]["value"] == pytest.approx(np.mean([len(r["prediction_set"]) for r in rows]))
    assert metrics["set_coverage"]["value"] == pytest.approx(np.mean([r["label"] in r["prediction_set"] for r in rows]))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Prediction sets (level 0.8): " in page
    told = capsys.readouterr().err
    assert "prediction sets at 80 % rest on 6 held-out support images" in told
    for wrong in (["--sets", "2"], ["--abstain", "size=1"], ["--abstain", "size=0", "--sets", "0.8"]):
        with pytest.raises(SystemExit) as end:
            main([*words, *wrong])
        assert end.value.code == 2
