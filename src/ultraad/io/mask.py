"""Lesion masks: one boolean array from picture files and COCO outlines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile

from ultraad.errors import DataError
from ultraad.io import raster
from ultraad.io.faults import warn_of
from ultraad.io.image import image_size, image_turn
from ultraad.types import Region

S = TypeVar("S", bound=np.generic)
_PLAIN_MODES = frozenset({"1", "L", "LA", "RGB", "RGBA", "F"})  # Pillow modes that can be compared as they are


_MOST_LABELS = 4  # more levels than this are soft edges, not labels
_BETWEEN = 0.1  # share of pixels in the middle half of the range; an outline blurred by two pixels has a twentieth
_CONTRAST = 64  # of soft edges in 8 bits; a smaller range is labels 0, 1, 2, 3 ...


class MaskSizeError(DataError):
    """A mask has another size than its image."""


Fit = Literal["same", "turned", "other size", "none"]
"""How a mask lies on its image: pixel by pixel, before the EXIF turn of the image, scaled, or not at all."""


def read_mask(
    masks: Sequence[Path | Region], *, shape: tuple[int, int], turn: int = 1, resize: bool = False
) -> NDArray[np.bool_]:
    """The union of several masks on the image's own pixel grid.

    A pixel of a mask file is lesion if any colour channel is above the file's lowest level. So 0/1, 0/255, labels 1 and
    2, grey labels, palettes and coloured classes all work. In a JPEG, and in a file with more than four levels (soft or
    noisy edges), a pixel must be above half of the range instead. A file of a single level is all lesion, unless that
    is 0. Alpha is ignored, unless the colour is the same everywhere: then alpha is the mask.

    Args:
        masks: Files and outlines; an empty sequence gives an all-False mask.
        shape: (h, w) of the image in pixels.
        turn: EXIF orientation of the image (:func:`ultraad.io.image_turn`). A mask whose size fits only the image
            before this turn is turned too.
        resize: Whether masks of another size but the same aspect are resized (nearest pixel).

    Returns:
        bool (h w), True on lesion.

    Raises:
        MaskSizeError: If a mask has another size than the image, and ``resize`` does not help.
        DataError: If a mask cannot be read.
    """
    union = np.zeros(shape, dtype=np.bool_)
    for mask in masks:
        if isinstance(mask, Path):
            with raster.open_raster(mask) as picture:
                fit = _checked_fit((picture.height, picture.width), shape, turn, resize=resize, name=mask)
                lesion = _foreground(picture, mask)
        else:
            fit = _checked_fit(mask.size, shape, turn, resize=resize, name="an outline (annotation file)")
            lesion = _fill_region(mask)
        if fit == "turned":
            lesion = _turned(lesion, turn)
        union |= lesion if lesion.shape == shape else _resized(lesion, shape)
    return union


def fit_of(mask: tuple[int, int], image: tuple[int, int], *, turn: int = 1) -> Fit:
    """How a mask of some (height, width) lies on an image of some (upright) size and EXIF orientation."""
    if mask == image:
        return "same"
    if turn in raster.SIDEWAYS and not _same_aspect(mask, image) and _same_aspect(mask[::-1], image):
        return "turned"
    return "other size" if _same_aspect(mask, image) else "none"


def mask_values(path: Path, *, image: Path) -> NDArray[Any]:
    """A mask as pixels that a PNG can hold, on which :func:`read_mask` sees the same lesion.

    Labels and colours stay if they can; the drawing in an alpha channel, artefacts of JPEG and palettes of which the
    background is no black become 0 and 255.

    Args:
        path: The file.
        image: Its image. If the mask fits it only before its EXIF turn, it is turned with it.

    Returns:
        uint8 or uint16 (h w), or uint8 (h w 3).

    Raises:
        MaskSizeError: If it has neither the size nor the aspect of the image.
        DataError: If one of them cannot be read.
    """
    shape, turn = image_size(image), image_turn(image)
    with raster.open_raster(path) as picture:
        fit = _checked_fit((picture.height, picture.width), shape, turn, resize=True, name=path)
        lesion = _foreground(picture, path)
        deep = picture.mode.startswith("I")
        values = np.array(picture if deep else picture.convert("L" if picture.mode in ("1", "L") else "RGB"))
    if deep:
        values = values.astype(np.uint16) if 0 <= values.min() <= values.max() < 1 << 16 else values
    if values.dtype.kind != "u" or not np.array_equal(_lesion_in(values), lesion):
        values = lesion.astype(np.uint8) * 255
    return np.ascontiguousarray(_turned(values, turn)) if fit == "turned" else values


def _same_aspect(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether one size is the other times a factor, but for rounding to pixels of the smaller."""
    (h, w), (big_h, big_w) = sorted((a, b), key=lambda size: size[0] * size[1])
    return abs(big_w * h / big_h - w) <= 1 or abs(big_h * w / big_w - h) <= 1


def _checked_fit(found: tuple[int, int], wanted: tuple[int, int], turn: int, *, resize: bool, name: object) -> Fit:
    fit = fit_of(found, wanted, turn=turn)
    if fit == "same" or (fit == "turned" and found[::-1] == wanted) or (resize and fit != "none"):
        return fit
    what = f"{name} is {found[1]} x {found[0]} pixels but its image is {wanted[1]} x {wanted[0]}"
    advice = "Export the mask again in the image's size"
    if fit != "none":
        advice = f"The aspect is the same: resize it with --resize-masks (resize_masks=True), or {advice.lower()}"
    msg = f"{what}. {advice}"
    raise MaskSizeError(msg)


