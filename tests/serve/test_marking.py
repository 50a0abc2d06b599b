"""Saving marks over HTTP: nothing twice, nothing lost, nothing on another frame."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import helpers
from tests.serve.conftest import Client, Running
from ultraad.io import read_mask
from ultraad.serve.marking import Marking
from ultraad.types import Region

BRUSH = {"kind": "stroke", "tool": "brush", "points": [20.0, 20.0, 30.0, 20.0], "radius": 5.0}


def row(image: str, **what: Any) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "image": image, "frame": 0, **what}


def brush(image: str, *, lesion: str | None = None, class_: str | None = "benign") -> dict[str, Any]:
    return row(image, **BRUSH, lesion=lesion or str(uuid.uuid4()), **({"class": class_} if class_ else {}))


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image for each test, and some more."""
    return helpers.write_folder(tmp_path_factory.mktemp("many"), per_class=9)


@pytest.fixture
def image(images: list[dict[str, Any]], request: pytest.FixtureRequest, client: Client) -> str:
    """An image that has no marks yet."""
    taken = {f["image"] for f in client.get("/api/marks")["frames"]}
    return next(i["id"] for i in images if i["id"] not in taken)


def save(client: Client, *rows: dict[str, Any], rater: str = "anna") -> dict[str, Any]:
    return client.post("/api/marks", {"rater": rater, "rows": list(rows)})


def marks(client: Client, image: str, rater: str = "anna") -> dict[str, Any]:
    return client.get(f"/api/images/{image}/frames/0/marks?rater={rater}")


def test_a_row_that_is_sent_again_is_known_and_counts_once(client: Client, image: str) -> None:
    sent = brush(image)
    first, again = save(client, sent), save(client, sent)
    assert [s["status"] for s in (*first["saved"], *again["saved"])] == ["saved", "known"]
    assert again["row"] == first["row"]
    assert again["frames"] == first["frames"]
    assert len(marks(client, image)["lesions"]) == 1


def test_a_mark_is_what_was_drawn_in_image_pixels(client: Client, server: Running, image: str) -> None:
    (frame,) = save(client, brush(image))["frames"]
    (lesion,) = frame["lesions"]
    mask = read_mask([Region((48, 64), polygons=tuple(map(tuple, lesion["outline"])))], shape=(48, 64))
    assert mask.sum() == lesion["pixels"] == pytest.approx(np.pi * 25 + 100, rel=0.05)
    assert lesion["box"] == [15.0, 15.0, 35.0, 25.0]
    assert (frame["label"], frame["label_from"], frame["role"]) == ("benign", "lesions", "support")
    assert lesion["text"] == "lesion 1, benign, 20 x 10 pixels"
    assert (server.desk.marking.masks((image, 0))[lesion["lesion"]] == mask).all()


def test_undo_and_redo_go_through_every_step(client: Client, image: str) -> None:
    save(client, brush(image), row(image, kind="label", **{"class": "malignant"}))
    shown = marks(client, image)
    assert shown["label"] == "malignant"
    assert shown["conflict"] == "called malignant, but a lesion is benign"
    assert shown["undo_text"] == "label malignant"
    (frame,) = save(client, row(image, kind="undo", target=shown["undo"]))["frames"]
    assert (frame["label"], frame["conflict"], frame["redo"]) == ("benign", None, shown["undo"])
    (frame,) = save(client, row(image, kind="undo", target=frame["undo"]))["frames"]
    assert (frame["label"], frame["lesions"], frame["undo"]) == (None, [], None)
    (frame,) = save(client, row(image, kind="redo", target=frame["redo"]))["frames"]
    assert (frame["label"], len(frame["lesions"])) == ("benign", 1)


def test_undo_stays_on_its_frame(client: Client, images: list[dict[str, Any]], image: str) -> None:
    other = images[-1]["id"]
    here, there = brush(image), brush(other)
    save(client, here, there)
    answer = save(client, row(other, kind="undo", target=here["id"]))
    assert answer["saved"][0]["status"] == "refused"
    assert "not on this frame" in answer["saved"][0]["reason"]
    assert len(marks(client, image)["lesions"]) == 1


def test_two_raters_see_each_other_and_undo_their_own(client: Client, image: str) -> None:
    save(client, brush(image), rater="anna")
    save(client, brush(image), rater="bert")
    assert [one["rater"] for one in marks(client, image)["lesions"]] == ["anna", "bert"]
    save(client, row(image, kind="undo", target=marks(client, image, "anna")["undo"]), rater="anna")
    assert [one["rater"] for one in marks(client, image)["lesions"]] == ["bert"]
    assert {"anna", "bert"} <= set(client.get("/api/project")["raters"])


def test_one_bad_row_does_not_keep_the_others_from_being_saved(client: Client, image: str) -> None:
    answer = save(client, row(image, kind="label", **{"class": "cyst"}), brush(image), row("f" * 16, kind="skip"))
    assert [s["status"] for s in answer["saved"]] == ["refused", "saved", "refused"]
    assert "no class 'cyst'" in answer["saved"][0]["reason"]
    assert "not in the project" in answer["saved"][2]["reason"]


