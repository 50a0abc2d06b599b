"""A project without normal images, as many public data sets have none."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from tests import helpers
from tests.serve.conftest import Client, Running, wait_for

ADAPT = {"kind": "adapt", "options": {"train.epochs": 1}}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return helpers.write_folder(tmp_path_factory.mktemp("lesions"), per_class=9)


def mark(client: Client, image: dict[str, Any]) -> None:
    label = image["name"].split("/")[0]
    where = {"points": [30, 24], "radius": 9, "lesion": str(uuid.uuid4())}
    what = {
        "id": str(uuid.uuid4()),
        "image": image["id"],
        "frame": 0,
        "class": label,
        "kind": "stroke",
        "tool": "brush",
    }
    client.post("/api/marks", {"rater": "anna", "rows": [what | where]})


LACKING = "no normal image is marked yet; 4 of each other class are enough without"


def test_four_lesions_of_each_class_are_enough_and_a_note_says_what_that_means(
    client: Client, server: Running, images: list[dict[str, Any]]
) -> None:
    server.desk.start()
    for wanted in range(1, 10):
        ready = client.get("/api/project")["adapt"]
        enough = min(ready["support"][label] for label in ("benign", "malignant")) >= 4
        assert ready["ready"] == enough
        if enough:
            break
        assert ready["reason"] == (LACKING if wanted > 1 else "no image is marked yet")
        for label in ("benign", "malignant"):
            mark(client, [i for i in images if i["name"].startswith(label)][wanted - 1])
    assert ready["notes"] == ["no normal image is marked: whether there is a lesion is for the sentences alone to say"]
    ask = {**ADAPT, "method": "linear_probe"}
    refused = wait_for(lambda: (a := client.ask("POST", "/api/jobs", ask)).status != 409 and a)  # 409: it still starts
    assert (refused.status, refused.message) == (422, "no normal image is marked yet")
    number = client.post("/api/jobs", ADAPT)["number"]
    ended = wait_for(lambda: (j := client.get(f"/api/jobs/{number}"))["state"] in ("done", "failed") and j, 120)
    assert (ended["state"], ended["error"], ended["model"]) == ("done", None, 1)
    (model,) = [m for m in client.get("/api/models") if m["current"]]
    assert any("no support image is normal" in note for note in model["notes"])
