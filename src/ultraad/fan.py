"""The fan of a picture: which of its pixels show tissue."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FanKind = Literal["linear", "sector", "curved array", "whole", "none"]
FanChoice = Literal["auto", "off"]
"""``"auto"``: the fan is looked for in the pixels; ``"off"``: the whole picture counts."""


@dataclass(frozen=True, slots=True)
class Fan:
    """The part of a picture that shows tissue, by the shape of its array (:func:`ultraad.io.fan.find_fan`).

    Attributes:
        kind: ``"linear"``: a rectangle; ``"sector"`` and ``"curved array"``: a sector, with a hole around its point;
            ``"whole"``: tissue fills the picture; ``"none"``: none is certain, so the whole picture counts.
        box: (x, y, width, height) of its pixels; None for the whole picture.
        apex: The point (x, y) where its sides meet, in pixels, (0, 0) the outer corner; None without.
        radii: Distances from that point where it begins and ends, in pixels.
        angles: Of its left and its right side in degrees from straight down, positive to the right.
    """

    kind: FanKind
    box: tuple[int, int, int, int] | None = None
    apex: tuple[float, float] | None = None
    radii: tuple[float, float] = (0.0, 0.0)
    angles: tuple[float, float] = (0.0, 0.0)

    @property
    def masks(self) -> bool:
        """Whether there may be pixels outside."""
        return self.box is not None

    def mask(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Bool (H W), True on tissue; a pixel belongs to it if its centre does. Not to be written to."""
        return _fan_mask(self, shape)


@lru_cache(maxsize=16)  # the frames of a cine, and of a set of one scanner, share a fan
def _fan_mask(fan: Fan, shape: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, dtype=np.bool_)
    x, y, w, h = fan.box or (0, 0, *shape[::-1])
    mask[y : y + h, x : x + w] = True
    if fan.apex is not None:
        down, right = np.ogrid[0.5 - fan.apex[1] : shape[0] - fan.apex[1], 0.5 - fan.apex[0] : shape[1] - fan.apex[0]]
        radius, angle = np.hypot(down, right), np.degrees(np.arctan2(right, down))
        mask &= (radius >= fan.radii[0]) & (radius <= fan.radii[1])
        mask &= (angle >= fan.angles[0]) & (angle <= fan.angles[1])
    mask.flags.writeable = False
    return mask
