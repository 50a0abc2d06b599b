from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ultraad.metrics import Evaluation, catalogue, classes, image, pixel
from ultraad.metrics.catalogue import MAIN, METRICS, Spec, of_kind, reasons, short, spec

ROOT = Path(__file__).parents[2]


def test_every_formula_has_an_entry_and_every_entry_a_formula():
    assert set(image.FORMULAS) == set(of_kind("image"))
    assert {*pixel.FORMULAS, pixel.PRIOR, pixel.FROC} == set(of_kind("pixel"))
    assert set(classes.FORMULAS) == set(of_kind("class"))


def test_a_pixel_metric_has_an_error_bound_unless_it_is_measured_at_the_threshold_or_the_peak():
    rest = {k for k in pixel.FORMULAS if not METRICS[k].at_threshold and not k.startswith("peak")}
    assert set(pixel.RANKED) == rest


def test_an_evaluation_gives_exactly_the_metrics_of_the_catalogue():
    assert set(Evaluation(["normal", "benign", "malignant"], "normal").result()["metrics"]) == set(METRICS)


def test_the_main_metrics_are_detection_then_grading_then_localisation():
    assert MAIN == ("image_auroc", "class_auroc_macro", "pixel_auroc", "pixel_ap")


def test_titles_are_unique_and_every_metric_is_explained():
    assert len({s.title for s in METRICS.values()}) == len(METRICS) == len(catalogue._SPECS)
    assert all(s.about for s in METRICS.values())


def test_another_pair_of_classes_is_described_like_benign_and_malignant():
    pair = spec("cyst_tumour_auroc")
    assert pair.title == "Cyst tumour AUROC"
    assert (pair.kind, pair.needs, pair.over) == ("class", frozenset({"pair"}), "pair")
    assert spec("pixel_new").kind == "pixel"


def test_values_are_printed_in_percent_and_errors_with_three_decimals():
    assert spec("image_auroc").text(0.9126) == "91.3"
    assert spec("brier").text(0.1234) == "0.123"
    assert (short("class_auroc_macro"), short("pixel_ap")) == ("Class AUROC", "Pixel AP")


def test_the_first_unmet_need_is_the_reason():
    keys = ("image_ap", "image_sensitivity", "image_specificity", "image_accuracy")
    assert reasons(keys, {"lesion": "no lesion", "threshold": "no threshold"}) == {
        "image_ap": "no lesion",
        "image_sensitivity": "no lesion",
        "image_specificity": "no threshold",
        "image_accuracy": "no threshold",
    }
    assert reasons(keys, {"images": "no images"}) == dict.fromkeys(keys, "no images")
    assert reasons(keys, {}) == {}
    assert not Spec("a", "A", "", "image").at_threshold


def test_the_contributed_metric_needs_two_files_and_appears_everywhere(tmp_path: Path):
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    patches = re.findall(r"^```diff\n(.*?)^```$", page, flags=re.M | re.S)
    (patch,) = [text for text in patches if "metrics/catalogue.py" in text]
    assert re.findall(r"^\+\+\+ b/(\S+)", patch, flags=re.M) == [
        "src/ultraad/metrics/image.py",
        "src/ultraad/metrics/catalogue.py",
    ]
    for folder in ("src", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "images"))
    apply = ["git", "-c", "core.autocrlf=false", "apply", "-"]
    subprocess.run(apply, input=patch, text=True, cwd=tmp_path, check=True)
    program = """
import json
from docs.build import file_formats
from ultraad.metrics import Evaluation

e = Evaluation(["normal", "lesion"], "normal", image_threshold=0.5)
for n, (score, anomalous) in enumerate([(0.1, False), (0.2, False), (0.3, True), (0.9, True)]):
    e.add(id=str(n), score=score, anomalous=anomalous)
print(json.dumps([e.result(bootstrap=20)["metrics"]["image_npv"], file_formats.text()]))
"""
    env = {"PYTHONPATH": f"{tmp_path / 'src'}:{tmp_path}", "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    metric, text = json.loads(done.stdout)
    assert metric["value"] == pytest.approx(2 / 3)
    assert metric["low"] <= metric["value"] <= metric["high"]
    assert "| `image_npv` | Negative predictive value | detection |" in text
