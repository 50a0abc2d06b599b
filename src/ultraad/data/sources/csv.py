"""A table: one row for each image, everything ultraad can use in named columns."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ultraad.config import shortened
from ultraad.data.sources import (
    Source,
    frames_of,
    is_anomalous,
    relative_id,
    split_of,
)
from ultraad.data.sources._tables import (
    TABLE_SUFFIXES,
    Faults,
    Row,
    files_named,
    is_nothing,
    is_via_table,
    merge_spellings,
    read_rows,
)
from ultraad.errors import DataError, first_names
from ultraad.registry import did_you_mean
from ultraad.types import Sample

_log = logging.getLogger(__name__)

_TABLES = ("samples.csv", "samples.tsv", "samples.xlsx")
_COLUMNS = ("image", "mask", "label", "class", "patient", "site", "device", "split", "frame", "tags")
_SLIP = 0.8  # similarity: "imgae" and "patient_id" are typing slips, "side" for "site" is not


def _table(root: Path) -> Path | None:
    """The table itself, or the one with a known name in a folder."""
    if root.suffix.lower() in TABLE_SUFFIXES and not root.is_dir():
        return root if root.is_file() and not is_via_table(root) else None
    return next((root / name for name in _TABLES if (root / name).is_file()), None)


def _matches(root: Path) -> bool:
    return _table(root) is not None


def _rows(table: Path) -> list[Row]:
    """Rows with lower-case column names. A column that looks like a misspelt known one is an error."""
    columns, rows = read_rows(table, known=_COLUMNS)
    found = [c.lower() for c in columns]
    absent = [c for c in _COLUMNS if c not in found]
    slips = [c for c in found if c not in _COLUMNS and did_you_mean(c, absent, cutoff=_SLIP)]
    twice = [c for c in _COLUMNS if found.count(c) > 1]
    if slips or twice or "image" not in found:
        what = "no column 'image'."
        if slips:
            what = f"a column {slips[0]!r}{did_you_mean(slips[0], _COLUMNS)}"
        elif twice:
            what = f"two columns {twice[0]!r}."
        there, optional = shortened(", ".join(found)) or "no rows", ", ".join(_COLUMNS[1:])
        msg = f"{table} has {what} Found: {there}. Wanted: image, and any of {optional}"
        raise DataError(msg)
    empty = [f"row {r.number}, {k}: {v!r}" for r in rows for k, v in r.cells.items() if v and is_nothing(v)]
    if empty:
        _log.warning("%s: %d cell(s) count as empty: %s", table, len(empty), first_names(empty, 3))
    return [Row(r.number, {k.lower(): "" if is_nothing(v) else v for k, v in r.cells.items()}) for r in rows]


def _names(cell: str) -> list[str]:
    """The entries of a cell with several."""
    return [name for part in cell.split(";") if not is_nothing(name := part.strip())]


def _label(cells: Mapping[str, str]) -> str | None:
    return cells.get("label") or cells.get("class") or None


def _read(root: Path) -> Iterator[Sample]:
    table = _table(root)
    assert table is not None  # checked by matches
    faults = Faults(table)
    rows = _rows(table)
    classes = merge_spellings((name for row in rows if (name := _label(row.cells))), table)
    named = [name for row in rows for name in (row.cells["image"], *_names(row.cells.get("mask", ""))) if name]
    files = files_named(named, (table.parent,), table)
    samples: dict[str, tuple[Sample, int]] = {}
    for row in rows:
        try:
            found = _samples(row, files, table.parent, classes)
        except DataError as e:
            faults.add(f"row {row.number}: {e}")
            continue
        for sample in found:
            first, number = samples.get(sample.id, (None, row.number))
            if first is None:
                samples[sample.id] = (sample, number)
            elif first == sample:
                shown = row.cells["image"]
                faults.add(f"row {row.number}: the image {shown!r} is listed more than once, first in row {number}")
            elif replace(first, masks=sample.masks) == sample and first.masks and sample.masks:
                samples[sample.id] = (replace(first, masks=(*first.masks, *sample.masks)), number)  # one row per lesion
            else:
                faults.add(_contradiction(row, first, sample, number))
    if faults.found and not samples:
        msg = f"{table} has no usable row: {faults.text()}"
        raise DataError(msg)
    faults.report()
    yield from (sample for sample, _ in samples.values())


def _contradiction(row: Row, first: Sample, sample: Sample, number: int) -> str:
    pairs = {
        "label": (sample.label, first.label),
        "patient": (sample.group, first.group),
        "split": (sample.split, first.split),
        "mask": (row.cells.get("mask", ""), "another"),
    }
    column, (here, there) = next(((k, v) for k, v in pairs.items() if v[0] != v[1]))
    image = row.cells["image"]
    return f"row {row.number}: {column} is {here!r}, but row {number} says {there!r} for the same image {image!r}"


def _frame(cell: str) -> int | None:
    if not cell:
        return None
    if not (cell.isascii() and cell.isdecimal() and len(cell) < 10):
        msg = f"frame is {cell!r}; wanted a whole number (frames count from 0) or an empty cell"
        raise DataError(msg)
    return int(cell)


def _samples(row: Row, files: Mapping[str, Path], folder: Path, classes: Mapping[str, str]) -> list[Sample]:
    """One sample; one per frame if the file has several and the row names none."""
    cells = row.cells
    if not cells["image"]:
        msg = f"the cell 'image' is empty; wanted a path relative to {folder}"
        raise DataError(msg)
    image = files[cells["image"]]
    masks = tuple(files[name] for name in _names(cells.get("mask", "")))
    frame = _frame(cells.get("frame", ""))
    frames = frames_of(image)
    if frame is not None:
        frames = [(frame, frames[0][1])]
    elif len(frames) > 1 and masks:
        msg = f"{cells['image']} has {len(frames)} frames; give the mask's in a column 'frame'"
        raise DataError(msg)
    label = _label(cells)
    label = label and classes[label]
    split = cells.get("split") or None
    return [
        Sample(
            id=relative_id(image, folder, frame=index),
            image=image,
            frame=index or 0,
            masks=masks,
            label=label,
            anomalous=is_anomalous(label, classes.values()),
            group=cells.get("patient") or header.group,
            split=split and (split_of(split) or split),
            spacing_mm=header.spacing_mm,
            site=cells.get("site") or None,
            device=cells.get("device") or header.device,
            tags=frozenset(_names(cells.get("tags", ""))),
        )
        for index, header in frames
    ]


SOURCE = Source(
    name="csv",
    title="a table of paths",
    licence="yours",
    citation="",
    layout="""
root/samples.csv (.tsv, .xlsx; or give the path of any such file); paths are relative to the table:
  image,mask,label,patient,site,device,split,frame,tags
  scans/a.png,,normal,p1,,,train,,
  scans/b.png,masks/b1.png;masks/b2.png,benign,p2,,,test,,marks;doppler
only "image" is required; "label" may be called "class"; cells may be separated by comma, semicolon or tab
""",
    group_rule="The patient is in the column patient.",
    matches=_matches,
    read=_read,
)
