"""The images below a folder of a store, told from other objects by their names."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ultraad.io.find import natural_pieces
from ultraad.io.names import IMAGE_SUFFIXES, image_of, is_mask_folder, is_notice, kind_of, named_like_mask, tails_of
from ultraad.io.store import entries, entry_of, inside, public_url

_log = logging.getLogger(__name__)

_RESULTS = {"run.json", "predictions.jsonl"}


def walk_store(url: str) -> Iterator[str]:
    """The URLs of the images below a folder of a store, in the order of :func:`ultraad.io.find_images`; or the object.

    One folder is listed at a time, so memory holds the names of one folder, not those of all. No object is read, so
    that names alone decide: images have a suffix of :data:`ultraad.io.IMAGE_SUFFIXES`, also DICOM. Hidden objects,
    masks, folders of masks and results of ultraad are left out; a log warning counts them by kind at the end.

    Args:
        url: With the query that it is read with, which all URLs get.

    Raises:
        DataError: If there is no such folder or object, or a folder cannot be listed.
        MissingExtraError: If pyarrow is not installed.
    """
    unused = Counter[str]()
    if entry_of(url) is not None:
        yield url
        return
    yield from _below(url, unused)
    if unused:
        kinds = ", ".join(f"{n} {kind}" for kind, n in unused.most_common())
        _log.warning(
            "%s: %d object(s) and folder(s) were not used: %s. Names alone decide on a store; a list of URLs takes all",
            public_url(url),
            unused.total(),
            kinds,
        )


def _below(url: str, unused: Counter[str]) -> Iterator[str]:
    found = entries(url)
    folders, files = [e.name for e in found if e.is_folder], [e.name for e in found if not e.is_folder]
    if set(files) >= _RESULTS:
        unused["results folder"] += 1
        return
    taken = [(name, True) for name in folders if _takes_folder(name, unused)]
    taken += [(name, False) for name in _images_of(files, unused)]
    del found, folders, files  # the folders below need memory, too
    for name, is_folder in sorted(taken, key=lambda item: natural_pieces(item[0])):
        if is_folder:
            yield from _below(inside(url, name), unused)
        else:
            yield inside(url, name)


def _takes_folder(name: str, unused: Counter[str]) -> bool:
    kind = "hidden folder" if name.startswith(".") else "folder of masks" if is_mask_folder(name) else ""
    unused.update([kind] if kind else [])
    return not kind


def _images_of(names: list[str], unused: Counter[str]) -> Iterator[str]:
    """The images among the objects of one folder."""
    pictures = {Path(name).stem: None for name in names if _is_picture(name)}
    tails = tails_of(pictures) if any(map(named_like_mask, pictures)) else {}
    for name in names:
        path = Path(name)
        if name.startswith("."):
            unused.update(["hidden file"] if path.suffix.lower() in IMAGE_SUFFIXES else [])
        elif not _is_picture(name):
            unused.update([] if is_notice(path) else [kind_of(path)])
        elif (owner := image_of(path.stem, pictures, tails)) is not None and owner[1]:
            unused["mask"] += 1
        else:
            yield name


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
