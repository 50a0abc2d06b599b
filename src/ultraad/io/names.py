"""What file names say: which picture is the mask of which image, and what other files are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from ultraad.errors import DataError, first_names
from ultraad.io import raster

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".dcm", ".dicom", ".ima"}
)
"""Suffixes of the image files in a folder, in lower case; DICOM is also recognised by its content."""

_STRONG = r"masks?|gt|ground[\s_-]?truths?|seg|segm|segmentations?|segmented|annotations?|anno|labels?"
_WEAK = r"tumou?rs?|lesions?|mass|rois?|others?|contours?|outlines?"  # a mask only beside an image of exactly that stem
_SEP = r"[\s_.-]+"
_PATTERNS = tuple(
    (re.compile(pattern, re.IGNORECASE), strong)
    for pattern, strong in (
        (rf"(?P<image>.+?){_SEP}(?:{_STRONG})(?:[\s_.-]?\(?\d+\)?)?", True),
        (rf"(?:{_STRONG})(?:{_SEP}(?P<image>.+)|(?P<number>\d+))", True),
        (r"(?P<image>.+?)_mask.*", True),
        (rf"(?P<image>.+?){_SEP}(?:{_WEAK})(?:[\s_.-]?\(?\d+\)?)?", False),
        (rf"(?:{_WEAK}){_SEP}(?P<image>.+)", False),
    )
)
_FOLDER = re.compile(rf"(?:(?P<label>.+?)_)?(?:{_STRONG}|segmentation_?class|ground_?truth_?masks?|annotation_?masks?)")

IMAGE_FOLDERS = ("images", "image", "img")
"""Names of folders that tell images from masks, and not one class or patient from another."""
_FRAME = re.compile(r"_frame(\d+)$")  # what the layouts add to the stem for a frame of a multi-frame file

_KINDS = {
    "text": "txt md rst log rtf htm html readme license",
    "table": "csv tsv xls xlsx ods sav dta parquet",
    "annotation": "json jsonl xml yaml yml geojson",
    "document": "pdf doc docx ppt pptx odt",
    "video": "mp4 avi mov mkv wmv mpg mpeg m4v webm flv mts m2ts 3gp ogv asf vob",
    "volume": "nii nrrd nhdr mha mhd img hdr vtk vol raw",
    "array": "npy npz mat h5 hdf5 pkl pt pth tfrecord",
    "archive": "zip gz tar tgz 7z rar bz2 xz",
    "program": "py ipynb m r sh bat exe dll",
    "picture of another format": "heic heif avif svg psd eps ico jp2 j2k jxl pgm ppm pbm tga cr2 dng xcf",
}
_KIND_OF = {suffix: kind for kind, suffixes in _KINDS.items() for suffix in suffixes.split()}
_PLURALS = {
    "picture of another format": "pictures of another format",
    "mask without an image": "masks without an image",
}

_NOTICES = frozenset({"license", "licence", "copying", "copyright", "notice", "citation"})

# Binary masks of ours or others have few values; soft edges are allowed for.
_FEW_VALUES = 4
_EDGE_SHARE = 0.05  # most pixels between the two ends
_END_SHARE = 0.2  # of the range, at each end
_CONTRAST = 64  # grey levels between the two ends


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of some folders, sorted out by their names.

    Attributes:
        images: The images, in the given order.
        masks: {stem of the image: its masks}, for pictures named after an image beside them. For a frame of a
            multi-frame file, the stem ends in ``_frame<number>``.
        orphans: Two-valued pictures that are named like a mask of an image that is not there.
    """

    images: list[Path]
    masks: dict[str, list[Path]]
    orphans: list[Path]


def stem_of(path: Path) -> str:
    """The name without a known suffix; a UID such as ``1.2.840.93`` has none."""
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def is_mask_folder(name: str) -> bool:
    """True for ``masks``, ``labels``, ``ground_truth`` ..., and for ``benign_masks`` and the like."""
    return _FOLDER.fullmatch(_plain(name)) is not None


