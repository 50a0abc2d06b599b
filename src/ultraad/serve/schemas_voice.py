"""What goes over the wire for labels by voice. A clip is sent as it is: 16 kHz, one channel, signed 16 bit."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ultraad.serve.schemas import Name, Wire


class Word(Wire):
    """Something that can be said: a command of the page, or a class of the project."""

    name: str
    kind: Literal["command", "class"]


class Silent(Wire):
    """A class that cannot be said, and why."""

    name: str
    why: str


class VoiceInfo(Wire):
    """What can be said; ``message`` is how to install what is missing."""

    installed: bool
    message: str
    longest: float
    rate: int
    words: list[Word] = Field(default_factory=list)
    silent: list[Silent] = Field(default_factory=list)
    said: dict[str, str] = Field(default_factory=dict)


class HowSaid(Wire):
    """How a class is said, in English words; None as it is written."""

    name: Name
    said: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)] | None = None


class HeardWord(Wire):
    """The word of a clip; None if it was not understood."""

    word: Word | None = None
    text: str
