"""What was found in a file, and what a person decided about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, field_validator

from ultraad.dicom.deidentify.text import Text
from ultraad.results.row import Facts
from ultraad.types import Box

State = Literal["open", "confirmed", "dropped"]


class Looked(Facts):
    """A file that was looked at."""

    file: str = Field(description="its path below the folder that was given")
    sha256: str = Field(description="of the file")
    frames: int = Field(description="frames or pages")
    keep: tuple[Box, ...] = Field((), description="rectangles that stay: x, y, width, height; empty: the whole picture")
    given: bool = Field(default=False, description="whether the user gave the rectangle, and not the header")
    mask_of: str | None = Field(None, description="the image whose mask it is; it is not searched, and stays as it is")
    texts: tuple[Text, ...] = Field((), description="what looks like text in what stays")
    pictures: tuple[str, ...] = Field((), description="files of the review's page")
    sizes: tuple[tuple[int, int], ...] = Field((), description="their width and height in pixels")


class Settings(Facts):
    """How a search was made."""

    ultraad: str = Field(description="version")
    command: str = Field("deidentify", description="always the same")
    source: str = Field(description="the folder or file that was looked at")
    keep: Box | None = Field(None, description="the rectangle for pictures without regions")
    frames: int = Field(description="frames of a cine that are searched")


class Marked(Facts):
    """A box of a file, with what was decided about it."""

    number: int | None = Field(None, description="of a box that was found, from 1; null for one that a person drew")
    corners: tuple[int, int, int, int] = Field(description="x0, y0, x1, y1 in pixels, the last two outside of it")
    text: str = Field("", description="what it was read as")
    score: float | None = Field(None, description="how sure the reading is; null if it was not read")
    action: Literal["blank", "leave"] = Field("blank", description="what happens to it")

    @field_validator("corners")
    @classmethod
    def _ordered(cls, corners: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        x0, y0, x1, y1 = corners
        if not (0 <= x0 < x1 and 0 <= y0 < y1):
            msg = f"found {corners}, wanted x0 < x1 and y0 < y1, none below 0"
            raise ValueError(msg)
        return corners

    @property
    def box(self) -> Box:
        """x, y, width, height."""
        x0, y0, x1, y1 = self.corners
        return x0, y0, x1 - x0, y1 - y0


@dataclass(slots=True)
class Decision:
    """What a person decided about a file.

    Attributes:
        boxes: Its boxes, those to leave included.
        drop: Whether the file is left out.
        confirmed: Whether the person confirmed it by itself, on the page.
    """

    boxes: list[Marked] = field(default_factory=list)
    drop: bool = False
    confirmed: bool = False

    @property
    def blank(self) -> list[Box]:
        """Boxes to blank."""
        return [one.box for one in self.boxes if one.action == "blank"]

    @property
    def state(self) -> State:
        """Where the file stands on the page."""
        return "dropped" if self.drop else "confirmed" if self.confirmed else "open"


def as_found(row: Looked) -> Decision:
    """Every box is blanked: what ``--yes`` decides."""
    return Decision(
        [
            Marked(number=n, corners=(x, y, x + w, y + h), text=one.text, score=one.score)
            for n, one in enumerate(row.texts, start=1)
            for x, y, w, h in [one.box]
        ]
    )