def label_of_mask_folder(name: str) -> str | None:
    """``"benign"`` for ``benign_masks``; None for ``masks`` and for other folders."""
    found = _FOLDER.fullmatch(_plain(name))
    return found["label"] if found else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().casefold()).strip("_")


def image_of(name: str, stems: Mapping[str, object], tails: Mapping[str, Sequence[str]]) -> tuple[str, bool] | None:
    """The stem of the image that a picture named ``name`` is a mask of; None if there is no such image.

    Args:
        name: Stem of the possible mask.
        stems: Stems of all pictures that may be its image.
        tails: The same by their last pieces, see :func:`tails_of`.

    Returns:
        (stem, whether the name alone is enough; otherwise the content must have two values as well).
    """
    for pattern, strong in _PATTERNS:
        if (found := pattern.fullmatch(name)) is None:
            continue
        image = found["image"] or found.groupdict().get("number") or ""
        if image != name and (image in stems or _FRAME.sub("", image) in stems):
            return image, strong
        if strong and len(like := tails.get(image, ())) == 1:
            return like[0], True
    return None


def owner_of(path: Path, stems: Mapping[str, object], tails: Mapping[str, Sequence[str]]) -> str | None:
    """The stem of the image that a picture in a folder of masks belongs to: its own stem, or as :func:`image_of`."""
    stem = stem_of(path)
    if stem in stems or _FRAME.sub("", stem) in stems:
        return stem
    found = image_of(stem, stems, tails)
    if found is None and len(like := tails.get(stem, ())) == 1:
        return like[0]
    return found[0] if found else None


def frame_in(stem: str) -> tuple[str, int | None]:
    """``("cine", 3)`` for ``cine_frame3``: the stem of the multi-frame file, and the frame; else the stem and None."""
    found = _FRAME.search(stem)
    return (stem[: found.start()], int(found[1])) if found else (stem, None)


def nearness(mask: PurePath, image: PurePath) -> tuple[int, int]:
    """How near an image is to a mask, for :func:`max`: folders that both are in, and then those of the image alone.

    Folders of masks and of images count as nothing, but for the class in ``benign_masks``.
    """
    ours, theirs = ({p for p in path.parts[:-1] if p.lower() not in IMAGE_FOLDERS} for path in (mask, image))
    ours = {label_of_mask_folder(p) or "" if is_mask_folder(p) else p for p in ours}
    return len(ours & theirs), -len(theirs - ours)


def tails_of(stems: Iterable[str]) -> dict[str, list[str]]:
    """Stems by the pieces they end with: ``Test_Image_7`` by ``7`` and ``Image_7``, ``image17`` by ``17``."""
    tails: dict[str, list[str]] = {}
    for stem in stems:
        if named_like_mask(stem):
            continue
        for cut in re.finditer(r"[\s_.-]+(?=.)|(?<=[^\W\d_])(?=\d)", stem):
            if cut.end():
                tails.setdefault(stem[cut.end() :], []).append(stem)
    return tails


def named_like_mask(name: str) -> bool:
    """True if a stem has one of the words that only masks have (``mask``, ``gt``, ``segmentation`` ...)."""
    return any(strong and pattern.fullmatch(name) for pattern, strong in _PATTERNS)


def sort_out(files: Sequence[Path]) -> Pictures:
    """Tell images from masks among the pictures of one folder.

    A picture is a mask if an image of that stem is there (:func:`image_of`), or if it is only named like a mask and its
    content has two values. Everything else is an image.
    """
    by_stem: dict[str, list[Path]] = {}
    for path in files:
        by_stem.setdefault(stem_of(path), []).append(path)
    tails = tails_of(by_stem)
    owners: dict[str, str] = {}
    for stem, paths in by_stem.items():
        found = image_of(stem, by_stem, tails)
        if found is not None and (found[1] or all(map(is_two_valued, paths))):
            owners[stem] = found[0]
    for stem in owners:
        for _ in owners:  # the mask of a mask belongs to the image
            if owners[stem] not in owners:
                break
            owners[stem] = owners[owners[stem]]
    masks: dict[str, list[Path]] = {}
    images, orphans = [], []
    for path in files:
        stem = stem_of(path)
        if stem in owners:
            masks.setdefault(owners[stem], []).append(path)
        elif named_like_mask(stem) and is_two_valued(path):
            orphans.append(path)
        else:
            images.append(path)
    return Pictures(images, masks, orphans)


