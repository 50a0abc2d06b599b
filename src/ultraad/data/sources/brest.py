"""BrEaST-Lesions-USG: 256 breast-ultrasound images of 256 patients, with BI-RADS and histology in a sheet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ultraad.config import shortened
from ultraad.data.sources import Source, images_in, is_anomalous, plain, relative_id
from ultraad.data.sources._tables import TABLE_SUFFIXES, Faults, is_nothing, read_rows
from ultraad.errors import DataError
from ultraad.io.find import is_file
from ultraad.types import Sample

_IMAGE = re.compile(r"case\d+", re.IGNORECASE)
_MASK = re.compile(r"(?P<image>case\d+)_(?:tumor|other\d*)", re.IGNORECASE)
_CLASSES = ("normal", "benign", "malignant")
_COLUMNS = ("CaseID", "Image_filename", "Mask_tumor_filename", "Mask_other_filename", "Classification")


def _matches(root: Path) -> bool:
    return root.is_dir() and any(_MASK.fullmatch(p.stem) for p in root.glob("case*_*.png"))


def _sheet(root: Path) -> Path:
    tables = [p for p in sorted(root.iterdir()) if p.suffix.lower() in TABLE_SUFFIXES and p.name[0] not in ".~"]
    if not tables:
        msg = (
            f"{root} has images but no classes: wanted BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx (or the same "
            "as a CSV file) beside them"
        )
        raise DataError(msg)
    return min(tables, key=lambda p: p.suffix.lower() != ".csv")


def _read(root: Path) -> Iterator[Sample]:
    table = _sheet(root)
    columns, rows = read_rows(table, known=_COLUMNS)
    lacking = [c for c in ("Image_filename", "Classification") if c not in columns]
    if lacking:
        msg = f"{table} has no column {lacking[0]!r}. Found: {shortened(', '.join(columns)) or 'nothing'}"
        raise DataError(msg)
    faults = Faults(table)
    masks: dict[str, list[Path]] = {}
    for path in images_in(root):
        if found := _MASK.fullmatch(path.stem):
            masks.setdefault(found["image"].lower(), []).append(path)
    seen: set[Path] = set()
    for row in rows:
        name, label = row.cells["Image_filename"], plain(row.cells["Classification"])
        image = root / name
        if not name or image in seen or not _IMAGE.fullmatch(image.stem):
            faults.add(f"row {row.number}: Image_filename is {name!r}; wanted the name of one image, once")
            continue
        if label not in _CLASSES:
            faults.add(f"row {row.number}: Classification is {label!r}; wanted {', '.join(_CLASSES)}")
            continue
        seen.add(image)
        case, grade = row.cells.get("CaseID", ""), row.cells.get("BIRADS", "")
        yield Sample(
            id=relative_id(image, root),
            image=image,
            masks=() if label == "normal" else tuple(masks.get(image.stem.lower(), ())),
            label=label,
            anomalous=is_anomalous(label, _CLASSES),
            group=None if is_nothing(case) else case,
            tags=frozenset() if is_nothing(grade) else frozenset({f"birads_{plain(grade)}"}),
        )
    if faults.found and not seen:
        msg = f"{table} has no usable row: {faults.text()}"
        raise DataError(msg)
    faults.report()


def _quirks(root: Path) -> list[str]:
    _, rows = read_rows(_sheet(root), known=_COLUMNS)
    listed = {row.cells.get("Image_filename") for row in rows}
    stray = [p.name for p in images_in(root) if _IMAGE.fullmatch(p.stem) and p.name not in listed]
    named = [
        (row.number, column, name.strip())
        for row in rows
        for column in ("Mask_tumor_filename", "Mask_other_filename")
        for name in re.split("[&;,]", row.cells.get(column, ""))
        if not is_nothing(name) and plain(name) != "not_applicable"
    ]
    return [
        *(f"{name} is not listed in the sheet and is skipped" for name in stray),
        *(
            f"row {n}: {column} is {name!r}, which is not there"
            for n, column, name in named
            if not is_file(root / name)
        ),
    ]


SOURCE = Source(
    name="brest",
    title="BrEaST-Lesions-USG breast ultrasound, 256 images of 256 patients (normal, benign, malignant)",
    licence="CC BY 4.0",
    citation=(
        "Pawłowska et al., Curated benchmark dataset for ultrasound based breast lesion analysis, Scientific Data "
        "11:148 (2024), doi 10.7937/9WKK-Q141"
    ),
    layout="""
root/
  BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx   (or a CSV file) CaseID,Image_filename,...,BIRADS,Classification
  case001.png   case001_tumor.png   case001_other1.png: masks of the tumour and of other lesions, used together
""",
    group_rule="Each case is one patient (column CaseID).",
    matches=_matches,
    read=_read,
    quirks=_quirks,
    published=True,
    organ="breast",
)
