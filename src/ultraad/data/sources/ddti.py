"""DDTI: thyroid-ultrasound images of nodules, outlines and TI-RADS in one XML file for each case."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from ultraad.data.sources import Source, images_in, is_anomalous, natural_key, relative_id
from ultraad.data.sources._annotations import outline, size_of
from ultraad.data.sources._tables import Faults
from ultraad.data.sources._xml import load_xml
from ultraad.errors import DataError
from ultraad.types import Region, Sample

_IMAGE = re.compile(r"(?P<case>\d+)_(?P<image>\d+)")
_GRADES = {"1": "normal", "2": "benign", "3": "benign", "4a": "malignant", "4b": "malignant", "4c": "malignant"}
_GRADES |= {"4": "malignant", "5": "malignant"}


def _cases(root: Path) -> list[Path]:
    found = (p for p in root.glob("*.xml") if p.stem.isdecimal())
    return sorted(found, key=lambda p: natural_key(p.name))


def _images(root: Path) -> dict[str, dict[str, Path]]:
    """{case: {number: image}}."""
    cases: dict[str, dict[str, Path]] = {}
    for path in images_in(root):
        if m := _IMAGE.fullmatch(path.stem):
            cases.setdefault(m["case"], {})[m["image"]] = path
    return cases


def _matches(root: Path) -> bool:
    return root.is_dir() and any(any(root.glob(f"{case.stem}_*.*")) for case in _cases(root))


def _grade(case: Element) -> str:
    return (case.findtext("tirads") or "").strip().lower()


def _read(root: Path) -> Iterator[Sample]:
    faults, images = Faults(root, "entry"), _images(root)
    for file in _cases(root):
        try:
            case = load_xml(file)
        except DataError as e:
            faults.add(str(e))
            continue
        grade = _grade(case)
        label = _GRADES.get(grade)
        if label is None and grade:
            faults.add(f"{file.name}: tirads is {grade!r}; wanted one of {', '.join(_GRADES)}")
        marks: dict[str, list[Region | None]] = {}
        for mark in case.iter("mark"):
            number = (mark.findtext("image") or "").strip()
            image = images.get(file.stem, {}).get(number)
            if image is None:
                faults.add(f"{file.name}: mark of image {number!r}, which is not there")
            else:
                marks.setdefault(number, []).extend(_outlines(mark, image, file, faults))
        for number, image in images.get(file.stem, {}).items():
            regions = marks.get(number, [])
            known = tuple(r for r in regions if r)
            yield Sample(
                id=relative_id(image, root),
                image=image,
                masks=known if len(known) == len(regions) and label != "normal" else (),
                label=label,
                anomalous=is_anomalous(label, _GRADES.values()) if label else (True if regions else None),
                group=file.stem,
                tags=frozenset({f"tirads_{grade}"} if label else ()),
            )
    faults.report()


def _outlines(mark: Element, image: Path, file: Path, faults: Faults) -> Iterator[Region | None]:
    """The outlines in a mark; None for one that is damaged."""

    def complain(flaw: str) -> None:
        faults.add(f"{file.name}, mark of {image.name}: {flaw}")

    text = (mark.findtext("svg") or "").strip()
    if not text:
        return
    try:
        shapes: Any = json.loads(text)
        polygons = [[c for p in shape["points"] for c in (p["x"], p["y"])] for shape in shapes]
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        complain(f"damaged ({type(e).__name__}: {e})")
        yield None
        return
    size = size_of(None, None, image)
    for polygon in polygons:
        yield outline([polygon], size, complain)


def _quirks(root: Path) -> list[str]:
    images = _images(root)
    listed = {file.stem for file in _cases(root)}
    ungraded = []
    for file in _cases(root):
        try:
            if not _grade(load_xml(file)):
                ungraded.append(file.stem)
        except DataError:
            continue  # reading the samples reports it
    return [
        "the classes follow from TI-RADS, not from histology: 2 and 3 are benign, 4a to 5 malignant, 1 normal",
        *([f"{len(ungraded)} case(s) have no TI-RADS and no class: {', '.join(ungraded[:8])}"] if ungraded else []),
        *(f"case {case} has images but no XML file and is skipped" for case in images if case not in listed),
    ]


SOURCE = Source(
    name="ddti",
    title="DDTI thyroid ultrasound, nodules with outlines and TI-RADS (benign, malignant)",
    licence="free for research and teaching, with citation",
    citation="Pedraza et al., An open access thyroid ultrasound-image database, SPIE 9287 (2015)",
    layout="""
root/
  1.xml        <case><tirads>4a</tirads> <mark><image>1</image><svg>[{"points": ...}]</svg></mark> ...</case>
  1_1.jpg      image 1 of case 1
TI-RADS 2 and 3 are benign, 4a to 5 malignant
""",
    group_rule="Each case is one patient.",
    matches=_matches,
    read=_read,
    quirks=_quirks,
    published=True,
    organ="thyroid",
)
