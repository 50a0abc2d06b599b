"""A plain folder: one folder for each class, masks in any of the usual places.

All of these count as masks of ``benign/a.png``:

- ``benign/a_mask.png``, ``benign/a_mask_1.png`` (beside the image; several are OR-ed), also ``a_GT.png``,
  ``a_segmentation.png``, ``a-label.png``, ``mask_a.png`` and, if two-valued, ``a_tumor.png``, ``a_lesion.png``
- ``benign/masks/a.png``, ``benign_mask/a.png``, ``masks/benign/a.png`` (each also as ``a_mask.png``); the folder may
  also be called annotations, labels, ground_truth, gt or segmentation

The same holds for images in ``benign/images/`` or ``images/benign/``.
"""

from __future__ import annotations

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
from ultraad.data.sources._tables import merge_spellings
from ultraad.io.names import Pictures, is_mask_folder, label_of_mask_folder, owner_of, sort_out, stem_of, tails_of
from ultraad.types import Sample

_IMAGE_FOLDERS = ("images", "image", "img")


def _is_image_folder(folder: Path) -> bool:
    return plain(folder.name) in _IMAGE_FOLDERS


def _parts(root: Path) -> list[tuple[Path, str | None]]:
    """(folder of the class folders, split)."""
    bases: list[tuple[Path, str | None]] = [*split_folders(root)] or [(root, None)]
    return [(next(filter(_is_image_folder, folders_in(base)), base), split) for base, split in bases]


def _leaves(base: Path) -> Iterator[tuple[str, str | None, Path]]:
    """(class, patient, folder with images)."""
    for folder in folders_in(base):
        if is_mask_folder(folder.name):
            continue
        yield folder.name, None, folder
        for inner in folders_in(folder):
            if not is_mask_folder(inner.name):
                yield folder.name, None if _is_image_folder(inner) else inner.name, inner


def _mask_folders(folder: Path, label: str | None = None) -> list[Path]:
    """The folders of masks in a folder: of all classes, or of one (``benign_masks``)."""
    wanted = None if label is None else plain(label)
    return [f for f in folders_in(folder) if is_mask_folder(f.name) and label_of_mask_folder(f.name) == wanted]


def _masks(root: Path, base: Path, leaf: Path, pictures: Pictures) -> dict[str, list[Path]]:
    """{image stem: its masks} for the images of one folder."""
    label, *inner = leaf.relative_to(base).parts
    patient = [p for p in inner if plain(p) not in _IMAGE_FOLDERS]
    places = _mask_folders(leaf)
    places += [m.joinpath(*patient) for m in _mask_folders(base / label)]
    places += [m.joinpath(*patient) for m in _mask_folders(base, label)]
    places += [m.joinpath(label, *patient) for m in _mask_folders(base)]
    for parent in base.parents:  # from a split's or "images" folder up to the root
        if not parent.is_relative_to(root):
            break
        between = [p for p in base.relative_to(parent).parts if plain(p) not in _IMAGE_FOLDERS]
        places += [m.joinpath(*between, label, *patient) for m in _mask_folders(parent)]
    index = {stem: list(paths) for stem, paths in pictures.masks.items()}
    stems = {stem_of(p): p for p in pictures.images}
    tails = tails_of(stems)
    for path in dict.fromkeys(p for place in places for p in images_in(place)):
        if (stem := owner_of(path, stems, tails)) is not None:
            index.setdefault(stem, []).append(path)
    return index


def _matches(root: Path) -> bool:
    return root.is_dir() and any(images_in(leaf) for base, _ in _parts(root) for _, _, leaf in _leaves(base))


def _read(root: Path) -> Iterator[Sample]:
    leaves = [(base, split, *leaf) for base, split in _parts(root) for leaf in _leaves(base)]
    pictures = {leaf: sort_out(images_in(leaf)) for *_, leaf in leaves}
    labels = merge_spellings((label for _, _, label, _, leaf in leaves if pictures[leaf].images), root)
    for base, split, label, patient, leaf in leaves:
        images = pictures[leaf].images
        masks = _masks(root, base, leaf, pictures[leaf]) if images else {}
        for path in images:
            for frame, header in frames_of(path):
                name = stem_of(path) if frame is None else f"{stem_of(path)}_frame{frame}"
                yield Sample(
                    id=relative_id(path, root, frame=frame),
                    image=path,
                    frame=frame or 0,
                    masks=tuple(masks.get(name, ())),
                    label=labels[label],
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
