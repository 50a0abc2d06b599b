"""Which of the pictures below a folder are masks, and of which images."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ultraad.errors import first_names
from ultraad.io.names import (
    frame_in,
    is_mask_folder,
    is_two_valued,
    named_like_mask,
    nearness,
    owner_of,
    sort_out,
    stem_of,
    tails_of,
)

_log = logging.getLogger(__name__)


class MaskOf(NamedTuple):
    """Which image a mask belongs to.

    Attributes:
        images: The nearest of the images that it is named after; several if nothing tells which.
        frame: Of a multi-frame image; None if the mask names none.
    """

    images: tuple[Path, ...]
    frame: int | None


class Told(NamedTuple):
    """The pictures below a folder.

    Attributes:
        images: In the given order.
        masks: {mask: its image}.
        orphans: Masks without an image.
    """

    images: list[Path]
    masks: dict[Path, MaskOf]
    orphans: list[Path]


def tell_masks(root: Path, pictures: Iterable[Path]) -> Told:
    """Tell images from masks by their names and folders (:mod:`ultraad.io.names`).

    A log warning names pictures that are named like masks, and are used as images.

    Args:
        root: A folder; its own name says nothing.
        pictures: Files below it.
    """
    pictures = list(pictures)
    by_folder: dict[Path, list[Path]] = {}
    for path in pictures:
        by_folder.setdefault(path.parent, []).append(path)
    inside = {folder: any(map(is_mask_folder, folder.relative_to(root).parts)) for folder in by_folder}
    found: list[Path] = []
    masks: dict[Path, MaskOf] = {}
    orphans: list[Path] = []
    for folder, paths in by_folder.items():
        if inside[folder]:
            continue
        sorted_out = sort_out(paths)
        found += sorted_out.images
        own = _by_stem(sorted_out.images)
        masks.update((mask, _mask_of(mask, own, s, root)) for s, some in sorted_out.masks.items() for mask in some)
        orphans += sorted_out.orphans
    stems = _by_stem(found)
    tails = tails_of(stems)
    for folder, paths in by_folder.items():
        for path in paths if inside[folder] else ():
            owner = owner_of(path, stems, tails)
            if owner is not None:
                masks[path] = _mask_of(path, stems, owner, root)
            elif is_two_valued(path):
                orphans.append(path)
            else:
                found.append(path)
    doubtful = [p for p in found if named_like_mask(stem_of(p))]
    if doubtful:
        _log.warning(
            "%d file(s) named like masks have no image beside them and are used as images: %s",
            len(doubtful),
            first_names(list(map(str, doubtful)), 3),
        )
    images = set(found)
    return Told([path for path in pictures if path in images], masks, orphans)


def _by_stem(images: Iterable[Path]) -> dict[str, list[Path]]:
    stems: dict[str, list[Path]] = {}
    for path in images:
        stems.setdefault(stem_of(path), []).append(path)
    return stems


def _mask_of(mask: Path, stems: Mapping[str, list[Path]], owner: str, root: Path) -> MaskOf:
    """The images with the stem ``owner``, which may name a frame, that are nearest to a mask."""
    stem, frame = (owner, None) if owner in stems else frame_in(owner)
    near = {image: nearness(mask.relative_to(root), image.relative_to(root)) for image in stems.get(stem, ())}
    return MaskOf(tuple(image for image in near if near[image] == max(near.values())), frame)
