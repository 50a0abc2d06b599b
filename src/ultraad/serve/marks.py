"""From append-only rows to what a frame shows now. Nothing here reads a file or a database.

Undo and redo are rows too. They name the row that they take back, of the same frame. Each rater has a stack of steps
for each frame; a new step empties what could be redone. A row that was taken back and restored counts at its old place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ultraad.serve.schemas import Role, Row
from ultraad.serve.shapes import Shape

STEPS = frozenset({"stroke", "lesion", "remove", "label", "accept", "copy", "role", "import"})
"""Kinds that undo takes back; ``skip`` and ``seen`` are no marks."""
IMPORTER = "import"
"""The rater of marks that came with the data."""

Origin = Literal["drawn", "accepted", "imported", "copied"]


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row of the database.

    Attributes:
        row: Its number; rows count in this order.
        id: Made by whoever sent it.
        kind: See :class:`ultraad.serve.schemas.Row`; ``import`` holds the marks that came with the data.
        rater: Who made it.
        saved: ISO time at the server.
        body: Everything else that was sent, and ``runs``, the run lengths of a mask that the server has worked out.
    """

    row: int
    id: str
    kind: str
    rater: str
    saved: str
    body: dict[str, Any]


@dataclass(slots=True)
class LesionNow:
    """One lesion while its rows are read; its number in the frame never changes."""

    id: str
    number: int
    class_: str | None
    origin: Origin
    rater: str
    shapes: list[Shape] = field(default_factory=list)
    rule: str | None = None


@dataclass(slots=True)
class FrameNow:
    """What the rows of one frame amount to.

    Attributes:
        row: Number of the last one.
        lesions: In the order they were begun, also those without a pixel.
        label: Class given to the whole image; None if none was.
        label_from: Who gave it.
        role: As the rater wants it; None leaves it to the server.
        skipped: Skipped in the queue.
        seen: Looked at in the review queue after the last change.
        marked: Time of the last step that counts; None without one.
        steps: {rater: (done, undone)}, ids of rows in order.
        kinds: {id: what the row did, in words}.
        numbers: {lesion: its number}, also of those that are not there any more.
    """

    row: int = 0
    lesions: list[LesionNow] = field(default_factory=list)
    label: str | None = None
    label_from: Literal["label", "import"] | None = None
    role: Role | None = None
    skipped: bool = False
    seen: bool = False
    marked: str | None = None
    steps: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, lesion: str) -> int:
        """The number of a lesion, given at its first row."""
        return self.numbers.setdefault(lesion, len(self.numbers) + 1)

    def undo(self, rater: str) -> str | None:
        """The row that this rater's next undo takes back."""
        done, _ = self.steps.get(rater, ([], []))
        return done[-1] if done else None

    def redo(self, rater: str) -> str | None:
        """The row that this rater's next redo restores."""
        _, undone = self.steps.get(rater, ([], []))
        return undone[-1] if undone else None


def fold(rows: Sequence[StoredRow]) -> FrameNow:
    """The state of a frame from all its rows, in order."""
    now = FrameNow(row=rows[-1].row if rows else 0)
    for row in rows:
        done, undone = now.steps.setdefault(row.rater, ([], []))
        if row.kind in STEPS:
            done.append(row.id)
            undone.clear()
        elif row.kind in ("undo", "redo"):
            here, there = (done, undone) if row.kind == "undo" else (undone, done)
            target = row.body["target"]
            if target in here:
                here.remove(target)
                there.append(target)
    alive = {id_ for done, _ in now.steps.values() for id_ in done}
    for row in rows:
        now.kinds[row.id] = _in_words(row, now)
        if row.kind in ("skip", "seen"):
            now.skipped, now.seen = now.skipped or row.kind == "skip", row.kind == "seen"
        elif row.id in alive:
            _apply(now, row)
            now.marked, now.seen = row.saved, False
    return now


def _in_words(row: StoredRow, now: FrameNow) -> str:
    """What a row did, for the tool tip of undo; a new lesion gets its number here."""
    body, lesion = row.body, row.body.get("lesion")
    number = now.number(lesion) if lesion and row.kind in STEPS else None
    on = f" on lesion {number}" if number else ""
    texts = {
        "stroke": f"{body.get('tool')}{on}",
        "lesion": f"class {body.get('class')}{on}",
        "remove": f"deleting lesion {number}",
        "label": f"label {body.get('class') or 'taken back'}",
        "accept": f"accepting lesion {number}",
        "copy": f"copying lesion {number}",
        "role": f"use as {str(body.get('role')).replace('_', '-')}",
        "import": "imported marks",
    }
    return texts.get(row.kind, row.kind)


