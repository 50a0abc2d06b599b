"""What the console draws over a picture. None of it depends on the class.

Everything is drawn from a separate random stream that does not depend on the label. Calipers measure the lesion half of
the time and otherwise a decoy; in normal images both targets are decoys, so calipers are as frequent in every class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from ultraad.simulate.fields import uniform

if TYPE_CHECKING:
    Picture = NDArray[np.uint8]
    Box = tuple[int, int, int, int]

_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX_SMALL)
_WORDS = (
    "LT", "RT", "LEFT", "RIGHT", "BREAST", "LOQ", "UOQ", "AXILLA", "12 O'CLOCK", "3H", "9H", "SAG", "TRANS", "RAD",
    "ARAD", "N+3", "B", "FR 34", "GN 62", "DR 60", "MI 0.9", "TIs 0.2", "2D", "THI", "L12-5", "Res", "P:90%", "4.0cm",
    "AO 95", "ID 00317", "US",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Console:
    """What one machine draws over all its pictures. Colours are RGB.

    Attributes:
        border: Width of the black border at (top, bottom, left, right) relative to the picture.
        ink: Colour of text and marks.
        tint: Colour of white.
        ruler: Depth ticks at ``"left"`` or ``"right"``; None for no ticks.
        grey_bar: Whether there is a grey scale at the left.
        logo: Text in a corner; empty for none.
        jpeg: Quality of the stored file; 0 for lossless.
    """

    border: tuple[float, float, float, float]
    ink: tuple[int, int, int]
    tint: tuple[float, float, float]
    ruler: str | None
    grey_bar: bool
    logo: str
    jpeg: int


def draw_console(rng: np.random.Generator) -> Console:
    """Draw the screen of a machine."""
    border = tuple(uniform(rng, (0.01, 0.18)) if rng.random() < rate else 0.0 for rate in (0.08, 0.12, 0.12, 0.12))
    ink = ((230, 230, 230), (250, 230, 60), (90, 250, 90), (90, 210, 250), (250, 150, 60))[int(rng.integers(5))]
    tint = (1.0, 1.0, 1.0)
    if rng.random() < 0.15:
        tint = ((1.0, 0.93, 0.80), (0.88, 0.95, 1.0), (0.95, 1.0, 0.95))[int(rng.integers(3))]
    return Console(
        border=(border[0], border[1], border[2], border[3]),
        ink=ink if rng.random() < 0.5 else (230, 230, 230),
        tint=tint,
        ruler=(None, None, None, "left", "right")[int(rng.integers(5))],
        grey_bar=bool(rng.random() < 0.12),
        logo="".join(chr(int(c)) for c in rng.integers(65, 91, int(rng.integers(3, 8)))) if rng.random() < 0.15 else "",
        jpeg=int(rng.integers(35, 92)) if rng.random() < 0.3 else 0,
    )


def frame(picture: Picture, mask: NDArray[np.bool_], console: Console) -> tuple[Picture, NDArray[np.bool_]]:
    """Shrink picture (h w 3) and mask (h w) into the console's black border."""
    n = len(picture)
    top, bottom, left, right = (round(share * n) for share in console.border)
    if not (top or bottom or left or right):
        return picture, mask
    inner = (n - left - right, n - top - bottom)
    out, marked = np.zeros_like(picture), np.zeros_like(mask)
    out[top : n - bottom, left : n - right] = cv2.resize(picture, inner, interpolation=cv2.INTER_AREA)
    small = cv2.resize(mask.astype(np.uint8), inner, interpolation=cv2.INTER_NEAREST)
    marked[top : n - bottom, left : n - right] = small > 0
    return out, marked


