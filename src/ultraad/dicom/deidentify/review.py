"""The folder of a review: what was found in the pixels, for a person to look at, and what the person decided.

    review.html     every file as it will be, with numbered boxes around what looks like text
    boxes.csv       one line for each box, to be edited: blank, leave; and drop for a whole file
    found.jsonl     what was found, by file
    pictures/       the pictures of the page
    errors.jsonl    files that cannot be used, with the reasons
    review.json     how the search was made

It holds patient data, and is readable for its owner only.
"""

from __future__ import annotations

import csv
import html
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from ultraad.dicom.deidentify.text import Text
from ultraad.errors import DataError
from ultraad.io.files import append_line, ensure_writable, write_image, write_json, write_text
from ultraad.io.raster import open_file
from ultraad.results.row import Facts
from ultraad.types import Box

PAGE, BOXES, FOUND, ERRORS, SETTINGS, PICTURES = (
    *("review.html", "boxes.csv", "found.jsonl", "errors.jsonl", "review.json"),
    "pictures",
)
_COLUMNS = ("file", "box", "x0", "y0", "x1", "y1", "text", "score", "action")
Action = Literal["blank", "leave", "drop", "none"]
_RED, _AMBER = (220, 40, 40), (230, 160, 0)
_FORMULA = ("=", "+", "-", "@", "\t")  # what a spreadsheet would run


class Looked(Facts):
    """A file that was looked at."""

    file: str = Field(description="its path below the folder that was given")
    sha256: str = Field(description="of the file")
    frames: int = Field(description="frames or pages")
    keep: tuple[Box, ...] = Field((), description="rectangles that stay: x, y, width, height; empty: the whole picture")
    given: bool = Field(default=False, description="whether the user gave the rectangle, and not the header")
    texts: tuple[Text, ...] = Field((), description="what looks like text in what stays")
    pictures: tuple[str, ...] = Field((), description="files of the review's page")


class Settings(Facts):
    """How a search was made."""

    ultraad: str = Field(description="version")
    command: str = Field("deidentify", description="always the same")
    source: str = Field(description="the folder or file that was looked at")
    keep: Box | None = Field(None, description="the rectangle for pictures without regions")
    frames: int = Field(description="frames of a cine that are searched")


@dataclass(slots=True)
class Decision:
    """What a person decided about a file.

    Attributes:
        blank: Boxes to blank.
        drop: Whether the file is left out.
    """

    blank: list[Box] = field(default_factory=list)
    drop: bool = False


class Review:
    """The folder of a review.

    Args:
        folder: Made if needed.
        settings: Of the search; None opens the folder of an earlier search.

    Raises:
        DataError: If there is no review in the folder, or one that was made in another way, or it cannot be written.
    """

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        self.folder = folder
        before = _settings_in(folder)
        if settings is None and before is None:
            msg = (
                f"{folder} holds no review; run 'ultraad deidentify' without --confirm first, and look at what it shows"
            )
            raise DataError(msg)
        if settings is not None and before is not None and before != settings:
            msg = f"{folder} holds the review of another folder or with other options; choose another folder"
            raise DataError(msg)
        if settings is not None and before is None:
            ensure_writable(folder / PICTURES)
            os.chmod(folder, 0o700)  # noqa: PTH101
            write_json(folder / SETTINGS, settings.model_dump(mode="json"))
        self.settings = cast("Settings", settings or before)
        (folder / ERRORS).unlink(missing_ok=True)
        self.looked: dict[str, Looked] = dict(_read(folder / FOUND))

    def add(self, row: Looked, pictures: Sequence[NDArray[np.uint8]]) -> None:
        """Keep what was found in a file, with its pictures, uint8 (h w 3)."""
        stem = (
            f"{len(self.looked):05d}" if row.file not in self.looked else Path(self.looked[row.file].pictures[0]).stem
        )
        names = tuple(f"{PICTURES}/{stem}{f'-{n}' if n else ''}.png" for n in range(len(pictures)))
        for name, picture in zip(names, pictures, strict=True):
            write_image(self.folder / name, _drawn(picture, row.texts))
        self.looked[row.file] = row = row.model_copy(update={"pictures": names})
        append_line(self.folder / FOUND, row.model_dump_json())

    def fail(self, file: str, reason: str) -> None:
        """Keep why a file cannot be used."""
        append_line(self.folder / ERRORS, json.dumps({"file": file, "error": reason}, ensure_ascii=False))

    def show(self, fresh: Iterable[str]) -> None:
        """Write the page, and the boxes; those of files that were not looked at again stay as they were edited."""
        edited, fresh = self._lines(), set(fresh)
        lines = [
            line
            for name, row in self.looked.items()
            for line in (edited[name] if name in edited and name not in fresh else _lines_of(row))
        ]
        out = io.StringIO()
        table = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows({key: _plain(str(value)) for key, value in line.items()} for line in lines)
        write_text(self.folder / BOXES, out.getvalue())
        write_text(self.folder / PAGE, _page(self.looked.values(), self.settings))

    def _lines(self) -> dict[str, list[dict[str, str]]]:
        path = self.folder / BOXES
        if not path.exists():
            return {}
        with open_file(path) as file:
            text = file.read().decode("utf-8-sig", errors="replace")
        found: dict[str, list[dict[str, str]]] = {}
        for number, line in enumerate(csv.DictReader(io.StringIO(text, newline="")), start=2):
            if set(line) != set(_COLUMNS) or None in line.values():
                msg = f"{path}, line {number}: wanted the columns {', '.join(_COLUMNS)}"
                raise DataError(msg)
            line["file"] = line["file"].removeprefix("'") if line["file"][1:].startswith(_FORMULA) else line["file"]
            found.setdefault(line["file"], []).append(line)
        return found

    def decisions(self) -> dict[str, Decision]:
        """What was decided, by file; a file without a line is not there.

        Raises:
            DataError: If a line of the table cannot be understood, or names a file that was not looked at.
        """
        out: dict[str, Decision] = {}
        for name, lines in self._lines().items():
            if name not in self.looked:
                msg = f"{self.folder / BOXES} names {name}, which was not looked at; take its lines out"
                raise DataError(msg)
            out[name] = decision = Decision()
            for line in lines:
                action, box = _understood(line, self.folder / BOXES)
                decision.drop |= action == "drop"
                if action == "blank" and box is not None:
                    decision.blank.append(box)
        return out


