from __future__ import annotations

import json

import numpy as np
import pytest

from ultraad.errors import ConfigError, DataError
from ultraad.metrics import Evaluation
from ultraad.metrics.catalogue import METRICS
from ultraad.metrics.classes import class_metrics
from ultraad.metrics.image import image_metrics

CLASSES = ("normal", "benign", "malignant")
KEYS = """image_auroc image_ap sensitivity_at_90 sensitivity_at_95 image_f1_oracle image_accuracy image_sensitivity
image_specificity class_auroc_macro class_auroc_weighted benign_malignant_auroc balanced_accuracy macro_f1 brier nll ece
class_ece aurc
pixel_auroc pixel_ap aupro pixel_f1_oracle dice_oracle dice dice_pooled iou lesion_sensitivity
false_lesions peak_in_lesion peak_in_small_lesion pixel_auroc_centre_prior froc"""


def samples(n=60):
    rng = np.random.default_rng(0)
    for i in range(n):
        y = i % 3
        p = rng.dirichlet(1 + 3 * np.eye(3)[y])
        mask = np.zeros((20, 24), bool)
        if y:
            mask[5 : 6 if i % 4 == 1 else 12, 6 + y : 15] = True
        yield {
            "id": f"image-{i}",
            "score": float(1 - p[0]),
            "anomalous": y > 0,
            "map": (rng.random(mask.shape) + mask).astype(np.float32),
            "mask": mask,
            "probs": dict(zip(CLASSES, p.tolist(), strict=True)),
            "label": CLASSES[y],
            "group": f"patient-{i // 2}",
            "tags": {"marks"} if i % 4 == 0 else frozenset(),
            "prediction_set": CLASSES[: 1 + i % 3],
        }


def evaluate(rows, **kwargs):
    e = Evaluation(CLASSES, "normal", **kwargs)
    for row in rows:
        e.add(**row)
    return e


def known(metrics):
    """The keys without metrics that are newer than this test; test_catalogue.py checks that there are no others."""
    assert set(KEYS.split()) <= set(metrics) == set(METRICS)
    return [key for key in metrics if key in KEYS.split()]


def test_the_whole_record():
    got = evaluate(samples(), image_threshold=0.5, pixel_threshold=0.8).result(bootstrap=100, seed=4)
    assert known(got["metrics"]) == KEYS.split()
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    for name, m in got["metrics"].items():
        assert set(m) == {"value", "low", "high", "n", "reason", "error"}
        assert m["low"] <= m["value"] <= m["high"], name
        assert m["reason"] is None
    assert got["bootstrap"] == {"unit": "patient", "resamples": 100, "seed": 4}
    assert got["n"] == {
        "images": 60, "lesions": 40, "normals": 20, "groups": 30, "graded": 60, "maps": 60, "masks": 40, "regions": 40
    }  # fmt: skip
    assert np.sum(got["confusion"]["matrix"]) == 60
    assert all(got["curves"][k] for k in ("image_roc", "image_pr", "pixel_roc", "pixel_pr", "froc", "reliability"))


def test_image_and_class_metrics_are_those_of_their_modules():
    rows = list(samples())
    groups = [r["group"] for r in rows]
    got = evaluate(rows).result(bootstrap=50, seed=1)["metrics"]
    image = image_metrics(
        [r["score"] for r in rows], [r["anomalous"] for r in rows], groups=groups, resamples=50, seed=1
    )
    classes = class_metrics(
        [list(r["probs"].values()) for r in rows],
        [CLASSES.index(r["label"]) for r in rows],
        classes=CLASSES,
        normal_class="normal",
        sets=np.array([[c in r["prediction_set"] for c in CLASSES] for r in rows]),
        groups=groups,
        resamples=50,
        seed=1,
    )
    for name, m in (image | classes).items():
        assert got[name] == m.as_dict()


def test_subsets_leave_out_each_tag_that_occurs_and_is_no_grade():
    rows = [{**r, "tags": {*r["tags"], "birads_4", "TI-RADS 3"}} for r in samples()]
    got = evaluate(rows).result(bootstrap=0)
    assert list(got["subsets"]) == ["without_marks"]
    kept = evaluate([r for r in rows if "marks" not in r["tags"]]).result(bootstrap=0)["metrics"]
    subset = got["subsets"]["without_marks"]
    assert subset["image_auroc"]["n"] == 45
    assert "pixel_auroc" not in subset
    assert all(subset[name] == kept[name] for name in subset)


def test_order_changes_nothing():
    a = evaluate(samples()).result(bootstrap=0)["metrics"]
    b = evaluate(reversed(list(samples()))).result(bootstrap=0)["metrics"]
    for name, m in a.items():
        assert m["value"] == (pytest.approx(b[name]["value"], abs=1e-12) if m["value"] is not None else None)


def test_nothing_added():
    got = evaluate([]).result()
    assert all(m["value"] is None and m["reason"] for m in got["metrics"].values())
    assert known(got["metrics"]) == KEYS.split()
    assert set(got["curves"].values()) == {None}
    assert got["bootstrap"]["unit"] == "image"
    json.dumps(got, allow_nan=False)


def test_a_normal_image_needs_no_mask_and_an_unknown_mask_is_not_an_empty_one():
    grid = np.zeros((4, 4), np.float32)
    mask = np.eye(4, dtype=bool)
    e = Evaluation(CLASSES, "normal")
    e.add(id="normal", score=0.1, anomalous=False, map=grid)
    e.add(id="lesion", score=0.9, anomalous=True, map=grid, mask=mask)
    e.add(id="no mask", score=0.9, anomalous=True, map=grid)
    e.add(id="empty mask", score=0.9, anomalous=True, map=grid, mask=~np.ones((4, 4), bool))
    e.add(id="unknown", score=0.5, anomalous=None, map=grid)
    n = e.result(bootstrap=0)["n"]
    assert (n["images"], n["lesions"], n["normals"], n["maps"], n["masks"]) == (5, 3, 1, 2, 1)


def test_the_label_tells_whether_an_image_is_anomalous():
    e = Evaluation(CLASSES, "normal")
    e.add(id="a", score=0.1, anomalous=None, label="normal")
    e.add(id="b", score=0.9, anomalous=None, label="benign")
    got = e.result(bootstrap=0)
    assert got["metrics"]["image_auroc"]["value"] == 1.0
    assert got["metrics"]["brier"]["value"] is None
    assert "class probabilities" in got["metrics"]["brier"]["reason"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "image-0"}, "added before"),
        ({"score": float("nan")}, "finite"),
        ({"label": "cyst"}, "'cyst' is not among"),
        ({"probs": {"cyst": 1.0}}, "'cyst' is not among"),
        ({"label": "normal", "anomalous": True}, "anomalous=True"),
        ({"label": "normal", "anomalous": False, "mask": np.ones((20, 24), bool)}, "480 lesion pixels"),
        ({"map": np.zeros((3, 3), np.float32)}, "one shape"),
    ],
)
def test_bad_samples_are_refused_and_leave_no_trace(change, message):
    rows = list(samples(12))
    e = evaluate(rows[:10])
    before = e.result(bootstrap=0)
    with pytest.raises(DataError, match=message):
        e.add(**(rows[11] | change))
    assert e.result(bootstrap=0) == before


def test_the_normal_class_must_be_a_class():
    with pytest.raises(ConfigError, match="healthy"):
        Evaluation(CLASSES, "healthy")