def test_a_normal_image_with_a_lesion_is_a_conflict_and_no_support(client: Client, server: Running, image: str) -> None:
    (frame,) = save(client, brush(image), row(image, kind="label", **{"class": "normal"}))["frames"]
    assert frame["conflict"] == "called normal, but has 1 lesion"
    assert frame["role"] is None
    assert (image, 0) not in server.desk.project.roles()
    assert any("contradict" in note for note in client.get("/api/project")["adapt"]["notes"])


def test_a_lesion_that_is_erased_is_gone(client: Client, image: str) -> None:
    sent = brush(image)
    eraser = row(image, kind="stroke", tool="eraser", points=[25.0, 20.0], radius=40.0)
    (frame,) = save(client, sent, eraser)["frames"]
    assert frame["lesions"] == []
    assert frame["label"] is None


def test_a_lesion_can_get_another_class_and_be_deleted(client: Client, image: str) -> None:
    sent = brush(image, class_=None)
    (frame,) = save(client, sent)["frames"]
    assert (frame["label"], frame["lesions"][0]["text"]) == (None, "lesion 1, no class yet, 20 x 10 pixels")
    (frame,) = save(client, row(image, kind="lesion", lesion=sent["lesion"], **{"class": "malignant"}))["frames"]
    assert frame["label"] == "malignant"
    (frame,) = save(client, row(image, kind="remove", lesion=sent["lesion"]))["frames"]
    assert frame["lesions"] == []


def test_two_lesions_of_different_classes_give_the_later_class_of_the_project(client: Client, image: str) -> None:
    (frame,) = save(client, brush(image, class_="malignant"), brush(image, class_="benign"))["frames"]
    assert frame["label"] == "malignant"


def test_an_accepted_suggestion_is_recorded_as_accepted(client: Client, image: str) -> None:
    ring = [10.0, 10.0, 20.0, 10.0, 20.0, 20.0, 10.0, 20.0]
    hole = [13.0, 13.0, 13.0, 16.0, 16.0, 16.0, 16.0, 13.0]
    sent = row(image, kind="accept", lesion=str(uuid.uuid4()), outline=[ring, hole], **{"class": "benign"})
    (frame,) = save(client, {**sent, "suggestion": {"model": 0, "threshold": 0.5, "index": 0}})["frames"]
    (lesion,) = frame["lesions"]
    assert (lesion["origin"], lesion["pixels"]) == ("accepted", 100 - 9)
    listed = client.get(f"/api/images/{image}")
    assert (listed["lesions"], listed["accepted"]) == (1, 1)


def test_a_box_becomes_a_mask_by_the_rule_that_was_shown(client: Client, image: str) -> None:
    box = {"tool": "box", "points": [16.0, 12.0, 48.0, 38.0]}
    shown = client.post("/api/preview", {"image": image, **box})
    (frame,) = save(client, row(image, kind="stroke", lesion=str(uuid.uuid4()), **box))["frames"]
    assert frame["lesions"][0]["outline"] == shown["outline"]
    assert frame["lesions"][0]["rule"] == shown["rule"] != ""
    assert 0 < shown["pixels"] < 32 * 26 * 1.3


def test_a_scribble_becomes_a_region_around_it(client: Client, image: str) -> None:
    line = {"tool": "scribble", "points": [24.0, 22.0, 40.0, 26.0], "radius": 2.0}
    shown = client.post("/api/preview", {"image": image, **line})
    x0, y0, x1, y1 = shown["box"]
    assert x0 <= 24 <= 40 <= x1 + 2
    assert y0 <= 22 <= 26 <= y1 + 2


def test_a_box_without_a_pixel_is_refused_and_not_saved(client: Client, image: str) -> None:
    box = {"tool": "box", "points": [-30.0, -30.0, -20.0, -20.0]}
    answer = save(client, row(image, kind="stroke", lesion=str(uuid.uuid4()), **box))
    assert answer["saved"][0]["status"] == "refused"
    assert "no pixel" in answer["saved"][0]["reason"]


def test_only_frames_that_changed_since_are_listed(client: Client, image: str) -> None:
    before = client.get("/api/marks")["row"]
    save(client, brush(image))
    found = client.get(f"/api/marks?after={before}")
    assert [(f["image"], f["frame"]) for f in found["frames"]] == [(image, 0)]
    assert client.get(f"/api/marks?after={found['row']}")["frames"] == []


def test_a_frame_that_is_not_there_is_not_found(client: Client, image: str) -> None:
    assert client.ask("GET", f"/api/images/{image}/frames/1/marks").status == 404
    assert client.ask("GET", "/api/images/../frames/0/marks").status in (404, 422)
    answer = client.ask("POST", "/api/marks", {"rater": "a", "rows": [{"image": "x"}]})
    assert answer.status == 422
    assert answer.json["error"]["fields"]


def test_summaries_are_what_the_rows_say(client: Client, server: Running, image: str) -> None:
    """What is kept in the database for lists equals what follows from the rows alone."""
    save(client, brush(image), row(image, kind="skip"))
    project = server.desk.project
    marking = Marking(project, guess=server.desk._guess, opinion=lambda _: None)
    for place, kept in project.summaries.items():
        from ultraad.serve.marks import fold

        derived = marking._summary(place, fold(marking.rows(place)))
        assert derived.model_copy(update={"guess": kept.guess}) == kept
