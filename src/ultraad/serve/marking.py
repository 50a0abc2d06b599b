"""Save rows and tell what frames show: the only place that writes marks."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ultraad.errors import DataError
from ultraad.io import read_mask
from ultraad.serve.marks import IMPORTER, FrameNow, LesionNow, StoredRow, fold, problem
from ultraad.serve.project import Picture, Place, Project, Summary, now
from ultraad.serve.schemas import FrameMarks, Lesion, Ring, Role, Row, Rows, Saved, SavedRow
from ultraad.serve.shapes import Mask, Outlined, Shape, mask_of, outlined, run_lengths
from ultraad.types import Region, Sample

Guess = Callable[[Picture, Row], tuple[Mask, str]]
"""A box or scribble on an image to (mask, rule in words)."""
Opinion = Callable[[Place], tuple[bool, str | None] | None]
"""What the current model says about a frame: (abnormal, class); None if it has not said anything."""

_APART = ("id", "image", "frame", "kind", "made")  # have columns of their own


class Marking:
    """The marks of a project.

    Args:
        project: Open.
        guess: Turns a box or a scribble into a mask.
        opinion: Of the current model.
    """

    def __init__(self, project: Project, *, guess: Guess, opinion: Opinion) -> None:
        self._project = project
        self._guess = guess
        self._opinion = opinion

    def save(self, sent: Rows) -> Saved:
        """Save rows in their order; everything is on the disk when this returns.

        Raises:
            DataError: If the project cannot be written.
        """
        guessed = {row.id: found for row in sent.rows if (found := self._guessed(row)) is not None}
        saved: list[SavedRow] = []
        touched: dict[Place, list[StoredRow]] = {}
        with self._project.lock:
            summaries: dict[Place, Summary] = {}
            with self._project.database.write() as db:
                for row in sent.rows:
                    saved.append(self._save_one(db, row, sent.rater, guessed.get(row.id), touched))
                for place, rows in touched.items():
                    summaries[place] = self._summary(place, fold(rows))
                    self._project.put_summary(db, place, summaries[place])
        roles = self._project.roles()
        frames = [self._frame(place, fold(rows), sent.rater, roles.get(place)) for place, rows in touched.items()]
        return Saved(row=self._project.last_row, saved=saved, frames=frames)

    def _guessed(self, row: Row) -> dict[str, Any] | str | None:
        """The mask and the rule of a box or scribble; a text says why there is none."""
        if row.kind != "stroke" or row.tool not in ("box", "scribble"):
            return None
        try:
            picture = self._project.picture(row.image, row.frame)
            mask, rule = self._guess(picture, row)
        except KeyError:
            return None  # refused when it is saved
        except DataError as e:
            return str(e)
        return {"runs": run_lengths(mask), "rule": rule}

    def _save_one(
        self,
        db: sqlite3.Connection,
        row: Row,
        rater: str,
        guessed: dict[str, Any] | str | None,
        touched: dict[Place, list[StoredRow]],
    ) -> SavedRow:
        place = (row.image, row.frame)
        known = db.execute("SELECT row FROM row WHERE id = ?", (row.id,)).fetchone()
        try:
            picture = self._project.picture(*place)
        except KeyError:
            return SavedRow(id=row.id, status="refused", reason="this image or frame is not in the project any more")
        except DataError as e:
            return SavedRow(id=row.id, status="refused", reason=str(e))
        rows = touched.get(place) or self.rows(place)
        if known is not None:
            touched[place] = rows
            return SavedRow(id=row.id, row=known[0], status="known")
        row = row.model_copy(update={"class_": self._project.renamed(row.class_)})
        wrong = problem(row, fold(rows), self._project.class_names, self._project.normal_class)
        extra: dict[str, Any] = {}
        if wrong is None:
            try:
                extra = self._worked_out(row, picture, guessed)
            except DataError as e:
                wrong = str(e)
        if wrong is not None:
            return SavedRow(id=row.id, status="refused", reason=wrong)
        body = {**row.model_dump(by_alias=True, exclude_defaults=True, exclude=set(_APART)), **extra}
        touched[place] = [*rows, _insert(db, row, rater, body)]
        return SavedRow(id=row.id, row=touched[place][-1].row, status="saved")

    def _worked_out(self, row: Row, picture: Picture, guessed: dict[str, Any] | str | None) -> dict[str, Any]:
        """What the server adds to a row, so that it never depends on a rule or a model again."""
        if isinstance(guessed, str):
            raise DataError(guessed)
        if guessed is not None:
            return guessed
        if row.kind == "accept":
            return {"runs": run_lengths(_filled(row.outline, picture.size)), "outline": []}
        if row.kind == "copy":
            assert row.from_ is not None
            masks = self.masks((row.image, row.from_.frame))
            if row.from_.lesion not in masks:
                msg = "the lesion to copy is not there any more"
                raise DataError(msg)
            return {"runs": run_lengths(masks[row.from_.lesion])}
        return {}

    def take(
        self, found: Iterable[tuple[Place, str | None, Sequence[Sequence[int]]]], *, rater: str = IMPORTER
    ) -> None:
        """Save marks that came with the data, one row per frame.

        Args:
            found: (place, label, run lengths of each lesion).
            rater: Who they are from.
        """
        with self._project.lock, self._project.database.write() as db:
            for place, label, lesions in found:
                class_ = label if label != self._project.normal_class else None
                body = {
                    "label": label,
                    "lesions": [{"lesion": secrets.token_hex(8), "class": class_, "runs": list(r)} for r in lesions],
                }
                row = Row(id=secrets.token_hex(16), image=place[0], frame=place[1], kind="seen")
                _insert(db, row, rater, body, kind="import")
                self._project.put_summary(db, place, self._summary(place, fold(self.rows(place))))

    def rows(self, place: Place) -> list[StoredRow]:
        """The rows of a frame, in order."""
        found = self._project.database.read(
            "SELECT row, id, kind, rater, saved, body FROM row WHERE image = ? AND frame = ? ORDER BY row", place
        )
        return [StoredRow(n, id_, kind, rater, saved, json.loads(body)) for n, id_, kind, rater, saved, body in found]

    def frame(self, place: Place, rater: str) -> FrameMarks:
        """What a frame shows now.

        Raises:
            KeyError: If there is no such frame.
            DataError: If the image cannot be read.
        """
        self._project.picture(*place)
        return self._frame(place, fold(self.rows(place)), rater, self._project.roles().get(place))

    def masks(self, place: Place) -> dict[str, Mask]:
        """{lesion: mask bool (h w)} of the lesions with at least a pixel."""
        size = self._project.pictures[place[0]].size
        found = {one.id: mask_of(one.shapes, size) for one in fold(self.rows(place)).lesions}
        return {id_: mask for id_, mask in found.items() if mask.any()}

    def sample(self, place: Place) -> Sample:
        """A marked frame as a sample: its file, label and mask.

        The id is that of its data set, so that leakage is found there; see :class:`~ultraad.types.Sample`.
        """
        picture, summary = self._project.pictures[place[0]], self._project.summaries.get(place, Summary())
        abnormal = None if summary.label is None else summary.label != self._project.normal_class
        masks: tuple[Region, ...] = ()
        if abnormal and summary.lesions:
            union = np.logical_or.reduce(list(self.masks(place).values()))
            masks = (Region(picture.size, rle=tuple(run_lengths(union))),)
        return Sample(
            id=picture.sample if picture.frames == 1 else f"{picture.sample}#{place[1]}",
            image=self._project.path(picture),
            frame=place[1],
            masks=masks,
            label=summary.label,
            anomalous=abnormal,
            group=picture.patient,
            split=picture.split,
            spacing_mm=picture.spacing_mm,
            site=picture.site,
            device=picture.device,
            tags=frozenset(picture.tags),
        )

    def _shown(self, place: Place, frame: FrameNow) -> list[tuple[LesionNow, Outlined]]:
        """The lesions of a frame with at least a pixel, with their outlines."""
        picture = self._project.pictures[place[0]]
        found = [(one, _outlined(tuple(one.shapes), picture.size, picture.spacing_mm)) for one in frame.lesions]
        return [(one, shown) for one, shown in found if shown.pixels]

    def _class(self, lesion: LesionNow) -> str | None:
        return self._project.renamed(lesion.class_)

    def _summary(self, place: Place, frame: FrameNow) -> Summary:
        shown = self._shown(place, frame)
        label, label_from = self._project.renamed(frame.label), frame.label_from
        of_lesions = self._label_of([self._class(one) for one, _ in shown])
        normal, conflict = self._project.normal_class, None
        if label == normal and shown:
            conflict = f"called {normal}, but has {len(shown)} lesion{'s' * (len(shown) > 1)}"
        elif label is not None and of_lesions not in (None, label):
            conflict = f"called {label}, but a lesion is {of_lesions}"
        before = self._project.summaries.get(place, Summary())
        guess = before.guess
        if frame.marked and before.marked is None:
            guess = self._opinion(place)
        return Summary(
            label=label or of_lesions,
            label_from=label_from or ("lesions" if of_lesions else None),
            lesions=len(shown),
            accepted=sum(one.origin == "accepted" for one, _ in shown),
            role=frame.role,
            skipped=frame.skipped,
            seen=frame.seen,
            conflict=conflict,
            marked=frame.marked,
            guess=guess,
            row=frame.row,
        )

    def _label_of(self, classes: Sequence[str | None]) -> str | None:
        """The class of an image from those of its lesions: the last in the project's order; None if one is missing."""
        order = self._project.class_names
        if not classes or None in classes:
            return None
        return max(filter(None, classes), key=lambda name: order.index(name) if name in order else -1)

    def _frame(self, place: Place, frame: FrameNow, rater: str, role: Role | None) -> FrameMarks:
        summary = self._project.summaries.get(place, Summary())
        lesions = [_lesion(one, shown, self._class(one)) for one, shown in self._shown(place, frame)]
        undo, redo = frame.undo(rater), frame.redo(rater)
        return FrameMarks(
            image=place[0],
            frame=place[1],
            row=frame.row,
            label=summary.label,
            label_from=summary.label_from,
            role=role,
            conflict=summary.conflict,
            skipped=summary.skipped,
            lesions=lesions,
            undo=undo,
            undo_text=undo and frame.kinds[undo],
            redo=redo,
            redo_text=redo and frame.kinds[redo],
        )


