"""The folder of a review: what was found in the pixels, for a person to look at, and what the person decided.

    review.html     every file as it will be, with numbered boxes around what looks like text
    boxes.csv       what was decided, one line for each box: blank, leave; and drop for a whole file
    found.jsonl     what was found, by file
    pictures/       the pictures of the page
    errors.jsonl    files that cannot be used, with the reasons
    review.json     how the search was made

``boxes.csv`` is the only place where decisions are: people edit it, or click on the page of
:mod:`ultraad.serve.review`, which writes it at every click. The folder holds patient data, and is readable for its
owner only.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ultraad.dicom.deidentify.decision import Decision, Looked, Marked, Settings, State, as_found
from ultraad.dicom.deidentify.review_page import page
from ultraad.errors import DataError
from ultraad.io.files import append_line, ensure_writable, write_image, write_json, write_text
from ultraad.io.raster import open_file

PAGE, BOXES, FOUND, ERRORS, SETTINGS, PICTURES = (
    *("review.html", "boxes.csv", "found.jsonl", "errors.jsonl", "review.json"),
    "pictures",
)
_COLUMNS = ("file", "box", "x0", "y0", "x1", "y1", "text", "score", "action", "confirmed")
_LAST = "confirmed"  # may be missing in a line that somebody added
Action = Literal["blank", "leave", "drop", "none"]
_FORMULA = ("=", "+", "-", "@", "\t")  # what a spreadsheet would run


class Review:
    """The folder of a review.

    Args:
        folder: Made if needed.
        settings: Of the search; None opens the folder of an earlier search.

    Attributes:
        looked: {file: what was found}.
        failed: {file: why it cannot be used}, of this run.

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
        self._lock = Lock()  # the page decides in several threads
        self.looked: dict[str, Looked] = dict(_read(folder / FOUND))
        self.failed: dict[str, str] = {}

    def add(self, row: Looked, pictures: Sequence[NDArray[np.uint8]]) -> None:
        """Keep what was found in a file, with its pictures, uint8 (h w 3)."""
        stem = (
            f"{len(self.looked):05d}" if row.file not in self.looked else Path(self.looked[row.file].pictures[0]).stem
        )
        names = tuple(f"{PICTURES}/{stem}{f'-{n}' if n else ''}.png" for n in range(len(pictures)))
        for name, picture in zip(names, pictures, strict=True):
            write_image(self.folder / name, np.ascontiguousarray(picture))
        sizes = tuple((picture.shape[1], picture.shape[0]) for picture in pictures)
        self.looked[row.file] = row = row.model_copy(update={"pictures": names, "sizes": sizes})
        append_line(self.folder / FOUND, row.model_dump_json())

    def fail(self, file: str, reason: str) -> None:
        """Keep why a file cannot be used."""
        self.failed[file] = reason
        append_line(self.folder / ERRORS, json.dumps({"file": file, "error": reason}, ensure_ascii=False))

    def show(self, fresh: Iterable[str]) -> None:
        """Write the page, and the boxes; those of files that were not looked at again stay as they were edited."""
        edited, fresh = self._lines(), set(fresh)
        self._write(
            {
                name: edited[name] if name in edited and name not in fresh else list(_lines_of(row.file, as_found(row)))
                for name, row in self.looked.items()
            }
        )
        write_text(self.folder / PAGE, page(self.looked.values(), self.settings))

    def current(self) -> dict[str, Decision]:
        """Where every file stands, by file: a box that was found and has no line stays as it is in the picture.

        Raises:
            DataError: As :meth:`decisions`.
        """
        decided = self.decisions()
        for name, row in self.looked.items():
            one, found = decided.get(name), as_found(row)
            if one is None:
                decided[name] = found
                continue
            by_number = {box.number: box for box in one.boxes}
            known = [by_number.get(box.number, box.model_copy(update={"action": "leave"})) for box in found.boxes]
            others = [box.model_copy(update={"number": None}) for box in one.boxes if box not in known]
            one.boxes = known + others
        return decided

    def decide(self, file: str, boxes: Sequence[Marked], state: State) -> Decision:
        """Keep what a person decided about a file; it is on the disk when this returns.

        Args:
            file: Its name.
            boxes: Its boxes: all that were found, and those that were drawn.
            state: ``"open"`` if it is to be looked at again.

        Raises:
            DataError: If there is no such file, a box that was found is missing, or nothing can be written.
        """
        if file not in self.looked:
            msg = f"{file} is not part of the review; look again"
            raise DataError(msg)
        numbers = [one.number for one in boxes if one.number is not None]
        if sorted(numbers) != list(range(1, len(self.looked[file].texts) + 1)):
            wanted = len(self.looked[file].texts)
            msg = f"{file}: got the boxes {numbers}, wanted all from 1 to {wanted}; say blank or leave of each"
            raise DataError(msg)
        decided = Decision(list(boxes), state == "dropped", state == "confirmed")
        with self._lock:
            self._write({**self._lines(), file: list(_lines_of(file, decided))})
        return decided

    def _write(self, lines: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        out = io.StringIO()
        table = csv.DictWriter(out, _COLUMNS, lineterminator="\n", restval="")
        table.writeheader()
        table.writerows({key: _plain(str(v)) for key, v in line.items()} for part in lines.values() for line in part)
        write_text(self.folder / BOXES, out.getvalue())

    def _lines(self) -> dict[str, list[dict[str, str]]]:
        path = self.folder / BOXES
        if not path.exists():
            return {}
        with open_file(path) as file:
            text = file.read().decode("utf-8-sig", errors="replace")
        found: dict[str, list[dict[str, str]]] = {}
        for number, line in enumerate(csv.DictReader(io.StringIO(text, newline="")), start=2):
            line[_LAST] = line.get(_LAST) or ""
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
            confirmed = all(line[_LAST].strip().lower() == "yes" for line in lines)
            out[name] = decision = Decision(confirmed=confirmed)
            for line in lines:
                action, box = _understood(line, self.folder / BOXES)
                decision.drop |= action == "drop"
                if box is not None:
                    decision.boxes.append(box)
        return out


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


def _lines_of(file: str, decided: Decision) -> Iterator[dict[str, Any]]:
    last = {"file": file, _LAST: "yes" if decided.confirmed else ""}
    for one in decided.boxes:
        corners = dict(zip(("x0", "y0", "x1", "y1"), one.corners, strict=True))
        read = {"text": one.text, "score": "" if one.score is None else one.score, "action": one.action}
        yield {**last, "box": one.number or "", **corners, **read}
    if decided.drop or not decided.boxes:
        yield {**last, "action": "drop" if decided.drop else "none"}


def _understood(line: Mapping[str, str], path: Path) -> tuple[Action, Marked | None]:
    """(action, box) of a line; a box that is left need not be one, as only its action counts."""
    action = line["action"].strip().lower()
    corners = [line[name].strip() for name in ("x0", "y0", "x1", "y1")]
    number, score = line["box"].strip(), line["score"].strip()
    with suppress(ValueError):  # pydantic's errors are some
        if action in ("blank", "leave"):
            text = line["text"].removeprefix("'") if line["text"][1:].startswith(_FORMULA) else line["text"]
            about = {"number": number or None, "text": text, "score": score or None, "action": action}
            return cast("Action", action), Marked.model_validate({"corners": corners, **about})
    if action in get_args(Action) and action != "blank":
        return cast("Action", action), None
    shown, wanted = ",".join([*corners, action]), ", ".join(get_args(Action))
    msg = f"{path}, {line['file']}: found {shown!r}, wanted x0,y0,x1,y1 in pixels and one of {wanted}"
    raise DataError(msg)


def _plain(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
