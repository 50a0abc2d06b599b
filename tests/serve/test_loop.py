"""The whole loop with a real worker: mark, adapt, look, correct, go back, take away. The backbone is random."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import uuid
import zipfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import helpers
from tests.serve.conftest import Client, Running, wait_for
from ultraad.data import sources
from ultraad.data.support import load_support
from ultraad.model.model import load
from ultraad.serve.desk import Desk

OPTIONS = {"train.epochs": 1, "train.views": 1, "calibration.folds": 2}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 images, so that some that were set aside are left after the first marks."""
    return helpers.write_folder(tmp_path_factory.mktemp("scans"), per_class=6)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with its worker."""
    desk = Desk(tmp_path_factory.mktemp("loop") / "project", backbone="tiny")
    running = Running(desk)
    desk.start()
    yield running
    running.end()
    desk.close()


@pytest.fixture(scope="module")
def events(client: Client) -> list[tuple[str, dict[str, Any]]]:
    """What a page that listens from the start is told."""
    found: list[tuple[str, dict[str, Any]]] = []

    def listen() -> None:
        connection = HTTPConnection(client.host)
        connection.request("GET", "/api/events", headers={"Cookie": client.cookie})
        name = ""
        with connection.getresponse() as answer:
            while line := answer.readline().decode():
                key, _, value = line.strip().partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    found.append((name, json.loads(value)))
        connection.close()

    threading.Thread(target=listen, daemon=True).start()
    wait_for(lambda: found)
    return found


@pytest.fixture(scope="module")
def started(client: Client, server: Running, events: list[Any], images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The images when the starting model has predicted all of them; those that were set aside last."""
    wait_for(lambda: (client.get("/api/models") or [{"predicted": 0}])[0]["predicted"] == len(images), 120)
    aside = server.desk.project.aside()
    return sorted(client.get("/api/images?limit=1000")["items"], key=lambda item: item["id"] in aside)