def _calipers(picture: Picture, box: Box, ink: tuple[int, int, int], rng: np.random.Generator) -> None:
    """Draw one or two measured diameters of a box (x0, y0, x1, y1), sometimes with a dotted line."""
    n = len(picture)
    kind = (cv2.MARKER_CROSS, cv2.MARKER_TILTED_CROSS, cv2.MARKER_STAR)[int(rng.integers(3))]
    side, dotted = max(3, round(uniform(rng, (0.018, 0.045)) * n)), rng.random() < 0.6
    x0, y0, x1, y1 = box
    cx, cy, slant = (x0 + x1) / 2, (y0 + y1) / 2, rng.normal(0, 0.1)
    ends = [
        ((x0, cy - slant * (x1 - x0)), (x1, cy + slant * (x1 - x0))),
        ((cx + slant * (y1 - y0), y0), (cx - slant * (y1 - y0), y1)),
    ]
    if rng.random() < 0.4:
        del ends[int(rng.integers(2))]
    for a, b in ends:
        for x, y in (a, b):
            cv2.drawMarker(picture, (round(x), round(y)), ink, kind, side, 1)
        if dotted:
            count = max(2, int(np.hypot(b[0] - a[0], b[1] - a[1]) / uniform(rng, (3, 6))))
            for t in np.linspace(0, 1, count):
                x, y = round(a[0] + (b[0] - a[0]) * t), round(a[1] + (b[1] - a[1]) * t)
                if 0 <= x < n and 0 <= y < n:
                    picture[y, x] = ink


def _text(picture: Picture, console: Console, rng: np.random.Generator) -> None:
    n = len(picture)
    for _ in range(int(rng.integers(1, 4))):
        words = " ".join(_WORDS[int(i)] for i in rng.integers(0, len(_WORDS), int(rng.integers(1, 4))))
        if rng.random() < 0.3:
            words = f"{rng.integers(1, 3)} D {uniform(rng, (0.3, 4)):.2f} cm"
        at = (
            round(uniform(rng, (0, 0.75)) * n),
            round((uniform(rng, (0.03, 0.2)) if rng.random() < 0.5 else uniform(rng, (0.7, 0.99))) * n),
        )
        font = _FONTS[int(rng.integers(len(_FONTS)))]
        scale = uniform(rng, (0.22, 0.5)) * n / 224 * (1.8 if font == cv2.FONT_HERSHEY_PLAIN else 1)
        cv2.putText(picture, words, at, font, scale, console.ink, 1, cv2.LINE_AA)


