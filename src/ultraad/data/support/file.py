"""A support set as a JSON file: which images, with hashes, so that the same pictures are found or missed aloud."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ultraad.data.support.draw import digest, frame_hash
from ultraad.errors import DataError
from ultraad.io.files import sha256, write_json
from ultraad.types import Region, Sample, SupportSet

_FORMAT = "ultraad.support/1"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _MaskFile(_Strict):
    path: str
    sha256: str


class _Outline(_Strict):
    size: tuple[int, int]
    polygons: tuple[tuple[float, ...], ...]
    rle: tuple[int, ...]


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
    spacing_mm: tuple[float, float] | None
    site: str | None
    device: str | None
    tags: tuple[str, ...]
    mask_aligned: bool


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
    """The folder in a support's ``"<layout>:<root>"``; a layout from outside has a colon of its own."""
    layout, _, root = source.partition(":")
    if "." in layout:  # package.module:ATTRIBUTE:root
        root = root.partition(":")[2]
    return Path(root)


def _base(root: Path) -> Path:
    """Paths are kept relative to the data set's folder, also where the set is named by its table."""
    return root.parent if root.suffix.lower() in {".csv", ".json"} else root


def _short(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()


def save_support(support: SupportSet, path: Path | str) -> None:
    """Write a support set; all or nothing.

    Args:
        support: Any support set; its files must be there, they are hashed.
        path: JSON file to write.

    Raises:
        DataError: If a file of the support cannot be read, or ``path`` cannot be written.
    """
    base = _base(source_root(support.source))

    def mask(m: Path | Region) -> _MaskFile | _Outline:
        if isinstance(m, Region):
            return _Outline(size=m.size, polygons=m.polygons, rle=m.rle)
        return _MaskFile(path=_short(m, base), sha256=sha256(m))

    rows = tuple(
        _Row(
            id=s.id,
            image=_short(s.image, base),
            sha256=sha256(s.image),
            frame=s.frame,
            masks=tuple(map(mask, s.masks)),
            label=s.label,
            anomalous=s.anomalous,
            group=s.group,
            split=s.split,
            spacing_mm=s.spacing_mm,
            site=s.site,
            device=s.device,
            tags=tuple(sorted(s.tags)),
            mask_aligned=s.mask_aligned,
        )
        for s in support.samples
    )
    content = _File(
        format=_FORMAT,
        source=support.source,
        classes=support.classes,
        normal_class=support.normal_class,
        shots=support.shots,
        seed=support.seed,
        digest=support.digest,
        samples=rows,
    )
    write_json(path, content.model_dump(mode="json"))


def load_support(path: Path | str, *, root: Path | str | None = None) -> SupportSet:
    """Read a support set and check that its pictures are the ones that were drawn.

    Args:
        path: File written by :func:`save_support`.
        root: Where the data set lies now; None takes the place it was drawn from.

    Returns:
        The support set, with paths below ``root``.

    Raises:
        DataError: If the file is not a support set, or a picture or mask is missing or changed; all are named.
    """
    content = _parse(Path(path))
    old = source_root(content.source)
    new = old if root is None else Path(root).resolve()
    base = _base(new)
    faults = []
    for row in content.samples:
        for name, wanted in [
            (row.image, row.sha256),
            *((m.path, m.sha256) for m in row.masks if isinstance(m, _MaskFile)),
        ]:
            file = base / name
            if not file.is_file():
                faults.append(f"missing: {file}")
            elif sha256(file) != wanted:
                faults.append(f"changed: {file}")
    if faults:
        faults = list(dict.fromkeys(faults))
        listed = "\n  ".join([*faults[:10], *([f"and {len(faults) - 10} more"] if len(faults) > 10 else [])])
        msg = (
            f"{path} does not match the files on disk:\n  {listed}\n"
            "Give the data set's place with root= (--root), restore the files, or draw the support again"
        )
        raise DataError(msg)
    if (
        digest((r.id for r in content.samples), (frame_hash(r.sha256, r.frame) for r in content.samples))
        != content.digest
    ):
        msg = f"{path} was edited: its digest does not belong to the images it lists; draw the support again"
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


def _parse(path: Path) -> _File:
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
        content = _File.model_validate(raw)
    except (OSError, ValueError) as e:  # pydantic's ValidationError is a ValueError
        what = (
            f"{e.error_count()} wrong entries, first: {e.errors()[0]['loc']}" if isinstance(e, ValidationError) else e
        )
        msg = f"cannot read the support set {path}: {what}. Wanted a file written by 'ultraad support draw'"
        raise DataError(msg) from e
    if content.format != _FORMAT:
        msg = f"{path} has the format {content.format!r}, wanted {_FORMAT!r}; draw the support again with this version"
        raise DataError(msg)
    return content


def _sample(row: _Row, base: Path) -> Sample:
    masks = tuple(
        base / m.path if isinstance(m, _MaskFile) else Region(size=m.size, polygons=m.polygons, rle=m.rle)
        for m in row.masks
    )
    return Sample(
        id=row.id,
        image=base / row.image,
        frame=row.frame,
        masks=masks,
        label=row.label,
        anomalous=row.anomalous,
        group=row.group,
        split=row.split,
        spacing_mm=row.spacing_mm,
        site=row.site,
        device=row.device,
        tags=frozenset(row.tags),
        mask_aligned=row.mask_aligned,
    )
