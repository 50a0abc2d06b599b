"""Mass over scores in constant memory: exact at first, with a known error after that.

A pixel metric needs the number of pixels of each kind above each threshold. Keeping all pixels is exact, but the memory
grows with the data set. A histogram has a constant size, but needs the score range in advance and is coarse where many
scores are close together, as softmax maps are near 0 and 1. The sketch keeps every distinct score as its own bin until
there are too many, then merges neighbours of little mass. Bins are closed intervals that never overlap, so only one
thing is lost: the order of scores inside a bin whose two ends differ.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Values = NDArray[np.float32]


def runs(values: Values) -> NDArray[np.intp]:
    """Start of each run of equal values in a sorted vector."""
    return np.flatnonzero(np.r_[True, values[1:] != values[:-1]][: values.size])


def search(ends: Values, values: Values) -> NDArray[np.intp]:
    """``np.searchsorted(ends, values)`` for two rising vectors, by a stable sort, which merges sorted runs fast."""
    order = np.argsort(np.concatenate([values, ends]), kind="stable")
    return np.flatnonzero(order < values.size) - np.arange(values.size)


class Sketch:
    """Masses of several kinds over one score axis.

    Args:
        kinds: Number k of rows of mass.
        capacity: Merging starts above this many bins and leaves about as many; see :func:`compress`. A merged bin holds
            at most ``2 k / capacity`` of a kind's total at that time.
        graded: Never merge across the fixed grid of :func:`cells`, so that a range with few scores so far keeps its
            resolution; costs some ten thousand bins.
    """

    def __init__(self, kinds: int, *, capacity: int, graded: bool = False) -> None:
        self.capacity = capacity
        self.graded = graded
        self._low: Values = np.empty(0, np.float32)  # (m,) rising
        self._high: Values = np.empty(0, np.float32)
        self._mass: Array = np.empty((kinds, 0))
        self._pending: list[tuple[Values, Array]] = []
        self._waiting = 0

    def add(self, values: Values, mass: Array) -> None:
        """Add masses (k m), all >= 0, at float32 values (m,), rising and distinct."""
        if self._high.size:
            at = search(self._high, values)  # the first bin that reaches up to the value
            inside = (self._low.take(at, mode="clip") <= values) & (at < self._high.size)
            for row, new in zip(self._mass, mass, strict=True):
                hit = np.flatnonzero(inside & (new > 0))
                np.add.at(row, at[hit], new[hit])
            outside = np.flatnonzero(~inside)
            values, mass = values[outside], mass.take(outside, axis=1)
        if values.size:
            self._pending.append((values, mass))
            self._waiting += values.size
        if self._waiting > self.capacity:
            self._merge()

    def bins(self) -> tuple[Values, Values, Array]:
        """(low (m,), high (m,), mass (k m)) of the bins, rising; a bin with ``low == high`` is one exact score."""
        if self._waiting:
            self._merge()
        return self._low, self._high, self._mass

    def _merge(self) -> None:
        values = [v for v, _ in self._pending]
        low = np.concatenate([self._low, *values])
        order = np.argsort(low, kind="stable")
        low, high = low[order], np.concatenate([self._high, *values])[order]
        mass = np.concatenate([self._mass, *(m for _, m in self._pending)], axis=1).take(order, axis=1)
        starts = runs(low)  # pending values may repeat each other, but are outside the bins
        self._low, self._high = low[starts], high[starts]
        self._mass = np.add.reduceat(mass, starts, axis=1)
        self._pending, self._waiting = [], 0
        if self._low.size > self.capacity:
            edges = cells(self._low) if self.graded else None
            self._low, self._high, self._mass = compress(
                self._low, self._high, self._mass, bins=self.capacity, within=edges
            )


def compress(
    low: Values, high: Values, mass: Array, *, bins: int, within: NDArray[np.int64] | None = None
) -> tuple[Values, Values, Array]:
    """Merge neighbouring bins into bins of about equal mass, averaged over the shares of the kinds.

    Args:
        low: (m,) rising.
        high: (m,) upper ends.
        mass: (k m).
        bins: Bins wanted. A bin with more than one over this of the mass is never merged, so there can be up to three
            times more.
        within: (m,) bins with different numbers are never merged.

    Returns:
        low, high, mass of the merged bins. A merged bin ends where the next one starts, so later scores fit in.
    """
    total = mass.sum(axis=1)
    share = np.divide(1 / np.count_nonzero(total), total, out=np.zeros_like(total), where=total > 0) @ mass  # (m,)
    slot = ((np.cumsum(share) - share) * bins).astype(np.int64)
    heavy = share > 1 / bins
    cut = (slot[1:] != slot[:-1]) | heavy[1:] | heavy[:-1]
    if within is not None:
        cut |= within[1:] != within[:-1]
    starts = np.flatnonzero(np.r_[True, cut])
    low, high = low[starts], high[np.r_[starts[1:] - 1, low.size - 1]]
    merged = low < high
    high[:-1][merged[:-1]] = np.nextafter(low[1:], np.float32(-np.inf))[merged[:-1]]
    return low, high, np.add.reduceat(mass, starts, axis=1)


def cells(values: Values) -> NDArray[np.int64]:
    """Cell in a fixed grid over all floats, rising: 512 cells per factor of 2 of |v|, and of 1 - v on (0.5, 1]."""
    half, one = 0x3F000000, 0x3F800000  # bits of 0.5 and 1.0 as float32; bits of positive floats rise with the value

    def bits(v: Values) -> NDArray[np.int64]:
        return np.abs(v).view(np.int32).astype(np.int64)

    key = np.where(values < 0, -bits(values), bits(values))
    key = np.where(values > 0.5, 2 * half - bits(1 - values), key)
    return np.where(values > 1, 2 * half - one + bits(values), key) >> 14
