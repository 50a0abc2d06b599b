"""Many images through a model: read ahead by threads, several batches computed at a time, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultraad.data.fans import fan_of
from ultraad.data.loader import Decoded, warn_misaligned
from ultraad.data.prefetch import Threads, prefetch
from ultraad.errors import Caught, DataError, UltraadError, brief
from ultraad.fan import Fan
from ultraad.io.faults import in_this_run
from ultraad.types import Box, Geometry, Prediction, Result, Sample

MOST_LANES = 8
"""Batches that are computed at a time at most, which bounds the memory; further threads help each of them."""

Lanes = Callable[[], AbstractContextManager[tuple[int, Callable[[], object]]]]
"""A block in which so many batches are computed at a time, and what each thread for that does first."""

_Input = tuple[Decoded, tuple[Any, Geometry]]
_Predict = Callable[[Sequence[tuple[Any, Geometry]], Sequence[str]], list[Prediction]]


def predicted(
    samples: Iterable[tuple[Sample, Callable[[Sample], Decoded]]],
    *,
    prepare: Callable[[NDArray[np.uint8], Box | None, Fan | None], tuple[Any, Geometry]],
    predict: _Predict,
    lanes: Lanes,
    batch_size: int,
    on_error: Callable[[Sample, DataError], None] | None,
) -> Iterator[Result]:
    """The results of samples, each with the function that reads it.

    Args:
        samples: What to predict; results keep this order.
        prepare: The model's input of a picture; see :class:`ultraad.model.predictor.Predictor` for these three.
        predict: Predictions from inputs and ids.
        lanes: How many batches it computes at a time.
        batch_size: Images per forward pass.
        on_error: Called in the consumer's thread for each sample that cannot be read or scored, which is then skipped;
            None raises.
    """

    def load(item: tuple[Sample, Callable[[Sample], Decoded]]) -> _Input:
        sample, read = item
        decoded = read(sample)
        return decoded, prepare(decoded.image, sample.region, fan_of(decoded.sample))

    failed = None if on_error is None else lambda item, error: on_error(item[0], error)
    misaligned: list[str] = []
    with lanes() as (count, settle):
        loading = prefetch(samples, load, batch_size=batch_size, on_error=failed, workers=max(2, count))
        pool = Threads(count, name="ultraad-model", initializer=settle)
        score = in_this_run(lambda batch: _scored(predict, batch, strict=on_error is None))
        ahead: deque[Future[list[tuple[Decoded, Prediction | DataError]]]] = deque()
        try:
            more = True
            while more or ahead:
                while more and len(ahead) <= count:  # one waits, so that no thread does
                    batch = next(loading, None)
                    more = batch is not None
                    if batch is not None:
                        misaligned += [d.sample.id for d, _ in batch if d.misaligned]
                        ahead.append(pool.submit(score, batch))
                for decoded, found in ahead.popleft().result() if ahead else ():
                    if isinstance(found, DataError):
                        assert on_error is not None  # else it was raised
                        on_error(decoded.sample, found)
                    else:
                        yield Result(decoded.sample, decoded.image, found, decoded.mask)
        finally:
            pool.end()
            loading.close()
            warn_misaligned(misaligned)


def _scored(
    predict: _Predict, batch: Sequence[_Input], *, strict: bool
) -> list[tuple[Decoded, Prediction | DataError]]:
    """Predict a batch. If that fails, and not ``strict``, its images one by one: those that fail alone get an error."""
    found: list[Prediction] = []
    with Caught() as caught:
        found = predict([x for _, x in batch], [d.sample.id for d, _ in batch])
    e = caught.error
    if e is None:
        return [(d, prediction) for (d, _), prediction in zip(batch, found, strict=True)]
    if strict or (isinstance(e, UltraadError) and not isinstance(e, DataError)):
        raise e
    if len(batch) > 1:
        return [pair for item in batch for pair in _scored(predict, [item], strict=False)]
    decoded = batch[0][0]
    return [(decoded, DataError(f"{decoded.sample.id} could not be scored: {brief(e)}"))]