def _body_marker(picture: Picture, console: Console, rng: np.random.Generator) -> None:
    """Draw a breast pictogram with the position of the probe, mostly in a lower corner."""
    n = len(picture)
    w, h = round(uniform(rng, (0.08, 0.17)) * n), round(uniform(rng, (0.07, 0.16)) * n)
    x0 = 0 if rng.random() < 0.35 else n - w
    y0 = 0 if rng.random() < 0.15 else n - h
    if rng.random() < 0.6:
        picture[y0 : y0 + h, x0 : x0 + w] = int(rng.integers(0, 200))
    ink, centres = console.ink, [x0 + w // 2] if rng.random() < 0.6 else [x0 + w // 4, x0 + 3 * w // 4]
    r = max(2, min(w // (2 * len(centres)), h // 2) - 2)
    for cx in centres:
        cv2.circle(picture, (cx, y0 + h // 2), r, ink, 1, cv2.LINE_AA)
        cv2.circle(picture, (cx, y0 + h // 2), max(1, r // 4), ink, 1)
    angle, d = rng.uniform(0, 2 * np.pi), r * rng.random()
    x, y = centres[0] + d * np.cos(angle), y0 + h / 2 + d * np.sin(angle)
    turn = rng.uniform(0, np.pi)
    a, b = ((round(x + s * r / 2 * np.cos(turn)), round(y + s * r / 2 * np.sin(turn))) for s in (-1, 1))
    cv2.line(picture, a, b, (255, 160, 40) if rng.random() < 0.3 else ink, 2)


def _doppler(picture: Picture, rng: np.random.Generator, *, target: Box) -> None:
    """Draw a colour box with flow near the target."""
    n = len(picture)
    x0, y0, x1, y1 = target
    cx, cy = (x0 + x1) / 2 + rng.normal(0, 0.1) * n, (y0 + y1) / 2 + rng.normal(0, 0.08) * n
    half_w, half_h = uniform(rng, (0.15, 0.4)) * n, uniform(rng, (0.12, 0.35)) * n
    a = (max(0, round(cx - half_w)), max(0, round(cy - half_h)))
    b = (min(n - 1, round(cx + half_w)), min(n - 1, round(cy + half_h)))
    colour = ((200, 200, 200), (250, 230, 60), (90, 250, 90))[int(rng.integers(3))]
    cv2.rectangle(picture, a, b, colour, 1)
    for _ in range(int(rng.poisson(3))):
        at = (round(uniform(rng, (a[0], b[0]))), round(uniform(rng, (a[1], b[1]))))
        axes = (max(1, round(uniform(rng, (0.01, 0.05)) * n)), max(1, round(uniform(rng, (0.006, 0.02)) * n)))
        flow = (
            (uniform(rng, (150, 255)), uniform(rng, (0, 180)), 0.0)
            if rng.random() < 0.5
            else (0.0, uniform(rng, (0, 180)), uniform(rng, (150, 255)))
        )
        cv2.ellipse(picture, at, axes, uniform(rng, (0, 180)), 0, 360, flow, -1)


def _ruler(picture: Picture, console: Console, rng: np.random.Generator) -> None:
    n = len(picture)
    pitch, x = uniform(rng, (0.03, 0.12)) * n, round(uniform(rng, (0, 0.03)) * n)
    for i, y in enumerate(np.arange(0, n, pitch)):
        length = 5 if i % 5 == 0 else 2
        ends = (x, x + length) if console.ruler == "left" else (n - 1 - x - length, n - 1 - x)
        picture[round(y) % n, ends[0] : ends[1] + 1] = console.ink


def draw_clutter(picture: Picture, console: Console, rng: np.random.Generator, *, targets: tuple[Box, Box]) -> Picture:
    """Draw the console's marks.

    Args:
        picture: uint8 (h w 3); not changed.
        console: The machine's screen.
        rng: Random generator that does not depend on the label.
        targets: Boxes (x0, y0, x1, y1) for calipers and Doppler: that of the lesion (of a decoy in normal images), and
            that of a decoy.

    Returns:
        uint8 (h w 3).
    """
    picture = picture.copy()
    n = len(picture)
    target = targets[int(rng.random() < 0.5)]
    does = rng.random(8)
    if does[0] < 0.05:
        _doppler(picture, rng, target=target)
    if console.tint != (1.0, 1.0, 1.0):
        picture = (picture * np.array(console.tint, np.float32)).astype(np.uint8)
    if does[1] < 0.22:
        _calipers(picture, target, console.ink, rng)
    if does[2] < 0.28:
        _text(picture, console, rng)
    if does[3] < 0.30:
        _body_marker(picture, console, rng)
    if console.ruler is not None:
        _ruler(picture, console, rng)
    if console.grey_bar:
        bar = np.linspace(255, 0, n // 2).astype(np.uint8)[:, None, None]
        picture[n // 4 : n // 4 + len(bar), 2 : 2 + max(3, n // 50)] = bar
    if console.logo:
        cv2.putText(picture, console.logo, (3, round(0.06 * n)), _FONTS[0], 0.35 * n / 224, console.ink, 1, cv2.LINE_AA)
    if does[4] < 0.05:  # region of interest
        a, b = rng.integers(5, n // 2, 2).tolist(), rng.integers(n // 2, n - 5, 2).tolist()
        cv2.rectangle(picture, a, b, console.ink, 1)
    if does[5] < 0.04:  # arrow
        tip, tail = rng.integers(n // 5, 4 * n // 5, 2), rng.normal(0, 0.12 * n, 2)
        cv2.arrowedLine(
            picture, (tip + tail).astype(int).tolist(), tip.tolist(), console.ink, 1, cv2.LINE_AA, tipLength=0.3
        )
    if does[6] < 0.15:  # focus mark
        y = round(uniform(rng, (0.2, 0.8)) * n)
        cv2.drawMarker(picture, (n - 4, y), console.ink, cv2.MARKER_TRIANGLE_UP, max(4, n // 40), 1)
    if console.jpeg:
        coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, console.jpeg])[1]
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), dtype=np.uint8)
    return picture