def _insert(
    db: sqlite3.Connection, row: Row, rater: str, body: Mapping[str, Any], *, kind: str | None = None
) -> StoredRow:
    saved = now()
    values = (row.id, row.image, row.frame, kind or row.kind, rater, row.made, saved, json.dumps(body))
    cursor = db.execute(
        "INSERT INTO row (id, image, frame, kind, rater, made, saved, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values
    )
    return StoredRow(int(cursor.lastrowid or 0), row.id, kind or row.kind, rater, saved, dict(body))


def _filled(rings: Sequence[Ring], size: tuple[int, int]) -> Mask:
    """The pixels inside rings by the even-odd rule.

    Raises:
        DataError: If there are none.
    """
    mask = np.zeros(size, dtype=np.bool_)
    for ring in rings:
        mask ^= read_mask([Region(size, polygons=(tuple(ring),))], shape=size)
    if not mask.any():
        msg = "the accepted outline has no pixel inside the image"
        raise DataError(msg)
    return mask


@lru_cache(maxsize=512)
def _outlined(shapes: tuple[Shape, ...], size: tuple[int, int], spacing_mm: tuple[float, float] | None) -> Outlined:
    return outlined(mask_of(shapes, size), spacing_mm=spacing_mm)


def _lesion(lesion: LesionNow, shown: Outlined, class_: str | None) -> Lesion:
    assert shown.box is not None
    return Lesion(
        lesion=lesion.id,
        number=lesion.number,
        class_=class_,
        origin=lesion.origin,
        rater=lesion.rater,
        outline=shown.rings,
        box=shown.box,
        pixels=shown.pixels,
        size_px=shown.size_px,
        size_mm=shown.size_mm,
        text=f"lesion {lesion.number}, {class_ or 'no class yet'}, {size_in_words(shown)}",
        rule=lesion.rule,
    )


def size_in_words(shown: Outlined) -> str:
    """``21 x 11 mm``, or pixels where the spacing is unknown."""
    (long, short), unit = (shown.size_mm, "mm") if shown.size_mm else (shown.size_px, "pixels")
    return f"{long:.0f} x {short:.0f} {unit}"
