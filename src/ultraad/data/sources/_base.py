"""What a data layout is, and the functions all layouts share.

A layout reads file names and tables and returns :class:`~ultraad.types.Sample` records. It decodes no pixels (but for
``masks``, where only masks tell normal images from others). Only the headers of images are read, to find masks of
another size than their image.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ultraad import io
from ultraad.data.regions import with_regions
from ultraad.data.sources._names import spelling
from ultraad.data.sources._tables import merge_spellings
from ultraad.errors import DataError, printable
from ultraad.io.faults import one_run, warn_of
from ultraad.io.find import is_output, natural_pieces, no_picture, walk
from ultraad.io.image import is_dicom
from ultraad.io.mask import fit_of
from ultraad.io.names import is_mask_folder, is_nobody, named_like_mask, stem_of, summary
from ultraad.types import Region, Sample

_log = logging.getLogger(__name__)

# Class names that mean "no lesion", in the spelling of plain().
NORMAL_NAMES = frozenset(
    {"normal", "normals", "good", "healthy", "negative", "no_lesion", "no_finding", "no_findings", "nolesion"}
)
# Class names that mean a lesion whatever the other classes are called, in the same spelling.
LESION_NAMES = frozenset(
    {"abnormal", "anomalous", "benign", "cancer", "cyst", "cysts", "lesion", "lesions", "malignant", "mass", "masses"}
    | {"nodule", "nodules", "tumor", "tumors", "tumour", "tumours"}
)
# Folder names of published splits, and what each is called here.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}

_TEXTS = ("id", "label", "group", "split", "site", "device")  # of a sample

# Prefix of a patient known from a DICOM header; such a name means the same person in every data set.
DICOM_PATIENT = "dicom:"


@dataclass(frozen=True, slots=True)
class Source:
    """One data layout. A module in this package ends in ``SOURCE = Source(...)``.

    Attributes:
        name: The module's name; what ``layout=`` takes.
        title: Full name.
        licence: Licence of the published data; ``"yours"`` for a generic layout.
        citation: What to cite; may be empty for a generic layout.
        layout: The folder tree as text, shown when a folder is not recognised.
        group_rule: How patients are identified, in one sentence.
        matches: True if a folder (or file) has this layout; looks at names only.
        read: Yields the samples in any order. Other code calls :meth:`scan`.
        quirks: Returns the faults of the tables beside the images, as sentences for the data check.
        uses: Other files that the layout reads, so that they do not count as not used. Tables and annotations in the
            root need not be named.
        published: True for the layout of one published data set. A patient's name then means the same person in every
            copy of it, which the leakage check relies on.
        organ: What the images show, as a text bank calls it; ``""`` if the layout does not say.
    """

    name: str
    title: str
    licence: str
    citation: str
    layout: str
    group_rule: str
    matches: Callable[[Path], bool]
    read: Callable[[Path], Iterable[Sample]]
    quirks: Callable[[Path], list[str]] = lambda _: []
    uses: Callable[[Path], Iterable[Path]] = lambda _: ()
    published: bool = False
    organ: str = ""

    def scan(self, root: Path | str, *, resize_masks: bool = False) -> list[Sample]:
        """Every sample under ``root``, in natural order of their ids.

        Args:
            root: Folder (or, for ``csv`` and ``coco``, the file) to read.
            resize_masks: Use masks of another size but the same aspect.

        Returns:
            At least one sample; ``mask_aligned`` is False where a mask does not lie on the pixels of its image.

        Raises:
            DataError: If the folder has another layout or no images, a table is broken, or two samples share an id.
        """
        samples = self.samples(Path(root), resize_masks=resize_masks)
        if unused := self.unused(Path(root), samples):
            _log.warning("%s", summary(unused))
        return samples

    @one_run()
    def samples(self, root: Path, *, resize_masks: bool = False) -> list[Sample]:
        """As :meth:`scan`, without the warning about files that are not used."""
        if not self.matches(root):
            msg = f"{root} does not have the layout {self.name!r}. Wanted:\n{indent(self.layout)}"
            raise DataError(msg)
        samples = sorted(map(in_print, self.read(root)), key=lambda s: natural_key(s.id))
        if not samples:
            msg = f"no images found in {root} (layout {self.name!r}). Wanted:\n{indent(self.layout)}"
            raise DataError(msg)
        twice = [id_ for id_, n in Counter(s.id for s in samples).items() if n > 1]
        if twice:
            msg = f"{root} lists {len(twice)} image(s) more than once, e.g. {twice[0]!r}; keep one entry per image"
            raise DataError(msg)
        return _mark_alignment(of_one_depth(with_regions(_known_patients(samples))), resize=resize_masks)

    def unused(self, root: Path, samples: Iterable[Sample]) -> dict[Path, str]:
        """{path below the root: kind} of the files that nobody uses; empty if the root is a table.

        The tables and annotations in the root of a data set count as used.
        """
        if not root.is_dir():
            return {}
        used = {path for s in samples for path in (s.image, *s.masks) if isinstance(path, Path)} | {*self.uses(root)}
        outside = {path.resolve() for path in used if not path.is_relative_to(root)}
        unused: dict[Path, str] = {}
        for path in walk(root, unused):
            if path in used or (outside and path.resolve() in outside):
                continue
            kind = no_picture(path)
            if kind is None:
                inside = any(map(is_mask_folder, path.relative_to(root).parts[:-1]))
                kind = "mask without an image" if inside or named_like_mask(stem_of(path)) else "image"
            if kind and not (kind in {"table", "annotation"} and path.parent == root):
                unused[path] = kind
        return {path.relative_to(root): kind for path, kind in unused.items()}


def in_print(sample: Sample) -> Sample:
    """The sample with facts that can be shown and written; see :func:`ultraad.errors.printable`."""
    texts = {name: text for name in _TEXTS if (text := getattr(sample, name)) is not None}
    if all(text.isprintable() for text in texts.values()):
        return sample
    shown: dict[str, Any] = {name: printable(text) for name, text in texts.items()}
    return replace(sample, **shown)


def of_one_depth(samples: list[Sample]) -> list[Sample]:
    """The samples of a set with the depth that their 16-bit pictures use."""
    depth = io.set_depth([(s.image, s.frame) for s in samples])
    return samples if depth is None else [replace(s, depth=depth) for s in samples]


def _known_patients(samples: list[Sample]) -> list[Sample]:
    """Stock IDs such as ``anonymous`` and ``nan`` become an unknown patient, with a warning."""
    nobody = {s.group for s in samples if s.group and is_nobody(s.group)}
    if not nobody:
        return samples
    changed = sum(s.group in nobody for s in samples)
    _log.warning("%d image(s) have the patient ID %s, taken as unknown", changed, ", ".join(sorted(nobody)))
    return [replace(s, group=None) if s.group in nobody else s for s in samples]


def _mark_alignment(samples: list[Sample], *, resize: bool) -> list[Sample]:
    """Say from the headers which masks lie on the pixels of their image; see :func:`ultraad.io.read_mask`."""

    @lru_cache(maxsize=16)  # neighbours share a file when it has many frames
    def header(path: Path) -> tuple[tuple[int, int], int] | None:
        try:
            return io.image_size(path), io.image_turn(path)
        except DataError:
            return None  # the data check reports it, and reading the pixels raises

    def marked(sample: Sample) -> Sample:
        image = header(sample.image)
        masks = [(m.size, 1) if isinstance(m, Region) else header(m) for m in sample.masks]
        if image is None:
            return sample
        (size, turn), readable = image, [m for m in masks if m is not None]
        fits = {fit_of(mask, size, turn=turn) for mask, _ in readable}
        if "turned" in fits:
            text = "its EXIF data turn it, but its mask lies in the picture before that turn, and is turned with it"
            warn_of(sample.image, text, "turned mask")
        elif turn != 1 and any(of_mask == 1 for _, of_mask in readable) and (turn < 5 or size[0] == size[1]):
            text = (
                "its EXIF data turn or mirror it, but not its mask; the mask is taken as it is, so check that it fits"
            )
            warn_of(sample.image, text, "mask beside a turned image")
        exact = all(mask in (size, size[::-1] if "turned" in fits else size) for mask, _ in readable)
        return replace(sample, mask_aligned=exact or (resize and "none" not in fits), resize_masks=resize)

    return [marked(s) if s.masks else s for s in samples]


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts ``a2`` before ``a10``; a total order that does not depend on the locale."""
    return (*natural_pieces(text), (2, 0, text))


