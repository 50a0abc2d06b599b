"""Pictures in which the fan of a probe stands on black."""

from __future__ import annotations

import math

import numpy as np

from ultraad.fan import Fan

SIZE = (240, 320)


def sector(
    *, lean: float = 35, near: float = 40, far: float = 190, top: float = 15, middle: float = 160, kind: str = ""
) -> Fan:
    """A fan whose near arc ends at a height; angles in degrees, lengths in pixels."""
    apex = (middle, top - near * math.cos(math.radians(lean)))
    return Fan(kind or ("curved array" if near else "sector"), (0, 0, *SIZE[::-1]), apex, (near, far), (-lean, lean))


def rectangle(box: tuple[int, int, int, int] = (40, 10, 230, 220)) -> Fan:
    """What a linear array shows."""
    return Fan("linear", box)


def shown(fan: Fan, *, seed: int = 0, size: tuple[int, int] = SIZE, brightness: float = 70) -> np.ndarray:
    """Speckle in a fan, uint8 (h w 3), black outside."""
    rng = np.random.default_rng(seed)
    grey = (12 + rng.rayleigh(brightness, size)).clip(0, 255) * fan.mask(size)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)


def with_text(picture: np.ndarray) -> np.ndarray:
    """The same with letters, a scale and a pictogram in the corners."""
    out = picture.copy()
    for n in range(8):
        out[6 + 12 * (n // 4) : 14 + 12 * (n // 4), 4 + 7 * (n % 4) : 7 + 7 * (n % 4)] = 220  # letters
        out[40 + 20 * n, -8:] = 200  # a scale
    out[-30:-4, 6:30] = 160
    out[-28:-6, 8:28] = 0
    return out


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union."""
    return float((a & b).sum() / (a | b).sum())