def finished(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    return wait_for(
        lambda: (j := client.get(f"/api/jobs/{job['number']}"))["state"] in ("done", "failed", "cancelled") and j, 120
    )


def mark(client: Client, items: list[dict[str, Any]], *, skip: str = "") -> None:
    """Two marks of each class, by the names of the folders."""
    rows: list[dict[str, Any]] = []
    for label in ("normal", "benign", "malignant"):
        for item in [i for i in items if i["name"].startswith(label)][: 0 if label == skip else 2]:
            row = {"id": str(uuid.uuid4()), "image": item["id"], "frame": 0, "class": label}
            if label == "normal":
                rows.append({**row, "kind": "label"})
            else:
                brush = {"tool": "brush", "points": [30, 24], "radius": 9, "lesion": str(uuid.uuid4())}
                rows.append({**row, "kind": "stroke", **brush})
    client.post("/api/marks", {"rater": "anna", "rows": rows})


@pytest.fixture(scope="module")
def adapted(client: Client, started: list[dict[str, Any]]) -> dict[str, Any]:
    """The job of the first adaptation."""
    mark(client, started)
    visible = [{"image": started[-1]["id"]}, {"image": started[-2]["id"]}]
    return finished(client, client.post("/api/jobs", {"kind": "adapt", "options": OPTIONS, "visible": visible}))


def test_the_starting_model_has_looked_at_everything(started: list[dict[str, Any]], client: Client) -> None:
    assert {i["pred"]["model"] for i in started} == {0}
    assert {i["decision"] for i in started} <= {"normal", "benign", "malignant"}
    (model,) = client.get("/api/models")
    assert (model["name"], model["current"], model["support"]) == ("starting model", True, {})


def test_no_image_is_kept_out_before_there_are_examples_enough_to_adapt(
    started: list[dict[str, Any]], client: Client, server: Running
) -> None:
    """A page shows the queue beside the first image: what was drawn at random there could not be learned from."""
    if client.get("/api/project")["marked"] == 0:
        assert server.desk.project.aside()
        assert not [i for i in client.get("/api/queue?limit=20")["items"] if i["held_out"]]
        assert server.desk.project.drawn == set()


def test_methods_come_with_their_options_and_what_they_lack(client: Client, started: list[dict[str, Any]]) -> None:
    methods = {m["name"]: m for m in client.get("/api/methods")}
    options = {o["key"]: o for o in methods["ultraad"]["options"]}
    assert options["train.epochs"]["default"] == 15
    assert options["train.epochs"]["type"] == "integer"
    assert options["train.schedule"]["choices"] == ["cosine", "constant"]
    assert "calibration.folds" in options
    assert [b["name"] for b in client.get("/api/backbones")] == [
        "tiny",
        "embedded",
        "embedded+embedded-large",
        "embedded-large",
        "embedded-simulated",
    ]


def test_adapt_is_refused_in_words_until_every_class_is_marked(client: Client, started: list[dict[str, Any]]) -> None:
    if client.get("/api/project")["marked"] == 0:
        mark(client, started, skip="normal")
        answer = client.ask("POST", "/api/jobs", {"kind": "adapt"})
        wanted = "no normal image is marked yet; 4 of each other class are enough without"
        assert (answer.status, answer.message) == (422, wanted)


def test_adapting_predicts_the_visible_images_first(
    client: Client, adapted: dict[str, Any], started: list[dict[str, Any]], events: list[tuple[str, dict[str, Any]]]
) -> None:
    assert (adapted["state"], adapted["error"], adapted["model"]) == ("done", None, 1)
    predicted = [
        image for name, what in events if name == "predictions" and what["model"] == 1 for image in what["images"]
    ]
    assert predicted[:2] == [started[-1]["id"], started[-2]["id"]]
    assert sorted(predicted[: len(started)]) == sorted(i["id"] for i in started)
    scaled = predicted[len(started) :]  # after the cross-validation
    assert set(scaled) <= set(predicted[: len(started)])
    assert len(scaled) == len(set(scaled)) > 0
    named = [(n, w.get("why")) for n, w in events if n == "model" and w["model"] == 1]
    assert named == [("model", "adapted"), ("model", "calibrated")]
    states = list(dict.fromkeys(w["state"] for n, w in events if n == "job" and w["number"] == adapted["number"]))
    assert states[:1] == ["waiting"]
    assert states[-1] == "done"
    assert "fitting" in states


def test_the_model_is_one_that_the_library_loads(client: Client, server: Running, adapted: dict[str, Any]) -> None:
    model = client.get("/api/models/1")
    folder = server.desk.project.folder
    loaded = load(folder / "models" / "1")
    assert loaded.digest == model["digest"]
    assert loaded.calibration.image_threshold == model["image_threshold"]
    assert loaded.calibration.folds == 2
    support = load_support(folder / "supports" / "1.json")
    assert len(support.samples) == sum(model["support"].values())
    assert [s.label for s in support.samples] == sorted((s.label for s in support.samples), key=support.classes.index)
    place = server.desk.outcomes.models[1].places[-1]
    sample = next(s for s in support.samples if s.label == "malignant")
    prediction = loaded.predict(sample)
    said = server.desk.outcomes.said_by(1)
    assert min(abs(prediction.score - one.score) for one in said.values()) < 1e-4
    assert place in said


def test_a_map_covers_the_image_on_the_grid_of_the_model(
    client: Client, adapted: dict[str, Any], started: list[Any]
) -> None:
    answer = client.ask("GET", f"/api/images/{started[0]['id']}/frames/0/map")
    size = int(answer.headers["x-height"]), int(answer.headers["x-width"])
    assert size == (64, 64)
    grid = np.frombuffer(answer.body, "<u2").reshape(size)
    assert grid.max() > 0
    assert answer.headers["x-model"] == "1"
    packed = client.ask("GET", f"/api/images/{started[0]['id']}/frames/0/map", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    found = client.get(f"/api/images/{started[0]['id']}/frames/0/suggestions?threshold=0.0")
    assert found["threshold"] == 0.0
    assert client.ask("GET", f"/api/images/{started[0]['id']}/frames/0/map?model=7").status == 404


def test_the_page_is_told_why_without_paths(
    client: Client, server: Running, adapted: dict[str, Any], started: list[dict[str, Any]]
) -> None:
    address = f"/api/images/{started[0]['id']}/frames/0/why"
    why = wait_for(lambda: (told := client.post(address, {}))["state"] != "waiting" and told)
    assert (why["state"], why["model"], why["error"]) == ("done", 1, "")
    assert any("score does not rest" in line or "no marks were found" in line for line in why["lines"])
    images = {i["id"] for i in started}
    assert len(why["support"]) == 5
    assert all(one["image"] in images and one["share"] is not None for one in why["support"])
    assert len(why["sentences"]) == 5
    assert str(server.desk.project.folder) not in json.dumps(why)
    assert client.ask("POST", "/api/images/0000000000000000/frames/0/why").status == 404


def test_a_persons_mark_overrules_the_model(client: Client, adapted: dict[str, Any]) -> None:
    for item in client.get("/api/images?state=marked")["items"]:
        assert item["decision"] == item["label"]
        assert item["pred"]["model"] == 1


def test_what_changed_and_the_way_back(client: Client, adapted: dict[str, Any], started: list[Any]) -> None:
    changes = client.get("/api/models/1/changes")
    assert (changes["against"], changes["compared"]) == (0, len(started))
    assert client.post("/api/models/0/use", {})["current"]
    assert {i["pred"]["model"] for i in client.get("/api/images?limit=1000")["items"]} == {0}
    assert client.post("/api/models/1/use", {})["current"]
    wait_for(lambda: {i["pred"]["model"] for i in client.get("/api/images?limit=1000")["items"]} == {1})


def test_numbers_come_from_cross_validation_while_nothing_is_held_out(client: Client, adapted: dict[str, Any]) -> None:
    numbers = client.get("/api/models/1/numbers")
    assert numbers["source"] == "cross-validation on the support"
    assert "marked images were chosen" in numbers["caution"]


def test_thresholds_set_by_hand_are_saved_with_the_model(
    client: Client, server: Running, adapted: dict[str, Any]
) -> None:
    before = client.get("/api/models/1")
    changed = client.ask("PATCH", "/api/models/1", {"image_threshold": 0.25, "pixel_threshold": 0.75}).json
    assert (changed["image_threshold"], changed["threshold_from"]) == (0.25, "you")
    wait_for(lambda: client.get("/api/models/1")["digest"] != before["digest"])
    loaded = load(server.desk.project.folder / "models" / "1")
    assert (loaded.calibration.image_threshold, loaded.calibration.pixel_threshold) == (0.25, 0.75)
    assert loaded.calibration.rule == "set by hand"


def test_the_queue_offers_images_without_marks(client: Client, adapted: dict[str, Any]) -> None:
    queue = client.get("/api/queue?limit=5")
    marked = {i["id"] for i in client.get("/api/images?state=marked")["items"]}
    assert queue["items"]
    assert not {i["image"] for i in queue["items"]} & marked
    assert all(i["reason"] for i in queue["items"])


def test_an_image_marked_after_a_random_draw_is_held_out_and_measured(client: Client, adapted: dict[str, Any]) -> None:
    def drawn() -> dict[str, Any] | None:
        return next((i for i in client.get("/api/queue?limit=20")["items"] if i["held_out"]), None)

    offer = drawn()
    assert offer is not None
    label = {"id": str(uuid.uuid4()), "image": offer["image"], "frame": 0, "kind": "label", "class": "benign"}
    (frame,) = client.post("/api/marks", {"rater": "anna", "rows": [label]})["frames"]
    assert frame["role"] == "held_out"
    assert client.get("/api/project")["held_out"] == 1
    assert client.get("/api/models/1/numbers")["source"] == "held-out marks"


def test_the_data_check_follows_the_marks(client: Client, adapted: dict[str, Any]) -> None:
    check = wait_for(lambda: (c := client.get("/api/check"))["state"] in ("done", "stale") and c)
    assert isinstance(check["findings"], list)


def test_an_export_is_a_folder_that_the_command_line_understands(
    client: Client, server: Running, adapted: dict[str, Any]
) -> None:
    job = finished(client, client.post("/api/jobs", {"kind": "export"}))
    assert (job["state"], job["error"]) == ("done", None)
    (export,) = client.get("/api/exports")
    folder = server.desk.project.folder / export["folder"]
    assert export["files"] == len([p for p in folder.rglob("*") if p.is_file()])
    samples = sources.scan(folder / "data")
    marked = client.get("/api/images?state=marked&limit=1000")["items"]
    assert len(samples) == len(marked)
    assert {s.split for s in samples} <= {"train", "test"}
    assert sum(bool(s.masks) for s in samples) == sum(i["lesions"] > 0 for i in marked)
    coco = sources.scan(folder / "coco.json", layout="coco")
    assert sum(bool(s.masks) for s in coco) == sum(i["lesions"] > 0 for i in marked)
    rows = [json.loads(line) for line in (folder / "predictions" / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 18
    assert (folder / "predictions" / "predictions.csv").is_file()
    assert load(folder / "model").digest == client.get("/api/models/1")["digest"]
    words = shlex.split(export["command"])
    assert words[:3] == ["ultraad", "evaluate", "models/1"]
    command = [sys.executable, "-m", "ultraad.cli", *words[1:]]
    done = subprocess.run(command, cwd=server.desk.project.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
    assert metrics["n"]["images"] == sum(s.split == "test" for s in samples) == 1
    shutil.rmtree(folder / "evaluation")
    archive = client.ask("GET", f"/api/exports/{export['number']}/archive")
    with zipfile.ZipFile(io.BytesIO(archive.body)) as packed:
        assert packed.testzip() is None
        assert len(packed.namelist()) == export["files"]
    report = client.ask("GET", f"/api/exports/{export['number']}/report")
    assert "sandbox" in report.headers["content-security-policy"]
    assert client.ask("DELETE", f"/api/exports/{export['number']}").status == 204
    assert not folder.exists()


def test_the_command_line_evaluates_a_model_of_the_project(
    client: Client, server: Running, adapted: dict[str, Any], scans: Path
) -> None:
    """``ultraad evaluate PROJECT/models/1 DATA``, without the images that the model has learned from."""
    from ultraad.runs.evaluate import evaluate

    model = load(server.desk.project.folder / "models" / "1")
    found = evaluate(model, scans, leaks="drop", bootstrap=0)
    assert found["n"]["images"] == len(client.get("/api/images?limit=1000")["items"]) - sum(
        client.get("/api/models/1")["support"].values()
    )


def test_a_job_can_be_cancelled_and_leaves_the_former_model(client: Client, adapted: dict[str, Any]) -> None:
    options = {"train.epochs": 500, "train.views": 1}
    job = client.post("/api/jobs", {"kind": "adapt", "options": options})
    assert client.ask("POST", "/api/jobs", {"kind": "check"}).status == 409
    wait_for(lambda: client.get(f"/api/jobs/{job['number']}")["state"] == "fitting")
    client.post(f"/api/jobs/{job['number']}/cancel", {})
    assert finished(client, job)["state"] == "cancelled"
    assert client.get("/api/project")["model"] == 1


def test_a_worker_that_is_killed_fails_its_job_and_comes_back(
    client: Client, server: Running, adapted: dict[str, Any]
) -> None:
    job = client.post("/api/jobs", {"kind": "adapt", "options": {"train.epochs": 500, "train.views": 1}})
    wait_for(lambda: client.get(f"/api/jobs/{job['number']}")["state"] == "fitting")
    child = server.desk.jobs._child
    assert child is not None
    os.kill(child._process.pid, 9)
    failed = finished(client, job)
    assert failed["state"] == "failed"
    assert "unexpectedly" in failed["error"]
    assert client.get("/api/project")["model"] == 1
    again = finished(client, client.post("/api/jobs", {"kind": "adapt", "options": OPTIONS}))
    assert (again["state"], again["error"]) == ("done", None)


def test_a_wrong_option_fails_with_the_library_s_own_words(client: Client, adapted: dict[str, Any]) -> None:
    job = finished(client, client.post("/api/jobs", {"kind": "adapt", "options": {"train.epoch": 3}}))
    assert job["state"] == "failed"
    assert "did you mean train.epochs" in job["error"]
    for wrong in ({"method": "nonsense"}, {"backbone": "os:system"}, {"options": {"texts": "/etc/passwd"}}):
        assert client.ask("POST", "/api/jobs", {"kind": "adapt", **wrong}).status == 422


def test_the_server_loads_no_torch() -> None:
    script = "import sys, ultraad.serve.server, ultraad.serve.app, ultraad.serve.decode; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
