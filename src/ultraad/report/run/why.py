"""Why predictions are as they are: the nearest support images, sentences, marks and small changes, for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ultraad.data.support import content_hash
from ultraad.errors import DataError
from ultraad.model.reasons import Part, SentenceReason, SupportReason
from ultraad.report.kit.pictures import Example, Strip
from ultraad.report.kit.words import DASH, decimals, short_id
from ultraad.report.run.gallery import Album
from ultraad.results.row import ImageRow
from ultraad.types import Sample

SHOWN_WHY = 12  # images; all are in predictions.jsonl


@dataclass(frozen=True, slots=True)
class Reasons:
    """The reasons of one prediction.

    Attributes:
        image: The image, with its score.
        lines: The findings as sentences.
        on_marks: Whether the score rests on marks.
        support: The nearest support images.
        sentences: Class, sentence, similarity and share of each.
    """

    image: Strip
    lines: tuple[str, ...]
    on_marks: bool
    support: Strip
    sentences: tuple[tuple[str, str, str, str], ...]


def reasons(rows: Sequence[ImageRow], album: Album) -> list[Reasons]:
    """The reasons of some rows: scores that rest on marks first, then those that small changes move most."""
    known = [(row, row.why) for row in rows if row.why is not None]
    known.sort(key=lambda k: (not k[1].marks.rests, k[1].stability.low - k[1].stability.high, k[0].id))
    return [
        Reasons(
            image=album.strip("", [row]),
            lines=tuple(why.sentences_in_words()),
            on_marks=bool(why.marks.rests),
            support=Strip("", tuple(_support(one, album) for one in why.support)),
            sentences=tuple(map(_sentence, why.sentences)),
        )
        for row, why in known[:SHOWN_WHY]
    ]


def _support(one: SupportReason, album: Album) -> Example:
    """A support image; without a picture if its file is not found or changed."""
    alt = f"Support image {short_id(one.id)}, {one.label}."
    shown = album.picture(Path(one.image), alt, frame=one.frame) if one.image and _unchanged(one) else None
    without = "" if one.score is None else f"without it: score {decimals(one.score)}"
    lines = (one.label, f"share {_share(one.part)}, similarity {one.similarity:.2f}", without)
    return Example(short_id(one.id), shown, None, lines)


def _sentence(one: SentenceReason) -> tuple[str, str, str, str]:
    return one.label, one.text, f"{one.similarity:.2f}", _share(one.part)


def _share(part: Part | None) -> str:
    return DASH if part is None else f"{100 * part.share:+.1f} %"


def _unchanged(one: SupportReason) -> bool:
    try:
        return content_hash(Sample(one.id, Path(one.image or ""), frame=one.frame)) == one.sha256
    except DataError:
        return False
