"""What a data layout is, and the few rules all layouts share.

A layout reads file names and tables and returns :class:`~ultraad.types.Sample` records. It decodes no pixels: the only
thing read from an image is its header, to find masks that cannot lie on it.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ultraad import io
from ultraad.errors import DataError
from ultraad.io.image import is_dicom
from ultraad.types import Region, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# Class names that mean "no lesion", after lower-casing and turning spaces and dashes into "_".  # ours
NORMAL_NAMES = frozenset(
    {"normal", "normals", "good", "healthy", "negative", "no_lesion", "no_finding", "no_findings", "nolesion"}
)
# Folder names of published splits, and the name each is known by.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}

# Prefix of a patient known from a DICOM header; such a name means the same person in every data set.
DICOM_PATIENT = "dicom:"


def _nothing(root: Path) -> list[str]:  # noqa: ARG001 - the signature of Source.quirks
    return []


@dataclass(frozen=True, slots=True)
class Source:
    """One data layout. A module in this package ends in ``SOURCE = Source(...)``.

    Attributes:
        name: The module's name; what ``layout=`` takes.
        title: Full name.
        licence: Licence of the published data, or whose it is.
        citation: What to cite; empty for generic layouts.
        layout: Picture of the folder, shown when a folder is not understood.
        group_rule: How a patient is known, one sentence.
        matches: True if a folder (or file) has this layout; looks at names only.
        read: The samples, in any order; :meth:`scan` is what others call.
        quirks: Faults of the tables beside the images, as sentences for the data check.
    """

    name: str
    title: str
    licence: str
    citation: str
    layout: str
    group_rule: str
    matches: Callable[[Path], bool]
    read: Callable[[Path], Iterable[Sample]]
    quirks: Callable[[Path], list[str]] = _nothing

    def scan(self, root: Path | str) -> list[Sample]:
        """Every sample under ``root``, in natural order of their ids.

        Args:
            root: Folder (or, for ``csv`` and ``coco``, the file) to read.

        Returns:
            At least one sample; ``mask_aligned`` is False where a mask's size is not exactly the image's size.

        Raises:
            DataError: If the layout is another one, nothing is found, a table is broken, or two samples have one id.
        """
        root = Path(root)
        if not self.matches(root):
            msg = f"{root} does not have the layout {self.name!r}. Wanted:\n{indent(self.layout)}"
            raise DataError(msg)
        samples = sorted(self.read(root), key=lambda s: natural_key(s.id))
        if not samples:
            msg = f"no images found in {root} (layout {self.name!r}). Wanted:\n{indent(self.layout)}"
            raise DataError(msg)
        twice = [id_ for id_, n in Counter(s.id for s in samples).items() if n > 1]
        if twice:
            msg = f"{root} names {len(twice)} image(s) twice, e.g. {twice[0]!r}; keep one entry for each image"
            raise DataError(msg)
        return _mark_alignment(samples)


def _mark_alignment(samples: list[Sample]) -> list[Sample]:
    """Set ``mask_aligned`` from the headers. Masks are never stretched: equal size is the only proof of one grid."""

    @lru_cache(maxsize=16)  # neighbours share a file when it has many frames
    def size(path: Path) -> tuple[int, int] | None:
        try:
            return io.image_size(path)
        except DataError:
            return None  # unreadable: the data check reports it, and reading it raises

    def aligned(sample: Sample) -> bool:
        image = size(sample.image)
        masks = [m.size if isinstance(m, Region) else size(m) for m in sample.masks]
        return image is None or all(m is None or m == image for m in masks)

    return [s if not s.masks or aligned(s) else replace(s, mask_aligned=False) for s in samples]


# --- names -----------------------------------------------------------------------------------------------------------


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which ``a2`` comes before ``a10``; total and independent of the locale."""
    parts = re.split(r"(\d+)", text)
    key = [(0, int(p), p) if p.isdecimal() else (1, 0, p.casefold()) for p in parts if p]
    return (*key, (2, 0, text))


