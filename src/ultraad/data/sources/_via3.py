"""Projects and CSV exports of version 3 of the VGG Image Annotator, as the entries of its version 2.

Format: https://gitlab.com/vgg/via, via-3.x.y, "CodeDoc.md" and "_via_metadata.js".

    project     vid_list: the views in use
    file        {id: fname, src, type (2: image)}
    view        {id: fid_list}: the files shown together, one for images
    attribute   {id: aname, type (1: text), options {id: name}}
    metadata    {id: vid, xy [shape, numbers ...], av {attribute: text, or ids of options}}

The CSV export has one row for each entry of ``metadata``, and the attributes in comments above. An image about which
nothing was said is in the project only.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultraad.data.sources._tables import Faults, read_text
from ultraad.errors import DataError

_IMAGE = 2  # type of a file
_TEXT = 1  # type of an attribute; the values of all others are ids of options, separated by commas
_SHAPES: Mapping[object, tuple[str, ...]] = {
    1: ("point",),
    2: ("rect",),
    3: ("circle", "cx", "cy", "r"),
    4: ("ellipse", "cx", "cy", "rx", "ry"),
    5: ("line",),
    6: ("polyline",),
    7: ("polygon",),
    8: ("extreme rectangle",),
    9: ("extreme circle",),
}
"""{number of a shape: its name, and the names of its numbers in version 2}."""
_HEADER, _ATTRIBUTES = "CSV_HEADER", ("ATTRIBUTE", "ATTRIBUTES")


def is_project(content: object) -> bool:
    """Whether parsed JSON is a project of version 3."""
    return isinstance(content, dict) and isinstance(content.get("project"), dict) and "view" in content


def read_project(file: Path, faults: Faults) -> dict[str, Any]:
    """A CSV export as the project that it was exported from, as far as it says.

    Args:
        file: The table.
        faults: Gets the rows that cannot be read.

    Raises:
        DataError: If it is no text or has no rows.
    """
    comments: dict[str, str] = {}
    files: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    try:
        lines = read_text(file, "the annotations").splitlines()
        for line in lines:
            name, equals, value = line.lstrip("# ").partition("=")
            if line.startswith("#") and equals:
                comments.setdefault(name.strip(), value.strip().rstrip(","))  # Excel adds commas
        columns = [column.strip() for column in comments.get(_HEADER, "").split(",")]
        rows = [row for row in csv.reader(line for line in lines if not line.startswith("#")) if any(row)]
    except csv.Error as e:
        msg = f"cannot read the annotations {file}: {e}"
        raise DataError(msg) from e
    for number, row in enumerate(rows, start=1):
        cells = dict(zip(columns, row, strict=False))
        try:
            shown, times, shape, values = (
                json.loads(cells.get(column) or default)
                for column, default in (
                    ("file_list", "[]"),
                    ("temporal_coordinates", "[]"),
                    ("spatial_coordinates", "[]"),
                    ("metadata", "{}"),
                )
            )
        except (ValueError, RecursionError) as e:
            faults.add(f"entry {number}: a cell is no JSON ({e})")
            continue
        if times or not isinstance(shown, list) or len(shown) != 1 or not isinstance(shown[0], str):
            faults.add(f"entry {number} is about a video or several files, not about one image")
            continue
        files.setdefault(shown[0], {"fname": shown[0], "type": _IMAGE})
        metadata[str(number)] = {"vid": shown[0], "xy": shape, "av": values}
    try:
        attribute = json.loads(next((comments[name] for name in _ATTRIBUTES if name in comments), "{}"))
    except (ValueError, RecursionError) as e:
        faults.add(f"the line of attributes is no JSON ({e})")
        attribute = {}
    views = {name: {"fid_list": [name]} for name in files}
    return {"project": {}, "file": files, "view": views, "attribute": attribute, "metadata": metadata}


def entries(content: Mapping[str, Any], faults: Faults) -> dict[str, Any]:
    """The images of a project as the entries of an export of version 2.

    Args:
        content: A project; see :func:`is_project`.
        faults: Gets the views that show no image, or several files.
    """
    files, views, metadata = (_table(content, key) for key in ("file", "view", "metadata"))
    said: dict[str, list[Mapping[str, Any]]] = {}
    for key, one in metadata.items():
        if isinstance(one, dict):
            said.setdefault(str(one.get("vid")), []).append(one)
        else:
            faults.add(f"metadata {key!r} is no object")
    listed = content["project"].get("vid_list")
    found: dict[str, Any] = {}
    for vid in map(str, listed if isinstance(listed, list) else views):
        view = views.get(vid)
        shown = view.get("fid_list") if isinstance(view, dict) else None
        file = files.get(str(shown[0])) if isinstance(shown, list) and len(shown) == 1 else None
        if not isinstance(file, dict) or file.get("type", _IMAGE) != _IMAGE:
            faults.add(f"view {vid!r} does not show one image")
            continue
        facts: dict[str, str] = {}
        regions: list[dict[str, Any]] = []
        for one in said.get(vid, ()):
            values = _values(one.get("av"), _table(content, "attribute"))
            if one.get("xy") in ([], None):  # about the whole image
                facts |= values
            else:
                regions.append({"shape_attributes": _shape(one["xy"]), "region_attributes": values})
        name = file.get("fname") or file.get("src")
        found[vid] = {"filename": name, "file_attributes": facts, "regions": regions}
    return found


def _table(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = content.get(key)
    return found if isinstance(found, dict) else {}


def _values(av: object, attributes: Mapping[str, Any]) -> dict[str, str]:
    """{name of an attribute: its text, or the one option that is chosen}."""
    found: dict[str, str] = {}
    for id_, value in av.items() if isinstance(av, dict) else ():
        about = attributes.get(str(id_))
        about = about if isinstance(about, dict) else {"aname": about}
        options = _table(about, "options")
        text = str(value)
        if about.get("type", _TEXT) != _TEXT and options:
            chosen = [str(options.get(one, one)) for one in text.split(",") if one]
            text = chosen[0] if len(chosen) == 1 else ""
        found[str(about.get("aname") or id_)] = text
    return found


def _shape(xy: object) -> dict[str, Any] | None:
    """The shape as version 2 writes it; None if it is none."""
    if not isinstance(xy, list) or not isinstance(xy[0], (int, float)) or xy[0] not in _SHAPES:
        return None
    name, *numbers = _SHAPES[xy[0]]
    if name == "polygon":
        return {"name": name, "all_points_x": xy[1::2], "all_points_y": xy[2::2]}
    return {"name": name, **dict(zip(numbers, xy[1:], strict=False))}
