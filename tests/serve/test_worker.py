"""The program of the worker, in this process: what it makes ahead is what it would have made."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import helpers
from tests.fans import sector, shown, with_text
from ultraad.data.support import draw_support
from ultraad.io.maps import read_map
from ultraad.model.model import load
from ultraad.serve.child import Message
from ultraad.serve.decode import SAMPLES
from ultraad.serve.orders import same_fit
from ultraad.serve.work import Worker


class Server:
    """The other side: orders go in, and what was said is kept."""

    def __init__(self, *orders: dict[str, Any]) -> None:
        self.orders, self.said = orders, list[dict[str, Any]]()

    def send(self, what: dict[str, Any], data: bytes = b"") -> None:
        self.said.append(what)

    def messages(self) -> Iterator[Message]:
        yield from (Message(order) for order in self.orders)
        while self.said.count({"say": "finished"}) + self.said.count({"say": "stopped"}) < self.waits:
            time.sleep(0.01)

    @property
    def waits(self) -> int:
        return sum(order["do"] != "cancel" for order in self.orders)

    def run(self) -> list[dict[str, Any]]:
        Worker(self).run()  # type: ignore[arg-type]
        return self.said


@pytest.fixture
def order(folder_dir: Path, tmp_path: Path) -> dict[str, Any]:
    support = draw_support(folder_dir, shots=2)
    found = {
        "samples": SAMPLES.dump_python(list(support.samples), mode="json"),
        "classes": support.classes,
        "normal_class": support.normal_class,
        "source": support.source,
    }
    return {
        "do": "adapt", "number": 1, "method": "ultraad", "backbone": "tiny", "seed": 0, "support": found, "places": [],
        "options": {"train.epochs": 2, "train.views": 1, "calibration.folds": 2}, "visible": [], "rest": [],
        "support_file": str(tmp_path / "support.json"), "folder": str(tmp_path / "model"), "maps": str(tmp_path / "m"),
    }  # fmt: skip


def digests(said: list[dict[str, Any]]) -> list[str]:
    return [what["facts"]["digest"] for what in said if what["say"] == "model"]


def fitted(said: list[dict[str, Any]]) -> int:
    return sum(what["say"] == "progress" and what["state"] == "fitting" for what in said)


def test_a_model_made_ahead_is_the_one_that_would_be_made(order: dict[str, Any]) -> None:
    ahead = {**order, "do": "warm", "ready": True}
    alone = Server(order).run()
    after = Server(ahead, order).run()
    assert digests(after) == digests(alone) != []
    assert fitted(after) == fitted(alone) == 2, "it is fitted once"


def test_a_model_made_ahead_of_other_options_is_not_used(order: dict[str, Any]) -> None:
    ahead = {**order, "do": "warm", "ready": True, "options": {**order["options"], "train.epochs": 1}}
    assert digests(Server(ahead, order).run()) == digests(Server(order).run())


def test_only_what_is_asked_for_is_waited_for(order: dict[str, Any]) -> None:
    ahead = {**order, "do": "warm", "ready": True}
    assert same_fit(ahead, order)
    for other in ({"seed": 1}, {"options": {}}, {"do": "check"}, {"support": {**order["support"], "samples": []}}):
        assert not same_fit(ahead, {**order, **other})
    assert not same_fit({**ahead, "ready": False}, order)
    assert not same_fit(None, order)


def test_a_cancellation_counts_for_the_orders_before_it_and_none_after(order: dict[str, Any]) -> None:
    said = Server(order, {"do": "cancel"}, {**order, "number": 2}).run()
    assert [what["say"] for what in said if what["say"] in ("stopped", "finished")] == ["stopped", "finished"]
    assert {what["facts"]["number"] for what in said if what["say"] == "model"} == {2}


def test_the_worker_sees_pictures_as_the_marked_ones_are_seen(order: dict[str, Any], tmp_path: Path) -> None:
    helpers.save(tmp_path / "fan.png", with_text(shown(sector())))
    support = order["support"]
    seen = {**support, "samples": [{**sample, "fan": "auto"} for sample in support["samples"]]}
    units = [["a", 0, str(tmp_path / "fan.png")]]
    facts, scores, outside = {}, {}, {}
    for name, marks in (("auto", seen), ("off", support)):
        said = Server({**order, "support": marks, "visible": units, "maps": str(tmp_path / name)}).run()
        facts[name] = [what["facts"]["fan"] for what in said if what["say"] == "model"]
        (scores[name],) = [f["score"] for what in said if what["say"] == "predictions" for f in what["found"]]
        found = read_map(tmp_path / name / "a-0.png")
        outside[name] = found[: len(found) // 3, :3].max()  # the upper left corner
    assert facts == {"auto": ["auto", "auto"], "off": ["off", "off"]}
    assert scores["auto"] != scores["off"]
    assert outside["auto"] == 0 < outside["off"]


def test_frames_that_were_predicted_before_the_cross_validation_are_graded_after_it(
    order: dict[str, Any], tmp_path: Path
) -> None:
    path = order["support"]["samples"][0]["image"]
    said = Server({**order, "visible": [["a", 0, path]], "rest": [["b", 0, path]]}).run()
    early = {f["image"]: f for what in said if what["say"] == "predictions" for f in what["found"]}
    (graded,) = [what["found"] for what in said if what["say"] == "graded"]
    assert {f["image"]: f["set"] for f in early.values()} == {"a": None, "b": None}
    model = load(order["folder"])
    for one in graded:
        probs, classes = model.graded(early[one["image"]]["probs"])
        assert (one["probs"], one["set"]) == (probs, classes)
        assert sum(one["probs"].values()) == pytest.approx(1)


def test_sets_are_given_where_the_marks_can_promise_them_and_else_it_is_said_why(
    order: dict[str, Any], folder_dir: Path
) -> None:
    said = Server(order).run()
    before, after = (what["facts"]["sets"] for what in said if what["say"] == "model")
    assert before == "no prediction sets: no marked image was held out to promise anything"
    n = sum(f["label"] is not None for f in order["support"]["samples"])
    assert after == (
        f"no prediction sets at 90 %: with {n} held-out images no promise above {100 * n // (n + 1)} % can be made; "
        "choose a lower level, or adapt on at least 9"
    )
    support = draw_support(folder_dir, shots=3)
    assert len(support.samples) == 9
    samples = SAMPLES.dump_python(list(support.samples), mode="json")
    path = samples[0]["image"]
    more = {**order, "support": {**order["support"], "samples": samples}, "visible": [["a", 0, path]]}
    said = Server(more).run()
    assert [w["facts"]["sets"] for w in said if w["say"] == "model"][-1].startswith("prediction sets at 90 % rest on 9")
    (graded,) = [what["found"] for what in said if what["say"] == "graded"]
    assert graded[0]["set"] == load(order["folder"]).with_sets("0.9").predict(path).prediction_set
