from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import picture, save, write_bus_uclm, write_busi
from ultraad.data.sources import scan
from ultraad.errors import ConfigError, DataError, LeakageError
from ultraad.io import read_image, read_mask
from ultraad.io.maps import read_map
from ultraad.metrics.summary import Evaluation
from ultraad.model.adapt import adapt, zero_shot
from ultraad.model.model import Model, load
from ultraad.results.folder import read_rows
from ultraad.results.row import ImageRow
from ultraad.runs.evaluate import evaluate
from ultraad.runs.judge import unseen
from ultraad.runs.predict import predict


@pytest.fixture(scope="module")
def model(folder_bundle: Path) -> Model:
    return load(folder_bundle)


def rows(folder: Path) -> list[ImageRow]:
    return list(read_rows(folder))


def test_samples_are_predicted_under_their_own_ids(model: Model, busi_dir: Path, tmp_path: Path) -> None:
    samples = [replace(s, id=f"own-{n}", masks=()) for n, s in enumerate(scan(busi_dir)[:2])]
    assert predict(model, samples, tmp_path / "out", save=()).predicted == 2
    assert [r.id for r in rows(tmp_path / "out")] == ["own-0", "own-1"]
    run = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert run["data"] == {"paths": ["own-0", "own-1"], "images": 2}


