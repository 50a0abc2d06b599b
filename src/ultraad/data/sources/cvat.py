"""CVAT: one XML file with the shapes of every image (CVAT for images 1.1), or with tracks (CVAT for video 1.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from ultraad.data.sources import Source, images_in, split_of
from ultraad.data.sources._annotations import (
    Annotated,
    Finding,
    ellipse,
    image_places,
    outline,
    samples_of,
    size_of,
)
from ultraad.data.sources._brush import from_runs, in_window
from ultraad.data.sources._tables import Faults, files_named
from ultraad.data.sources._xml import load_xml
from ultraad.types import Region, Sample

_FILE = "annotations.xml"
_FRAME_NAME = re.compile(r"frame_(\d+)")
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
    yield from _frames(tree, file, faults)
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
            findings=tuple(_finding(s, f"{s.tag} {n}", size, entry.get("name"), faults) for n, s in enumerate(shapes)),
            labels=tuple(str(tag.get("label")) for tag in entry.iter("tag") if tag.get("label")),
            split=split_of(entry.get("subset") or ""),
        )


def _frames(tree: Element, file: Path, faults: Faults) -> Iterator[Annotated]:
    """The frames of a video with the shapes of its tracks.

    CVAT lists every frame of a track. A frame that is not listed while a track goes on was not looked at.
    """
    tracks = list(tree.iter("track"))
    if not tracks:
        return
    images = _frame_images(tree, file)
    if len({t.get("task_id") for t in tracks}) > 1:
        faults.add("tracks of several videos in one file; export each task by itself")
        return
    if not images:
        faults.add(f"{len(tracks)} track(s) of a video whose frames are not here; export the task with 'Save images'")
        return
    shown: dict[int, list[tuple[str, Element]]] = {number: [] for number in images}
    unseen: set[int] = set()
    for track in tracks:
        shapes = {int(n): s for s in track if s.tag in _SHAPES and (n := s.get("frame", "")).isdecimal()}
        if not track.get("label"):
            faults.add(f"track {track.get('id')}: no 'label'")
        inside = False
        for number in sorted(images):
            shape = shapes.get(number)
            if shape is None and inside:
                unseen.add(number)
            elif shape is not None:
                inside = shape.get("outside") != "1"
                if inside:
                    shown[number].append((str(track.get("id")), shape))
                    shape.set("label", track.get("label", ""))
        for number in sorted(shapes.keys() - images.keys()):
            faults.add(f"track {track.get('id')}: frame {number} is not here")
    height, width = (tree.findtext(f"meta/*/original_size/{side}") for side in ("height", "width"))
    for number, path in images.items():
        size = size_of(height, width, path) if shown[number] else None
        yield Annotated(
            image=path,
            findings=tuple(
                _finding(shape, f"{shape.tag} of track {track}", size, f"frame {number}", faults)
                for track, shape in shown[number]
            ),
            judged=number not in unseen,
        )


def _frame_images(tree: Element, file: Path) -> dict[int, Path]:
    """{frame number: image}: by name (frame_000012.png), else in order if there are as many images as frames."""
    for place in image_places(file):
        images = images_in(place)
        named = {int(m[1]): p for p in images if (m := _FRAME_NAME.fullmatch(p.stem))}
        if named:
            return named
        size, start = (tree.findtext(f"meta/*/{name}") or "" for name in ("size", "start_frame"))
        if images and size == str(len(images)):
            first = int(start) if start.isdecimal() else 0
            return dict(enumerate(images, start=first))
    return {}


def _finding(shape: Element, what: str, size: tuple[int, int] | None, name: str | None, faults: Faults) -> Finding:
    def complain(flaw: str) -> None:
        faults.add(f"{name}, {what}: {flaw}")

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
            runs = [int(n) for n in (shape.get("rle") or "").split(",")]
            left, top, width, height = (int(float(shape.get(k, ""))) for k in ("left", "top", "width", "height"))
            if size is not None:
                return in_window(from_runs(runs, height=height, width=width), left=left, top=top, size=size)
            complain("the size of the image is unknown")
    except ValueError as e:
        complain(f"damaged ({e})")
    return None  # a box, a line or points: the pixels are unknown


SOURCE = Source(
    name="cvat",
    title='annotations of CVAT ("CVAT for images 1.1" and "CVAT for video 1.1", XML)',
    licence="yours",
    citation="CVAT.ai, Computer Vision Annotation Tool, doi 10.5281/zenodo.4009388 (the tool)",
    layout="""
root/annotations.xml (or give any .xml file of CVAT)
  images/a.png          also beside the file, or in a folder of the subset; frames of a video as frame_000000.png
the class is the label of the shapes or tracks, or a tag of the image; an image without them is normal; polygons,
ellipses and brush masks are masks (exports of CVAT in COCO's format have the layout coco)
""",
    group_rule="There are no patient IDs.",
    matches=_matches,
    read=_read,
)
