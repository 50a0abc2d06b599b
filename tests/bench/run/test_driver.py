"""Complete runs: what they write, what survives an interruption, and that the engine does not change results."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.bench import toys
from tests.bench.conftest import TOY
from tests.bench.light import work
from ultraad.backbones._door import Backbone
from ultraad.bench.results import BenchFolder
from ultraad.bench.run import jobs as jobs_module
from ultraad.bench.run import work as work_module
from ultraad.bench.run.driver import run
from ultraad.bench.run.protocol import Habit
from ultraad.errors import DataError
from ultraad.runs.engines.local import Processes

TWO = [{"name": TOY, "label": "toy"}, {"name": TOY, "label": "far", "options": {"jump": 3}}]
REAL = {"name": "ultraad", "label": "ultraad", "options": {"train.epochs": 1, "train.views": 1}}
ROOT = Path(__file__).parents[3]


def table(folder):
    """What must not depend on how a run was made."""
    keys = {"id", "label", "status", "metrics", "subsets", "confusion", "n", "options", "fit", "adapt", "test"}
    return sorted(
        json.dumps(row.model_dump(mode="json", include=keys), sort_keys=True) for row in BenchFolder.open(folder).rows()
    )


@pytest.fixture(scope="module")
def done(data, recipe, tmp_path_factory):
    """A finished run: two methods, a private test set, two seeds."""
    folder = tmp_path_factory.mktemp("done")
    sets = {"uclm": {"root": "uclm"}, "busi": {"root": "busi"}, "own": {"public": False, "title": "Ours"}}
    r = recipe(methods=[*TWO, REAL], data=sets, test=["busi", "own"], seeds=[0, 1], bootstrap=10)
    seen = []
    outcome = run(r, folder, base=data, jobs=1, on_row=lambda row: seen.append(row.id))
    return r, folder, outcome, seen


def test_a_row_holds_options_metrics_and_timings(done):
    _, folder, outcome, seen = done
    results = BenchFolder.open(folder)
    rows = results.rows()
    assert outcome.counts == {"ok": 6, "not_public": 6}
    assert results.bench.status == "complete"
    assert sorted(row.id for row in rows) == sorted(results.bench.jobs.rows)
    assert len(seen) == 6
    ok = next(row for row in rows if row.status == "ok" and row.label == "ultraad")
    private = next(row for row in rows if row.status == "not_public")
    assert json.loads(ok.to_json()).keys() == json.loads(private.to_json()).keys()
    assert private.reason
    assert private.test.title == "Ours"
    assert ok.options["train"]["epochs"] == 1
    assert ok.given == {"train.epochs": 1, "train.views": 1}
    assert ok.backbone.size == 64
    assert ok.fit.parameters > 1000
    assert ok.calibration.calibrated is False
    assert ok.calibration.pixel_threshold == 0.5
    assert ok.metrics["image_auroc"].low is not None
    assert ok.timings.predict_ms >= ok.timings.encode_ms > 0
    assert ok.peak_memory_mb > 50
    assert ok.machine.threads == 1


def test_the_files_of_a_row_agree_with_it(done):
    _, folder, _, _ = done
    results = BenchFolder.open(folder)
    row = next(r for r in results.rows() if r.status == "ok" and r.seed == 0)
    lines = results.predictions(row)
    assert len(lines) == row.n["images"] == 9
    assert {"id", "score", "probs", "label", "anomalous", "group", "device", "site", "tags", "pixels"} == lines[
        0
    ].model_fields_set
    known = [line.pixels for line in lines if line.pixels]
    assert len(known) == row.n["maps"]
    dice = [k.dice for k in known if k.dice is not None]
    assert np.mean(dice) == pytest.approx(row.value("dice"))
    maps, pictures, pixels = results.maps(row), results.pictures(row), results.pixels(row)
    assert maps.ids == pictures.ids == tuple(line.id for line in lines)
    assert maps.maps.shape == (9, 96, 96)
    assert pictures.images.shape == (9, 96, 96, 3)
    assert (pictures.masks.any((1, 2)) == ["normal" not in i for i in pictures.ids]).all()
    assert (pictures.sizes == (48, 64)).all()
    value = pixels.compute(np.ones((1, len(pixels.groups))))
    for key in ("pixel_auroc", "pixel_ap", "aupro", "dice", "iou"):
        assert value[key][0] == pytest.approx(row.value(key), abs=0.01), key
    later = next(r for r in results.rows() if r.status == "ok" and r.seed == 1)
    assert results.maps(later) is None  # only the first seed keeps them


def test_running_a_finished_recipe_again_changes_nothing(done, data):
    r, folder, _, _ = done
    before = (folder / "results.jsonl").read_bytes()
    again = run(r, folder, base=data, jobs=1)
    assert again.skipped == 12
    assert (folder / "results.jsonl").read_bytes() == before


def test_a_complete_run_removes_its_features(done):
    assert not (done[1] / "features").exists()


def test_the_folder_of_another_recipe_is_refused(done, data, recipe):
    with pytest.raises(DataError, match="holds results of the recipe 'trial', not of 'other'"):
        run(recipe(name="other"), done[1], base=data)


def test_rows_that_the_recipe_no_longer_asks_for_are_hidden(data, recipe, tmp_path):
    run(recipe(seeds=[0]), tmp_path, base=data, jobs=1)
    run(recipe(seeds=[1]), tmp_path, base=data, jobs=1)
    results = BenchFolder.open(tmp_path)
    assert [row.seed for row in results.rows()] == [1]
    assert [row.seed for row in results.rows(all=True)] == [0, 1]


def test_labels_follow_the_current_recipe_and_one_result_may_have_two(data, recipe, tmp_path):
    def shown(*labels):
        entries = [{**TWO[0], "label": label} for label in labels]
        found = run(recipe(methods=entries, reference=labels[0], seeds=[0]), tmp_path, base=data, jobs=1)
        return found.skipped, [row.label for row in BenchFolder.open(tmp_path).rows()]

    assert shown("before") == (0, ["before"])
    assert shown("after", "the same by another name") == (2, ["after", "the same by another name"])


def test_several_processes_give_the_same_results_to_the_last_bit(done, data, tmp_path):
    r, folder, _, _ = done
    run(r, tmp_path, base=data, jobs=2)
    assert table(tmp_path) == table(folder)


def test_shared_features_change_results_only_by_rounding(done, data, tmp_path):
    r, folder, _, _ = done
    run(r, tmp_path, base=data, jobs=1, share=False)
    shared, alone = BenchFolder.open(folder), BenchFolder.open(tmp_path)
    assert not (tmp_path / "features").exists()
    for a, b in zip(shared.rows(), alone.rows(), strict=True):
        assert a.id == b.id
        pairs = zip(shared.predictions(a), alone.predictions(b), strict=True)
        assert all(x.score == pytest.approx(y.score, abs=1e-5) for x, y in pairs)


def test_the_bare_tower_sees_no_image_twice(data, recipe, tmp_path, monkeypatch):
    passes: list[bytes] = []
    run_tower = Backbone._run_tower

    def counting(self, images, *, layers, around=None):
        if around is None:
            passes.extend(image.numpy().tobytes() for image in images)
        return run_tower(self, images, layers=layers, around=around)

    monkeypatch.setattr(Backbone, "_run_tower", counting)
    run(recipe(methods=[*TWO, REAL, "winclip"], shots=[0, 1, 2]), tmp_path, base=data, jobs=1)
    assert len(passes) == len(set(passes)) >= 9 + 6


def test_errors_become_rows_and_the_grid_goes_on(data, recipe, tmp_path, monkeypatch):
    methods = [{"name": f"tests.bench.toys:{n}", "label": n} for n in ("Failing", "FailingLate", "Swinging")]
    r = recipe(methods=methods)
    assert run(r, tmp_path, base=data, jobs=1).counts == {"error": 2, "ok": 1}
    rows = {row.label: row for row in BenchFolder.open(tmp_path).rows()}
    assert rows["Failing"].reason == "RuntimeError: this method always fails"
    assert json.loads(rows["Failing"].to_json()).keys() == json.loads(rows["Swinging"].to_json()).keys()
    assert "in score" in (tmp_path / rows["FailingLate"].files.error).read_text()
    assert run(r, tmp_path, base=data, jobs=1).skipped == 3
    monkeypatch.setattr(toys.FailingLate, "score", toys.Swinging.score)
    assert run(r, tmp_path, base=data, jobs=1, retry_errors=True).counts == {"error": 1, "ok": 2}
    assert len(BenchFolder.open(tmp_path).rows()) == 3


def test_finished_rows_survive_ctrl_c(data, recipe, tmp_path):
    r = recipe(methods=TWO)

    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(r, tmp_path, base=data, jobs=1, on_row=stop)
    results = BenchFolder.open(tmp_path)
    assert results.bench.status == "interrupted"
    assert len(results.rows()) == 1
    assert run(r, tmp_path, base=data, jobs=1).skipped == 1


def test_a_second_run_in_the_same_folder_is_refused(data, recipe, tmp_path):
    r = recipe(methods=TWO)
    refused = []

    def meanwhile(row):
        with pytest.raises(DataError, match=r"another run is writing to .*; wait until it is done, or choose another"):
            run(r, tmp_path, base=data, jobs=1)
        refused.append(row.id)

    assert run(r, tmp_path, base=data, jobs=1, on_row=meanwhile).counts == {"ok": 2}
    assert len(refused) == 2
    assert run(r, tmp_path, base=data, jobs=1).skipped == 2


def test_an_incomplete_last_line_is_ignored(data, recipe, tmp_path):
    r = recipe(methods=TWO)
    run(r, tmp_path, base=data, jobs=1)
    whole = table(tmp_path)
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-200])
    assert run(r, tmp_path, base=data, jobs=1).skipped == 1
    assert table(tmp_path) == whole


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_killed_run_continues(done, data, tmp_path):
    r, folder, _, _ = done
    file, out = tmp_path / "trial.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(r.model_dump(mode="json")))
    words = ["bench", "run", str(file), "-o", str(out), "--data", str(data), "--jobs", "1", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ultraad.cli", *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if (out / "results.jsonl").exists() and (out / "results.jsonl").read_text().count('"ok"') >= 2:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = len(BenchFolder.open(out).rows())
    assert BenchFolder.open(out).bench.status == "running"
    again = run(r, out, base=data, jobs=1)
    assert again.skipped == kept < 12
    assert table(out) == table(folder)


@pytest.mark.slow
def test_a_method_that_kills_its_process_loses_only_its_own_rows(data, recipe, tmp_path):
    dying = {"name": "tests.bench.toys:Dying", "label": "dying"}
    outcome = run(recipe(methods=[dying, *TWO]), tmp_path, base=data, jobs=2)
    assert outcome.counts == {"error": 1, "ok": 2}
    row = next(row for row in BenchFolder.open(tmp_path).rows() if row.status == "error")
    assert row.label == "dying"
    assert "process died" in row.reason


def test_thresholds_come_from_the_support_set(data, recipe, tmp_path):
    methods = [{**TWO[0], "options": {"calibration.folds": 2}}]
    r = recipe(adapt={"on": "busi"}, test=["uclm"], shots=[2], calibrate=True, methods=methods)
    run(r, tmp_path, base=data, jobs=1)
    (row,) = BenchFolder.open(tmp_path).rows()
    assert row.calibration.calibrated is True
    assert row.calibration.folds == 2


def test_support_images_are_left_out_of_the_test(data, recipe, tmp_path):
    run(recipe(test=[{"on": "uclm", "name": "same"}]), tmp_path, base=data, jobs=1)
    results = BenchFolder.open(tmp_path)
    (row,) = results.rows()
    assert row.test.left_out >= 3
    drawn = results.bench.supports[0]
    assert not {line.id for line in results.predictions(row)} & set(drawn.ids)
    assert len(drawn.duplicates["same"]) == 3


@pytest.fixture
def published(data, recipe, tmp_path, monkeypatch):
    def make(habit, **changes):
        for module in (jobs_module, work_module):
            monkeypatch.setattr(module, "HABITS", {TOY: habit})
        run(recipe(protocols=["honest", "published"], **changes), tmp_path, base=data, jobs=1)
        rows = BenchFolder.open(tmp_path).rows()
        return tuple(next(r for r in rows if r.protocol == p) for p in ("honest", "published"))

    return make


def test_published_finds_the_best_epoch_on_the_test_set(published):
    honest, best = published(Habit(("image_auroc",)), methods=[{"name": TOY, "label": "toy"}], checkpoints=4)
    assert (honest.transductive, best.transductive) == (False, True)
    assert honest.fit.epoch is None
    # the toy's number goes -1, 0, 1, 2: two rankings of the images, and one of them is better than the other
    signs = [honest.value("image_auroc"), best.value("image_auroc")]
    assert signs[1] == pytest.approx(max(signs[0], 1 - signs[0], 0.5))
    assert best.fit.epoch in (1, 3, 4)
    assert best.fit.selection == "best epoch on the test set"
    assert len(best.fit.loss) == best.fit.epoch


def test_min_max_changes_metrics_at_a_threshold_but_no_ranking(published):
    honest, moved = published(Habit(min_max=True))
    for key in ("image_auroc", "pixel_auroc", "pixel_ap"):
        assert moved.value(key) == pytest.approx(honest.value(key), abs=1e-6)
    assert moved.value("dice") != honest.value("dice")


def test_a_run_restores_the_number_of_threads(data, recipe, tmp_path):
    before = torch.get_num_threads()
    run(recipe(threads=before + 1), tmp_path, base=data, jobs=1)
    assert torch.get_num_threads() == before


def test_a_lost_task_is_tried_once_more(tmp_path):
    tasks = [(name, tmp_path / name) for name in ("die", "a", "b", "die once", "c")]
    with closing(Processes(2)) as engine:
        found = {name: result for (name, _), result in engine.map(work, tasks)}
    assert found.pop("die").reason.startswith("its process died")
    assert found == {name: f"done {name}" for name in ("a", "b", "die once", "c")}


def test_a_process_that_dies_idle_is_replaced(tmp_path):
    found = []
    with closing(Processes(1)) as engine:
        for (name, _), result in engine.map(work, [(name, tmp_path) for name in "abc"]):
            found.append((name, result))
            for child in multiprocessing.active_children():
                child.kill()
                child.join()
    assert found == [(name, f"done {name}") for name in "abc"]


def test_processes_are_reused_and_end(tmp_path):
    with closing(Processes(2)) as engine:
        list(engine.map(work, [(name, tmp_path) for name in "abc"]))
        first = {child.pid for child in multiprocessing.active_children()}
        list(engine.map(work, [(name, tmp_path) for name in "abc"]))
        assert {child.pid for child in multiprocessing.active_children()} == first
        for _ in engine.map(work, [(name, tmp_path) for name in "abc"]):
            break  # what is being worked on is given up
    assert multiprocessing.active_children() == []