def test_what_a_prediction_run_leaves(model: Model, busi_dir: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    done = predict(model, [busi_dir], tmp_path / "out", progress=lambda *s: steps.append(s))
    assert (done.predicted, done.skipped, done.failed) == (12, 0, {})
    assert steps == [(k, 12) for k in range(1, 13)]
    found = rows(tmp_path / "out")
    assert len({r.map for r in found}) == 12
    for row in found:
        p = model.predict(row.image)
        assert row.score == pytest.approx(p.score, abs=1e-5)
        assert row.abnormal == (row.score >= model.calibration.image_threshold)
        assert (row.label, row.anomalous, row.frame, row.mask_known) == (None, None, 0, False)
        np.testing.assert_allclose(read_map(tmp_path / "out" / row.map), p.map, atol=1e-4)
        assert read_image(tmp_path / "out" / row.overlay).shape[:2] == p.map.shape
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [r["id"] for r in table] == [r.id for r in found]
    assert [float(r["p_malignant"]) for r in table] == [r.probs["malignant"] for r in found]
    run = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert (run["command"], run["status"], run["images"], run["failed"]) == ("predict", "complete", 12, 0)
    assert run["model"]["digest"] == model.digest
    assert run["data"] == {"paths": [str(busi_dir)], "images": 12}
    assert run["thresholds"]["image"] == model.calibration.image_threshold


def test_a_second_run_does_only_what_is_missing(model: Model, busi_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(model, [busi_dir / "benign"], out)
    whole = (out / "predictions.jsonl").read_bytes()
    (out / "predictions.jsonl").write_bytes(whole[:-40])  # killed while writing the last line
    done = predict(model, [busi_dir], out)
    assert (done.predicted, done.skipped) == (9, 3)
    assert len(rows(out)) == 12
    assert {r.id for r in rows(out)} == {p.as_posix() for p in busi_dir.rglob("*).png")}
    assert predict(model, [busi_dir], out).predicted == 0
    assert predict(model, str(busi_dir / "normal"), out, resume=False).predicted == 4
    assert len(rows(out)) == 4
    assert len(list((out / "maps").iterdir())) == 4


def test_results_of_another_model_are_not_mixed_in(model: Model, busi_dir: Path, tmp_path: Path) -> None:
    predict(model, [busi_dir / "benign"], tmp_path / "out")
    with pytest.raises(DataError, match="results of another model"):
        predict(zero_shot(backbone="tiny"), [busi_dir], tmp_path / "out")
    (tmp_path / "out" / "run.json").unlink()
    with pytest.raises(DataError, match="its model is unknown"):
        predict(model, [busi_dir], tmp_path / "out")
    (tmp_path / "out" / "run.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        predict(model, [busi_dir], tmp_path / "out")
    (tmp_path / "out" / "run.json").write_text("{}")
    with pytest.raises(DataError, match="not written by ultraad"):
        predict(model, [busi_dir], tmp_path / "out")


def test_bad_files_are_listed_and_tried_again(model: Model, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    save(folder / "a.png", picture(1, lesion=False)[0])
    (folder / "b.png").write_bytes(b"")
    done = predict(model, [folder], out, save=())
    assert done.predicted == 1
    assert list(done.failed) == [(folder / "b.png").as_posix()]
    (error,) = [json.loads(line) for line in (out / "errors.jsonl").read_text(encoding="utf-8").splitlines()]
    assert error["id"].endswith("b.png")
    assert rows(out)[0].map is None
    assert rows(out)[0].overlay is None
    save(folder / "b.png", picture(2, lesion=False)[0])
    assert predict(model, [folder], out).failed == {}
    assert not (out / "errors.jsonl").exists()


def test_names_that_differ_little_get_files_of_their_own(model: Model, tmp_path: Path) -> None:
    for name in ("a b.png", "a_b.png", "ä b.png", "deep/a b.png", "a b.bmp", f"{'x' * 200}.png", "no suffix.v1.png"):
        save(tmp_path / "in" / name, picture(1, lesion=False)[0])
    predict(model, [tmp_path / "in"], tmp_path / "out")
    names = [r.overlay for r in rows(tmp_path / "out")]
    assert len(set(names)) == 7
    assert all((tmp_path / "out" / n).is_file() and len(Path(n).name) < 100 for n in names)


def test_evaluation_equals_metrics_by_hand(model: Model, busi_dir: Path) -> None:
    found = evaluate(model, busi_dir, bootstrap=0)
    c = model.calibration
    by_hand = Evaluation(model.classes, "normal", image_threshold=c.image_threshold, pixel_threshold=c.pixel_threshold)
    for s in scan(busi_dir):
        p = model.predict(s)
        mask = read_mask(s.masks, shape=p.map.shape)
        by_hand.add(id=s.id, score=p.score, anomalous=None, map=p.map, mask=mask, probs=p.probs, label=s.label)
    wanted = by_hand.result(bootstrap=0)["metrics"]
    for key, metric in found["metrics"].items():
        assert metric["value"] == pytest.approx(wanted[key]["value"], abs=1e-4), key
    assert found["thresholds"] == {"image": c.image_threshold, "pixel": c.pixel_threshold}
    assert found["failed"] == {}
    assert found["n"]["images"] == 12


def test_what_an_evaluation_leaves(model: Model, busi_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    evaluate(model, busi_dir, output=out, bootstrap=20)
    assert {p.name for p in out.iterdir()} >= {"run.json", "metrics.json", "predictions.jsonl", "predictions.csv"}
    assert (out / "report.html").stat().st_size > 1000
    found = rows(out)
    assert {r.label for r in found} == {"normal", "benign", "malignant"}
    assert all(r.mask_known and r.map is None for r in found)
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    data = {"root": str(busi_dir.resolve()), "layout": "busi", "split": None, "images": 12, "resize_masks": False}
    assert run["data"] == data
    assert run["leakage"] == {"checked": True, "leaks": 0, "dropped": 0}
    assert run["images_per_second"] > 0
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["metrics"]["image_auroc"]["low"] <= metrics["metrics"]["image_auroc"]["high"]
    evaluate(model, scan(busi_dir)[:6], output=out, bootstrap=0)
    assert len(rows(out)) == 6, "an evaluation starts anew"


def test_support_images_are_refused_or_dropped(model: Model, folder_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(LeakageError, match="6 support image"):
        evaluate(model, folder_dir, output=tmp_path / "out")
    assert not (tmp_path / "out").exists(), "nothing is written before the check"
    found = evaluate(model, folder_dir, leaks="drop", bootstrap=0)
    assert found["n"]["images"] == 12 - 6
    prints = [p for p, _ in model.support]
    assert {s.id for s in unseen(prints, scan(folder_dir), layout="folder")}.isdisjoint(p.id for p in prints)
    support = [s for s in scan(folder_dir) if s.id in {p.id for p in prints}]
    with pytest.raises(LeakageError, match="nothing is left"):
        evaluate(model, support, leaks="drop")


@pytest.mark.parametrize("leaks", ["keep", "allow", "Drop", "", None])
def test_leaks_are_refused_or_dropped_and_nothing_else(model: Model, leaks: str | None) -> None:
    with pytest.raises(ConfigError, match=f"leaks {leaks!r}: choose from refuse, drop"):
        evaluate(model, "nowhere", leaks=leaks)  # before anything is read


def test_one_name_alone_is_a_name(model: Model, busi_dir: Path, tmp_path: Path) -> None:
    found = evaluate(model, busi_dir, by="class", bootstrap=0)
    assert list(found["subgroups"]) == ["class"]
    predict(model, busi_dir, tmp_path / "out", save="masks")
    assert all(row.mask and not row.overlay for row in rows(tmp_path / "out"))
    with pytest.raises(ConfigError, match="'box' is no DICOM object; choose from seg"):
        predict(model, busi_dir, tmp_path / "out", objects="box")


def test_auxiliary_images_are_refused_or_dropped(busi_dir: Path, folder_dir: Path, tmp_path: Path) -> None:
    root = write_busi(tmp_path / "busi")
    trained = adapt(auxiliary=root, method="april_gan", backbone="tiny", options={"epochs": 1})
    with pytest.raises(LeakageError, match=r"12 auxiliary image\(s\).*another auxiliary set"):
        evaluate(trained, busi_dir)  # a copy of the set: the same bytes and names, in another place
    save(root / "normal" / "normal (9).png", picture(500, lesion=False)[0])
    assert evaluate(trained, root, leaks="drop", bootstrap=0)["n"]["images"] == 1
    found = evaluate(trained, folder_dir, output=tmp_path / "out", bootstrap=0)
    assert found["n"]["images"] == 12
    assert found["metrics"]["pixel_auroc"]["value"] is not None
    run = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert run["protocol"] == "auxiliary"
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "was trained only on 12 images of another data set, busi" in page
    assert "april_gan, no support image, evaluated on" in page


def test_a_split_can_be_chosen(model: Model, bus_uclm_dir: Path) -> None:
    found = evaluate(model, bus_uclm_dir, split="test", bootstrap=0)
    assert found["n"]["images"] == sum(s.split == "test" for s in scan(bus_uclm_dir))
    assert found["n"]["groups"] == 1
    with pytest.raises(DataError, match="published splits: test, train"):
        evaluate(model, bus_uclm_dir, split="valid")


def test_misaligned_masks_count_for_detection_only(model: Model, tmp_path: Path) -> None:
    root = write_bus_uclm(tmp_path / "uclm")
    found = evaluate(model, root, bootstrap=0)
    lesions = [s for s in scan(root) if s.anomalous]
    assert found["n"]["lesions"] == len(lesions)
    assert found["n"]["masks"] == sum(s.mask_aligned for s in lesions) < len(lesions)


def test_other_class_names_still_count_for_detection(
    model: Model, busi_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    renamed = {"normal": "healthy", "benign": "cyst", "malignant": "malignant"}
    samples = [replace(s, label=renamed[s.label]) for s in scan(busi_dir)]
    found = evaluate(model, samples, bootstrap=0)
    assert found["n"]["graded"] == 8, "healthy is the normal class under another name, cyst is unknown"
    assert found["metrics"]["image_auroc"]["n"] == 12
    assert "images of cyst (4) count for detection" in caplog.text
    assert "healthy" not in caplog.text


def test_images_that_nothing_says_anything_about_are_not_measured(
    model: Model, busi_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = [replace(s, label="scar", anomalous=None, masks=()) for s in scan(busi_dir) if s.label == "benign"]
    rest = [s for s in scan(busi_dir) if s.label != "benign"]
    found = evaluate(model, [*odd, *rest], bootstrap=0)
    assert (found["n"]["images"], found["n"]["lesions"], found["n"]["normals"]) == (12, 4, 4)
    assert not any("scar" in note for note in found["notes"])
    assert "images of scar (4) are not measured" in caplog.text
    with pytest.raises(DataError, match="none of the 4 images has a label that says"):
        evaluate(model, odd)


def test_masks_alone_say_which_images_show_a_lesion(model: Model, busi_dir: Path) -> None:
    unnamed = [replace(s, label=None, anomalous=None) for s in scan(busi_dir)]
    found = evaluate(model, unnamed, bootstrap=0)
    assert (found["n"]["lesions"], found["n"]["normals"], found["n"]["masks"]) == (8, 0, 8)


def test_contradictions_in_the_truth_are_listed(model: Model, tmp_path: Path) -> None:
    root = write_busi(tmp_path / "busi")
    _, mask = picture(1, lesion=True)
    save(root / "normal" / "normal (1)_mask.png", mask)
    found = evaluate(model, root, bootstrap=0)
    assert found["n"]["images"] == 11
    ((id_, reason),) = found["failed"].items()
    assert id_.endswith("normal (1).png")
    assert "is normal but its mask has" in reason


def test_unlabelled_or_unreadable_data_cannot_be_evaluated(model: Model, busi_dir: Path, tmp_path: Path) -> None:
    samples = scan(busi_dir)
    with pytest.raises(DataError, match="none of the 12 images has a label that says"):
        evaluate(model, [replace(s, label=None, anomalous=None, masks=()) for s in samples])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 1 images could be evaluated"):
        evaluate(model, [replace(samples[0], image=broken)], output=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "failed"
    with pytest.raises(DataError, match="no samples"):
        evaluate(model, [])


def test_an_interrupted_run_says_so_and_keeps_what_is_done(model: Model, busi_dir: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict(model, [busi_dir], out, progress=stop, batch_size=2)
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    assert len(rows(out)) == 5
    assert len((out / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 6
    done = predict(model, [busi_dir], out)
    assert (done.predicted, done.skipped) == (7, 5)
    assert json.loads((out / "run.json").read_text())["status"] == "complete"


def test_subgroups_are_compared_in_the_metrics_and_on_the_page(model: Model, busi_dir: Path, tmp_path: Path) -> None:
    samples = [replace(s, device="LOGIQ" if i % 2 else "Aplio <b>") for i, s in enumerate(scan(busi_dir))]
    found = evaluate(model, samples, leaks="drop", by=["device"], output=tmp_path / "out", bootstrap=20)
    assert {s["value"] for s in found["subgroups"]["device"]["subgroups"]} == {"LOGIQ", "Aplio <b>"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Compared by device" in page
    assert "Aplio &lt;b&gt;" in page
    with pytest.raises(DataError, match="'scanner' is not known of any of the 12 images"):
        evaluate(model, samples, leaks="drop", by=["scanner"], bootstrap=0)


def test_a_table_of_facts_says_what_it_does_not_fit(
    model: Model, busi_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "facts.csv"
    names = [s.id for s in scan(busi_dir)[1:]]
    table.write_text("image,probe\n" + "".join(f"{n},{'ab'[i % 2]}\n" for i, n in enumerate([*names, "gone.png"])))
    out = tmp_path / "out"
    found = evaluate(model, busi_dir, by=["probe"], by_table=table, output=out, bootstrap=0)
    gaps = (
        "the table facts.csv has 1 row(s) that name no image: gone.png",
        f"the table facts.csv has no row for 1 image(s): {scan(busi_dir)[0].id}",
    )
    for gap in gaps:
        assert gap in caplog.text
        assert gap in found["notes"]
        assert f"T{gap[1:]}." in (out / "report.html").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="no fact to compare"):
        evaluate(model, "nowhere", by_table=table)
