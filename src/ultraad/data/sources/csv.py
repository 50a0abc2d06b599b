"""A table: one row for each image, everything ultraad can use in named columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ultraad.data.sources import (
    Source,
    frames_of,
    is_anomalous,
    read_table,
    relative_id,
    split_of,
)
from ultraad.errors import DataError
from ultraad.registry import did_you_mean
from ultraad.types import Sample

_TABLE = "samples.csv"
_COLUMNS = ("image", "mask", "label", "class", "patient", "site", "device", "split", "frame", "tags")
_SLIP = 0.8  # similarity: "imgae" and "patient_id" are typing slips, "side" for "site" is not


def _table(root: Path) -> Path:
    return root if root.suffix.lower() == ".csv" else root / _TABLE


def _matches(root: Path) -> bool:
    return _table(root).is_file()


def _rows(table: Path) -> list[dict[str, str]]:
    """Rows with lower-case column names. A column that looks like a misspelt known one is an error."""
    rows = [{k.lower(): v for k, v in row.items()} for row in read_table(table)]
    found = list(rows[0]) if rows else []
    absent = [c for c in _COLUMNS if c not in found]
    slips = [c for c in found if c not in _COLUMNS and did_you_mean(c, absent, cutoff=_SLIP)]
    if slips or "image" not in found:
        what = f"a column {slips[0]!r}{did_you_mean(slips[0], _COLUMNS)}" if slips else "no column 'image'."
        there, optional = ", ".join(found) or "no rows", ", ".join(_COLUMNS[1:])
        msg = f"{table} has {what} Found: {there}. Wanted: image, and any of {optional}"
        raise DataError(msg)
    return rows


def _frame(cell: str, table: Path, number: int) -> int | None:
    if not cell:
        return None
    if not cell.isdecimal():
        msg = f"{table}, row {number}: frame is {cell!r}; wanted a whole number (frames count from 0) or an empty cell"
        raise DataError(msg)
    return int(cell)


def _read(root: Path) -> Iterator[Sample]:
    table = _table(root)
    folder = table.parent
    rows = _rows(table)
    names = [name for row in rows if (name := row.get("label") or row.get("class"))]
    for number, row in enumerate(rows, start=2):
        if not row["image"]:
            msg = f"{table}, row {number}: the cell 'image' is empty; wanted a path relative to {folder}"
            raise DataError(msg)
        yield from _samples(row, table, number, names)


def _samples(row: dict[str, str], table: Path, number: int, labels: list[str]) -> Iterator[Sample]:
    """One sample; one per frame if the file has several and the row names none."""
    folder = table.parent
    image = folder / row["image"]
    masks = tuple(folder / m.strip() for m in row.get("mask", "").split(";") if m.strip())
    frame = _frame(row.get("frame", ""), table, number)
    frames = frames_of(image)
    if frame is not None:
        frames = [(frame, frames[0][1])]
    elif len(frames) > 1 and masks:
        msg = f"{table}, row {number}: {row['image']} has {len(frames)} frames; give the mask's in a column 'frame'"
        raise DataError(msg)
    label = row.get("label") or row.get("class") or None
    split = row.get("split") or None
    for index, header in frames:
        yield Sample(
            id=relative_id(image, folder, frame=index),
            image=image,
            frame=index or 0,
            masks=masks,
            label=label,
            anomalous=is_anomalous(label, labels),
            group=row.get("patient") or header.group,
            split=split and (split_of(split) or split),
            spacing_mm=header.spacing_mm,
            site=row.get("site") or None,
            device=row.get("device") or header.device,
            tags=frozenset(t.strip() for t in row.get("tags", "").split(";") if t.strip()),
        )


SOURCE = Source(
    name="csv",
    title="a table of paths",
    licence="yours",
    citation="",
    layout="""
root/samples.csv (or give the path of any .csv file); paths are relative to the table:
  image,mask,label,patient,site,device,split,frame,tags
  scans/a.png,,normal,p1,,,train,,
  scans/b.png,masks/b1.png;masks/b2.png,benign,p2,,,test,,marks;doppler
only "image" is required; "label" may be called "class"
""",
    group_rule="The patient is in the column patient.",
    matches=_matches,
    read=_read,
)
