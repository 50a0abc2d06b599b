"""Marks: rows that people make, and what frames show."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from ultraad.serve.routes.deps import Frame, Image, TheDesk
from ultraad.serve.schemas import Changed, FrameMarks, Place, Preview, PreviewRequest, Rows, Saved
from ultraad.serve.shapes import outlined

router = APIRouter(tags=["marks"])


@router.post("/marks")
def save(rows: Rows, desk: TheDesk) -> Saved:
    """Save rows; they are on the disk when this answers. A row that is known already is not saved twice."""
    return desk.save(rows)


@router.get("/marks")
def changed(desk: TheDesk, after: Annotated[int, Query(ge=0)] = 0) -> Changed:
    """The frames that have rows after a given one."""
    found = desk.project.database.read(
        "SELECT image, frame, max(row) FROM row WHERE row > ? GROUP BY image, frame ORDER BY max(row)", (after,)
    )
    return Changed(row=desk.project.last_row, frames=[Place(image=i, frame=f) for i, f, _ in found])


@router.get("/images/{image}/frames/{frame}/marks")
def frame_marks(
    image: Image, frame: Frame, desk: TheDesk, rater: Annotated[str, Query(max_length=64)] = ""
) -> FrameMarks:
    """What a frame shows now, and what this rater's undo would take back."""
    return desk.marking.frame((image, frame), rater)


@router.post("/preview")
def preview(wanted: PreviewRequest, desk: TheDesk) -> Preview:
    """The mask that a box or scribble would become; nothing is stored."""
    mask, rule = desk.preview(wanted)
    shown = outlined(mask)
    return Preview(outline=shown.rings, rule=rule, box=shown.box, pixels=shown.pixels)
