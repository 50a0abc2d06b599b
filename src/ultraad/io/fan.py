"""Find the part of a picture that shows tissue from its pixels: what a linear, sector or curved array leaves black.

    pixels -> lit area -> its straight sides -> the sector between them, or a rectangle -> checks -> Fan, or none

The largest connected area brighter than :data:`LIT` is the tissue. A side is the direction whose supporting line has
most of the area's left (or right) border within :data:`NEAR` pixels of it. Two vertical sides make a rectangle. Two
sides that meet above make a sector around the point where they meet, from the nearest to the farthest lit pixel.

A fan is only believed if all of this holds; otherwise there is none, and the whole picture is used:

- At least :data:`HELD` of the tissue lies in it, so that it cuts nothing visible off.
- At least :data:`FILLED` of it is tissue, so that it is not a frame around something else.
- At most :data:`STRAY` of what lies outside is lit: text and pictograms, but no second view.
- Each side is seen over at least :data:`SEEN` of its length; the edges of a rectangle are sharp.

All numbers are ours; lengths hold for a picture whose longer side has :data:`SIDE` pixels. :mod:`perf.fan` measures
how often a fan is found.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ultraad.fan import Fan, FanKind
from ultraad.types import Box

SIDE = 256  # longer side of the picture in which it is looked for
LIT = 5  # grey levels: above the noise of JPEG beside an edge, below that of tissue
NEAR = 1.3  # pixels from a side that count as on it
HELD, FILLED, STRAY, SEEN, TOUCHED = 0.985, 0.55, 0.06, 0.4, 0.06
SHARP = 0.5  # share of the first lines of a rectangle that is lit, and of the pixels beside them that must be black
STRAY_ROWS = 0.98  # share of the rows that a side's line must hold; the others may be specks
SMALLEST = 0.08  # share of the picture that a fan has
LEAST = 0.03  # share of the picture outside, below which there is nothing to mask
UPRIGHT = 2.0  # degrees: sides that lean less are those of a linear array
STEEPEST = 70.0  # degrees, of a side
POINTED = 0.1  # nearest over farthest radius, below which an array is no curved one but a sector
WHOLE, NO_FAN = Fan("whole"), Fan("none")
CORNER = 0.08  # share of the width and height that the upper corners of a picture have

_TEXT = np.ones((3, 3), np.uint8)  # thinner lines are text
_SPECKLE = np.ones((5, 5), np.uint8)  # gaps between speckles
_GAP = np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (15, 15)), np.uint8)  # darker spots in tissue
_PAD = 16
_ANGLES = np.arange(0.0, STEEPEST + 0.25, 0.5)
_FRAMES = 16  # of a cine, spread evenly


@dataclass(frozen=True, slots=True, eq=False)
class _Lit:
    """The tissue of a small picture.

    Attributes:
        grey: uint8 (h w), the brightest channel.
        area: bool (h w), the tissue.
        left: float (n 2), the first pixel (x, y) of each of its rows.
        right: float (n 2), the last one.
    """

    grey: NDArray[np.uint8]
    area: NDArray[np.bool_]
    left: NDArray[np.float64]
    right: NDArray[np.float64]


def find_fan(frames: NDArray[np.uint8] | Iterable[NDArray[np.uint8]]) -> Fan:
    """The fan of a picture, or of the frames of a cine: tissue moves, and the fan does not.

    Args:
        frames: uint8 (h w 3), or several of one size; their brightest values count.

    Returns:
        In pixels of the picture; :data:`WHOLE` if tissue fills the picture (its upper corners, and its width),
        :data:`NO_FAN` if no fan is certain.
    """
    shape, brightest = None, None
    for frame in [frames] if isinstance(frames, np.ndarray) else frames:
        size = (frame.shape[0], frame.shape[1])
        if shape not in (None, size):
            return NO_FAN  # not one cine
        shape = size
        small = _small(frame, min(1.0, SIDE / max(size)))
        brightest = small if brightest is None else np.maximum(brightest, small)
    lit = None if brightest is None else _lit(brightest)
    if shape is None or lit is None:
        return NO_FAN
    if _fills(lit.area):
        return WHOLE
    found = _rectangle(lit) or _sector(lit)
    return NO_FAN if found is None else _enlarged(found, min(1.0, SIDE / max(shape)), shape)


def spread_frames(count: int) -> list[int]:
    """The 0-based frames of a cine of so many that decide about its fan."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, _FRAMES))})


