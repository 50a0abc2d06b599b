"""The report: one file that needs nothing else, says what the files say, and escapes everything."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import picture, save
from tests.report.page import Page, check_page
from ultraad.errors import DataError
from ultraad.io.overlay import overlay
from ultraad.metrics.catalogue import spec
from ultraad.metrics.metric import Metric
from ultraad.metrics.summary import Evaluation
from ultraad.report.kit.charts import LARGE, PR, ROC
from ultraad.report.kit.svg import number, ticks
from ultraad.report.kit.words import DASH, share
from ultraad.report.run import charts, gallery, numbers
from ultraad.report.run.page import render
from ultraad.report.run.read import read
from ultraad.results.row import ImageRow, Thresholds

CLASSES = ("normal", "benign", "malignant")
CUTS = {"image": 0.5, "pixel": 0.5}


def run_facts(**more: object) -> dict[str, object]:
    model = {
        "digest": "d1" * 32,
        "method": "ultraad",
        "options": {"preset": "default", "train": {"epochs": 50}},
        "classes": list(CLASSES),
        "normal_class": "normal",
        "backbone": {
            "name": "embedded",
            "fingerprint": "f1" * 32,
            "size": 224,
            "dtype": "float32",
            "preprocess": {
                "size": 224,
                "mean": [0.5, 0.5, 0.5],
                "std": [0.25, 0.25, 0.25],
                "mode": "squash",
                "interpolation": "bicubic",
            },
        },
        "calibration": {
            "image_threshold": 0.5,
            "pixel_threshold": 0.5,
            "rule": "youden",
            "folds": 4,
            "grouped": True,
            "images": 24,
            "estimates": {},
            "notes": ["image threshold is rough"],
        },
        "origin": {
            "protocol": "few-shot",
            "seed": 0,
            "shots": 8,
            "source": "busi:/home/somebody/BUSI",
            "support_digest": "51" * 32,
            "selection": "last epoch",
            "loss": [1.0],
            "seconds": 3.0,
            "learned": {"keys": 1234, "prompt": 1},
            "notes": [],
        },
    }
    return {
        "command": "evaluate",
        "started": "2026-01-12T10:21:07+00:00",
        "model": model,
        "thresholds": CUTS,
        "protocol": "few-shot",
        "support_digest": "51" * 32,
        "versions": {"ultraad": "0.1.0"},
        "data": {"root": "/home/somebody/unseen", "layout": "folder", "split": "test", "images": 12},
        "leakage": {"checked": True, "leaks": 0, "dropped": 0},
        "status": "complete",
        "seconds": 12.5,
        "images_per_second": 1.5,
        **more,
    }


def write_results(
    root: Path,
    *,
    count: int = 24,
    classes: tuple[str, ...] = CLASSES,
    labels: bool = True,
    maps: bool = True,
    probs: bool = True,
    groups: bool = True,
    tags: bool = True,
    run: dict[str, object] | None = None,
    size: tuple[int, int] = (48, 64),
) -> Path:
    """What ``evaluate`` writes (with labels) or ``predict`` (without), for generated pictures and made-up scores."""
    folder = root / "results"
    (folder / "overlays").mkdir(parents=True)
    rng = np.random.default_rng(7)
    found = Evaluation(classes, classes[0], image_threshold=CUTS["image"], pixel_threshold=CUTS["pixel"])
    lines = []
    for i in range(count):
        label = classes[i % len(classes)]
        lesion = label != classes[0]
        image, mask = picture(i, lesion=lesion, size=size)
        mask[: len(mask) // 2] &= i % 2 > 0  # half of every other lesion
        mask[:, : mask.shape[1] // 2] &= i % 2 > 0
        score = float(np.clip(rng.normal(0.6 if lesion else 0.4, 0.2), 0, 1))
        map_ = np.clip(0.6 * mask + rng.uniform(0, 0.5, size), 0, 1).astype(np.float32) if maps else None
        p = rng.dirichlet(np.ones(len(classes)) + 3 * (np.arange(len(classes)) == i % len(classes)))
        truth = {
            "label": label if labels else None,
            "group": f"p{i // 4}" if groups else None,
            "tags": ["marks"] if tags and i % 5 == 0 else [],
        }
        row = {
            "id": f"{label}/{i}.png",
            "image": save(root / "images" / f"{i}.png", image).as_posix(),
            "frame": 0,
            "score": score,
            "abnormal": score >= CUTS["image"],
            "probs": dict(zip(classes, p.tolist(), strict=True)) if probs else None,
            "anomalous": lesion if labels else None,
            "map": None,
            "overlay": f"overlays/{i}.png" if maps else None,
            "mask_known": labels,
            **truth,
        }
        if map_ is not None:
            save(folder / "overlays" / f"{i}.png", overlay(image, map_, mask=mask, threshold=CUTS["pixel"]))
        if labels:
            seen = {"map": map_, "mask": mask if maps else None, "probs": row["probs"]}
            found.add(id=row["id"], score=score, anomalous=lesion, **seen, **truth)
        lines.append(json.dumps(row))
    (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "run.json").write_text(json.dumps(run_facts() if run is None else run))
    if labels:
        result = found.result(bootstrap=50)
        (folder / "metrics.json").write_text(json.dumps({**result, "thresholds": CUTS}))
    return folder


def check(page: Page, folder: Path) -> None:
    check_page(page, folder, side=gallery.SIDE, shortest_alt=10)
    assert not any("://" in a.get("href", "") for a in page.attributes("a"))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("evaluated"))


@pytest.fixture(scope="module")
def page(evaluated: Path) -> Page:
    return Page(render(evaluated))


def test_the_page_is_self_contained_and_well_formed(page: Page, evaluated: Path) -> None:
    check(page, evaluated)
    assert {a["src"][:5] for a in page.attributes("img")} == {"data:"}


def test_every_metric_is_shown_as_stored(page: Page, evaluated: Path) -> None:
    metrics = json.loads((evaluated / "metrics.json").read_text())["metrics"]
    assert len(metrics) > 20
    for key, metric in metrics.items():
        shown = page.row(spec(key).title + spec(key).about)
        known = metric["value"] is not None
        value = f"{metric['value']:.3f}" if known else DASH
        interval = f"{metric['low']:.3f} to {metric['high']:.3f}" if known else DASH
        assert shown[1:4] == [value, interval, str(metric["n"])]


def test_headline_names_model_data_and_baseline(page: Page, evaluated: Path) -> None:
    metrics = json.loads((evaluated / "metrics.json").read_text())["metrics"]
    assert page.headings[0] == "ultraad, 8 images per class, evaluated on unseen"
    assert "adapted on 8 images of each class (normal, benign, malignant) from BUSI (busi)" in page.words
    assert "24 images of 6 patients from unseen, split test: 16 with a lesion, 8 without." in page.words
    assert f"the centre prior reaches {metrics['pixel_auroc_centre_prior']['value']:.3f}" in page.words
    assert "Image threshold is rough." in page.words
    assert "no image or patient that the model has learned from was evaluated" in page.words
    assert "train.epochs=50" in page.words


def test_counts_by_class_agree_with_the_metrics(page: Page, evaluated: Path) -> None:
    metrics = json.loads((evaluated / "metrics.json").read_text())["metrics"]
    tallies = {t.name: t for t in numbers.by_class(read(evaluated))}
    assert list(tallies) == list(CLASSES)
    lesions = [tallies["benign"], tallies["malignant"]]
    found = sum(t.detected for t in lesions) / sum(t.lesions for t in lesions)
    assert found == pytest.approx(metrics["image_sensitivity"]["value"])
    normal = tallies["normal"]
    assert normal.true_negatives / normal.normals == pytest.approx(metrics["image_specificity"]["value"])
    recall = np.mean([t.correct_class / t.graded for t in tallies.values()])
    assert recall == pytest.approx(metrics["balanced_accuracy"]["value"])
    assert page.row("benign")[6] == share(tallies["benign"].detected, 8)


def test_groups_are_counted_and_sorted_by_mistakes(evaluated: Path) -> None:
    results = read(evaluated)
    tallies = numbers.by_group(results)
    mistakes = {f"p{g}": sum(r.anomalous != r.abnormal for r in results.rows[4 * g : 4 * g + 4]) for g in range(6)}
    assert {t.name: t.mistakes for t in tallies} == mistakes
    assert [t.mistakes for t in tallies] == sorted(mistakes.values(), reverse=True)


def row(id_: str, score: float, **more: object) -> ImageRow:
    facts = {"id": id_, "image": "gone.png", "score": score, "abnormal": score >= 0.5}
    return ImageRow.model_validate(facts | more)


def test_a_number_shows_its_error_or_why_it_is_missing() -> None:
    found = numbers.number({"dice": Metric(0.5, n=7, reason="left out: x", error=0.0012)}, "dice")
    assert (found.text, found.interval, found.metric.n, found.note) == ("0.500", DASH, 7, "left out: x; ± 0.0012")
    assert not numbers.number({"dice": Metric(0.5, n=7, error=1e-6)}, "dice").note
    absent = numbers.number({}, "dice")
    assert (absent.text, absent.metric.n, absent.note) == (DASH, 0, "not measured")


def test_tally_by_hand() -> None:
    rows = [
        row("a", 0.9, anomalous=True, label="m", probs={"n": 0.1, "m": 0.9}),
        row("b", 0.4, anomalous=True, label="m", probs={"n": 0.6, "m": 0.4}),
        row("c", 0.5, anomalous=False, label="n"),
        row("d", 0.2),
    ]
    tally = numbers.tally("x", rows)
    assert (tally.n, tally.lesions, tally.normals, tally.flagged) == (4, 2, 1, 2)
    assert (tally.detected, tally.true_negatives, tally.graded, tally.correct_class, tally.mistakes) == (1, 0, 2, 1, 2)
    assert (tally.score, tally.median) == (pytest.approx(0.5), pytest.approx(0.45))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=30), st.integers(1, 3))
def test_examples_are_both_ends_and_the_middle(scores: list[int], each: int) -> None:
    rows = [row(f"{i:02d}", s / 8) for i, s in enumerate(scores)]
    found = gallery.spread(rows, each=each)
    shown = [r for _, part in found for r in part]
    assert len({r.id for r in shown}) == len(shown) == min(len(rows), 3 * each)
    assert [r.score for r in shown] == sorted((r.score for r in shown), reverse=True)
    if len(rows) > 3 * each:
        high, middle, low = (part for _, part in found)
        known = {r.id for r in shown}
        hidden = [r.score for r in rows if r.id not in known]
        assert min(r.score for r in high) >= max(hidden)
        assert max(r.score for r in low) <= min(hidden)
        above = sum(r.score > middle[0].score for r in rows)
        below = sum(r.score < middle[-1].score for r in rows)
        assert max(above, below) <= (len(rows) - each + 1) // 2


def test_mistakes_are_the_most_confident_ones() -> None:
    rows = [
        row("missed-little", 0.49, anomalous=True, label="m"),
        row("missed-much", 0.01, anomalous=True, label="m"),
        row("alarm", 0.99, anomalous=False, label="n", probs={"n": 0.0, "m": 1.0}),
        row("right", 0.99, anomalous=True, label="m", probs={"n": 0.2, "m": 0.8}),
        row("misnamed", 0.9, anomalous=True, label="m", probs={"n": 0.8, "m": 0.2}),
        row("misnamed-less", 0.9, anomalous=True, label="m", probs={"n": 0.6, "m": 0.4}),
        row("unknown", 0.9),
    ]
    found = {title: [r.id for r in part] for title, part in gallery.worst(rows, most=2)}
    assert found == {
        "Missed lesions (2 in all)": ["missed-much", "missed-little"],
        "False alarms (1 in all)": ["alarm"],
        "Wrong class, detection right (2 in all)": ["misnamed", "misnamed-less"],
    }


def test_the_dot_on_the_roc_curve_is_the_stored_threshold(evaluated: Path) -> None:
    results = read(evaluated)
    fpr, tpr = 1 - (results.metric("image_specificity").value or 0), results.metric("image_sensitivity").value
    svg = str(charts.curves(results, ROC))
    auroc = results.metric("image_auroc").value
    assert f"images, AUROC {auroc:.3f}, threshold at {fpr:.2f}, {tpr:.2f}" in svg
    assert f'<circle class="dot a" cx="{number(LARGE.x(fpr))}"' in svg
    assert results.measured is not None
    unknown = replace(results, run=None, measured=results.measured.model_copy(update={"thresholds": Thresholds()}))
    assert "threshold" not in str(charts.curves(unknown, ROC))


def test_precision_recall_curves_start_at_recall_zero_and_know_chance(evaluated: Path) -> None:
    svg = str(charts.curves(read(evaluated), PR))
    assert f'class="chance a" d="M58 {number(LARGE.y(16 / 24))}L408' in svg  # 16 of 24 images show a lesion
    assert all(d.startswith("M58 ") for d in re.findall(r'class="line [ab]" d="([^"]*L[^"]*)"', svg))


def test_every_image_is_in_its_histogram(evaluated: Path) -> None:
    results = read(evaluated)
    svg = str(charts.histograms([("all", [r.score for r in results.rows], None)], 0.5))
    assert sum(int(n) for n in re.findall(r"<title>(\d+) images? at", svg)) == len(results.rows)
    assert charts.histograms([], 0.5) is None
    assert not re.search(r"\bnan\b", str(charts.histograms([("one", [0.5, 0.5], True)], None)))


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_and_inside(low: float, width: float) -> None:
    high = low + width
    found = ticks(low, high)
    step = (found[-1] - found[0]) / (len(found) - 1)
    assert 3 <= len(found) <= 9
    assert low - 1e-9 * step <= found[0] < found[-1] <= high + 1e-9 * step
    assert np.diff(found) == pytest.approx(step, rel=1e-4)
    assert float(f"{step:.1e}"[0]) in {1, 2, 5}


def test_an_undefined_number_is_a_dash_with_its_reason(tmp_path: Path) -> None:
    folder = write_results(tmp_path, maps=False, probs=False, groups=False, tags=False)
    page = Page(render(folder))
    check(page, folder)
    assert page.row("Pixel AUROCover")[1:] == [DASH, DASH, "0", "no image with both a map and a mask"]
    assert page.row("Class AUROC, macro")[4] == "no image with both a known class and class probabilities"
    assert "Confusion matrix" not in page.headings
    assert "Reliability" not in page.headings
    assert "By patient, at the threshold" not in page.headings
    assert "There are no overlays in this folder" in page.words
    assert page.attributes("img")  # the plain pictures are still there


def test_a_folder_with_lesions_only(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    lesions = [r for r in rows if r["label"] != "normal"]
    e = Evaluation(CLASSES, "normal", image_threshold=0.5)
    for r in lesions:
        e.add(id=r["id"], score=r["score"], anomalous=True, label=r["label"], probs=r["probs"])
    (folder / "predictions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lesions))
    (folder / "metrics.json").write_text(json.dumps(e.result(bootstrap=0)))
    page = Page(render(folder))
    check(page, folder)
    assert "No evaluated image is normal: how often normal ones would be flagged was not measured." in page.words
    assert page.row("Image AUROC")[4] == "no normal image"
    first = numbers.headlines(read(folder))[0].number
    assert (first.spec.title, first.metric.value is None) == ("Benign against malignant AUROC", False)


def test_a_folder_with_normal_images_only(tmp_path: Path) -> None:
    folder = write_results(tmp_path, count=4, classes=("normal", "benign", "malignant"))
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    normal = [r for r in rows if r["label"] == "normal"]
    e = Evaluation(CLASSES, "normal", image_threshold=0.5)
    for r in normal:
        e.add(id=r["id"], score=r["score"], anomalous=False, label="normal", probs=r["probs"])
    (folder / "predictions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in normal))
    (folder / "metrics.json").write_text(json.dumps(e.result(bootstrap=0)))
    page = Page(render(folder))
    check(page, folder)
    assert "No ROC curve: it needs both normal and abnormal images." in page.words
    assert page.row("Image AUROC")[1] == DASH
    assert page.row("Image AUROC")[4] == "no anomalous image"


def test_a_folder_of_predictions_without_truth(tmp_path: Path) -> None:
    run = run_facts(command="predict", status="interrupted")
    del run["data"], run["leakage"]
    folder = write_results(tmp_path, labels=False, run=run)
    page = Page(render(folder))
    check(page, folder)
    flagged = sum(r.abnormal for r in read(folder).rows)
    assert page.headings[0] == "ultraad, 8 images per class: predictions"
    assert f"24 images; {flagged} reached the image threshold 0.500. Nothing was measured." in page.words
    assert "The run is interrupted" in page.words
    assert "Main numbers" not in page.headings
    assert "Most confident mistakes" not in page.headings
    best = max(read(folder).rows, key=lambda r: r.score)
    assert page.row(best.name)[1] == f"{best.score:.3f}"


def test_a_folder_with_predictions_only(tmp_path: Path) -> None:
    folder = write_results(tmp_path, labels=False, maps=False, probs=False, groups=False)
    (folder / "run.json").unlink()
    page = Page(render(folder))
    check(page, folder)
    assert "run.json is missing" in page.words


def test_a_folder_with_metrics_only(tmp_path: Path, evaluated: Path) -> None:
    (tmp_path / "metrics.json").write_bytes((evaluated / "metrics.json").read_bytes())
    page = Page(render(tmp_path))
    check(page, tmp_path)
    assert "Main numbers" in page.headings
    assert "Examples, chosen by rule" not in page.headings


def test_a_prediction_cut_off_by_a_kill_is_skipped(tmp_path: Path) -> None:
    folder = write_results(tmp_path, labels=False)
    with (folder / "predictions.jsonl").open("a") as file:
        file.write('{"id": "half')
    (folder / "errors.jsonl").write_text('{"id": "x/y/bad.png", "error": "ends early"}\n{"id": ')
    assert len(read(folder).rows) == 24
    assert Page(render(folder)).row("y/bad.png")[1] == "ends early"


def test_everything_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}"
    run = run_facts(
        started=evil, support_digest=evil, versions={evil: evil}, data={"root": None, "layout": evil, "split": evil}
    )
    model = run["model"]
    assert isinstance(model, dict)
    model["method"] = model["backbone"]["name"] = evil
    model["options"] = {evil: {evil: evil}}
    model["calibration"]["notes"] = model["origin"]["notes"] = [evil]
    model["classes"] = ["normal", evil, "malignant"]
    folder = write_results(tmp_path, classes=("normal", evil, "malignant"), run=run)
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    for i, r in enumerate(rows):
        r["id"], r["group"] = f"{i}{evil}", evil
    (folder / "predictions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "errors.jsonl").write_text(json.dumps({"id": evil, "error": evil}) + "\n")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["metrics"][evil] = {"value": None, "low": None, "high": None, "n": 3, "reason": evil, "error": None}
    metrics["metrics"]["image_auroc"]["reason"] = metrics["bootstrap"]["unit"] = evil
    metrics["subsets"][evil] = metrics["metrics"]
    (folder / "metrics.json").write_text(json.dumps(metrics))

    page = Page(render(folder))
    assert not page.attributes("script")
    assert all(a["src"].startswith("data:") for a in page.attributes("img"))
    assert not any(name.startswith("on") for _, a in page.tags for name in a)
    assert page.words.count("alert(1)") > 30
    assert "{{ 7 * 7 }}" in page.words
    for svg in re.findall(r"<svg.*?</svg>", page.source, re.DOTALL):
        ElementTree.fromstring(svg)


def test_no_path_of_this_machine_and_no_patient_id_of_a_dicom_header_is_on_the_page(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    for r in rows:
        r["group"] = f"dicom:{r['group']}-SURNAME"
        r["id"] = f"/home/somebody/scans/{r['id']}"
    (folder / "predictions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    error = {"id": "/home/somebody/unseen/a/b.png", "error": "/home/somebody/unseen/a/b.png is empty"}
    (folder / "errors.jsonl").write_text(json.dumps(error) + "\n")
    page = Page(render(folder))
    assert "SURNAME" not in page.source
    assert "somebody" not in page.source
    assert str(tmp_path) not in page.source
    assert page.row("DICOM patient 1")[1] == "4"
    assert page.row("a/b.png")[1] == "a/b.png is empty"


def test_overlays_stay_if_the_images_moved(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    before = len(Page(render(folder)).attributes("img"))
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    page = Page(render(folder))
    check(page, folder)
    assert len(page.attributes("img")) == before // 2
    assert f"{before // 2} pictures could not be read and are not shown" in page.words


def test_the_page_stays_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = save(tmp_path / "noise.png", rng.integers(0, 256, (400, 400, 3)).astype(np.uint8))
    album = gallery.Album(tmp_path, budget=1_000_000)
    rows = [row(str(i), 0.5, image=noise.as_posix()) for i in range(40)]
    sizes = [len(e.plain.uri) for e in album.strip("", rows).examples if e.plain]
    assert 1_000_000 <= sum(sizes) < 1_000_000 + max(sizes)
    assert album.left_out == 40 - len(sizes) > 0
    assert gallery.BUDGET + 2 * max(sizes) < 7_500_000


def test_the_same_folder_gives_the_same_page(evaluated: Path) -> None:
    first = render(evaluated).read_bytes()
    assert render(evaluated).read_bytes() == first
    assert not [p for p in evaluated.iterdir() if p.suffix == ".tmp"]


@pytest.mark.parametrize(
    ("pixel", "low", "said"),
    [
        (0.95, 0.90, "the model reaches 0.950."),
        (0.85, 0.75, "Its interval includes the blob"),
        (0.70, 0.60, "the model does not localise better than the blob"),
    ],
)
def test_the_centre_prior_is_compared_with_the_pixel_auroc(
    tmp_path: Path, evaluated: Path, pixel: float, low: float, said: str
) -> None:
    metrics = json.loads((evaluated / "metrics.json").read_text())
    metrics["metrics"]["pixel_auroc"] |= {"value": pixel, "low": low, "high": 0.99}
    metrics["metrics"]["pixel_auroc_centre_prior"] |= {"value": 0.8}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    words = Page(render(tmp_path)).words
    assert said in words
    assert ("localise" in words) == (low <= 0.8)


def test_a_zero_shot_page_says_so(tmp_path: Path) -> None:
    run = run_facts(protocol="zero-shot", support_digest=None)
    model = run["model"]
    assert isinstance(model, dict)
    model["origin"] |= {"protocol": "zero-shot", "shots": 0, "source": None, "learned": {}}
    model["calibration"] |= {"folds": 0, "grouped": False, "images": 0, "rule": "fixed at 0.5"}
    page = Page(render(write_results(tmp_path, run=run)))
    assert page.headings[0] == "ultraad, zero-shot, evaluated on unseen"
    assert "nothing to leak" in page.words


def test_left_out_support_images_are_mentioned(tmp_path: Path) -> None:
    run = run_facts(leakage={"checked": True, "leaks": 3, "dropped": 3})
    page = Page(render(write_results(tmp_path, count=6, run=run)))
    assert "3 images left out of the evaluation: in the support set, or of one of its patients." in page.words


def test_unknown_patients_are_said(tmp_path: Path, page: Page) -> None:
    none = Page(render(write_results(tmp_path / "none", count=9, groups=False)))
    assert "No patient is known: each image counts as a patient of its own" in none.words
    assert "9 images from unseen" in none.words
    folder = write_results(tmp_path / "some")
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    some = [json.dumps(row | {"group": None if i < 8 else row["group"]}) for i, row in enumerate(lines)]
    (folder / "predictions.jsonl").write_text("\n".join(some))
    found = json.loads((folder / "metrics.json").read_text())
    found["n"]["groups"] = 4
    (folder / "metrics.json").write_text(json.dumps(found))
    mixed = Page(render(folder))
    assert "24 images (16 of 4 patients, 8 of unknown patient) from unseen, split test" in mixed.words
    assert "The patient of 8 of 24 images is unknown: each of these counts as a patient of its own" in mixed.words
    assert "bootstrap resamples of patients, each image of unknown patient as one, seed" in mixed.words
    assert "patient of its own" not in page.words


def test_tags_that_tell_lesions_are_said(tmp_path: Path, page: Page) -> None:
    assert "The tag" not in page.words, "marks are on as many lesion images as normal ones, or nearly so"
    folder = write_results(tmp_path)
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    told = [json.dumps(row | {"tags": ["birads_4", "marks"] if row["label"] == "benign" else []}) for row in lines]
    (folder / "predictions.jsonl").write_text("\n".join(told))
    said = Page(render(folder)).words
    assert "The tag marks is on 8 of 16 images with a lesion and 0 of 8 without: a model can use it" in said
    assert "birads_4 is on" not in said


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("other.txt", "", "holds neither metrics.json nor predictions.jsonl"),
        ("metrics.json", '{"metrics":', "metrics.json: invalid JSON.*the file is damaged"),
        ("run.json", '{"command": "evaluate", "seconds": "long"}', "run.json: seconds: input should be a valid number"),
        ("metrics.json", "[1]", "metrics.json: input should be a valid dictionary"),
        ("predictions.jsonl", '{"id": "a"}\n', "line 1: image: field required"),
        (
            "predictions.jsonl",
            '{"id": "a", "image": "a", "score": "high", "abnormal": true}\n',
            "line 1: score: input should be a valid number",
        ),
    ],
)
def test_folders_without_results_are_refused(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said):
        render(tmp_path)
    assert not (tmp_path / "report.html").exists()
