"""VGG Image Annotator: one JSON file with the regions of every image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ultraad.data.sources import Source
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
from ultraad.data.sources._tables import Faults, files_named, is_nothing
from ultraad.errors import DataError
from ultraad.types import Region, Sample

_MARKS = ('"shape_attributes"', '"file_attributes"', '"_via_')
_CLASS = ("class", "label", "category", "type", "name", "pathology", "diagnosis")
_PATIENT = ("patient", "patient_id", "case")


def _matches(root: Path) -> bool:
    return next(json_files(root, _MARKS), None) is not None


def _read(root: Path) -> Iterator[Sample]:
    folder = root.parent if root.is_file() else root
    images: list[Annotated] = []
    faults: list[Faults] = []
    for file in json_files(root, _MARKS):
        faults.append(Faults(file, "entry"))
        images += _read_file(file, faults[-1])
    yield from samples_of(images, folder, faults)


def _read_file(file: Path, faults: Faults) -> Iterator[Annotated]:
    content = load_json(file)
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
    title="regions drawn in the VGG Image Annotator (JSON)",
    licence="yours",
    citation="Dutta and Zisserman, The VIA annotation software for images, audio and video, ACM Multimedia 2019",
    layout="""
root/via_region_data.json (or any .json file that VIA wrote, project files too)
  a.png or images/a.png
the class is the region attribute "class" (or label, category, type, name), or the file attribute of that name; an image
without regions is normal; a region without a class is a "lesion"; polygons, circles and ellipses are masks
""",
    group_rule='The patient is the file attribute "patient", if there is one.',
    matches=_matches,
    read=_read,
)
