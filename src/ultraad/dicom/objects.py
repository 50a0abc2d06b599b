"""The kinds of objects by name, and what they need; importing this needs no extra."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ultraad.errors import ConfigError, DataError
from ultraad.io.image import is_dicom
from ultraad.registry import did_you_mean
from ultraad.types import Sample

OBJECTS: Mapping[str, str] = {
    "seg": "segmentation, a segment for each lesion (BINARY)",
    "labelmap": "the same as a label map",
    "fractional": "the map as a fractional segmentation",
    "sr": "structured report with measurements (TID 1500)",
    "pr": "presentation state with outlines",
    "sc": "secondary capture of the overlay",
    "ko": "key object selection",
}
"""Everything that ``--objects`` can name."""
USUAL = ("seg", "sr", "pr", "sc", "ko")


def checked(names: Iterable[str]) -> tuple[str, ...]:
    """The names of objects, in the order of :data:`OBJECTS`.

    Raises:
        ConfigError: If one is unknown, or there are none.
    """
    wanted = list(names)
    for name in wanted:
        if name not in OBJECTS:
            msg = f"{name!r} is no DICOM object{did_you_mean(name, OBJECTS)}; choose from {', '.join(OBJECTS)}"
            raise ConfigError(msg)
    if not wanted:
        msg = f"no DICOM object was named; choose from {', '.join(OBJECTS)}"
        raise ConfigError(msg)
    return tuple(name for name in OBJECTS if name in wanted)


def check_some(samples: Iterable[Sample]) -> None:
    """Raise if none of the samples is a DICOM image, before any work.

    Raises:
        DataError: If so.
    """
    images = list(dict.fromkeys(sample.image for sample in samples))
    if images and not any(map(readable_dicom, images)):
        msg = (
            f"--save dicom needs DICOM images to refer to, but none of the {len(images)} file(s) is one, e.g. "
            f"{images[0]}; leave it out, or give the DICOM files"
        )
        raise DataError(msg)


def readable_dicom(path: Path) -> bool:
    """Whether a file can be opened and is DICOM."""
    try:
        return is_dicom(path)
    except DataError:
        return False
