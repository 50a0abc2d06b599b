"""Image files from the files, folders and patterns that a user names."""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from ultraad.config import shortened
from ultraad.errors import DataError, first_names
from ultraad.io import raster
from ultraad.io.image import is_dicom
from ultraad.io.names import IMAGE_SUFFIXES, is_notice, kind_of, summary
from ultraad.io.pairs import tell_masks
from ultraad.io.store_copy import on_disk
from ultraad.io.video import is_video

_log = logging.getLogger(__name__)

_OUTPUTS = {  # a folder that ultraad wrote has one of these files, with one of these texts near its start
    "run.json": (b'"ultraad"', b'"command": "predict"', b'"command": "evaluate"'),
    "bench.json": (b'"ultraad',),
    "config.json": (b'"ultraad.model/', b'"ultraad.exported/'),
    "project.sqlite": (b"ULAD",),  # of 'ultraad serve'
    "review.json": (b'"command": "deidentify"',),
}
_OUTPUT_PICTURES = ("overlays", "maps", "masks", "contours", "dicom")
_NO_PICTURES = (  # start of the SOP class of DICOM files that are no pictures, PS3.4 B.5; what they are
    ("1.2.840.10008.5.1.4.1.1.66.", "DICOM segmentation"),
    ("1.2.840.10008.5.1.4.1.1.481.", "DICOM radiotherapy dose, plan or structure set"),
    ("1.2.840.10008.5.1.4.1.1.88.", "DICOM report"),
    ("1.2.840.10008.5.1.4.1.1.11.", "DICOM presentation state"),
    ("1.2.840.10008.5.1.4.1.1.104.", "DICOM document"),
    ("1.2.840.10008.5.1.4.1.1.9.", "DICOM waveform"),
    ("1.2.840.10008.5.1.4.1.1.30", "DICOM parametric map"),
    ("1.2.840.10008.1.3.10", "DICOMDIR"),
)
_OURS = b"\x08\x00\x70\x00LO\x08\x00ultraad "  # Manufacturer, as ultraad.dicom writes it
_MOST_DIGITS = 255  # of a number in a name; Python refuses to convert a text of thousands
_META_BYTES = 4096
_SOP_CLASS = re.compile(rb"\x02\x00\x02\x00UI(..)([0-9.]{10,64})", re.DOTALL)  # (0002,0002), explicit little endian


def find_images(paths: Sequence[str | Path] | str | Path) -> list[Path]:
    """Expand files, folders and glob patterns.

    A named file is always taken. A folder is searched with all its sub-folders, also behind links, for
    :data:`IMAGE_SUFFIXES` and for DICOM files of any name. A path that does not exist is used as a pattern (``**``
    matches any number of folders). In folders and patterns, hidden files and folders, masks
    (:func:`ultraad.io.pairs.tell_masks`), DICOM files that are no pictures, and folders that ultraad wrote are skipped.
    A log warning counts the skipped files by kind.

    Args:
        paths: One or more paths or patterns.

    Returns:
        Each file once, under the first name that it was given, in the order of ``paths``; within a folder or pattern in
        natural order (2 before 10).

    Raises:
        DataError: If a path does not exist or nothing is found.
    """
    return _find(paths, videos=False)[0]


def find_media(paths: Sequence[str | Path] | str | Path) -> tuple[list[Path], list[Path]]:
    """The images as in :func:`find_images`, and the videos, which are not skipped.

    Raises:
        DataError: If a path does not exist or neither is found.
    """
    return _find(paths, videos=True)


def _find(paths: Sequence[str | Path] | str | Path, *, videos: bool) -> tuple[list[Path], list[Path]]:
    """Images and, if wanted, videos; otherwise a named video is taken for an image, and reading it says what it is."""
    wanted = [paths] if isinstance(paths, (str, Path)) else list(paths)
    unused: dict[Path, str] = {}
    images: dict[Path, None] = {}
    films: dict[Path, None] = {}
    seen: set[Path] = set()
    places = cache(Path.resolve)  # of folders: a link with a name of its own is an image of its own
    for item in wanted:
        found = [
            p for p in _expand(on_disk(item, alone=True).expanduser(), unused) if places(p.parent) / p.name not in seen
        ]
        seen.update(places(p.parent) / p.name for p in found)
        named = {p for p in found if videos and p.suffix.lower() not in IMAGE_SUFFIXES and is_video(p)}
        images.update(dict.fromkeys(p for p in found if p not in named))
        inside = {p for p, kind in unused.items() if videos and kind == "video"}
        films.update(dict.fromkeys(sorted(named | inside, key=_by_folder)))
    left_out = {path: kind for path, kind in unused.items() if path not in images and path not in films}
    if not images and not films:
        msg = (
            f"no images{' or videos' * videos} in {', '.join(map(str, wanted)) or 'an empty list of paths'}; "
            f"looked for {' '.join(sorted(IMAGE_SUFFIXES))} and DICOM of any name, skipping hidden files and masks"
            f"{f'. {summary(left_out)}' if left_out else ''}"
        )
        raise DataError(msg)
    if left_out:
        _log.warning("%s", summary(left_out))
    return list(images), list(films)