def as_found(row: Looked) -> Decision:
    """Every box is blanked: what ``--yes`` decides."""
    return Decision([text.box for text in row.texts])


def _settings_in(folder: Path) -> Settings | None:
    try:
        return Settings.model_validate_json((folder / SETTINGS).read_bytes())
    except OSError:
        return None
    except ValidationError as e:
        msg = f"{folder / SETTINGS} is damaged; remove {folder} and look again"
        raise DataError(msg) from e


def _read(path: Path) -> Iterator[tuple[str, Looked]]:
    """The rows of an earlier search; a line that a killed run left is skipped, and its file is looked at again."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            row = Looked.model_validate_json(line)
        except ValidationError:
            continue
        yield row.file, row


def _lines_of(row: Looked) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(row.texts, start=1):
        x, y, w, h = text.box
        yield dict(zip(_COLUMNS, (row.file, number, x, y, x + w, y + h, text.text, text.score, "blank"), strict=True))
    if not row.texts:
        yield dict(zip(_COLUMNS, (row.file, *[""] * 7, "none"), strict=True))


def _understood(line: Mapping[str, str], path: Path) -> tuple[Action, Box | None]:
    action = line["action"].strip().lower()
    corners = [line[name].strip() for name in ("x0", "y0", "x1", "y1")]
    if action in get_args(Action) and action != "blank":
        return cast("Action", action), None
    if action == "blank" and all(corner.isdecimal() for corner in corners):
        x0, y0, x1, y1 = map(int, corners)
        if x1 > x0 and y1 > y0:
            return "blank", (x0, y0, x1 - x0, y1 - y0)
    shown, wanted = ",".join([*corners, action]), ", ".join(get_args(Action))
    msg = f"{path}, {line['file']}: found {shown!r}, wanted x0,y0,x1,y1 in pixels and one of {wanted}"
    raise DataError(msg)


def _plain(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _drawn(picture: NDArray[np.uint8], texts: Sequence[Text]) -> NDArray[np.uint8]:
    out = np.ascontiguousarray(picture.copy())
    for number, text in enumerate(texts, start=1):
        x, y, w, h = text.box
        colour = _RED if text.is_read else _AMBER
        cv2.rectangle(out, (x, y), (x + w - 1, y + h - 1), colour, 1)
        cv2.putText(out, str(number), (x, max(10, y - 2)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
    return out


_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Review: text in the pixels</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
img{max-width:100%;background:#000;margin:.3rem 0}table{border-collapse:collapse}td,th{padding:.1rem .8rem .1rem 0;
text-align:left}section{border-top:1px solid #ccc;padding:1rem 0}.warn{color:#a00000;font-weight:600}
h2{font-size:1.05rem;overflow-wrap:anywhere}</style>
"""


def _page(rows: Iterable[Looked], settings: Settings) -> str:
    rows = list(rows)
    boxes = sum(len(row.texts) for row in rows)
    open_ = sum(not row.keep for row in rows)
    parts = [
        _HEAD,
        "<h1>Look at every picture before you confirm</h1>",
        "<p class=warn>This page shows patient data. Do not pass it on.</p>",
        f"<p>{len(rows)} files, {boxes} boxes around what looks like text. Pictures are shown as they will be written, "
        "but for the boxes. Of each box, <code>boxes.csv</code> says what happens: <code>blank</code> (the default) "
        "or <code>leave</code>. Add a line with <code>blank</code> for text that was missed; write <code>drop</code> "
        "to leave out a file. The search misses text. What you confirm, you answer for.</p>",
        f"<p>Of a cine, {settings.frames} frames were searched, and the brightest value of each pixel over all frames; "
        "boxes are blanked in every frame.</p>",
    ]
    if open_:
        parts.append(
            f"<p class=warn>{open_} file(s) have no usable ultrasound regions and no --keep: nothing around the image "
            "is blanked there, and they are not declared free of text.</p>"
        )
    for row in rows:
        parts.append(_section(row))
    return "\n".join(parts) + "</html>\n"


def _section(row: Looked) -> str:
    kept = "the given rectangle stays" if row.given else f"{len(row.keep)} ultrasound region(s) stay"
    where = kept if row.keep else "<span class=warn>no regions: the whole picture stays</span>"
    pictures = "".join(f'<img src="{html.escape(name)}" alt="" loading="lazy">' for name in row.pictures)
    lines = "".join(
        f"<tr><td>{number}<td>{html.escape(text.text) or '?'}<td>{text.score:.2f}"
        for number, text in enumerate(row.texts, start=1)
    )
    table = f"<table><tr><th>box<th>read as<th>score{lines}</table>" if lines else "<p>No text was found.</p>"
    return f"<section><h2>{html.escape(row.file)}</h2><p>{row.frames} frame(s); {where}.</p>{pictures}{table}</section>"
