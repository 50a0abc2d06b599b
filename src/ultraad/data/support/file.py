"""A support set as a JSON file: the images with their hashes, so that a changed or missing picture is an error."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ultraad.config import shortened
from ultraad.data.support.draw import digest, frame_hash
from ultraad.errors import DataError
from ultraad.fan import Fan
from ultraad.io.files import sha256, write_json
from ultraad.io.store_copy import on_disk
from ultraad.types import Box, Region, Sample, Spacing, SupportSet, View

_FORMAT = "ultraad.support/1"
_START = 200  # bytes in which the format of a support set is named
_SHOWN = 10  # faulty files in a message


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _MaskFile(_Strict):
    path: str
    sha256: str


class _Outline(_Strict):
    size: tuple[int, int]
    polygons: tuple[tuple[float, ...], ...]
    rle: tuple[int, ...]


class _View(_Strict):
    box: Box
    spacing_mm: Spacing | None


class _Row(_Strict):
    id: str
    image: str
    sha256: str
    frame: int
    masks: tuple[_MaskFile | _Outline, ...]
    label: str | None
    anomalous: bool | None
    group: str | None
    split: str | None
    spacing_mm: Spacing | None
    views: tuple[_View, ...] = ()
    region: Box | None = None
    fan: Fan | Literal["auto"] | None = None
    site: str | None
    device: str | None
    tags: tuple[str, ...]
    depth: int | None = None
    mask_aligned: bool
    resize_masks: bool = False


_SAME = _Row.model_fields.keys() - {
    "sha256"
}  # names of Sample; the rest concerns frames of videos, which support nothing


class _File(_Strict):
    format: str
    source: str
    classes: tuple[str, ...]
    normal_class: str
    shots: int
    seed: int
    digest: str
    samples: tuple[_Row, ...]


def source_root(source: str) -> Path:
    """The folder in ``"<layout>:<root>"``, where the layout may be ``"package.module:NAME"``."""
    layout, _, root = source.partition(":")
    if "." in layout:
        root = root.partition(":")[2]
    return Path(root)


def folder_of(root: Path) -> Path:
    """The folder of a data set that is given by its root or by its table."""
    return root.parent if root.suffix.lower() in {".csv", ".json"} else root


def save_support(support: SupportSet, path: Path | str) -> None:
    """Write a support set to a file, completely or not at all.

    Args:
        support: Any support set. Its image and mask files are hashed, so they must exist.
        path: JSON file to write.

    Raises:
        DataError: If a file of the support cannot be read, or ``path`` cannot be written or is another file.
    """
    check_replaceable(path)
    base = folder_of(source_root(support.source))

    def short(path: Path) -> str:
        return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()

    def mask(m: Path | Region) -> _MaskFile | _Outline:
        if isinstance(m, Region):
            return _Outline(size=m.size, polygons=m.polygons, rle=m.rle)
        return _MaskFile(path=short(m), sha256=sha256(m))

    def row(s: Sample) -> _Row:
        as_they_are = {name: getattr(s, name) for name in _SAME}
        views = tuple(_View(box=view.box, spacing_mm=view.spacing_mm) for view in s.views)
        masks = tuple(map(mask, s.masks))
        changed = {"image": short(s.image), "masks": masks, "views": views, "tags": tuple(sorted(s.tags))}
        return _Row(**{**as_they_are, **changed, "sha256": sha256(s.image)})

    as_they_are = {f.name: getattr(support, f.name) for f in fields(support)}
    content = _File(**{**as_they_are, "samples": tuple(map(row, support.samples)), "format": _FORMAT})
    write_json(path, content.model_dump(mode="json"))


def check_replaceable(path: Path | str) -> None:
    """Refuse to write a support set over a file that is none, such as the annotations of a data set.

    Raises:
        DataError: If there is such a file.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(_START)
    except OSError:  # no file, or one that writing will complain about
        return
    if start and b'"ultraad.support/' not in start:
        msg = f"{path} exists and is not a support set; choose another name for the support set, or move that file"
        raise DataError(msg)


def load_support(path: Path | str, *, root: Path | str | None = None) -> SupportSet:
    """Read a support set and check that its files are still the same.

    Args:
        path: File written by :func:`save_support`.
        root: Where the data set is now; None if it has not moved.

    Returns:
        The support set, with paths below ``root``.

    Raises:
        DataError: If the file is not a support set, or a picture or mask is missing or changed; names them.

    Examples:
        >>> import ultraad
        >>> from ultraad.data.support import save_support
        >>> from ultraad.simulate import write_dataset
        >>> folder = write_dataset("simulated", n=6, size=64)
        >>> support = ultraad.draw_support("simulated", shots=1)
        >>> save_support(support, "support.json")
        >>> ultraad.load_support("support.json") == support
        True
    """
    content = _parse(Path(path))
    old = source_root(content.source)
    new = old if root is None else on_disk(root).resolve()
    base = folder_of(new)
    _check_files(content, base, path)
    hashes = (frame_hash(r.sha256, r.frame) for r in content.samples)
    if digest((r.id for r in content.samples), hashes) != content.digest:
        msg = f"{path} was edited: its digest does not match the images it lists; draw the support again"
        raise DataError(msg)
    return SupportSet(
        samples=tuple(_sample(row, base) for row in content.samples),
        classes=content.classes,
        normal_class=content.normal_class,
        shots=content.shots,
        seed=content.seed,
        source=f"{content.source.removesuffix(str(old))}{new}",
        digest=content.digest,
    )


def _check_files(content: _File, base: Path, path: Path | str) -> None:
    wanted = {}  # {file: hash}
    for row in content.samples:
        wanted[base / row.image] = row.sha256
        wanted.update({base / m.path: m.sha256 for m in row.masks if isinstance(m, _MaskFile)})
    faults = [
        f"changed: {file}" if _is_file(file) else f"missing: {shortened(str(file))}"
        for file, hash_ in wanted.items()
        if not _is_file(file) or sha256(file) != hash_
    ]
    if faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        listed = "\n  ".join(faults[:_SHOWN] + more)
        msg = (
            f"{path} does not match the files on disk:\n  {listed}\n"
            "Give the location of the data set with root= (--root), restore the files, or draw the support again"
        )
        raise DataError(msg)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _parse(path: Path) -> _File:
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
        content = _File.model_validate(raw)
    except (OSError, ValueError, RecursionError) as e:  # pydantic's ValidationError is a ValueError
        what = (
            f"{e.error_count()} wrong entries, first: {shortened(str(e.errors()[0]['loc']))}"
            if isinstance(e, ValidationError)
            else e
        )
        msg = f"cannot read the support set {path}: {what}. Wanted a file written by 'ultraad support draw'"
        raise DataError(msg) from e
    if content.format != _FORMAT:
        found = shortened(repr(content.format))
        msg = f"{path} has the format {found}, wanted {_FORMAT!r}; draw the support again with this version"
        raise DataError(msg)
    return content


def _sample(row: _Row, base: Path) -> Sample:
    masks = tuple(
        base / m.path if isinstance(m, _MaskFile) else Region(size=m.size, polygons=m.polygons, rle=m.rle)
        for m in row.masks
    )
    views = tuple(View(view.box, view.spacing_mm) for view in row.views)
    as_they_are = {name: getattr(row, name) for name in _SAME}
    changed = {"image": base / row.image, "masks": masks, "views": views, "tags": frozenset(row.tags)}
    return Sample(**{**as_they_are, **changed})