def _apply(now: FrameNow, row: StoredRow) -> None:
    body = row.body
    if row.kind == "stroke":
        _stroke(now, row)
    elif row.kind == "lesion":
        for lesion in now.lesions:
            if lesion.id == body["lesion"]:
                lesion.class_ = body.get("class")
    elif row.kind == "remove":
        now.lesions = [lesion for lesion in now.lesions if lesion.id != body["lesion"]]
    elif row.kind == "label":
        now.label, now.label_from = body.get("class"), "label" if body.get("class") else None
    elif row.kind in ("accept", "copy"):
        _begin(now, row, body, "accepted" if row.kind == "accept" else "copied")
    elif row.kind == "role":
        now.role = None if body["role"] == "auto" else body["role"]
    elif row.kind == "import":
        for found in body["lesions"]:
            _begin(now, row, found, "imported")
        now.label, now.label_from = body.get("label"), "import" if body.get("label") else None


def _begin(now: FrameNow, row: StoredRow, found: Mapping[str, Any], origin: Origin) -> None:
    """A lesion whose whole mask is known."""
    id_, shapes = found["lesion"], [Shape(runs=tuple(found["runs"]))]
    now.lesions.append(LesionNow(id_, now.number(id_), found.get("class"), origin, row.rater, shapes))


def _stroke(now: FrameNow, row: StoredRow) -> None:
    body, tool = row.body, row.body["tool"]
    points = tuple(body.get("points", ()))
    if tool in ("brush", "eraser"):
        radii = tuple(body.get("radii") or [body["radius"]] * (len(points) // 2))
        shape = Shape(points, radii, erase=tool == "eraser")
    elif tool == "polygon":
        shape = Shape(points)
    else:
        shape = Shape(runs=tuple(body["runs"]))
    wanted = body.get("lesion")
    if tool == "eraser":
        for one in now.lesions:
            if wanted in (None, one.id):
                one.shapes.append(shape)
        return
    lesion = next((one for one in now.lesions if one.id == wanted), None)
    if lesion is None:
        lesion = LesionNow(str(wanted), now.number(str(wanted)), body.get("class"), "drawn", row.rater)
        now.lesions.append(lesion)
    elif body.get("class"):
        lesion.class_ = body["class"]
    lesion.shapes.append(shape)
    lesion.rule = body.get("rule") or lesion.rule


def problem(row: Row, now: FrameNow, classes: Iterable[str], normal: str) -> str | None:
    """Why a row cannot be saved; None if it can.

    Args:
        row: As it was sent.
        now: Its frame before it.
        classes: Names of the project's classes.
        normal: The class that means "no lesion".
    """
    wanted = row.class_
    if wanted is not None and wanted not in classes:
        return f"there is no class {wanted!r} in this project; add it first"
    if wanted == normal and row.kind != "label":
        return f"a lesion cannot be {normal!r}; give the whole image this label instead"
    lesion = row.lesion is not None
    lacking = {
        "stroke": row.tool is None and "tool",
        "lesion": not lesion and "lesion",
        "remove": not lesion and "lesion",
        "accept": (not row.outline and "outline") or (not lesion and "lesion"),
        "copy": (row.from_ is None and "from") or (not lesion and "lesion"),
        "role": row.role is None and "role",
        "undo": row.target is None and "target",
        "redo": row.target is None and "target",
    }.get(row.kind)
    if lacking:
        return f"a row of kind {row.kind!r} needs {lacking!r}"
    known = {one.id for one in now.lesions}
    if row.kind in ("lesion", "remove") and row.lesion not in known:
        return "this lesion is not there any more; another rater may have deleted it"
    if row.kind in ("accept", "copy") and row.lesion in known:
        return "this lesion id is used already; make a new one"
    if row.kind in ("undo", "redo") and row.target not in now.kinds:
        return f"there is nothing to {row.kind}: that row is not on this frame"
    return _stroke_problem(row) if row.kind == "stroke" else None


def _stroke_problem(row: Row) -> str | None:
    count, odd = divmod(len(row.points), 2)
    least = {"polygon": 3, "box": 2}.get(row.tool or "", 1)
    if odd or count < least:
        return f"a {row.tool} needs x, y pairs of at least {least} point(s), got {len(row.points)} numbers"
    if row.tool == "box" and count != 2:
        return f"a box has two corners, got {count} points"
    if row.tool in ("brush", "eraser", "scribble"):
        if row.radii is not None and len(row.radii) != count:
            return f"a {row.tool} needs one radius per point, got {len(row.radii)} for {count}"
        if row.radii is None and row.radius is None:
            return f"a {row.tool} needs 'radius' or 'radii'"
    if row.tool != "eraser" and row.lesion is None:
        return f"a {row.tool} needs the lesion that it belongs to"
    return None
