"""From what an annotation tool says about each image to samples: one class, outlines, and warnings about the rest."""

from __future__ import annotations

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ultraad import io
from ultraad.data.sources._base import is_anomalous, is_normal, natural_key, plain, relative_id
from ultraad.data.sources._names import original_name
from ultraad.data.sources._tables import Faults, merge_spellings, read_text
from ultraad.errors import DataError, first_names
from ultraad.types import Region, Sample

_log = logging.getLogger(__name__)

UNNAMED = "lesion"  # the class of a shape without a name
_FURTHEST = 1e6  # pixels; a coordinate beyond is damage, not an outline that leaves the image
_MAX_SIDE = 1 << 16
_GRADE = re.compile(r"(?P<scale>.*rads.*?)_?(?P<grade>[0-6][abcx]?)")  # BI-RADS 4a, TI-RADS 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One shape on an image.

    Attributes:
        label: Its class; None if the file does not say.
        outline: Its pixels; None if they are unknown (only a box or a point, or a damaged outline).
    """

    label: str | None
    outline: Region | None = None


@dataclass(frozen=True, slots=True)
class Annotated:
    """One image and everything that was said about it.

    Attributes:
        image: The file.
        findings: The shapes on it.
        labels: Classes given to the image as a whole.
        judged: False if nobody has looked at the image yet, so that no findings do not mean "normal".
        group: Patient.
        split: Published split.
        frame: 0-based frame of a file with several; None for a still.
    """

    image: Path
    findings: tuple[Finding, ...] = ()
    labels: tuple[str, ...] = ()
    judged: bool = True
    group: str | None = None
    split: str | None = None
    frame: int | None = None


def load_json(file: Path) -> Any:  # noqa: ANN401
    """The content of a JSON file in any usual encoding.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return json.loads(read_text(file, "the annotations"))
    except (ValueError, RecursionError) as e:
        msg = f"cannot read the annotations {file}: {e}"
        raise DataError(msg) from e


def samples_of(images: Iterable[Annotated], root: Path, faults: Sequence[Faults]) -> Iterator[Sample]:
    """The samples of annotated images.

    The class of an image is the class of its findings. If they differ: the highest grade of BI-RADS or TI-RADS,
    malignant before benign, and no class for any others; a warning names these images. An image that was looked at and
    has no findings is normal. Masks are unknown if the pixels of any lesion are.

    Args:
        images: What was said; several entries of one file are joined.
        root: Folder that ids are relative to.
        faults: What could not be used; reported here.

    Raises:
        DataError: If nothing could be used.
    """
    joined, twice = _join(images)
    broken = [f for f in faults if f.found]
    if broken and not joined:
        msg = f"{broken[0].file} has nothing usable: {broken[0].text()}"
        raise DataError(msg)
    for fault in broken:
        fault.report()
    if twice:
        _log.warning("%s: %d image(s) are listed more than once; their annotations are joined: %s", root, len(twice),
                     first_names([p.name for p in twice], 3))  # fmt: skip
    classes = merge_spellings([name for image in joined for name in _names(image)], root)
    normal = next((name for name in classes.values() if is_normal(name)), "normal")
    graded: list[str] = []
    unclear: list[str] = []
    copies = _copies(joined, root)
    for image in joined:
        names = sorted({classes[name] for name in _names(image)})
        lesions = [f for f in image.findings if not is_normal(f.label or "")]
        label = _class_of(names, normal)
        if len([n for n in names if not is_normal(n)]) > 1:
            said = f"{image.image.name} ({', '.join(names)})"
            (graded if label else unclear).append(said)
        if any(f.label is None for f in image.findings) or not (names or image.judged):
            label = None
        outlines = tuple(f.outline for f in lesions if f.outline)
        id_ = relative_id(image.image, root)
        yield Sample(
            id=id_ if image.frame is None else f"{id_}#{image.frame}",
            image=image.image,
            frame=image.frame or 0,
            masks=outlines if len(outlines) == len(lesions) else (),
            label=label,
            anomalous=True if lesions else _state(label, names, classes.values()),
            group=image.group or copies.get(image.image),
            split=image.split,
        )
    if graded:
        _log.warning("%s: %d image(s) have findings of several grades and count as the worst: %s", root, len(graded),
                     first_names(graded, 3))  # fmt: skip
    if unclear:
        _log.warning("%s: %d image(s) have findings of several classes and get none of them; which one is it? %s", root,
                     len(unclear), first_names(unclear, 3))  # fmt: skip


def _state(label: str | None, names: Sequence[str], classes: Iterable[str]) -> bool | None:
    if label is None:
        return True if any(not is_normal(name) for name in names) else None
    return is_anomalous(label, classes)


def _names(image: Annotated) -> list[str]:
    return [*image.labels, *(f.label for f in image.findings if f.label is not None)]


def _join(images: Iterable[Annotated]) -> tuple[list[Annotated], list[Path]]:
    """(one entry for each file or frame of one, files with several)."""
    joined: dict[tuple[Path, int | None], Annotated] = {}
    twice: dict[Path, None] = {}
    for image in images:
        key = (image.image, image.frame)
        first = joined.get(key)
        if first is not None:
            twice[image.image] = None
            image = replace(
                first,
                findings=(*first.findings, *(f for f in image.findings if f not in first.findings)),
                labels=(*first.labels, *image.labels),
                judged=first.judged or image.judged,
                group=first.group or image.group,
            )
        joined[key] = image
    return list(joined.values()), list(twice)


