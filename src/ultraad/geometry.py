"""The way from the square input of a model back to the pixels of a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ultraad.fan import Fan

if TYPE_CHECKING:
    from numpy.typing import NDArray

Box = tuple[int, int, int, int]
"""(x, y, width, height) in pixels."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a square model input was made from an image, and how to map it back to the file's own pixels.

    Model pixel centre (y, x) maps to original (``(y + .5 - pad_top) / scale_y - .5 + region_top``, likewise x).

    Attributes:
        original_hw: (H, W) of the file.
        size: Side s of the model input.
        scale: (row, col) model pixels per original pixel.
        pad: (top, left) model pixels of letterbox padding before the picture.
        content_hw: (h, w) of the picture inside the model input.
        region: The part of the file's picture that was used; None for the whole.
        fan: The pixels that show tissue; None for all.
    """

    original_hw: tuple[int, int]
    size: int
    scale: tuple[float, float]
    pad: tuple[int, int]
    content_hw: tuple[int, int]
    region: Box | None = None
    fan: Fan | None = None

    def invert(self, grid: NDArray[np.float32]) -> NDArray[np.float32]:
        """Resample a map to the original pixel grid.

        Args:
            grid: float (mh mw), any resolution, covering the whole model input.

        Returns:
            float32 (H W) on the original pixel grid; bilinear, ``align_corners=False``. 0 outside the region
            and the fan.
        """
        import cv2  # four times as fast as torch, whose last digits differ because it computes coordinates in float32

        home: NDArray[Any] = np.array(grid, dtype=np.float32)  # a copy: never returned as a view
        h, w = self.content_hw
        if (h, w) != (self.size, self.size):  # letterbox: resize to model pixels, then cut the picture out
            if home.shape != (self.size, self.size):
                home = cv2.resize(home, (self.size, self.size), interpolation=cv2.INTER_LINEAR)
            top, left = self.pad
            home = home[top : top + h, left : left + w]
        x, y, width, height = self.region or (0, 0, *self.original_hw[::-1])
        if home.shape != (height, width):
            home = cv2.resize(home, (width, height), interpolation=cv2.INTER_LINEAR)
        if self.region is not None:
            part, home = home, np.zeros(self.original_hw, dtype=np.float32)
            home[y : y + height, x : x + width] = part
        if self.fan is not None and self.fan.masks:
            home = home * self.fan.mask(self.original_hw)
        return np.asarray(home, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class MapGrid:
    """A map as the method drew it, before it was brought to the pixels of its file.

    Attributes:
        values: float32 (mh mw), any resolution, covering the whole model input.
        geometry: The way to the pixels.
    """

    values: NDArray[np.float32]
    geometry: Geometry

    def on_pixels(self) -> NDArray[np.float32]:
        """The map float32 (H W) on the original pixel grid."""
        return self.geometry.invert(self.values)
