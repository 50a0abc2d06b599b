"""Uploaded files: kept under ids of the server, with the names that the client gave them as labels only."""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ultraad.data.sources import is_anomalous
from ultraad.errors import DataError
from ultraad.io.names import (
    IMAGE_FOLDERS,
    image_of,
    is_mask_folder,
    named_like_mask,
    nearness,
    owner_of,
    stem_of,
    tails_of,
)
from ultraad.serve.decode import Decoder
from ultraad.serve.project import Project
from ultraad.serve.schemas import Refusal
from ultraad.types import Sample

_LONGEST_NAME = 300  # characters


@dataclass(frozen=True, slots=True)
class Found:
    """An image to look at: where it is, and what its data set says."""

    sample: Sample
    source: str | None
    name: str
    marked: bool


def label_name(name: str) -> str:
    """A file name from a client as a label: no control characters, no more than some hundred characters."""
    name = unicodedata.normalize("NFC", name.replace("\\", "/"))
    parts = [p for p in PurePosixPath(name).parts if p not in ("/", "..", ".")]
    clean = "".join(c if c.isprintable() else "_" for c in "/".join(parts))
    return clean[-_LONGEST_NAME:] or "unnamed"


def receive(project: Project, batch: str) -> Path:
    """The folder for the files of a batch; their names are in ``names.txt``, one line per file."""
    folder = project.folder / "incoming" / batch
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def accept(folder: Path, temporary: Path, name: str) -> None:
    """Take an uploaded file into a batch under a new id.

    Args:
        folder: From :func:`receive`.
        temporary: The file.
        name: As the client calls it.
    """
    id_ = secrets.token_hex(8)
    temporary.rename(folder / id_)
    with (folder / "names.txt").open("a", encoding="utf-8") as names:
        names.write(f"{id_} {label_name(name)}\n")


def refusals(names: Sequence[str]) -> list[Refusal]:
    """The files of an upload that are no images, by their names: nothing in an archive is ever unpacked."""
    archives = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")
    reason = "an archive is not unpacked here; unpack it, then drop the folder"
    return [Refusal(name=label_name(n), reason=reason) for n in names if n.lower().endswith(archives)]


def names_of(folder: Path) -> dict[Path, str]:
    """{file: label} of an upload."""
    index = folder / "names.txt"
    if not index.is_file():
        return {}
    lines = index.read_text(encoding="utf-8").splitlines()
    return {folder / id_: name for id_, _, name in (line.partition(" ") for line in lines)}


def title_of(names: Iterable[str]) -> str:
    """The folder that was dropped, or how many files."""
    parts = [PurePosixPath(n).parts for n in names]
    tops = {p[0] for p in parts if len(p) > 1}
    return tops.pop() if len(tops) == 1 else f"{len(parts)} uploaded file(s)"


def sorted_out(names: dict[Path, str], decoder: Decoder, *, use_marks: bool) -> Iterator[Found]:
    """The images among uploaded files, with the masks that are named after them and the class of their folder."""
    by_name = {name: path for path, name in names.items()}
    stems: dict[str, list[str]] = {}
    for name in by_name:
        stems.setdefault(stem_of(Path(name)), []).append(name)
    tails = tails_of(stems)
    masks: dict[str, list[Path]] = {}
    used: set[str] = set()
    for name, path in by_name.items():
        inside = any(map(is_mask_folder, PurePosixPath(name).parts[:-1]))
        stem = stem_of(Path(name))
        owner = owner_of(Path(name), stems, tails) if inside else (image_of(stem, stems, tails) or (None,))[0]
        if not (inside or named_like_mask(stem) or owner) or not _two_valued(decoder, path):
            continue
        used.add(name)
        images = [n for n in stems.get(owner or "", ()) if n != name and not _masklike(n)]
        if images:
            nearest = max(images, key=lambda image: nearness(PurePosixPath(name), PurePosixPath(image)))
            masks.setdefault(nearest, []).append(path)
    labels = {name: _class_folder(name) for name in by_name if name not in used}
    known = {label for label in labels.values() if label}
    classes = known if any(is_anomalous(label, known) is False for label in known) else set()
    for name, label in labels.items():
        own = label if label in classes else None
        sample = Sample(
            id=name, image=by_name[name], masks=tuple(masks.get(name, ())), label=own,
            anomalous=is_anomalous(own, classes),
        )  # fmt: skip
        yield Found(sample if use_marks else replace(sample, masks=(), label=None), None, name, use_marks)


def _masklike(name: str) -> bool:
    path = PurePosixPath(name)
    return named_like_mask(stem_of(Path(name))) or any(map(is_mask_folder, path.parts[:-1]))


def _two_valued(decoder: Decoder, path: Path) -> bool:
    try:
        return decoder.look(path).two_valued
    except DataError:
        return False


def _class_folder(name: str) -> str | None:
    """The folder that an image is in, if it is not in the top of the upload."""
    parts = [p for p in PurePosixPath(name).parts[:-1] if p.lower() not in IMAGE_FOLDERS]
    return parts[-1] if parts else None