def natural_pieces(text: str) -> list[tuple[int, int, str]]:
    """Sort key that puts ``a (2)`` before ``a (10)``; texts that differ only in case have the same key."""
    pieces = re.split(r"(\d+)", text)
    return [(0, int(p), p) if p.isdecimal() and len(p) <= _MOST_DIGITS else (1, 0, p.casefold()) for p in pieces if p]


def _by_folder(path: Path) -> list[list[tuple[int, int, str]]]:
    return [natural_pieces(part) for part in path.parts]


def is_there(path: Path) -> bool:
    """Whether a path exists.

    Raises:
        DataError: If no file system can have it, such as a name that is too long, or its folder may not be looked into.
    """
    try:
        return path.exists()
    except (OSError, ValueError) as e:  # ValueError: a name with a zero byte
        msg = f"{shortened(str(path))} cannot be looked up: {getattr(e, 'strerror', None) or e}; check the path"
        raise DataError(msg) from e


def _expand(path: Path, unused: dict[Path, str]) -> list[Path]:
    there = is_there(path)
    if path.is_dir():
        return _pictures(path, walk(path, unused), unused)
    if there or path.is_symlink():
        return [path]
    if glob.has_magic(str(path)):
        base = Path(*path.parts[: next(i for i, part in enumerate(path.parts) if glob.has_magic(part))])
        if "**" in path.parts:  # glob would follow links in a circle, and take minutes
            pattern = path.parts[len(base.parts) :]
            hits = (p for p in walk(base, unused) if _fits(p.relative_to(base).parts, pattern))
            return _pictures(base, _hit_files(hits, base, unused), unused)
        found = (Path(hit) for hit in glob.iglob(str(path)))  # noqa: PTH207  # takes absolute patterns
        return _pictures(base, _hit_files(found, base, unused), unused)
    msg = f"{path} does not exist; give image files, folders or a pattern such as 'folder/*.png'"
    raise DataError(msg)