def plain(name: str) -> str:
    """A name in lower case, with one ``_`` for a run of spaces, dashes and underscores, and one code for accents."""
    return re.sub(r"[\s_-]+", "_", spelling(name).strip()).strip("_")


def split_of(name: str) -> str | None:
    """``"train"``, ``"valid"`` or ``"test"`` for the usual names of a split; None for any other name."""
    return SPLIT_NAMES.get(plain(name))


def is_normal(label: str) -> bool:
    """True if a class name means "no lesion", see ``NORMAL_NAMES``."""
    return plain(label) in NORMAL_NAMES


def is_anomalous(label: str | None, labels: Iterable[str]) -> bool | None:
    """Whether images of a class show a lesion, judged by the class names of the data set.

    Args:
        label: Class of the image; None if unknown.
        labels: All class names of the data set.

    Returns:
        False for a name that means "no lesion". True for a usual name of a lesion (``LESION_NAMES``), and for any name
        if another class means "no lesion". None if the names do not say (classes "a" and "b").
    """
    if label is None:
        return None
    if is_normal(label):
        return False
    known = plain(label) in LESION_NAMES or any(is_normal(other) for other in labels)
    return True if known else None


def indent(text: str) -> str:
    """The lines of a folder tree, indented by four spaces for an error message."""
    return "\n".join(f"    {line}" for line in text.strip("\n").splitlines())


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a DICOM file says about the image; all None for other files."""

    group: str | None = None
    spacing_mm: tuple[float, float] | None = None
    device: str | None = None


def frames_of(path: Path) -> list[tuple[int | None, Header]]:
    """(0-based frame, header) for each frame of a file; the frame is None for a still.

    A DICOM patient becomes ``"dicom:<pseudonym>"``, the same in every data set. A file that cannot be read counts as
    a still: reading its pixels raises, and the data check reports it.
    """
    try:
        frames = io.count_frames(path)
        header = _dicom_header(path) if is_dicom(path) else Header()
    except DataError:
        return [(None, Header())]
    return [(None, header)] if frames == 1 else [(frame, header) for frame in range(frames)]


def _dicom_header(path: Path) -> Header:
    from ultraad.io import dicom

    facts = dicom.metadata(path)
    device = " ".join(filter(None, (facts["manufacturer"], facts["model"])))
    return Header(
        group=f"{DICOM_PATIENT}{facts['patient']}" if facts["patient"] else None,
        spacing_mm=facts["spacing_mm"],
        device=device or None,
    )


def images_in(folder: Path) -> list[Path]:
    """Image files directly in a folder, in natural order; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(
        (p for p in folder.iterdir() if p.is_file() and no_picture(p) is None), key=lambda p: natural_key(p.name)
    )