def plain(name: str) -> str:
    """A name without the differences that carry no meaning: case, spaces, dashes."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold()).strip("_")


def is_normal(label: str) -> bool:
    """True if a class name means "no lesion", see ``NORMAL_NAMES``."""
    return plain(label) in NORMAL_NAMES


def is_anomalous(label: str | None, labels: Iterable[str]) -> bool | None:
    """What a class name says about a lesion, given all class names of the set.

    Returns:
        False for a normal name; True if it says benign or malignant, or if another class is the normal one; None if
        nothing in the names tells (classes "a" and "b").
    """
    if label is None:
        return None
    if is_normal(label):
        return False
    known = plain(label) in {"benign", "malignant"} or any(is_normal(other) for other in labels)
    return True if known else None


def nearest(name: str, options: Iterable[str], *, cutoff: float = 0.6) -> str:
    """``"; did you mean 'x'?"``, or nothing if no option is as similar as ``cutoff`` (difflib's ratio, 0 to 1)."""
    by_lower = {o.casefold(): o for o in options}
    close = difflib.get_close_matches(name.casefold(), by_lower, n=1, cutoff=cutoff)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


def indent(text: str) -> str:
    """Text moved in by four spaces, for pictures inside messages."""
    return "\n".join(f"    {line}" for line in text.strip("\n").splitlines())


# --- files -----------------------------------------------------------------------------------------------------------


def is_image(path: Path) -> bool:
    """True for visible files with an image's suffix, and for DICOM files without any."""
    if path.name.startswith(".") or not path.is_file():
        return False
    if path.suffix:
        return path.suffix.lower() in io.IMAGE_SUFFIXES
    try:
        return is_dicom(path)
    except DataError:
        return False  # empty or unreadable, and nothing says that it is an image


@dataclass(frozen=True, slots=True)
class About:
    """What a file itself says about its image; all None for anything but DICOM."""

    group: str | None = None
    spacing_mm: tuple[float, float] | None = None
    device: str | None = None


def frames_of(path: Path) -> list[tuple[int | None, About]]:
    """(0-based frame, header facts) for each frame of a file; the frame is None for a still.

    A DICOM patient becomes ``"dicom:<pseudonym>"``, the same in every data set. A file that cannot be read counts as
    a still: reading it raises, and the data check reports it.
    """
    try:
        frames = io.count_frames(path)
        about = _dicom_facts(path) if is_dicom(path) else About()
    except DataError:
        return [(None, About())]
    return [(None, about)] if frames == 1 else [(frame, about) for frame in range(frames)]


def _dicom_facts(path: Path) -> About:
    from ultraad.io import dicom

    facts = dicom.metadata(path)
    device = " ".join(filter(None, (facts["manufacturer"], facts["model"])))
    return About(
        group=f"{DICOM_PATIENT}{facts['patient']}" if facts["patient"] else None,
        spacing_mm=facts["spacing_mm"],
        device=device or None,
    )


def images_in(folder: Path) -> list[Path]:
    """Image files directly in a folder, in natural order; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if is_image(p)), key=lambda p: natural_key(p.name))


def folders_in(folder: Path) -> list[Path]:
    """Visible folders directly in a folder, in natural order; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    found = (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    return sorted(found, key=lambda p: natural_key(p.name))


def relative_id(path: Path, root: Path, *, frame: int | None = None) -> str:
    """Sample id: POSIX path relative to the root (as it is if outside), plus ``#frame`` for multi-frame files."""
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
    return name if frame is None else f"{name}#{frame}"


# --- tables ----------------------------------------------------------------------------------------------------------


def read_table(path: Path, *, required: Sequence[str] = (), delimiter: str = ",") -> list[dict[str, str]]:
    """Rows of a CSV file with a header line; UTF-8 with or without byte order mark; cells are stripped.

    Raises:
        DataError: If the file cannot be read as text, a required column is missing (the message names the nearest
            one there is), or a row has more cells than the header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            columns = [c.strip() for c in reader.fieldnames or ()]
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        msg = f"cannot read the table {path}: {e}. Wanted: a CSV file in UTF-8 with a header line"
        raise DataError(msg) from e
    for want in required:
        if want not in columns:
            msg = (
                f"{path} has no column {want!r}{nearest(want, columns)} "
                f"Found: {', '.join(columns) or 'nothing'}. Wanted: {', '.join(required)}"
            )
            raise DataError(msg)
    for number, row in enumerate(rows, start=2):
        if None in row:
            msg = f"{path}, row {number}: more cells than the header's {len(columns)} columns; quote commas in cells"
            raise DataError(msg)
    return [{(k or "").strip(): (v or "").strip() for k, v in row.items()} for row in rows]
