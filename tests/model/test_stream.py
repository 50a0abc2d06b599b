"""Streams: every frame in order, or the newest ones; late by a bounded time; nothing left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from tests.helpers import picture
from ultraad.errors import ConfigError, DataError
from ultraad.model.adapt import zero_shot
from ultraad.model.model import Model
from ultraad.model.stream import stream
from ultraad.types import Prediction


def mean(image: np.ndarray) -> Prediction:
    """A model that says how bright a frame is."""
    return Prediction(id="array", score=float(image.mean()), map=None, probs=None, method="mean")


def slow(image: np.ndarray) -> Prediction:
    time.sleep(0.03)
    return mean(image)


def frame(number: int) -> np.ndarray:
    return np.full((8, 8), number % 256, np.uint8)


def grabbers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "ultraad-grabber"]


def gone(seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while grabbers() and time.monotonic() < deadline:
        time.sleep(0.005)
    return not grabbers()


@pytest.fixture(scope="module")
def model() -> Model:
    return zero_shot(backbone="tiny")


def test_a_stream_equals_one_frame_after_the_other(model: Model) -> None:
    frames = [picture(i, lesion=True)[0] for i in range(5)]
    seen = list(model.stream((f, 0.04 * i) for i, f in enumerate(frames)))
    assert [(one.number, one.stamp, one.prediction.id) for one in seen] == [
        (i, 0.04 * i, f"{i}") for i in range(len(frames))
    ]
    for one, image in zip(seen, frames, strict=True):
        alone = model.predict(image)
        assert one.image is image
        assert one.prediction.score == alone.score
        np.testing.assert_array_equal(one.prediction.map, alone.map)
        assert one.delay > 0
    assert gone()


def test_every_frame_of_a_source_that_waits() -> None:
    asked = []

    def source() -> Iterator[np.ndarray]:
        for i in range(30):
            asked.append(i)
            yield frame(i)

    for one in stream(slow, source(), prefetch=2):
        assert one.prediction.score == one.number
        assert one.stamp is None
        assert asked[-1] <= one.number + 4  # two wait, one is on its way, one may have been taken meanwhile
    assert one.number == 29
    assert gone()


def test_the_newest_frames_of_a_source_that_does_not_wait() -> None:
    given, deadline = -1, time.monotonic() + 20

    def camera() -> Iterator[np.ndarray]:
        nonlocal given
        for given in range(100):
            time.sleep(0.001)
            yield frame(given)

    def ten_times_slower(image: np.ndarray) -> Prediction:
        while given < min(int(image[0, 0]) + 10, 99) and time.monotonic() < deadline:
            time.sleep(0.001)
        return mean(image)

    seen = list(stream(ten_times_slower, camera(), newest=True))
    numbers = [one.number for one in seen]
    assert [one.prediction.score for one in seen] == numbers
    assert numbers[-1] == 99
    early = [number for number in numbers if number < 90]
    assert min(np.diff(early)) >= 9  # the frame that came last, or the one before if that is on its way
    assert gone()


def test_nothing_is_dropped_unless_it_is_asked_for_or_late() -> None:
    taken = threading.Semaphore(1)

    def camera() -> Iterator[np.ndarray]:
        for i in range(20):
            taken.acquire()
            yield frame(i)

    def quick(image: np.ndarray) -> Prediction:
        taken.release()
        return mean(image)

    assert [one.number for one in stream(quick, camera(), newest=True)] == list(range(20))
    assert [one.number for one in stream(slow, map(frame, range(20)))] == list(range(20))


def test_errors_of_the_source_and_of_the_model_are_raised_in_the_loop() -> None:
    def unplugged() -> Iterator[np.ndarray]:
        yield from map(frame, range(3))
        msg = "the cable is out"
        raise ConnectionError(msg)

    seen = []
    with pytest.raises(ConnectionError, match="cable"):
        seen.extend(one.number for one in stream(slow, unplugged(), prefetch=5))
    assert seen == [0, 1, 2]
    assert gone()

    def refuse(image: np.ndarray) -> Prediction:
        msg = "no such frame"
        raise DataError(msg)

    with pytest.raises(DataError, match="no such frame"):
        list(stream(refuse, map(frame, range(100))))
    assert gone()


@pytest.mark.parametrize("newest", [False, True])
def test_leaving_the_loop_ends_the_thread(newest: bool) -> None:
    def endless() -> Iterator[np.ndarray]:
        number = 0
        while True:
            time.sleep(0.001)
            yield frame(number)
            number += 1

    loop = stream(mean, endless(), newest=newest)
    for one in loop:
        if one.number >= 3:
            break
    loop.close()
    assert gone()


def test_the_former_name_of_prefetch_still_works_with_a_warning(model: Model) -> None:
    with pytest.warns(DeprecationWarning, match="prefetch="):
        found = list(model.stream([np.zeros((40, 50), np.uint8)] * 2, ahead=2))
    assert [one.number for one in found] == [0, 1]
    with pytest.warns(DeprecationWarning, match="prefetch="), pytest.raises(ConfigError, match="prefetch=0"):
        model.stream([], ahead=0)


def test_an_empty_source_and_a_queue_without_room() -> None:
    assert list(stream(mean, [])) == []
    with pytest.raises(ConfigError, match="prefetch=0"):
        stream(mean, [], prefetch=0)


def test_a_frame_that_cannot_be_scored_is_skipped_if_that_is_wanted() -> None:
    def fussy(image: np.ndarray) -> Prediction:
        if image[0, 0] == 2:
            raise RuntimeError("no such operation")
        if image[0, 0] == 3:
            raise DataError("too dark")
        return mean(image)

    failed: list[tuple[int, str]] = []
    seen = list(stream(fussy, map(frame, range(5)), on_error=lambda n, e: failed.append((n, str(e)))))
    assert [one.number for one in seen] == [0, 1, 4]
    assert failed == [(2, "frame 2 could not be scored: RuntimeError: no such operation"), (3, "frame 3: too dark")]
    with pytest.raises(RuntimeError):
        list(stream(fussy, map(frame, range(5))))
    assert gone()
