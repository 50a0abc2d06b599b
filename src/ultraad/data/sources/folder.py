"""A plain folder: one folder for each class, masks in any of the usual places.

All of these count as masks of ``benign/a.png``:

- ``benign/a_mask.png``, ``benign/a_mask_1.png`` (beside the image; several are OR-ed)
- ``benign/masks/a.png``, ``benign_mask/a.png``, ``masks/benign/a.png`` (each also as ``a_mask.png``)

The same holds for images in ``benign/images/`` or ``images/benign/``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ultraad.data.sources import (
    Source,
    folders_in,
    frames_of,
    images_in,
    is_anomalous,
    plain,
    relative_id,
    split_folders,
)
from ultraad.types import Sample

_MASK_FOLDERS = ("masks", "mask")
_IMAGE_FOLDERS = ("images", "image", "img")
_MASK = re.compile(r"(?P<image>.+?)_mask.*", re.IGNORECASE)


def _is_mask_folder(folder: Path) -> bool:
    return plain(folder.name).split("_")[-1] in _MASK_FOLDERS


def _is_image_folder(folder: Path) -> bool:
    return plain(folder.name) in _IMAGE_FOLDERS


def _parts(root: Path) -> list[tuple[Path, str | None]]:
    """(folder of the class folders, split)."""
    bases: list[tuple[Path, str | None]] = [*split_folders(root)] or [(root, None)]
    return [(next(filter(_is_image_folder, folders_in(base)), base), split) for base, split in bases]


def _leaves(base: Path) -> Iterator[tuple[str, str | None, Path]]:
    """(class, patient, folder with images)."""
    for folder in folders_in(base):
        if _is_mask_folder(folder):
            continue
        yield folder.name, None, folder
        for inner in folders_in(folder):
            if not _is_mask_folder(inner):
                yield folder.name, None if _is_image_folder(inner) else inner.name, inner


def _masks(root: Path, base: Path, leaf: Path) -> dict[str, list[Path]]:
    """{image stem: its masks} for the images of one folder."""
    label, *inner = leaf.relative_to(base).parts
    patient = [p for p in inner if plain(p) not in _IMAGE_FOLDERS]
    places = [leaf / m for m in _MASK_FOLDERS]
    places += [base.joinpath(label, m, *patient) for m in _MASK_FOLDERS]
    places += [base.joinpath(f"{label}_{m}", *patient) for m in _MASK_FOLDERS]
    places += [base.joinpath(m, label, *patient) for m in _MASK_FOLDERS]
    for parent in base.parents:  # from a split's or "images" folder up to the root
        if not parent.is_relative_to(root):
            break
        between = [p for p in base.relative_to(parent).parts if plain(p) not in _IMAGE_FOLDERS]
        places += [parent.joinpath(m, *between, label, *patient) for m in _MASK_FOLDERS]
    found = [(m["image"], p) for p in images_in(leaf) if (m := _MASK.fullmatch(p.stem))]
    for path in dict.fromkeys(p for place in places for p in images_in(place)):
        m = _MASK.fullmatch(path.stem)
        found.append((m["image"] if m else path.stem, path))
    index: dict[str, list[Path]] = {}
    for stem, path in found:
        index.setdefault(stem, []).append(path)
    return index


def _matches(root: Path) -> bool:
    return root.is_dir() and any(images_in(leaf) for base, _ in _parts(root) for _, _, leaf in _leaves(base))


def _read(root: Path) -> Iterator[Sample]:
    leaves = [(base, split, *leaf) for base, split in _parts(root) for leaf in _leaves(base)]
    images = {leaf: [p for p in images_in(leaf) if not _MASK.fullmatch(p.stem)] for *_, leaf in leaves}
    labels = {label for _, _, label, _, leaf in leaves if images[leaf]}
    for base, split, label, patient, leaf in leaves:
        masks = _masks(root, base, leaf) if images[leaf] else {}
        for path in images[leaf]:
            for frame, header in frames_of(path):
                name = path.stem if frame is None else f"{path.stem}_frame{frame}"
                yield Sample(
                    id=relative_id(path, root, frame=frame),
                    image=path,
                    frame=frame or 0,
                    masks=tuple(masks.get(name, ())),
                    label=label,
                    anomalous=is_anomalous(label, labels),
                    group=patient or header.group,
                    split=split,
                    spacing_mm=header.spacing_mm,
                    device=header.device,
                )


SOURCE = Source(
    name="folder",
    title="a folder for each class",
    licence="yours",
    citation="",
    layout="""
root/
  normal/a.png                       the class is the folder's name; DICOM files work too, one sample for each frame
  benign/b.png    benign/b_mask.png  masks beside the images, or in benign/masks/, benign_mask/, masks/benign/
  malignant/patient7/c.png           a folder inside a class is a patient
or the same below train/ and test/
""",
    group_rule="The patient is the folder between class and image, or the patient in the DICOM header.",
    matches=_matches,
    read=_read,
)
