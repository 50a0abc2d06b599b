"""labelme: one JSON file beside each image."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ultraad.data.sources import Source, folders_in, images_in
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
from ultraad.data.sources._brush import from_png, in_window
from ultraad.data.sources._tables import Faults, files_named, is_nothing
from ultraad.errors import DataError
from ultraad.types import Region, Sample

_MARKS = ('"shapes"',)


def _folders(root: Path) -> list[Path]:
    """The folders with labelme's files: the root and two levels below."""
    inside = folders_in(root)
    places = [root, *inside, *(f for folder in inside for f in folders_in(folder))]
    return [f for f in places if next(json_files(f, _MARKS), None)]


def _matches(root: Path) -> bool:
    return root.is_dir() and bool(_folders(root))


def _uses(root: Path) -> Iterator[Path]:
    return (file for folder in _folders(root) for file in json_files(folder, _MARKS))


def _read(root: Path) -> Iterator[Sample]:
    images: list[Annotated] = []
    faults = Faults(root, "entry")
    for folder in _folders(root):
        images += _read_folder(folder, faults)
    yield from samples_of(images, root, [faults])


def _read_folder(folder: Path, faults: Faults) -> Iterator[Annotated]:
    beside = {p.stem: p for p in images_in(folder)}
    contents: dict[Path, dict[str, Any]] = {}
    for file in json_files(folder, _MARKS):
        try:
            content = load_json(file)
        except DataError as e:
            faults.add(str(e))
            continue
        if isinstance(content, dict) and isinstance(content.get("shapes"), list):
            contents[file] = content
        else:
            faults.add(f"{file.name} has no list 'shapes'")
    names = {f: str(c["imagePath"]) for f, c in contents.items() if c.get("imagePath") and f.stem not in beside}
    places = image_places(folder / "any")
    paths = files_named(names.values(), places, folder)
    used = set()
    for file, content in contents.items():
        image = beside.get(file.stem) or paths.get(names.get(file, ""))
        if image is None:
            faults.add(f"{file.name} names no image (imagePath), and none of its name is beside it")
            continue
        image = Path(os.path.normpath(image))  # imagePath may lead out of the folder
        used.add(image)
        size = size_of(content.get("imageHeight"), content.get("imageWidth"), image) if content["shapes"] else None
        flags = content.get("flags")
        ticked = [str(k) for k, v in flags.items() if v is True] if isinstance(flags, dict) else []
        yield Annotated(
            image=image,
            findings=tuple(_finding(s, n, size, file.name, faults) for n, s in enumerate(content["shapes"])),
            labels=tuple(ticked),
        )
    yield from (Annotated(image=p, judged=False) for p in beside.values() if p not in used)


def _finding(
    shape: Any,  # noqa: ANN401 - parsed JSON
    number: int,
    size: tuple[int, int] | None,
    name: str,
    faults: Faults,
) -> Finding:
    def complain(flaw: str) -> None:
        faults.add(f"{name}, shape {number}: {flaw}")

    if not isinstance(shape, dict):
        complain(f"is {str(shape)[:40]!r}; wanted an object")
        return Finding(None)
    label = shape.get("label")
    named = isinstance(label, str) and not is_nothing(label)
    return Finding(str(label).strip() if named else UNNAMED, _outline(shape, size, complain))


def _outline(shape: dict[str, Any], size: tuple[int, int] | None, complain: Callable[[str], None]) -> Region | None:
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    try:
        if kind == "polygon":
            return outline([[x for x, y in points for x in (x, y)]], size, complain)  # type: ignore[union-attr]
        if kind == "circle":  # the centre and a point on the edge
            (cx, cy), (ex, ey) = points  # type: ignore[misc]
            radius = math.hypot(float(ex) - float(cx), float(ey) - float(cy))
            return outline([ellipse(float(cx), float(cy), radius, radius)], size, complain)
        if kind == "mask":  # the first point is the corner of its window
            return _brush(shape.get("mask"), points[0], size, complain)  # type: ignore[index]
    except (TypeError, ValueError, OverflowError, IndexError):
        complain(f"{kind} with points {str(points)[:60]}; wanted pairs of numbers")
    return None  # a box, a line or a point: the pixels are unknown


def _brush(
    mask: object,
    corner: Sequence[float],
    size: tuple[int, int] | None,
    complain: Callable[[str], None],
) -> Region | None:
    left, top = (int(float(x)) for x in corner)
    if size is None:
        complain("the size of the image is unknown")
        return None
    try:
        return in_window(from_png(str(mask), most=size), left=left, top=top, size=size)
    except (ValueError, DataError) as e:
        complain(f"a mask drawn with the brush is damaged ({e})")
        return None


SOURCE = Source(
    name="labelme",
    title="shapes drawn in labelme (one JSON file for each image)",
    licence="yours",
    citation="Wada, labelme: image polygonal annotation with Python, doi 10.5281/zenodo.5711226 (the tool)",
    layout="""
root/
  a.png    a.json        (also in folders below; or a.json with the image in ../images/)
the class is the label of the shapes, or a flag of the image; a file without shapes is a normal image; an image without
a file was not looked at and has no class; polygons, circles and brush masks are masks
""",
    group_rule="There are no patient IDs.",
    matches=_matches,
    read=_read,
    uses=_uses,
)
