"""Smooth the predictions of a cine, a video or a camera over time; causal, so that a file and a live picture agree.

    s_t = s_(t-1) + (1 - exp(-d / T)) (x_t - s_(t-1)),   s_0 = x_0

x is the score, the map or the class probabilities of a frame, d the seconds since the frame before that was predicted,
T the time constant: the first-order low-pass of electronics, sampled at uneven times. A frame that was skipped or
failed makes d longer; nothing waits for later frames. T is chosen by the user, 0 is none, the default: there is no
marked cine here to choose one on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from ultraad.errors import ConfigError, DataError
from ultraad.io.image import is_dicom
from ultraad.io.video import USUAL_RATE
from ultraad.types import Prediction, Result, Sample


def checked_smoothing(seconds: float) -> float:
    """The time constant.

    Raises:
        ConfigError: If it is negative or no number.
    """
    if not 0 <= seconds < math.inf:
        msg = f"smooth={seconds}: wanted a time constant in seconds, at least 0; 0 for none"
        raise ConfigError(msg)
    return seconds


class Smoother:
    """The smoothed predictions of the frames of one source, one after the other; keeps one map.

    Args:
        seconds: Time constant; 0 changes nothing.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = checked_smoothing(seconds)
        self._last: tuple[float, Prediction] | None = None

    def next(self, found: Prediction, at: float) -> Prediction:
        """The smoothed prediction of the next frame.

        Args:
            found: That of the frame alone.
            at: Its time in seconds; not before the last one.
        """
        if not self._seconds:
            return found
        if self._last is not None:
            share = -math.expm1(-max(0.0, at - self._last[0]) / self._seconds)
            found = _between(self._last[1], found, share)
        self._last = at, found
        return found


def smoothed(results: Iterable[Result], seconds: float) -> Iterator[Result]:
    """Results in which the frames of each file are smoothed, in the order in which they come; stills are unchanged.

    A DICOM cine without a frame time counts as 25 frames a second.

    Args:
        results: The frames of a file come one after the other.
        seconds: Time constant; 0 changes nothing.
    """
    source: Path | None = None
    smoother = Smoother(seconds)
    time_of: Callable[[Sample], float | None] = _no_time
    for result in results:
        if seconds and result.sample.image != source:
            source, smoother, time_of = result.sample.image, Smoother(seconds), _clock(result.sample)
        at = time_of(result.sample)
        yield result if at is None else replace(result, prediction=smoother.next(result.prediction, at))


def _between(before: Prediction, now: Prediction, share: float) -> Prediction:
    """A prediction a share of the way from one to the other; a map of another size begins anew."""
    map_, probs = now.map, now.probs
    if map_ is not None and before.map is not None and map_.shape == before.map.shape:
        map_ = before.map + share * (map_ - before.map)
    if probs is not None and before.probs is not None and probs.keys() == before.probs.keys():
        probs = {name: before.probs[name] + share * (p - before.probs[name]) for name, p in probs.items()}
    return replace(now, score=before.score + share * (now.score - before.score), map=map_, probs=probs, grid=None)


def _no_time(_: Sample) -> float | None:
    return None


def _clock(first: Sample) -> Callable[[Sample], float | None]:
    """The time of each frame of a file; none in a file that is no cine."""
    if first.seconds is not None:
        return lambda sample: sample.seconds
    try:
        if not is_dicom(first.image):
            return _no_time
        from ultraad.io import dicom

        facts = dicom.metadata(first.image)
    except DataError:
        return _no_time
    if facts["frames"] < 2:
        return _no_time
    step = (facts["frame_ms"] or 1000 / USUAL_RATE) / 1000
    return lambda sample: sample.frame * step