def folders_in(folder: Path) -> list[Path]:
    """Visible folders directly in a folder, in natural order; empty if there is no such folder.

    Folders that ultraad wrote as results are not among them, nor are links to the folder or to one around it, which
    :func:`ultraad.io.find.walk` does not follow either.
    """
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".") and not is_output(p)]
    if any(links := [p.is_symlink() for p in found]):
        real = folder.resolve()
        found = [p for p, link in zip(found, links, strict=True) if not (link and real.is_relative_to(p.resolve()))]
    return sorted(found, key=lambda p: natural_key(p.name))


def split_folders(root: Path) -> list[tuple[Path, str]]:
    """(folder, split) for the folders of a data set that are named like a split, in natural order."""
    return [(folder, split) for folder in folders_in(root) if (split := split_of(folder.name))]


def relative_id(path: Path, root: Path, *, frame: int | None = None) -> str:
    """Sample id: the POSIX path relative to the root (the whole path if outside), plus ``#frame`` if one is given."""
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
    return name if frame is None else f"{name}#{frame}"


def anomaly_samples(
    root: Path, *, images: Callable[[Path], list[Path]], masks: Callable[[Path], dict[str, Path]]
) -> Iterator[Sample]:
    """Samples of an anomaly-detection benchmark: ``<split>/<class>/...`` with ``good`` as the normal class.

    Args:
        root: Folder of the splits.
        images: The images of a class folder.
        masks: {image stem: mask} for a class folder.
    """
    folders = [(folder, split) for part, split in split_folders(root) for folder in folders_in(part)]
    labels = merge_spellings((folder.name for folder, _ in folders), root)
    for folder, split in folders:
        label, found = labels[folder.name], masks(folder)
        for path in images(folder):
            mask = None if is_normal(label) else found.get(path.stem)
            yield Sample(
                id=relative_id(path, root),
                image=path,
                masks=(mask,) if mask else (),
                label=label,
                anomalous=is_anomalous(label, ("good",)),
                split=split,
            )
