"""The files below a folder: pictures, and those that are refused by name because nobody can promise they are clean."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from ultraad.errors import DataError
from ultraad.io.find import is_there, natural_pieces, no_picture, walk
from ultraad.io.names import summary
from ultraad.io.pairs import tell_masks

_log = logging.getLogger(__name__)

_REFUSED = "{kind}: it is not de-identified here. {why}"
_WHY = {
    "DICOM report": "Its sentences may name persons",
    "DICOM document": "It may be any document of the patient",
    "DICOM presentation state": "Its texts may name persons",
    "DICOM waveform": "Only images are",
    "DICOM segmentation": "Only images are; make it again from the de-identified image",
    "DICOM that ultraad wrote": "Only images are; 'ultraad predict --save dicom' makes it again from the new image",
    "video": "Only images and DICOM cines are",
    "picture of another format": "Export it as PNG or JPEG",
}
_ORPHAN = (
    "it is named like a mask, but its image is not there, so it is neither searched for text nor written. Put it "
    "beside its image; give it another name or folder if it is a picture"
)
_UNCLEAR = "it is named like the mask of {images}, and nothing tells which; put it into the folder of its image"
_LEFT = frozenset({"text", "table", "annotation", "program", "hidden file", "hidden folder"})  # nobody expects pictures


class Listed(NamedTuple):
    """The files of a folder.

    Attributes:
        root: The folder; of a single file, its folder.
        pictures: Images and then masks, each in natural order, relative to the root.
        masks: {mask: (its image, the frame if the image has several)}.
        refused: {file relative to the root: why it is no image that can be de-identified}.
    """

    root: Path
    pictures: list[Path]
    masks: dict[Path, tuple[Path, int | None]]
    refused: dict[Path, str]


def list_files(source: Path) -> Listed:
    """Find what is to be de-identified.

    Masks are known as in :func:`ultraad.io.find_images`. One whose image is not there, or could be one of several, is
    refused: nobody could tell it from a picture with patient data, or pair it with its image.

    Raises:
        DataError: If there is no such file or folder, or no picture in it.
    """
    if not is_there(source):
        msg = f"{source} does not exist; give a folder with images, or an image"
        raise DataError(msg)
    if not source.is_dir():
        kind = no_picture(source)
        if kind:
            raise DataError(f"{source} is a {_reason(kind)}")  # noqa: EM102
        return _listed(source.parent, [Path(source.name)], {})
    left: dict[Path, str] = {}
    kinds = {path: no_picture(path) for path in walk(source, left)}
    pictures = [path.relative_to(source) for path, kind in kinds.items() if kind is None]
    refused = {path: kind for path, kind in (kinds | left).items() if kind and kind not in _LEFT}
    named = [path for path in pictures if not _is_text(path)]
    others = {path: kind for path, kind in (kinds | left).items() if kind and kind in _LEFT}
    if others:
        _log.warning("%s", summary(others))
    if not pictures and not refused:
        msg = f"{source} holds no DICOM file and no picture; give a folder with images"
        raise DataError(msg)
    return _listed(
        source,
        sorted(set(pictures) - set(named), key=lambda path: [natural_pieces(part) for part in path.parts]),
        {path.relative_to(source): _reason(kind) for path, kind in sorted(refused.items())}
        | dict.fromkeys(named, "its name is no valid text (UTF-8); rename it"),
    )


def _listed(root: Path, pictures: list[Path], refused: dict[Path, str]) -> Listed:
    told = tell_masks(root, [root / path for path in pictures])
    masks: dict[Path, tuple[Path, int | None]] = {}
    for path, owner in told.masks.items():
        images = [image.relative_to(root) for image in owner.images]
        if len(images) == 1:
            masks[path.relative_to(root)] = (images[0], owner.frame)
        else:
            refused[path.relative_to(root)] = _UNCLEAR.format(images=" and ".join(map(str, images[:2])))
    refused |= dict.fromkeys((path.relative_to(root) for path in told.orphans), _ORPHAN)
    images = [path for path in pictures if path not in masks and path not in refused]
    return Listed(root, images + [path for path in pictures if path in masks], masks, refused)


def _reason(kind: str) -> str:
    return _REFUSED.format(kind=kind, why=_WHY.get(kind, "Only images are"))


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
