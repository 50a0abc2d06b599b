"""The program of the worker, in this process: what it makes ahead is what it would have made."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ultraad.data.support import draw_support
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
