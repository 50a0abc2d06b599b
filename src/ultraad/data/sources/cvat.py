"""CVAT: "CVAT for images 1.1", one XML file with the shapes of every image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ultraad.data.sources import Source, split_of
from ultraad.data.sources._annotations import (
    Annotated,
    Finding,
    ellipse,
    image_places,
    outline,
    samples_of,
    size_of,
)
from ultraad.data.sources._tables import Faults, files_named
from ultraad.data.sources._xml import load_xml
from ultraad.types import Region, Sample

_FILE = "annotations.xml"
_SHAPES = ("polygon", "ellipse", "mask", "box", "polyline", "points", "cuboid", "skeleton")


def _file(root: Path) -> Path | None:
    file = root if root.suffix.lower() == ".xml" else root / _FILE
    return file if file.is_file() else None


def _matches(root: Path) -> bool:
    return _file(root) is not None


def _read(root: Path) -> Iterator[Sample]:
    file = _file(root)
    assert file is not None  # checked by matches
    faults = Faults(file, "entry")
    yield from samples_of(_images(file, faults), file.parent, [faults])


def _images(file: Path, faults: Faults) -> Iterator[Annotated]:
    tree = load_xml(file)
    for track in tree.iter("track"):
        faults.add(f"track {track.get('id')} of a video; export the task as 'CVAT for images 1.1'")
    entries = []
    for number, entry in enumerate(tree.iter("image")):
        if entry.get("name"):
            entries.append(entry)
        else:
            faults.add(f"image number {number} has no 'name'")
    here = image_places(file)
    subsets = {str(e.get("subset")) for e in entries if e.get("subset")}
    places = [*here, *(p / s for p in here for s in sorted(subsets))]
    paths = files_named((str(e.get("name")) for e in entries), places, file)
    for entry in entries:
        path = paths[str(entry.get("name"))]
        shapes = [s for s in entry if s.tag in _SHAPES]
        size = size_of(entry.get("height"), entry.get("width"), path) if shapes else None
        yield Annotated(
            image=path,
            findings=tuple(_finding(s, n, size, entry.get("name"), faults) for n, s in enumerate(shapes)),
            labels=tuple(str(tag.get("label")) for tag in entry.iter("tag") if tag.get("label")),
            split=split_of(entry.get("subset") or ""),
        )


def _finding(shape: Element, number: int, size: tuple[int, int] | None, name: str | None, faults: Faults) -> Finding:
    def complain(flaw: str) -> None:
        faults.add(f"{name}, {shape.tag} {number}: {flaw}")

    label = (shape.get("label") or "").strip()
    if not label:
        complain("no 'label'")
    return Finding(label or None, _outline(shape, size, complain))


def _outline(shape: Element, size: tuple[int, int] | None, complain: Callable[[str], None]) -> Region | None:
    try:
        if shape.tag == "polygon":
            pairs = [pair.split(",") for pair in (shape.get("points") or "").split(";")]
            return outline([[float(c) for x, y in pairs for c in (x, y)]], size, complain)
        if shape.tag == "ellipse":
            cx, cy, rx, ry = (float(shape.get(k, "")) for k in ("cx", "cy", "rx", "ry"))
            return outline([ellipse(cx, cy, rx, ry, float(shape.get("rotation", 0)))], size, complain)
        if shape.tag == "mask":
            return _mask(shape, size)
    except ValueError as e:
        complain(f"damaged ({e})")
    return None  # a box, a line or points: the pixels are unknown


def _mask(shape: Element, size: tuple[int, int] | None) -> Region:
    """A brush mask: run lengths along the rows of a window, starting with background."""
    if size is None:
        msg = "the size of the image is unknown"
        raise ValueError(msg)
    runs = np.array([int(n) for n in (shape.get("rle") or "").split(",")])
    left, top, width, height = (int(float(shape.get(k, ""))) for k in ("left", "top", "width", "height"))
    inside = left >= 0 and top >= 0 and left + width <= size[1] and top + height <= size[0] and min(width, height) > 0
    if not inside or runs.min() < 0 or runs.max() > width * height or runs.sum() != width * height:
        msg = f"run lengths sum to {runs.sum()} in a window of {width} x {height} at {left}, {top}"
        raise ValueError(msg)
    full = np.zeros(size, dtype=np.bool_)
    full[top : top + height, left : left + width] = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(
        height, width
    )
    columns = full.T.ravel()
    edges = np.flatnonzero(np.diff(columns, prepend=False, append=not columns[-1]))  # also closes the last run
    return Region(size=size, rle=tuple(int(n) for n in np.diff(edges, prepend=0)))


SOURCE = Source(
    name="cvat",
    title='annotations of CVAT ("CVAT for images 1.1", XML)',
    licence="yours",
    citation="CVAT.ai, Computer Vision Annotation Tool, doi 10.5281/zenodo.4009388 (the tool)",
    layout="""
root/annotations.xml (or give any .xml file of CVAT)
  images/a.png          also beside the file, or in a folder of the subset
the class is the label of the shapes, or a tag of the image; an image without both is normal; polygons, ellipses and
brush masks are masks (exports of CVAT in COCO's format have the layout coco)
""",
    group_rule="There are no patient IDs.",
    matches=_matches,
    read=_read,
)