def _small(frame: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    if scale < 1:
        frame = np.asarray(cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(frame.max(-1))


def _lit(grey: NDArray[np.uint8]) -> _Lit | None:
    """The largest lit area, without text and with its dark spots; None in a black picture."""
    lit = np.asarray(cv2.morphologyEx((grey > LIT).astype(np.uint8), cv2.MORPH_OPEN, _TEXT), np.uint8)
    count, labels, facts, _ = cv2.connectedComponentsWithStats(_closed(lit, _SPECKLE), connectivity=4)
    if count < 2:
        return None
    largest = labels == 1 + int(np.argmax(facts[1:, cv2.CC_STAT_AREA]))
    area = _closed(largest.astype(np.uint8), _GAP) > 0
    rows = np.flatnonzero(area.any(1))
    first = area[rows].argmax(1)
    last = area.shape[1] - 1 - area[rows, ::-1].argmax(1)
    return _Lit(grey, area, np.column_stack([first, rows]) + 0.0, np.column_stack([last, rows]) + 0.0)


def _closed(lit: NDArray[np.uint8], gap: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Without dark spots that are smaller than a gap; the border of the picture is dark."""
    closed = cv2.morphologyEx(np.pad(lit, _PAD), cv2.MORPH_CLOSE, gap)
    return np.asarray(closed[_PAD:-_PAD, _PAD:-_PAD], np.uint8)


def _sides(lit: _Lit) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(distance from the origin, length on the border) of the supporting line of each side at each angle, (2 a)."""
    turn = np.deg2rad(_ANGLES)[:, None]  # (a 1)
    edges, lengths = [], []
    for border, way in ((lit.left, -1.0), (lit.right, 1.0)):
        out = way * border[:, 0] * np.cos(turn) - border[:, 1] * np.sin(turn)  # (a n), along the outward normal
        edge = np.quantile(out, STRAY_ROWS, axis=1)  # (a,)
        edges.append(edge)
        lengths.append((np.abs(out - edge[:, None]) <= NEAR).sum(1) / np.cos(turn[:, 0]))
    return np.array(edges), np.array(lengths)


def _fills(area: NDArray[np.bool_]) -> bool:
    """Whether tissue reaches both upper corners and both sides."""
    h, w = area.shape
    top, side = max(2, round(CORNER * h)), max(2, round(CORNER * w))
    corners = area[:top, :side].mean() >= SHARP and area[:top, -side:].mean() >= SHARP
    return bool(corners and area[:, 0].any() and area[:, -1].any())


def _rectangle(lit: _Lit) -> Fan | None:
    """The tissue of a linear array between black borders."""
    ys, xs = np.flatnonzero(lit.area.any(1)), np.flatnonzero(lit.area.any(0))
    top, bottom, left, right = int(ys[0]), int(ys[-1]), int(xs[0]), int(xs[-1])
    inside = lit.area[top : bottom + 1, left : right + 1]
    if not _lit_edges(inside).all():
        return None
    fan = Fan("linear", (left, top, right + 1 - left, bottom + 1 - top))
    return fan if _believed(fan, lit) else None


def _lit_edges(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each of the four edges of a rectangle is lit just inside."""
    lines = (inside[:2], inside[-2:], inside[:, :2], inside[:, -2:])
    return np.array([line.mean() >= SHARP for line in lines])


def _sector(lit: _Lit) -> Fan | None:
    """The sector between two sides that lean outwards by the same angle."""
    edges, lengths = _sides(lit)
    best = int(np.argmax(lengths.sum(0)))
    lean, (c, d), seen = float(_ANGLES[best]), edges[:, best], lengths[:, best]
    if not UPRIGHT <= lean < STEEPEST:
        return None
    turn = math.radians(lean)
    # On the left side -x cos - y sin = c, on the right one x cos - y sin = d.
    x, y = float(d - c) / (2 * math.cos(turn)), -float(c + d) / (2 * math.sin(turn))
    rows, cols = np.nonzero(lit.area)
    radius = np.hypot(cols - x, rows - y)
    near, far = map(float, np.quantile(radius, [0.002, 0.998]))
    length = far - near
    if y > rows.min() + POINTED * length or max(seen) < SEEN * length or min(seen) < TOUCHED * length:
        return None
    box = (0, int(rows.min()), lit.area.shape[1], int(np.ptp(rows)) + 1)  # a side may lie in the dark
    kind: FanKind = "sector" if near < POINTED * far else "curved array"
    wide = lean + math.degrees(1 / far)  # a pixel at the far end
    fan = Fan(kind, box, (x + 0.5, y + 0.5), (max(0.0, near - 1), far + 1), (-wide, wide))
    return fan if _believed(fan, lit) else None


def _believed(fan: Fan, lit: _Lit) -> bool:
    inside = fan.mask(lit.area.shape)
    outside = ~inside
    if outside.mean() < LEAST or inside.mean() < SMALLEST:
        return False
    held = np.count_nonzero(lit.area & inside) / np.count_nonzero(lit.area)
    filled = np.count_nonzero(lit.area & inside) / np.count_nonzero(inside)
    stray = np.count_nonzero((lit.grey > LIT) & outside) / np.count_nonzero(outside)
    return bool(held >= HELD and filled >= FILLED and stray <= STRAY)


def _enlarged(fan: Fan, scale: float, shape: tuple[int, int]) -> Fan:
    """The fan in pixels of the picture, a pixel of the small one wider on each side."""
    rim = math.ceil(1 / scale) if scale < 1 else 0
    x, y, w, h = fan.box or (0, 0, 0, 0)
    left, top = max(0, math.floor(x / scale) - rim), max(0, math.floor(y / scale) - rim)
    right, bottom = min(shape[1], math.ceil((x + w) / scale) + rim), min(shape[0], math.ceil((y + h) / scale) + rim)
    box: Box = (left, top, right - left, bottom - top)
    if fan.apex is None:
        return Fan(fan.kind, box)
    apex = (round(fan.apex[0] / scale, 2), round(fan.apex[1] / scale, 2))
    radii = (round(fan.radii[0] / scale, 2), round(fan.radii[1] / scale, 2))
    return Fan(fan.kind, box, apex, radii, (round(fan.angles[0], 3), round(fan.angles[1], 3)))
