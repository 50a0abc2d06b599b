"""Images in one folder and their masks in another: what segmentation tools export.

Only the masks say what an image shows, so this layout reads them: an image whose masks are empty is normal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ultraad import io
from ultraad.data.sources import Source, folders_in, images_in, plain, split_folders
from ultraad.data.sources._annotations import UNNAMED, Annotated, Finding, samples_of
from ultraad.data.sources._tables import Faults
from ultraad.errors import DataError
from ultraad.io.names import is_mask_folder, owner_of, stem_of, tails_of
from ultraad.types import Sample

_IMAGE_FOLDERS = ("images", "image", "imgs", "img")


def _parts(root: Path) -> list[tuple[Path, list[Path], str | None]]:
    """(folder of images, folders of masks, split)."""
    bases: list[tuple[Path, str | None]] = [*split_folders(root)] or [(root, None)]
    found = []
    for base, split in bases:
        images = next((f for f in folders_in(base) if plain(f.name) in _IMAGE_FOLDERS and images_in(f)), None)
        masks = [f for f in folders_in(base) if is_mask_folder(f.name) and _mask_folders(f)]
        if images and masks:
            found.append((images, masks, split))
    return found


def _mask_folders(folder: Path) -> list[tuple[str | None, Path]]:
    """(class, folder with pictures): the folder itself, or one inside for each class."""
    inner = [f for f in folders_in(folder) if images_in(f)]
    several = len(inner) > 1
    classes = [(None if not several and f.name.isdecimal() else f.name, f) for f in inner]
    return [*([(None, folder)] if images_in(folder) else []), *classes]


def _matches(root: Path) -> bool:
    return root.is_dir() and bool(_parts(root))


def _read(root: Path) -> Iterator[Sample]:
    faults = Faults(root, "mask")
    images: list[Annotated] = []
    masks: dict[Path, tuple[Path, ...]] = {}
    for folder, mask_folders, split in _parts(root):
        found = {stem_of(p): p for p in images_in(folder)}
        own: dict[str, list[tuple[str, Path]]] = {stem: [] for stem in found}
        tails = tails_of(found)
        for label, place in (pair for f in mask_folders for pair in _mask_folders(f)):
            for path in images_in(place):
                stem = owner_of(path, found, tails)
                if stem in own:
                    own[stem].append((label or UNNAMED, path))
        for stem, path in found.items():
            lesions = [Finding(label) for label, mask in own[stem] if not _is_empty(mask, faults)]
            masks[path] = tuple(mask for _, mask in own[stem])
            images.append(Annotated(image=path, findings=tuple(lesions), judged=bool(own[stem]), split=split))
    for sample in samples_of(images, root, [faults]):
        yield replace(sample, masks=masks[sample.image])


def _is_empty(mask: Path, faults: Faults) -> bool:
    """Whether a mask has no lesion; one that cannot be read may have one."""
    try:
        return not io.read_mask([mask], shape=io.image_size(mask)).any()
    except DataError as e:
        faults.add(str(e))
        return False


SOURCE = Source(
    name="masks",
    title="a folder of images and a folder of masks",
    licence="yours",
    citation="",
    layout="""
root/
  images/a.png                  masks/a.png (or a_mask.png); masks/ may be called labels, annotations, ground_truth ...
  images/b.png                  masks/0/b.png, masks/1/b.png: a folder for each class
or the same below train/ and test/
the class is that of the folder whose mask is not empty, or "lesion" if there is only one; an image whose masks are all
empty is normal; an image without a mask was not looked at and has no class
""",
    group_rule="There are no patient IDs.",
    matches=_matches,
    read=_read,
)