def _class_of(names: Sequence[str], normal: str) -> str | None:
    """The one class of an image; None if its names do not agree."""
    lesions = [n for n in names if not is_normal(n)]
    if len(lesions) < 2:
        return lesions[0] if lesions else normal
    if {plain(n) for n in lesions} == {"benign", "malignant"}:
        return next(n for n in lesions if plain(n) == "malignant")
    grades = {n: m for n in lesions if (m := _GRADE.fullmatch(plain(n)))}
    if len(grades) == len(lesions) and len({m["scale"] for m in grades.values()}) == 1:
        return max(grades, key=lambda n: grades[n]["grade"])
    return None


def _copies(images: Sequence[Annotated], root: Path) -> dict[Path, str]:
    """{image: name of the original} if Roboflow wrote several copies of an original; else empty."""
    originals = {i.image: name for i in images if (name := original_name(i.image.name))}
    several = sum(n > 1 for n in Counter(originals.values()).values())
    if not several:
        return {}
    _log.warning("%s: %d original image(s) have several augmented copies (Roboflow); the copies of one original count "
                 "as one patient, so that a split keeps them together", root, several)  # fmt: skip
    return originals


def size_of(height: object, width: object, image: Path) -> tuple[int, int] | None:
    """(height, width) as a file says, or those of the image; None if neither is known."""
    try:
        size = int(float(str(height))), int(float(str(width)))
        if all(0 < side < _MAX_SIDE for side in size):
            return size
    except (ValueError, OverflowError):
        pass
    try:
        return io.image_size(image)
    except DataError:
        return None


def outline(
    polygons: Iterable[Sequence[object]], size: tuple[int, int] | None, complain: Callable[[str], None]
) -> Region | None:
    """The region of polygons as flat x0, y0, x1, y1, ... in pixels; None, with a complaint, if there is none.

    Polygons of fewer than three points beside whole ones have no area and are left out.
    """
    whole: list[tuple[float, ...]] = []
    flaw = "no points"
    for polygon in polygons:
        try:
            numbers = tuple(float(x) for x in polygon)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            flaw = f"a coordinate is no number in {str(polygon)[:60]}"
            break
        if len(numbers) % 2 or not all(math.isfinite(x) and abs(x) < _FURTHEST for x in numbers):
            flaw = f"wanted finite pixels as x0, y0, x1, y1, ..., found {str(polygon)[:60]}"
            break
        if len(numbers) >= 6:
            whole.append(numbers)
        else:
            flaw = f"wanted polygons as x0, y0, x1, y1, ... with at least three points, found {str(polygon)[:60]}"
    else:
        if size is None:
            flaw = "the size of the image is unknown"
        elif whole and all(0 <= x <= 1 for numbers in whole for x in numbers):
            flaw = "the outline is within one pixel; wanted pixels, not shares of the sides"
        elif whole:
            if any(_inside(p, size) for p in whole):
                return Region(size=size, polygons=tuple(whole))
            flaw = f"the outline is outside the image of {size[1]} x {size[0]} pixels"
    complain(flaw)
    return None


def _inside(polygon: Sequence[float], size: tuple[int, int]) -> bool:
    x, y = polygon[::2], polygon[1::2]
    return max(x) > 0 and max(y) > 0 and min(x) < size[1] and min(y) < size[0]


def ellipse(x: float, y: float, rx: float, ry: float, degrees: float = 0.0) -> tuple[float, ...]:
    """An ellipse as a polygon of 64 points, turned clockwise on the screen."""
    turn = math.radians(degrees)
    points = []
    for k in range(64):
        a, b = rx * math.cos(math.tau * k / 64), ry * math.sin(math.tau * k / 64)
        points += [x + a * math.cos(turn) - b * math.sin(turn), y + a * math.sin(turn) + b * math.cos(turn)]
    return tuple(points)


def json_files(root: Path, marks: Sequence[str]) -> Iterator[Path]:
    """The JSON file itself, or those directly in a folder, that contain one of these words near the beginning."""
    files = [root] if root.is_file() else sorted(root.glob("*.json"), key=lambda p: natural_key(p.name))
    for file in files:
        if file.suffix.lower() == ".json" and file.is_file():
            head = json_head(file)
            if any(mark in head for mark in marks):
                yield file


def json_head(file: Path) -> str:
    """The beginning of a JSON file, to tell formats apart; empty if it cannot be read."""
    try:
        with file.open("rb") as stream:
            data = stream.read(1 << 16)
    except OSError:
        return ""
    return data.replace(b"\0", b"").decode("latin-1").lstrip("ï»¿ÿþ \r\n\t")  # enough for ASCII words, in UTF-16 too


def image_places(file: Path) -> tuple[Path, ...]:
    """Where the images of an annotation file may be: beside it, or in ``images/`` here or one folder up."""
    here = file.parent
    return (here, here / "images", here / "data", here.parent, here.parent / "images")
