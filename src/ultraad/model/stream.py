"""Predict frames that arrive one by one from a scanner or a camera, with a bounded delay.

    source -> (a thread) -> at most ``prefetch`` waiting frames -> predict -> the caller's loop

If frames arrive faster than they can be predicted, a display drops the late ones and a recorder makes the source wait.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from threading import Condition, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ultraad.errors import Caught, ConfigError, DataError, UltraadError, brief

if TYPE_CHECKING:
    from ultraad.data.loader import Readable
    from ultraad.types import Prediction


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """One predicted frame.

    Attributes:
        number: Position in the source, from 0; the numbers of dropped frames are missing.
        stamp: The value that came with the frame, e.g. its time; None if there was none.
        image: The frame as the source gave it.
        prediction: The prediction; its id is the number.
        delay: Seconds from the frame's arrival to its prediction, waiting included.
    """

    number: int
    stamp: Any
    image: Readable
    prediction: Prediction
    delay: float


def stream(
    predict: Callable[[Readable], Prediction],
    frames: Iterable[Readable | tuple[Readable, Any]],
    *,
    newest: bool = False,
    prefetch: int = 1,
    on_error: Callable[[int, DataError], None] | None = None,
) -> Generator[Live, None, None]:
    """Predict frames as they arrive; see :meth:`ultraad.model.predictor.Predictor.stream` for the arguments.

    Args:
        predict: One frame to its prediction; called in the caller's thread, one frame at a time.
        frames: The source, iterated in a separate thread.
        newest: Replace waiting frames by newer ones.
        prefetch: Most frames that wait.
        on_error: Called with the number of each frame that cannot be predicted, which is then skipped; None raises.

    Returns:
        Predicted frames in the order of the source. Errors of the source and of ``predict`` are raised here.

    Raises:
        ConfigError: If ``prefetch`` is below 1.
    """
    if prefetch < 1:
        msg = f"prefetch={prefetch}: at least 1 frame must be able to wait for the model; give a number >= 1"
        raise ConfigError(msg)
    return _predicted(predict, frames, _Waiting(prefetch, newest=newest), on_error)


@dataclass(frozen=True, slots=True)
class _Frame:
    """A waiting frame; ``arrived`` in seconds of ``time.monotonic``."""

    number: int
    stamp: Any
    image: Readable
    arrived: float


class _Waiting(AbstractContextManager["_Waiting"]):
    """The frames between the source's thread, which keeps the queue open with ``with``, and the caller's thread.

    Attributes:
        error: The error that ended the source; None if there was none.
    """

    error: BaseException | None = None

    def __init__(self, most: int, *, newest: bool) -> None:
        self._most, self._newest = most, newest
        self._frames: deque[_Frame] = deque()
        self._changed = Condition()
        self._ended = self._left = False

    def put(self, frame: _Frame) -> bool:
        """Add a frame, in place of the oldest if only the newest count; False if the caller takes no more frames."""
        with self._changed:
            if self._newest and len(self._frames) == self._most:
                self._frames.popleft()
            self._changed.wait_for(lambda: self._left or len(self._frames) < self._most)
            self._frames.append(frame)
            self._changed.notify_all()
            return not self._left

    def take(self) -> _Frame | None:
        """The oldest frame, as soon as there is one; None after the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._ended)
            frame = self._frames.popleft() if self._frames else None
            self._changed.notify_all()
            return frame

    def leave(self) -> None:
        """Take no more frames."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """End the source; its error is kept for the caller and does not end up in the log of a thread."""
        with self._changed:
            self._ended, self.error = True, error
            self._changed.notify_all()
        return True


def _predicted(
    predict: Callable[[Readable], Prediction],
    frames: Iterable[Readable | tuple[Readable, Any]],
    waiting: _Waiting,
    on_error: Callable[[int, DataError], None] | None,
) -> Generator[Live, None, None]:
    def grab() -> None:
        with waiting:
            for number, item in enumerate(frames):
                image, stamp = item if isinstance(item, tuple) else (item, None)
                if not waiting.put(_Frame(number, stamp, image, time.monotonic())):
                    break

    # A daemon thread: a source that gives no more frames cannot be interrupted, and must not keep the program alive.
    Thread(target=grab, name="ultraad-grabber", daemon=True).start()
    try:
        while (frame := waiting.take()) is not None:
            found: Prediction | None = None
            with Caught() as caught:
                found = predict(frame.image)
            if found is None:
                _report(frame.number, caught.error, on_error)
                continue
            delay = time.monotonic() - frame.arrived
            yield Live(frame.number, frame.stamp, frame.image, replace(found, id=str(frame.number)), delay)
    finally:
        waiting.leave()
    if waiting.error is not None:
        raise waiting.error


def _report(number: int, error: Exception | None, on_error: Callable[[int, DataError], None] | None) -> None:
    """Hand over what is wrong with a frame, or raise it; what is wrong with more than the frame is raised."""
    assert error is not None
    if isinstance(error, DataError):
        named = DataError(f"frame {number}: {error}")
    elif on_error is None or isinstance(error, UltraadError):
        raise error
    else:
        named = DataError(f"frame {number} could not be scored: {brief(error)}")
    if on_error is None:
        raise named from error
    on_error(number, named)
