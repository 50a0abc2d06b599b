"""Annotated ultrasound liver images: 735 images, outlines of liver and mass as JSON files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ultraad.data.sources import Source, folders_in, images_in, is_anomalous, plain, relative_id
from ultraad.data.sources._annotations import load_json, outline, size_of
from ultraad.data.sources._tables import Faults
from ultraad.errors import DataError
from ultraad.types import Region, Sample

_CLASSES = ("normal", "benign", "malignant")


def _parts(root: Path) -> list[Path]:
    return [f for f in folders_in(root) if plain(f.name) in _CLASSES and (f / "segmentation").is_dir()]


def _matches(root: Path) -> bool:
    return any((f / "image").is_dir() for f in _parts(root))


def _uses(root: Path) -> Iterator[Path]:
    return (file for folder in _parts(root) for file in (folder / "segmentation").rglob("*.json"))


def _read(root: Path) -> Iterator[Sample]:
    faults = Faults(root, "outline")
    for folder in _parts(root):
        label = plain(folder.name)
        for path in images_in(folder / "image"):
            file = folder / "segmentation" / "mass" / f"{path.stem}.json"
            region = _mass(file, path, faults) if label != "normal" and file.is_file() else None
            yield Sample(
                id=relative_id(path, root),
                image=path,
                masks=(region,) if region else (),
                label=label,
                anomalous=is_anomalous(label, _CLASSES),
            )
    faults.report()


def _mass(file: Path, image: Path, faults: Faults) -> Region | None:
    def complain(flaw: str) -> None:
        faults.add(f"{file.parent.parent.parent.name}/{file.name}: {flaw}")

    try:
        polygons = _polygons(load_json(file))
    except DataError as e:
        complain(str(e))
        return None
    except (TypeError, ValueError, IndexError) as e:
        complain(f"damaged ({type(e).__name__}: {e}); wanted a list of points x, y")
        return None
    return outline(polygons, size_of(None, None, image), complain)


def _polygons(content: Any) -> list[list[Any]]:  # noqa: ANN401 - parsed JSON
    """Flat polygons from one list of points or a list of such lists."""
    if not isinstance(content, list) or not content:
        msg = f"found {str(content)[:40]!r}"
        raise ValueError(msg)
    several = isinstance(content[0], list) and content[0] and isinstance(content[0][0], list)
    return [[c for x, y in points for c in (x, y)] for points in (content if several else [content])]


def _quirks(root: Path) -> list[str]:
    found = []
    for folder in _parts(root):
        if plain(folder.name) == "normal":
            continue
        there = {p.stem for p in (folder / "segmentation" / "mass").glob("*.json")}
        images = {p.stem for p in images_in(folder / "image")}
        found += [f"{folder.name}/image/{n} has no outline of a mass" for n in sorted(images - there)]
        found += [f"{folder.name}/segmentation/mass/{n}.json has no image" for n in sorted(there - images)]
    return found


SOURCE = Source(
    name="liver",
    title="annotated ultrasound liver images, 735 images (normal, benign, malignant)",
    licence="CC BY 4.0",
    citation=(
        "Xu et al., Improving artificial intelligence pipeline for liver malignancy diagnosis using ultrasound images "
        "and video frames, Briefings in Bioinformatics 24:bbac569 (2023), doi 10.5281/zenodo.7272660"
    ),
    layout="""
root/
  Benign/image/1.jpg       Benign/segmentation/mass/1.json    the outline of the mass as a list of points [x, y]
  Malignant/...  Normal/... (segmentation/liver and segmentation/outline are not used)
""",
    group_rule="There are no patient IDs.",
    matches=_matches,
    read=_read,
    quirks=_quirks,
    uses=_uses,
    published=True,
    organ="liver",
)