def is_two_valued(path: Path) -> bool:
    """Whether a picture looks like a mask: a few grey values, or almost all pixels at the two ends of its range.

    A file that cannot be read is not.
    """
    try:
        with raster.open_raster(path) as picture:
            grey = np.asarray(picture if picture.mode in {"L", "1", "P"} else picture.convert("L"))
    except DataError:
        return False
    return has_two_values(grey.astype(np.uint8))


def has_two_values(grey: NDArray[np.uint8]) -> bool:
    """Whether grey pixels are those of a mask: at most four values, or two ends of a range with soft edges between."""
    counts = np.bincount(grey.ravel(), minlength=256)
    values = np.flatnonzero(counts)
    if len(values) <= _FEW_VALUES:
        return True
    low, high = int(values[0]), int(values[-1])
    edge = (high - low) * _END_SHARE
    levels = np.arange(256)
    bright, dark = counts[levels >= high - edge].sum(), counts[levels <= low + edge].sum()
    between = grey.size - bright - dark
    return bool(high - low >= _CONTRAST and between < _EDGE_SHARE * grey.size and between < bright)


def kind_of(path: Path) -> str:
    """What a file that is no image is, as a word in the singular: ``text``, ``video``, ``file without suffix`` ..."""
    suffix = path.suffix.lower().removeprefix(".")
    name = path.name.lower()
    return _KIND_OF.get(suffix) or _KIND_OF.get(name) or (f"{suffix} file" if suffix else "file without suffix")


def is_notice(path: Path) -> bool:
    """True for the legal texts that come with a data set: ``LICENSE.txt``, ``NOTICE``, ``citation.bib`` ..."""
    return path.name.lower().partition(".")[0] in _NOTICES


def summary(unused: Mapping[Path, str], *, shown: int = 3) -> str:
    """``3 files were not used: 2 text, 1 video (a.txt, b.txt, c.mp4)``.

    Args:
        unused: {file: kind}.
        shown: Number of files to name.
    """
    counts = Counter(unused.values())
    folders = sum(n for kind, n in counts.items() if "folder" in kind)
    parts = [(len(unused) - folders, "file"), (folders, "folder")]
    what = " and ".join(f"{n} {_several(name, n)}" for n, name in parts if n)
    kinds = ", ".join(f"{n} {_several(kind, n)}" for kind, n in sorted(counts.items(), key=lambda c: (-c[1], c[0])))
    names = f" ({first_names(sorted(map(str, unused)), shown)})" if shown else ""
    return f"{what} {'was' if len(unused) == 1 else 'were'} not used: {kinds}{names}"


def _several(kind: str, n: int) -> str:
    """``2 masks``, ``2 text``, ``2 pictures of another format``."""
    if n == 1 or kind == "text":
        return kind
    noun, link, rest = re.fullmatch(r"(.*?)( of | without | or | \(|$)(.*)", kind).groups()  # type: ignore[union-attr]
    return f"{noun}s{link}{rest}"


_NOBODY = re.compile(
    r"(anon(ymous|ymized|ymised|ymise|ymize)?|de_?identified|no_?(name|id|patient|patient_?id)|unknown(_patient)?|"
    r"nan|none|null|n/?a|nil|empty|removed|deleted|redacted|hidden|undefined|not_(known|available)|"
    r"patient(_?id)?|patid|test|x+|[-?.]*|0+)"
)


def is_nobody(patient: str) -> bool:
    """True if a patient's ID is what de-identifiers and empty cells leave behind: ``ANONYMOUS``, ``nan``, ``-`` ..."""
    return _NOBODY.fullmatch(_plain(patient.replace("^", " "))) is not None
