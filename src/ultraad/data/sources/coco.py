"""COCO annotations: outlines as polygons or run lengths; categories are classes, images without annotations normal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ultraad.data.sources import Source, is_normal, natural_key, plain, relative_id, split_folders, split_of
from ultraad.errors import DataError
from ultraad.types import Region, Sample

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
    return bool(_files(root))


def _read(root: Path) -> Iterator[Sample]:
    folder = root.parent if root.is_file() else root
    for file, split in _files(root):
        yield from _read_file(file, folder, split)


def _load(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        msg = f"cannot read the annotations {file}: {e}"
        raise DataError(msg) from e
    wanted = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in wanted):
        msg = f"{file} is not a COCO file: wanted an object with the lists {', '.join(wanted)}"
        raise DataError(msg)
    return content


def _read_file(file: Path, root: Path, split: str | None) -> Iterator[Sample]:
    content = _load(file)
    try:
        names = {c["id"]: str(c["name"]) for c in content["categories"]}
        notes: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
        for note in content["annotations"]:
            notes[note["image_id"]].append(note)
        normal = next((n for n in names.values() if is_normal(n)), "normal")
        for image in content["images"]:
            found = notes[image["id"]]
            labels = {names[note["category_id"]] for note in found}
            path = _find(image["file_name"], file, root)
            # The last category in natural order decides, so one malignant lesion makes the image malignant.
            label = max(labels, key=lambda n: (not is_normal(n), natural_key(n)), default=normal)
            yield Sample(
                id=relative_id(path, root),
                image=path,
                masks=_outlines(found, (image["height"], image["width"]), names, file),
                label=label,
                anomalous=not is_normal(label),
                group=str(image["patient"]) if "patient" in image else None,
                split=split,
            )
    except KeyError as e:
        msg = f"{file}: an entry has no {e}, or refers to an id that does not exist; wanted the COCO detection format"
        raise DataError(msg) from e


def _find(name: str, file: Path, root: Path) -> Path:
    """The image file: beside the annotations or in the usual folders; the first guess if there is none."""
    subset = file.stem.removeprefix("instances_")
    places = (file.parent, file.parent / "images", root, root / "images", root / subset, root / "images" / subset)
    return next((p / name for p in places if (p / name).is_file()), places[0] / name)


def _outlines(
    notes: Sequence[dict[str, Any]], size: tuple[int, int], names: dict[Any, str], file: Path
) -> tuple[Region, ...]:
    """Outlines of all lesions of one image; none if any lesion has only a box, since the mask is then unknown."""
    lesions = [note for note in notes if not is_normal(names[note["category_id"]])]
    if not all(note.get("segmentation") for note in lesions):
        return ()
    return tuple(_region(note["segmentation"], size, f"{file}, annotation {note.get('id')}") for note in lesions)


def _region(segmentation: Any, size: tuple[int, int], where: str) -> Region:  # noqa: ANN401 - parsed JSON
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        rle = decode_rle(counts) if isinstance(counts, str) else tuple(int(n) for n in counts)
        height, width = segmentation["size"]
        if sum(rle) != height * width or min(rle, default=0) < 0:
            msg = f"{where}: run lengths sum to {sum(rle)}; wanted height * width = {height * width}"
            raise DataError(msg)
        return Region(size=(height, width), rle=rle)
    polygons = tuple(tuple(float(x) for x in polygon) for polygon in segmentation)
    if any(len(p) < 6 or len(p) % 2 for p in polygons):
        msg = f"{where}: wanted polygons as x0, y0, x1, y1, ... with at least three points"
        raise DataError(msg)
    return Region(size=size, polygons=polygons)


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
or the same below train/ and test/; an image without annotations is normal
""",
    group_rule='The patient is the value of the key "patient" of an image entry, if there is one.',
    matches=_matches,
    read=_read,
)
