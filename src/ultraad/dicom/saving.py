"""From the folder of a run to DICOM objects: one file for each object in its folder ``dicom``, and their list.

    dicom/objects.json                     per image: its objects with their UIDs, or why there are none
    dicom/scan-1a2b3c4d-seg.dcm            and -labelmap -fractional -sr -pr -sc -ko

An object that is there already, with the UID that it would get, is left as it is.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from ultraad.dicom import capture, key_objects, presentation, report, segmentation
from ultraad.dicom.findings import Findings, findings_of
from ultraad.dicom.objects import OBJECTS, USUAL, checked, readable_dicom
from ultraad.dicom.parts import uid
from ultraad.dicom.source import read_source
from ultraad.errors import Caught, DataError
from ultraad.io import dicom
from ultraad.io.faults import Faults
from ultraad.io.files import ensure_writable, remove_leftovers, write_json
from ultraad.io.image import read_image
from ultraad.io.maps import read_map
from ultraad.results.folder import read_rows, read_run
from ultraad.results.row import ImageRow
from ultraad.results.saving import DICOM, OBJECTS_LIST, file_name, is_own_name

_log = logging.getLogger(__name__)


def write_objects(
    folder: Path, objects: Iterable[str] = USUAL, *, depths: Mapping[Path, int | None] = MappingProxyType({})
) -> dict[str, str]:
    """Write the objects of every DICOM image in the folder of a run that was saved with ``dicom``.

    Args:
        folder: Of the run.
        objects: Any of :data:`OBJECTS`.
        depths: {image: bits that its 16-bit pixels use}, as the samples of the run have it.

    Returns:
        {image: reason} of the DICOM images that have no objects, or not all.

    Raises:
        ConfigError: If an object is unknown.
        DataError: If the folder cannot be read or written to.
    """
    wanted = checked(objects)
    out = ensure_writable(folder / DICOM)
    remove_leftovers(out)
    run = read_run(folder)
    failed: dict[str, str] = {}
    listed: list[dict[str, object]] = []
    kept = {OBJECTS_LIST}
    others = 0
    for image, rows in _by_file(folder):
        if not readable_dicom(Path(image)):
            others += 1
            continue
        made: dict[str, dict[str, str]] = {}
        faults: list[str] = []
        with Caught() as caught, Faults(f"the DICOM objects of {image} cannot be made", about=image):
            source = read_source(Path(image))
            facts = dicom.metadata(Path(image))
            assert run is not None  # there are rows
            found = findings_of(source, run, rows, spacing_mm=facts["spacing_mm"])
            name = file_name(_id_of(rows[0]))
            for kind in OBJECTS:
                path = out / f"{name}-{kind}.dcm"
                with Caught() as one, Faults(f"{path.name} cannot be made", about=image):
                    there = _is_there(path, uid(found, kind))
                    if there or (kind in wanted and _write(path, kind, found, folder, depths.get(Path(image)))):
                        made[kind] = {"file": path.name, "uid": uid(found, kind)}
                        kept.add(path.name)
                if one.error is not None:
                    faults.append(str(one.error))
        if caught.error is not None:
            faults.append(str(caught.error).removeprefix(f"{image}: "))
        if faults:
            failed[image] = "; ".join(faults)
        listed.append({"image": image, "objects": made, "error": failed.get(image)})
    if others:
        _log.warning("%d image(s) are no DICOM files and have no DICOM objects", others)
    write_json(out / OBJECTS_LIST, {"images": listed})
    for left in out.glob("*.dcm"):
        if left.name not in kept and is_own_name(
            left.name
        ):  # of an image that was predicted again, with another result
            left.unlink(missing_ok=True)
    return failed


def _id_of(row: ImageRow) -> str:
    """The id of the file of a row."""
    return row.id.removesuffix(f"#{row.frame}")


def _by_file(folder: Path) -> Iterator[tuple[str, list[ImageRow]]]:
    """(image, its rows), each file as soon as its last row was read: a run that was resumed may have them apart."""
    left = Counter(row.image for row in read_rows(folder))
    waiting: dict[str, list[ImageRow]] = {}
    for row in read_rows(folder):
        waiting.setdefault(row.image, []).append(row)
        left[row.image] -= 1
        if not left[row.image]:
            yield row.image, waiting.pop(row.image)


def _is_there(path: Path, identity: str) -> bool:
    with suppress(OSError, InvalidDicomError):
        return str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).get("SOPInstanceUID")) == identity
    return False


def _write(path: Path, kind: str, found: Findings, folder: Path, depth: int | None) -> bool:
    """Write one object; False if there is nothing that it could hold."""

    @lru_cache(maxsize=1)
    def maps(frame: int) -> NDArray[np.float32]:
        row = found.rows[frame]
        if row.map is None:
            msg = f"{row.id} was predicted without its map; predict it again with --save dicom"
            raise DataError(msg)
        return read_map(folder / row.map)

    def pictures(frame: int) -> NDArray[np.uint8]:
        return read_image(found.source.path, frame=frame, depth=depth)

    makers: dict[str, Callable[[], bool | None]] = {
        "seg": lambda: segmentation.write_segmentation(path, found, "BINARY", maps=maps),
        "labelmap": lambda: segmentation.write_segmentation(path, found, "LABELMAP", maps=maps),
        "fractional": lambda: segmentation.write_segmentation(path, found, "FRACTIONAL", maps=maps),
        "sr": lambda: report.write_report(path, found),
        "pr": lambda: presentation.write_presentation(path, found),
        "sc": lambda: capture.write_capture(path, found, pictures=pictures, maps=maps),
        "ko": lambda: key_objects.write_key_objects(path, found),
    }
    return makers[kind]() is not False
