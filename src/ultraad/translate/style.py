"""The look of a set of pictures in a few numbers, and pictures in that look.

Black pixels are no tissue: they are not counted, and stay black. Colours are kept, as what changes is the mean of the
three channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

StyleWay = Literal["histogram", "fourier", "moments"]
STYLES: tuple[StyleWay, ...] = get_args(StyleWay)
CYCLES = 32  # highest frequency whose amplitude is kept, in cycles per side


@dataclass(frozen=True, slots=True, eq=False)
class Style:
    """The look of a set of pictures.

    Attributes:
        quantiles: f64 (256,), grey values at equal shares of the tissue; every picture counts the same.
        mean: Mean grey value of the tissue, mean over pictures.
        deviation: Standard deviation within a picture, mean over pictures.
        amplitude: f64 (2 CYCLES + 1, 2 CYCLES + 1), mean over pictures of |FFT| per pixel, frequency 0 in the middle.
    """

    quantiles: NDArray[np.float64]
    mean: float
    deviation: float
    amplitude: NDArray[np.float64]

    @classmethod
    def of(cls, pictures: Iterable[NDArray[np.uint8]]) -> Style:
        """The look of pictures u8 (h w) or (h w 3); those without tissue, or smaller than 65 pixels, do not count.

        Raises:
            ValueError: If none counts.
        """
        shares, means, deviations, amplitudes = np.zeros(256), [], [], []
        for picture in pictures:
            grey = grey_of(picture)
            tissue = grey[grey > 0]
            if not len(tissue) or min(grey.shape) <= 2 * CYCLES:
                continue
            shares += np.bincount(tissue.round().astype(int), minlength=256) / len(tissue)
            means.append(float(tissue.mean()))
            deviations.append(float(tissue.std()))
            amplitudes.append(np.abs(_low(np.fft.fft2(grey), CYCLES)) / grey.size)
        if not means:
            msg = f"no picture has tissue and more than {2 * CYCLES} pixels a side"
            raise ValueError(msg)
        cumulated = np.cumsum(shares) / shares.sum()
        at = (np.arange(256) + 0.5) / 256
        return cls(
            quantiles=np.searchsorted(cumulated, at).clip(0, 255).astype(float),
            mean=float(np.mean(means)),
            deviation=float(np.mean(deviations)),
            amplitude=np.mean(amplitudes, axis=0),
        )


def restyle(picture: NDArray[np.uint8], style: Style, way: StyleWay, *, beta: float = 0.01) -> NDArray[np.uint8]:
    """A picture in another look.

    Args:
        picture: u8 (h w) or (h w 3).
        style: The look.
        way: ``"histogram"``: each grey value becomes the one at the same share of the style's tissue; ``"moments"``:
            mean and standard deviation become the style's; ``"fourier"``: the amplitude of low frequencies becomes the
            style's, the phase stays (Yang and Soatto, FDA, CVPR 2020, Eq. 3, with a mean amplitude in place of that
            of one picture).
        beta: Of ``"fourier"``: highest frequency, as a share of the shorter side (FDA: 0.01), at most 32 cycles.

    Returns:
        u8, the same shape.
    """
    grey = grey_of(picture)
    tissue = grey > 0
    if not tissue.any():
        return picture.copy()
    if way == "histogram":
        new = _matched(grey, tissue, style)
    elif way == "moments":
        own = grey[tissue]
        new = (grey - own.mean()) / max(float(own.std()), 1e-6) * style.deviation + style.mean
    else:
        new = _exchanged(grey, style, min(int(beta * min(grey.shape)), CYCLES, (min(grey.shape) - 1) // 2))
    return moved(picture, new - grey)


def moved(picture: NDArray[np.uint8], change: NDArray[Any]) -> NDArray[np.uint8]:
    """A picture u8 (h w) or (h w 3) with a change (h w) in grey values; black stays black, and tissue tissue."""
    tissue = grey_of(picture) > 0
    if picture.ndim == 3:
        change, tissue = change[..., None], tissue[..., None]
    found = np.clip((picture + change).round(), 1, 255)  # at least 1: tissue stays tissue
    return np.where(tissue, found, picture).astype(np.uint8)


def grey_of(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean of the channels, f64 (h w)."""
    return picture.astype(np.float64) if picture.ndim == 2 else picture.mean(axis=2, dtype=np.float64)


def _matched(grey: NDArray[np.float64], tissue: NDArray[np.bool_], style: Style) -> NDArray[np.float64]:
    values = grey.round().astype(int)
    counts = np.bincount(values[tissue], minlength=256)
    share = (np.cumsum(counts) - counts / 2) / counts.sum()  # the middle of each grey value's share
    at = (np.arange(256) + 0.5) / 256
    table = np.interp(share, at, style.quantiles)
    found: NDArray[np.float64] = table[values]
    return found


def _exchanged(grey: NDArray[np.float64], style: Style, cycles: int) -> NDArray[np.float64]:
    spectrum = np.fft.fft2(grey)
    low = _low(spectrum, cycles)
    middle = slice(CYCLES - cycles, CYCLES + cycles + 1)
    wanted = style.amplitude[middle, middle] * grey.size
    rows = np.arange(-cycles, cycles + 1)
    spectrum[np.ix_(rows, rows)] = wanted * np.exp(1j * np.angle(low))
    new: NDArray[np.float64] = np.fft.ifft2(spectrum).real
    return new


def _low(spectrum: NDArray[np.complex128], cycles: int) -> NDArray[np.complex128]:
    """Frequencies of at most ``cycles`` per side, (2 cycles + 1, 2 cycles + 1), frequency 0 in the middle."""
    rows = np.arange(-cycles, cycles + 1)
    found: NDArray[np.complex128] = spectrum[np.ix_(rows, rows)]
    return found
