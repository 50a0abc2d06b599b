"""VGG Image Annotator: one JSON or CSV file with the regions of every image."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ultraad.data.sources import Source, _via3, natural_key
from ultraad.data.sources._annotations import (
    UNNAMED,
    Annotated,
    Finding,
    ellipse,
    image_places,
    json_files,
    load_json,
    outline,
    samples_of,
    size_of,
)
from ultraad.data.sources._tables import (
    VIA_COLUMNS,
    Faults,
    files_named,
    is_nothing,
    is_via3_head,
    is_via_table,
    read_rows,
)
from ultraad.errors import DataError
from ultraad.types import Region, Sample

_MARKS = ('"shape_attributes"', '"file_attributes"', '"_via_', '"vid_list"')
_CLASS = ("class", "label", "category", "type", "name", "pathology", "diagnosis")
_PATIENT = ("patient", "patient_id", "case")


def _files(root: Path) -> Iterator[Path]:
    """The JSON files that VIA wrote; its CSV files if there are none, since it exports the same in both."""
    files = [*json_files(root, _MARKS)]
    tables = [root] if root.is_file() else sorted(root.glob("*.csv"), key=lambda p: natural_key(p.name))
    yield from files or filter(is_via_table, tables)


def _matches(root: Path) -> bool:
    return next(_files(root), None) is not None


def _read(root: Path) -> Iterator[Sample]:
    folder = root.parent if root.is_file() else root
    images: list[Annotated] = []
    faults: list[Faults] = []
    for file in _files(root):
        faults.append(Faults(file, "entry"))
        content = _from_table(file, faults[-1]) if is_via_table(file) else load_json(file)
        if _via3.is_project(content):
            content = _via3.entries(content, faults[-1])
        images += _read_content(content, file, faults[-1])
    yield from samples_of(images, folder, faults)


def _from_table(file: Path, faults: Faults) -> dict[str, Any]:
    """The rows of a CSV export, one for each region, as the entries of a JSON export; version 3 as its project."""
    with file.open("rb") as start:
        if is_via3_head(start.read(1 << 16)):
            return _via3.read_project(file, faults)
    entries: dict[str, Any] = {}
    _, rows = read_rows(file, known=VIA_COLUMNS)
    for row in rows:
        cells = {name.removeprefix("#"): cell for name, cell in row.cells.items()}
        name = cells.get("filename", "")
        try:
            facts, shape, attributes = (
                json.loads(cells.get(column) or "{}")
                for column in ("file_attributes", "region_shape_attributes", "region_attributes")
            )
        except ValueError as e:
            faults.add(f"row {row.number}: a cell is no JSON ({e})")
            facts, shape, attributes = {}, None, {}
        entry = entries.setdefault(name, {"filename": name or None, "file_attributes": facts, "regions": []})
        if shape != {}:  # an image without regions has a row with an empty one
            entry["regions"].append({"shape_attributes": shape, "region_attributes": attributes})
    return entries


def _read_content(content: Any, file: Path, faults: Faults) -> Iterator[Annotated]:  # noqa: ANN401 - parsed JSON
    if isinstance(content, dict):
        content = content.get("_via_img_metadata", content)
    if not isinstance(content, dict):
        msg = f"{file} is not an export of the VGG Image Annotator: wanted an object with an entry for each image"
        raise DataError(msg)
    entries = []
    for key, entry in content.items():
        if isinstance(entry, dict) and isinstance(entry.get("filename"), str):
            entries.append(entry)
        else:
            faults.add(f"entry {key!r} has no 'filename'")
    paths = files_named((e["filename"] for e in entries), image_places(file), file)
    for entry in entries:
        path, facts = paths[entry["filename"]], entry.get("file_attributes")
        regions = entry.get("regions") or []
        if isinstance(regions, dict):  # version 1
            regions = list(regions.values())
        size = size_of(None, None, path) if regions else None
        label = _attribute(facts, _CLASS)
        yield Annotated(
            image=path,
            findings=tuple(_finding(r, n, label, size, entry["filename"], faults) for n, r in enumerate(regions)),
            labels=(label,) if label else (),
            group=_attribute(facts, _PATIENT),
        )


def _attribute(attributes: object, names: tuple[str, ...]) -> str | None:
    """The value of the first of these attributes; that of checkboxes is the one option that is ticked."""
    if not isinstance(attributes, dict):
        return None
    lower = {str(k).strip().lower(): v for k, v in attributes.items()}
    for value in (lower[name] for name in names if name in lower):
        if isinstance(value, dict):
            ticked = [str(k) for k, v in value.items() if v]
            value = ticked[0] if len(ticked) == 1 else ""
        if isinstance(value, str) and not is_nothing(value):
            return value.strip()
    return None


def _finding(
    region: Any,  # noqa: ANN401 - parsed JSON
    number: int,
    label: str | None,
    size: tuple[int, int] | None,
    name: str,
    faults: Faults,
) -> Finding:
    def complain(flaw: str) -> None:
        faults.add(f"{name}, region {number}: {flaw}")

    if not isinstance(region, dict) or not isinstance(region.get("shape_attributes"), dict):
        complain("no 'shape_attributes'")
        return Finding(label)
    attributes = region.get("region_attributes")
    own = _attribute(attributes, _CLASS)
    if own is None and isinstance(attributes, dict) and len(attributes) == 1:
        own = _attribute(attributes, tuple(str(k).strip().lower() for k in attributes))
    return Finding(own or label or UNNAMED, _outline(region["shape_attributes"], size, complain))


def _outline(shape: dict[str, Any], size: tuple[int, int] | None, complain: Callable[[str], None]) -> Region | None:
    kind = shape.get("name")
    try:
        if kind == "polygon":
            pairs = zip(shape["all_points_x"], shape["all_points_y"], strict=True)
            return outline([[x for pair in pairs for x in pair]], size, complain)
        if kind in {"circle", "ellipse"}:
            rx = float(shape["r"] if kind == "circle" else shape["rx"])
            ry = float(shape["r"] if kind == "circle" else shape["ry"])
            turn = math.degrees(float(shape.get("theta") or 0))
            return outline([ellipse(float(shape["cx"]), float(shape["cy"]), rx, ry, turn)], size, complain)
    except (KeyError, TypeError, ValueError) as e:
        complain(f"{kind} is damaged ({type(e).__name__}: {e})")
    return None  # a box, a line or a point: the pixels are unknown


SOURCE = Source(
    name="via",
    title="regions drawn in the VGG Image Annotator (JSON or CSV)",
    licence="yours",
    citation="Dutta and Zisserman, The VIA annotation software for images, audio and video, ACM Multimedia 2019",
    layout="""
root/via_region_data.json or .csv (or any such file that VIA 1, 2 or 3 wrote, project files too)
  a.png or images/a.png
the class is the region attribute "class" (or label, category, type, name), or the file attribute of that name; an image
without regions is normal; a region without a class is a "lesion"; polygons, circles and ellipses are masks; the CSV
file of VIA 3 leaves out images without regions, its project file (JSON) does not
""",
    group_rule='The patient is the file attribute "patient", if there is one.',
    matches=_matches,
    read=_read,
)
