"""Small pictures inside a page, and the rules that choose them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

T = TypeVar("T")
_QUALITY = 80  # of the JPEG: outlines stay sharp, and a page of pictures stays below 8 MB


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a data URI; ``alt`` is for screen readers, width and height are in pixels."""

    uri: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True, slots=True)
class Example:
    """One shown image.

    Attributes:
        name: Of the image.
        plain: The image; None if it cannot be shown.
        overlay: The image with the map; likewise.
        lines: What is said about it.
        grey: Whether it does not count, and is shown without colour.
    """

    name: str
    plain: Picture | None
    overlay: Picture | None
    lines: tuple[str | Markup, ...]
    grey: bool = False


@dataclass(frozen=True, slots=True)
class Strip:
    """Images chosen by one rule."""

    title: str
    examples: tuple[Example, ...]


def inline(pixels: NDArray[np.uint8], *, side: int, alt: str) -> Picture:
    """Shrink uint8 (h w 3) to a longer side of at most ``side`` pixels, as a JPEG inside the page."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_QUALITY, subsampling=0)  # outlines are one pixel thin: full colour
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(uri, image.width, image.height, alt)


def extremes(ranked: Sequence[T], each: int) -> tuple[Sequence[T], Sequence[T], Sequence[T]] | None:
    """The first, middle and last ``each`` of a ranking; None if that would show all of it."""
    if len(ranked) <= 3 * each:
        return None
    middle = (len(ranked) - each) // 2
    return ranked[:each], ranked[middle : middle + each], ranked[-each:]


def css(colour: Sequence[int]) -> str:
    """A colour of three bytes in CSS."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
