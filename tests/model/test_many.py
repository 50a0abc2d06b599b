"""Many images at a time: the numbers of one thread, in their order, whatever the number of threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import save
from ultraad import methods
from ultraad.errors import ConfigError
from ultraad.model import exported
from ultraad.model.adapt import zero_shot
from ultraad.types import Result

METHODS = [name for name in methods.available() if methods.get(name).info.zero_shot]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    return [save(root / f"{i:02d}.png", rng.integers(0, 256, (40, 50 + i, 3), dtype=np.uint8)) for i in range(21)]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def numbers(results: list[Result]) -> list[tuple[object, ...]]:
    return [
        (r.sample.id, p.score, None if p.map is None else p.map.tobytes(), p.probs, p.in_scope)
        for r in results
        for p in [r.prediction]
    ]


@pytest.mark.parametrize("name", METHODS)
def test_numbers_do_not_depend_on_the_number_of_threads(name: str, images: list[Path], threads: None) -> None:
    model = zero_shot(backbone="tiny", method=name)
    found = []
    for count in (1, 3):
        torch.set_num_threads(count)
        found.append(numbers(list(model.predict_many(images, batch_size=4))))
        assert torch.get_num_threads() == count
    assert found[0] == found[1]
    assert [id_ for id_, *_ in found[0]] == [str(path) for path in images]


def test_batches_are_computed_at_the_same_time(images: list[Path], threads: None, monkeypatch) -> None:
    model = zero_shot(backbone="tiny")
    both, predict = threading.Barrier(2, timeout=60), model._predict
    monkeypatch.setattr(model, "_predict", lambda *a: (both.wait(), predict(*a))[1])  # waits for a second batch
    torch.set_num_threads(2)
    assert len(list(model.predict_many(images[:8], batch_size=4))) == 8


def test_what_fails_is_told_in_order_by_the_thread_that_asks(images: list[Path], threads: None, monkeypatch) -> None:
    model = zero_shot(backbone="tiny")
    predict, told = model._predict, []

    def failing(inputs, ids):
        if any(id_.endswith(("03.png", "09.png")) for id_ in ids):
            msg = "made up"
            raise RuntimeError(msg)
        return predict(inputs, ids)

    monkeypatch.setattr(model, "_predict", failing)
    torch.set_num_threads(2)
    note = lambda sample, error: told.append((sample.image.name, threading.current_thread(), str(error)))  # noqa: E731
    found = list(model.predict_many(images, batch_size=4, on_error=note))
    assert len(found) == 19
    assert [(name, thread) for name, thread, _ in told] == [(n, threading.main_thread()) for n in ("03.png", "09.png")]
    assert "could not be scored" in told[0][2]
    with pytest.raises(RuntimeError, match="made up"):
        list(model.predict_many(images, batch_size=4))
    monkeypatch.setattr(model, "_predict", lambda *_: (_ for _ in ()).throw(ConfigError("no data's fault")))
    with pytest.raises(ConfigError):
        list(model.predict_many(images, batch_size=4, on_error=note))


def test_a_run_that_is_left_ends_its_threads(images: list[Path], threads: None) -> None:
    torch.set_num_threads(2)
    running = zero_shot(backbone="tiny").predict_many(images, batch_size=2)
    next(running)
    running.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("ultraad-")]
    assert torch.get_num_threads() == 2


def test_the_graph_that_ships_gives_the_same_numbers_in_any_batch_and_any_thread(images: list[Path]) -> None:
    pytest.importorskip("onnxruntime")
    runs = [
        numbers(list(exported.zero_shot(threads=count).predict_many(images[:7], batch_size=size)))
        for count, size in ((1, 8), (2, 3), (3, 1))
    ]
    assert runs[0] == runs[1] == runs[2]