def _turned(mask: NDArray[S], turn: int) -> NDArray[S]:
    """As Pillow turns a picture of this EXIF orientation."""
    across, half = np.swapaxes(mask, 0, 1), np.swapaxes(np.rot90(mask, 2), 0, 1)
    turned = {5: across, 6: np.rot90(mask, -1), 7: half, 8: np.rot90(mask)}
    return turned[turn]


def _resized(lesion: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Each pixel takes the one under its centre."""
    rows, cols = ((np.arange(n) + 0.5) * old / n for n, old in zip(shape, lesion.shape, strict=True))
    return np.asarray(lesion[rows.astype(np.intp)[:, None], cols.astype(np.intp)])


def _foreground(picture: ImageFile, name: Path) -> NDArray[np.bool_]:
    plain = picture.mode in _PLAIN_MODES or picture.mode.startswith("I")
    pixels = np.asarray(picture if plain else picture.convert("RGBA"))
    return _lesion_in(pixels, labels=picture.mode == "P", lossy=picture.format == "JPEG", name=name)


def _lesion_in(
    pixels: NDArray[Any], *, labels: bool = False, lossy: bool = False, name: Path | None = None
) -> NDArray[np.bool_]:
    colours = pixels.shape[-1] - (pixels.shape[-1] % 2 == 0) if pixels.ndim == 3 else 0  # without alpha
    level = pixels if pixels.ndim == 2 else pixels[..., 0]
    if colours == 3:
        level = np.maximum(np.maximum(level, pixels[..., 1]), pixels[..., 2])  # 30 times as fast as max(axis=-1)
    if pixels.ndim == 3 and pixels.shape[-1] > colours and np.ptp(pixels[..., :colours], axis=(0, 1)).max() == 0:
        alpha = pixels[..., -1]
        level = alpha if np.ptp(alpha) else level  # one colour, and a drawing in the alpha channel
    floor = _floor(level, labels=labels, lossy=lossy)
    if name is not None:
        _warn_of_a_picture(level, floor, name)
    return np.asarray(level > floor)


def _warn_of_a_picture(level: NDArray[Any], floor: float, name: Path) -> None:
    """Say that a mask which is cut at half of its range has more values in the middle than soft edges give."""
    low = float(level.min())
    quarter = (floor - low) / 2
    if quarter and np.count_nonzero((level > floor - quarter) & (level < floor + quarter)) > _BETWEEN * level.size:
        text = (
            "many of its values lie between those of background and lesion, as in a picture; it is cut at half of its"
        )
        warn_of(name, f"{text} range, which may not be the lesion", kind="a mask like a picture")


def _floor(level: NDArray[Any], *, labels: bool, lossy: bool) -> float:
    """The level above which a pixel is lesion; see :func:`read_mask`."""
    low, high = float(level.min()), float(level.max())
    if low == high or labels:
        return 0.0
    values = np.count_nonzero(np.bincount(level.ravel())) if level.dtype == np.uint8 else len(np.unique(level))
    soft = values > _MOST_LABELS and (level.dtype != np.uint8 or high - low >= _CONTRAST)
    return (low + high) / 2 if lossy or soft else low


def _fill_region(region: Region) -> NDArray[np.bool_]:
    if region.polygons:
        mask = np.zeros(region.size, dtype=np.bool_)
        for polygon in region.polygons:
            mask |= _fill_polygon(polygon, region.size)
        return mask
    return _fill_rle(region.rle, region.size)


def _fill_polygon(polygon: tuple[float, ...], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centre is inside (even-odd rule); pixel (0, 0) covers [0, 1] x [0, 1], as in COCO."""
    if len(polygon) < 6 or len(polygon) % 2:
        msg = f"a polygon has {len(polygon)} numbers; wanted x, y pairs of at least 3 points"
        raise DataError(msg)
    h, w = size
    x0, y0 = np.asarray(polygon, dtype=np.float64).reshape(-1, 2).T
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    mask = np.zeros(size, dtype=np.bool_)
    centres = np.arange(w) + 0.5
    for row in range(max(0, int(np.floor(y0.min()))), min(h, int(np.ceil(y0.max())))):
        y = row + 0.5
        crossing = (y0 <= y) != (y1 <= y)
        x = np.sort(x0[crossing] + (y - y0[crossing]) * (x1 - x0)[crossing] / (y1 - y0)[crossing])
        mask[row] = np.searchsorted(x, centres) % 2 == 1
    return mask


def _fill_rle(runs: tuple[int, ...], size: tuple[int, int]) -> NDArray[np.bool_]:
    h, w = size
    if min(runs, default=0) < 0 or sum(runs) != h * w:
        msg = f"run lengths sum to {sum(runs)}; a {w} x {h} mask has {h * w} pixels. The annotation is damaged"
        raise DataError(msg)
    lesion = np.arange(len(runs)) % 2 == 1
    return np.repeat(lesion, runs).reshape(w, h).T  # COCO counts down the columns
