"""Text that is burned into pixels, found by RapidOCR (PP-OCRv6, its models are in the wheel), offline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ultraad.model.runtimes import require
from ultraad.results.row import Facts
from ultraad.types import Box

MARGIN = 3  # pixels around a box, since a detector may cut the feet of letters
FRAMES = 5
"""Frames of a cine that are searched by default."""
_SAME = 0.5  # of the smaller box, from which two boxes are one
_LARGER = 4  # times the smaller box, from which the larger one is another: sometimes a whole picture looks like text
_SURE = 0.5  # score from which letters were read, and not only suspected; RapidOCR's own text_score


class Text(Facts):
    """A place that looks like text."""

    box: Box = Field(description="x, y, width, height in pixels")
    text: str = Field(description="what was read there; often with mistakes")
    score: float = Field(description="how sure the reader is of it, 0 to 1")

    @property
    def is_read(self) -> bool:
        """Whether it could be read, and not only looks like text."""
        return self.score >= _SURE


class TextFinder:
    """Finds text in pictures.

    Args:
        threads: Of the runtime.

    Raises:
        MissingExtraError: If RapidOCR is not installed.
    """

    def __init__(self, *, threads: int = 1) -> None:
        rapidocr = require("rapidocr", extra="deidentify")
        require("onnxruntime", extra="deidentify")
        self._find: Callable[..., Any] = rapidocr.RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.text_score": 0.0,  # what cannot be read is shown, too
                "Global.use_cls": False,  # a picture of a scanner is upright
                "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            }
        )

    def find(self, picture: NDArray[np.uint8]) -> list[Text]:
        """The text in a picture.

        Args:
            picture: uint8 (h w 3).

        Returns:
            Boxes with a margin of :data:`MARGIN`, within the picture.
        """
        done = self._find(picture)
        if done.boxes is None:
            return []
        words = zip(done.boxes, done.txts or (), done.scores or (), strict=True)
        return [
            Text(box=_around(corners, picture.shape[:2]), text=str(text), score=round(float(score), 3))
            for corners, text, score in words
        ]


def find_in(pictures: Iterable[NDArray[np.uint8]], finder: TextFinder) -> list[Text]:
    """The text in several pictures of one place, such as the frames of a cine: each place once, as a box around all."""
    found: list[Text] = []
    for picture in pictures:
        for text in finder.find(picture):
            found = _joined(found, text)
    return sorted(found, key=lambda text: (text.box[1], text.box[0]))


def _joined(found: Sequence[Text], new: Text) -> list[Text]:
    same = [text for text in found if _is_same(text.box, new.box)]
    best = max([*same, new], key=lambda text: text.score)
    boxes = [text.box for text in (*same, new)]
    left, top = min(x for x, _, _, _ in boxes), min(y for _, y, _, _ in boxes)
    right, bottom = max(x + w for x, _, w, _ in boxes), max(y + h for _, y, _, h in boxes)
    around = best.model_copy(update={"box": (left, top, right - left, bottom - top)})
    return [*(text for text in found if text not in same), around]


def _is_same(a: Box, b: Box) -> bool:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    small, large = sorted((a[2] * a[3], b[2] * b[3]))
    return width > 0 and height > 0 and width * height >= _SAME * small and large < _LARGER * small


def _around(corners: NDArray[Any], size: tuple[int, ...]) -> Box:
    low, high = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int)
    x0, y0 = (max(0, int(at) - MARGIN) for at in low)
    x1, y1 = (min(int(at) + MARGIN + 1, side) for at, side in zip(high, (size[1], size[0]), strict=True))
    return x0, y0, max(1, x1 - x0), max(1, y1 - y0)
