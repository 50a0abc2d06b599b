"""COCO annotations: outlines as polygons or run lengths; categories are classes, images without annotations normal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ultraad.data.sources import Source, is_normal, natural_key, plain, split_folders, split_of
from ultraad.data.sources._annotations import Annotated, Finding, json_head, load_json, outline, samples_of, size_of
from ultraad.data.sources._tables import Faults, files_named, is_nothing
from ultraad.errors import DataError
from ultraad.io import count_frames
from ultraad.types import Region, Sample

_OTHERS = ('"shape_attributes"', '"file_attributes"', '"_via_', '"shapes"')
_NAMES = ("annotations.json", "_annotations.coco.json")


def _files(root: Path) -> list[tuple[Path, str | None]]:
    """(annotation file, split) under a folder, or the file itself."""
    if root.suffix.lower() == ".json":
        return [(root, None)] if root.is_file() else []
    for name in _NAMES:
        if (root / name).is_file():
            return [(root / name, None)]
    in_splits: list[tuple[Path, str | None]] = [
        (f / name, split) for f, split in split_folders(root) for name in _NAMES if (f / name).is_file()
    ]
    if in_splits:
        return in_splits
    return [
        (p, next(filter(None, map(split_of, plain(p.stem).split("_"))), None))
        for p in sorted((root / "annotations").glob("*.json"), key=lambda p: natural_key(p.name))
    ]


def _matches(root: Path) -> bool:
    return any(not _is_other(file) for file, _ in _files(root))


def _uses(root: Path) -> Iterator[Path]:
    return (file for file, _ in _files(root))


def _is_other(file: Path) -> bool:
    """True for a JSON file of another tool: a list, or one with its words near the beginning."""
    head = json_head(file)
    return head.startswith("[") or any(word in head for word in _OTHERS)


def _read(root: Path) -> Iterator[Sample]:
    folder = root.parent if root.is_file() else root
    images: list[Annotated] = []
    faults: list[Faults] = []
    for file, split in _files(root):
        faults.append(Faults(file, "entry"))
        images += _read_file(file, folder, split, faults[-1])
    yield from samples_of(images, folder, faults)


def _load(file: Path) -> dict[str, list[Any]]:
    content = load_json(file)
    wanted = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in wanted):
        msg = f"{file} is not a COCO file: wanted an object with the lists {', '.join(wanted)}"
        raise DataError(msg)
    return content


def _read_file(file: Path, root: Path, split: str | None, faults: Faults) -> Iterator[Annotated]:
    content = _load(file)
    names = {_key(c["id"]): str(c["name"]) for c in _entries(content["categories"], ("id", "name"), "category", faults)}
    entries: dict[str, dict[str, Any]] = {}
    for image in _entries(content["images"], ("id", "file_name"), "image", faults):
        key = _key(image["id"])
        if key in entries and entries[key]["file_name"] != image["file_name"]:
            faults.add(f"image {image['file_name']!r}: id is {key}, as that of {entries[key]['file_name']!r}")
            continue
        entries[key] = image
    notes: dict[str, list[dict[str, Any]]] = {key: [] for key in entries}
    for note in _entries(content["annotations"], ("image_id",), "annotation", faults):
        if _key(note["image_id"]) in notes:
            notes[_key(note["image_id"])].append(note)
        else:
            faults.add(f"{_where(note)}: image_id is {note['image_id']!r}, which refers to an id that does not exist")
    subset = file.stem.removeprefix("instances_")
    places = (file.parent, file.parent / "images", root, root / "images", root / subset, root / "images" / subset)
    paths = files_named((str(image["file_name"]) for image in entries.values()), places, file)
    for key, image in entries.items():
        path = paths[str(image["file_name"])]
        size = size_of(image.get("height"), image.get("width"), path) if notes[key] else None
        patient = image.get("patient")
        yield Annotated(
            image=path,
            findings=tuple(_finding(note, names, size, faults) for note in notes[key]),
            group=None if patient is None or is_nothing(str(patient)) else str(patient),
            split=split,
            frame=_frame(image.get("frame"), path),
        )


def _frame(frame: object, path: Path) -> int | None:
    """The frame of a file with several; None for a still, whatever frame of a video it may have been."""
    try:
        return frame if isinstance(frame, int) and count_frames(path) > 1 else None
    except DataError:  # reading its pixels says what is wrong
        return None


def _entries(entries: list[Any], keys: Sequence[str], what: str, faults: Faults) -> Iterator[dict[str, Any]]:
    """The entries that are objects with these keys."""
    for number, entry in enumerate(entries):
        lacking = [k for k in keys if not isinstance(entry, dict) or entry.get(k) is None]
        if lacking:
            faults.add(f"{what} number {number} has no {lacking[0]!r}")
        else:
            yield entry


def _key(id_: object) -> str:
    """An id as text, the same for 1, ``"1"`` and 1.0, which pandas makes of it."""
    text = str(id_).strip()
    return text.removesuffix(".0") if re.fullmatch(r"-?\d+\.0", text) else text


def _where(note: dict[str, Any]) -> str:
    return f"annotation {note.get('id')}"


def _finding(note: dict[str, Any], names: dict[str, str], size: tuple[int, int] | None, faults: Faults) -> Finding:
    def complain(flaw: str) -> None:
        faults.add(f"{_where(note)}: {flaw}")

    label = names.get(_key(note.get("category_id")))
    if label is None:
        complain(f"category_id is {note.get('category_id')!r}, which refers to an id that does not exist")
    segmentation = note.get("segmentation")
    if not segmentation or (label is not None and is_normal(label)):
        return Finding(label)  # only a box
    if isinstance(segmentation, dict):
        return Finding(label, _runs(segmentation, complain))
    if not isinstance(segmentation, list):
        complain(f"segmentation is {str(segmentation)[:60]!r}; wanted polygons or run lengths")
        return Finding(label)
    flat = not isinstance(segmentation[0], list)  # some programs leave out the list around a single polygon
    return Finding(label, outline([segmentation] if flat else segmentation, size, complain))


def _runs(segmentation: dict[str, Any], complain: Callable[[str], None]) -> Region | None:
    try:
        counts = segmentation["counts"]
        rle = decode_rle(counts) if isinstance(counts, str) else tuple(int(n) for n in counts)
        height, width = (int(n) for n in segmentation["size"])
    except DataError as e:
        complain(str(e))
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        complain(f"run lengths need 'counts' and 'size' ({type(e).__name__}: {e})")
    else:
        if min(height, width) > 0 and sum(rle) == height * width and min(rle, default=0) >= 0:
            return Region(size=(height, width), rle=rle)
        complain(f"run lengths sum to {sum(rle)}; wanted height * width = {height * width}")
    return None


def decode_rle(text: str) -> tuple[int, ...]:
    """Run lengths from COCO's compressed string.

    Each number is little-endian base 32 in characters from ``"0"`` on. Bit 5 means "more follows"; bit 4 of the last
    character is the sign. From the fourth number on, the difference to the number two before is stored (pycocotools,
    ``rleToString``).

    Args:
        text: Characters with codes 48 to 111.

    Returns:
        Run lengths, column-major, starting with background.

    Raises:
        DataError: If a character is outside this range or the last number is cut off.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            msg = f"compressed run lengths contain the character {character!r}; wanted COCO's encoding"
            raise DataError(msg)
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        msg = "compressed run lengths end in the middle of a number; the file is cut off"
        raise DataError(msg)
    return tuple(runs)


SOURCE = Source(
    name="coco",
    title="COCO annotations (polygons or run lengths)",
    licence="yours",
    citation="Lin et al., Microsoft COCO: Common objects in context, ECCV 2014 (the format)",
    layout="""
root/annotations.json (or _annotations.coco.json, or annotations/instances_train.json, or give any .json file)
  images/a.png          file_name is looked up beside the annotations, in root/, images/, and a folder of the split
or the same below train/ and test/; an image without annotations is normal; one with benign and malignant findings is
malignant, one with several grades has the highest, and one with several other classes has none; the key "frame" of an
image entry is the 0-based frame of a DICOM cine, as in the coco.json of 'ultraad predict'
""",
    group_rule='The patient is the value of the key "patient" of an image entry, if there is one.',
    matches=_matches,
    read=_read,
    uses=_uses,
)