def _fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether the parts of a path fit the parts of a pattern; ``**`` fits any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[i:], pattern[1:]) for i in range(len(parts) + 1)) or len(pattern) == 1
    return bool(parts) and fnmatch.fnmatch(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _hit_files(hits: Iterable[Path], base: Path, unused: dict[Path, str]) -> Iterator[Path]:
    """The files of a pattern outside our own folders; a file that links lead to twice comes once."""
    seen: set[tuple[Path, str]] = set()
    ours: dict[Path, bool] = {}
    for hit in sorted(hits, key=lambda p: len(p.parts)):
        if hit.is_dir() or (key := (hit.parent.resolve(), hit.name)) in seen:
            continue
        seen.add(key)
        between = [p for p in hit.parents if p != base and p.is_relative_to(base)]
        for folder in between:
            if folder not in ours:
                ours[folder] = is_output(folder)
        if any(ours[folder] for folder in between):
            unused[hit] = "result of an earlier run"
        else:
            yield hit


def walk(folder: Path, unused: dict[Path, str]) -> Iterator[Path]:
    """The visible files below a folder. Links to folders are followed once; what ultraad wrote is left out.

    Args:
        folder: Where to begin.
        unused: Gets {path: kind} of the folders that are left out.
    """

    def unreadable(error: OSError) -> None:
        unused[Path(error.filename)] = "unreadable folder"

    seen: set[Path] = set()
    around = folder.resolve().parents
    queue = [folder]
    while queue:
        for root, folders, files in os.walk(queue.pop(0), onerror=unreadable):
            here = Path(root)
            if (real := here.resolve()) in seen or real in around:  # a link to what was or is being searched
                folders[:] = []
                continue
            seen.add(real)
            inner = [here / name for name in folders]
            for path in [p for p in inner if p.name.startswith(".")]:
                unused[path] = "hidden folder"
            inner = [p for p in inner if not p.name.startswith(".")]
            for path in [p for p in inner if is_output(p)]:
                unused[path] = "results folder"
            inner = [p for p in inner if p not in unused]
            queue += [p for p in inner if p.is_symlink()]  # after all real folders, which have the better names
            folders[:] = [p.name for p in inner if not p.is_symlink()]
            yield from (here / name for name in files)


def is_file(path: Path) -> bool:
    """Whether there is such a file; also for names from a table, which no file system may be able to have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False


def is_output(folder: Path) -> bool:
    """Whether ultraad wrote this folder: results, a benchmark, a model, a project, or the pictures of a run."""
    if folder.name in _OUTPUT_PICTURES and is_output(folder.parent):
        return True
    for name, marks in _OUTPUTS.items():
        try:
            with (folder / name).open("rb") as file:
                start = file.read(1 << 16)
        except OSError:
            continue
        if any(mark in start for mark in marks):
            return True
    return False


def check_output(folder: Path, *, record: str, names: Iterable[str], inputs: Iterable[Path]) -> None:
    """Refuse a folder for results in which they would replace or hide files of the user.

    Args:
        folder: Where results are to be written; one that an earlier run wrote is not checked.
        record: The file that tells results from other files.
        names: Other files and folders that will be written after it.
        inputs: The files of this run. In a folder of results, no later run looks for images.

    Raises:
        DataError: If one of the names is there without the record, or an input lies in the folder.
    """
    if (folder / record).exists():
        return
    if there := [name for name in names if _holds(folder / name)]:
        msg = f"{folder} already holds {first_names(there)}, but no results of ultraad; choose an empty or a new folder"
        raise DataError(msg)
    real = folder.resolve()
    if inside := [p for p in {p.parent for p in inputs} if p.resolve().is_relative_to(real)]:
        msg = (
            f"{folder} holds data of this run ({min(map(str, inside))}), and no later run would look for images in a "
            "folder of results; choose an empty or a new folder"
        )
        raise DataError(msg)


def _holds(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _pictures(root: Path, files: Iterator[Path], unused: dict[Path, str]) -> list[Path]:
    """The images among the files below a folder, in natural order; the others go to ``unused``."""
    pictures: list[Path] = []
    for path in files:
        kind = no_picture(path)
        if kind is None:
            pictures.append(path)
        elif kind:
            unused[path] = kind
    found = tell_masks(root, sorted(pictures, key=_by_folder))
    unused.update(dict.fromkeys(found.masks, "mask"))
    unused.update(dict.fromkeys(found.orphans, "mask without an image"))
    return found.images


def no_picture(path: Path) -> str | None:
    """What a file is, if it is no picture; None for a picture, ``""`` for a file that nobody misses.

    Nobody misses ``.DS_Store`` and ``LICENSE.txt``. A picture has a suffix of :data:`IMAGE_SUFFIXES` or is a DICOM
    file of any name.
    """
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        return "hidden file" if suffix in IMAGE_SUFFIXES else ""
    if not path.is_file():
        if path.is_symlink() and not path.exists():
            return None if suffix in IMAGE_SUFFIXES else "broken link"  # reading it says what is missing
        return "special file"
    try:
        if suffix in IMAGE_SUFFIXES and suffix not in {".dcm", ".dicom", ".ima"}:
            return None
        dicom = is_dicom(path)
    except DataError:
        return None if suffix in IMAGE_SUFFIXES else "empty or unreadable file"
    if not dicom:
        if suffix in IMAGE_SUFFIXES:
            return None
        return "" if is_notice(path) else "video" if is_video(path) else kind_of(path)
    return _dicom_kind(path)


def _dicom_kind(path: Path) -> str | None:
    """What a DICOM file without pixels to look at is, from the SOP class in its header; None for pictures."""
    try:
        with raster.open_file(path) as file:
            start = file.read(_META_BYTES)
    except DataError:
        return None
    if _OURS in start:
        return "DICOM that ultraad wrote"
    found = _SOP_CLASS.search(start)
    if found is None:
        return None
    class_ = found[2].decode("ascii").rstrip(".")
    return next((kind for start, kind in _NO_PICTURES if class_.startswith(start)), None)
