"""The beam grid and the random fields that all parts of the simulator use.

Rows are samples along a beam, columns are beams. All lengths are in millimetres, so that the same anatomy can be imaged
with any probe, depth setting and image size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """The positions of all samples of all beams.

    Attributes:
        size: Rows and columns.
        depth_mm: Length of a beam.
        width_mm: Width of the aperture at the skin.
        spread: Growth of the width per mm of depth (0 for a linear array): x = x_skin * (1 + spread * depth).
        radius_mm: Radius of a curved array; 0 for a flat one.
    """

    size: int
    depth_mm: float
    width_mm: float
    spread: float = 0.0
    radius_mm: float = 0.0

    @property
    def dy(self) -> float:
        """Sample distance along a beam in mm."""
        return self.depth_mm / self.size

    @property
    def dx(self) -> float:
        """Beam distance at the skin in mm."""
        return self.width_mm / self.size

    @cached_property
    def depth(self) -> Field:
        """(h 1) distance along the beam in mm."""
        return ((np.arange(self.size, dtype=np.float32) + 0.5) * np.float32(self.dy))[:, None]

    @cached_property
    def beam(self) -> Field:
        """(1 w) position on the aperture in mm, 0 in the middle."""
        return ((np.arange(self.size, dtype=np.float32) + 0.5) * np.float32(self.dx))[None, :] - np.float32(
            self.width_mm / 2
        )

    @cached_property
    def position(self) -> tuple[Field, Field]:
        """(h w) x and y in mm, y down from the middle of the aperture."""
        if self.radius_mm > 0:
            angle, r = self.beam / self.radius_mm, self.radius_mm + self.depth
            return (r * np.sin(angle)).astype(np.float32), (r * np.cos(angle) - self.radius_mm).astype(np.float32)
        x = self.beam * (1 + self.spread * self.depth)
        return x.astype(np.float32), np.broadcast_to(self.depth, x.shape).astype(np.float32)

    def locate(self, x: float, y: float) -> tuple[int, int]:
        """The (column, row) of the sample nearest to a point in mm; may be outside the grid."""
        if self.radius_mm > 0:
            beam, depth = (
                np.arctan2(x, y + self.radius_mm) * self.radius_mm,
                np.hypot(x, y + self.radius_mm) - self.radius_mm,
            )
        else:
            beam, depth = x / (1 + self.spread * max(y, 0.0)), y
        return round(float(beam + self.width_mm / 2) / self.dx - 0.5), round(float(depth) / self.dy - 0.5)

    def scan_conversion(self) -> tuple[Field, Field] | None:
        """The maps (column, row), each (h w), from picture to beam grid for ``cv2.remap``; None if the same."""
        if self.radius_mm == 0 and self.spread == 0:
            return None
        n = self.size
        u = (np.arange(n, dtype=np.float32)[None, :] + 0.5) / n - 0.5
        v = (np.arange(n, dtype=np.float32)[:, None] + 0.5) / n
        if self.radius_mm > 0:
            half = self.width_mm / 2 / self.radius_mm
            top = self.radius_mm * np.cos(half)  # the lowest y of the skin arc
            outer = self.radius_mm + self.depth_mm
            x, y = u * 2 * outer * np.sin(half), top + v * (outer - top)
            beam, depth = np.arctan2(x, y) * self.radius_mm, np.hypot(x, y) - self.radius_mm
        else:
            depth = np.broadcast_to(v * self.depth_mm, (n, n))
            beam = u * self.width_mm * (1 + self.spread * self.depth_mm) / (1 + self.spread * depth)
        column = (beam + self.width_mm / 2) / self.dx - 0.5
        return column.astype(np.float32), (depth / self.dy - 0.5).astype(np.float32)


def uniform(rng: np.random.Generator, interval: tuple[float, float]) -> float:
    """One value, uniform over the interval."""
    return float(rng.uniform(*interval))


def noise(rng: np.random.Generator, grid: Grid, cell_mm: tuple[float, float]) -> Field:
    """Smooth noise (h w) of mean 0 and variance 1 with blobs of about the size ``cell_mm`` (depth, beam)."""
    rows = max(2, round(grid.depth_mm / cell_mm[0])) + 2
    cols = max(2, round(grid.width_mm / cell_mm[1])) + 2
    n = grid.size
    field: Field = rng.standard_normal((min(rows, n), min(cols, n)), dtype=np.float32)
    if max(field.shape) < n // 4:  # the last doubling is linear: three times as fast
        field = np.asarray(cv2.resize(field, (n // 2, n // 2), interpolation=cv2.INTER_CUBIC), dtype=np.float32)
    mean, std = cv2.meanStdDev(field)
    field = (field - np.float32(mean[0, 0])) * np.float32(1 / (std[0, 0] + 1e-6))
    last = cv2.INTER_LINEAR if len(field) == n // 2 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(field, (n, n), interpolation=last), dtype=np.float32)


def line(rng: np.random.Generator, grid: Grid, *, cell_mm: float, amplitude: float) -> Field:
    """A smooth random curve over the aperture (1 w)."""
    knots = rng.standard_normal((1, max(2, round(grid.width_mm / cell_mm)) + 2), dtype=np.float32)
    return np.asarray(cv2.resize(knots, (grid.size, 1), interpolation=cv2.INTER_CUBIC) * np.float32(amplitude))


def step(x: Field, width: float) -> Field:
    """A soft edge at zero, from 0 to 1; ``width`` is the distance from 10 to 90 %."""
    return np.asarray(0.5 + 0.5 * np.tanh(x * np.float32(2.2 / max(width, 1e-3))), dtype=np.float32)


def bump(x: Field, width: float) -> Field:
    """A Gaussian of height 1 at zero with standard deviation ``width / sqrt(2)``."""
    return np.asarray(np.exp(-np.minimum(np.square(x * np.float32(1 / width)), 30)), dtype=np.float32)


def facing(surface: Field) -> Field:
    """How much the level lines of a field face the probe (h w): 1 if horizontal, 0 if vertical."""
    down = cv2.Sobel(surface, cv2.CV_32F, 0, 1, ksize=3)
    across = cv2.Sobel(surface, cv2.CV_32F, 1, 0, ksize=3)
    down, across = np.square(down), np.square(across)
    return np.asarray(down / (down + across + 1e-9), dtype=np.float32)
