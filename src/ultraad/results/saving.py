"""What a run saves of each image beside its line: pictures, and the lesions found in its map."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ultraad.errors import ConfigError
from ultraad.io.files import write_image, write_map
from ultraad.io.overlay import outlined, overlay
from ultraad.metrics.lesions import find_lesions, flat
from ultraad.registry import did_you_mean
from ultraad.results.row import ImageRow, LesionRow
from ultraad.types import Result

SAVES: Mapping[str, str] = {
    "overlays": "pictures with the map as colours",
    "maps": "16-bit PNG",
    "masks": "PNG, 255 where the map reaches the pixel threshold and 0 elsewhere",
    "contours": "pictures with the outline of the mask",
    "boxes": "coco.json with the box, outline, area, axes and score of each lesion",
    "dicom": "segmentation, report and more as DICOM objects of each DICOM image, with maps and boxes",
}
"""Everything that ``--save`` can name, with what it is."""
WHY = "why"
"""The reasons of a prediction (:mod:`ultraad.model.reasons`), which are no file of their own."""
USUAL = ("overlays", "maps")
DICOM, OBJECTS_LIST = "dicom", "objects.json"
"""The name, and the folder, of DICOM objects; and their list. :mod:`ultraad.dicom.saving` writes both after a run."""
USUAL_OF_VIDEOS = ("overlays",)
"""Of videos: one overlay video; a map of each frame would take more space than the video."""
FOLDERS: Mapping[str, str] = {"overlays": "overlay", "maps": "map", "masks": "mask", "contours": "contours"}
"""{folder of pictures: field of the row with the path of one}."""


def checked(names: Iterable[str]) -> frozenset[str]:
    """The names, if all are in :data:`SAVES`, with those that they need: DICOM objects are made of maps and boxes.

    Raises:
        ConfigError: If one is not.
    """
    wanted = list(names)
    for name in wanted:
        if name not in SAVES:
            msg = f"{name!r} cannot be saved{did_you_mean(name, SAVES)}; choose from {', '.join(SAVES)}"
            raise ConfigError(msg)
    return frozenset([*wanted, *(("maps", "boxes") if DICOM in wanted else ())])


def paths_of(result: Result, save: Collection[str]) -> dict[str, str | None]:
    """{field: path below the folder} of the pictures that will be written of a result; None for those that will not."""
    name = f"{file_name(result.sample.id)}.png"
    wanted = _folders(save, frame=result.sample.seconds is not None) if result.prediction.map is not None else {}
    return {field: f"{folder}/{name}" if folder in wanted else None for folder, field in FOLDERS.items()}


def _folders(save: Collection[str], *, frame: bool) -> dict[str, str]:
    """{folder: field} of the pictures that are written one by one; the overlays of a video are one file."""
    return {f: field for f, field in FOLDERS.items() if f in save and not (frame and f == "overlays")}


def lacks(row: ImageRow, save: Collection[str], *, maps: bool) -> bool:
    """Whether an earlier run saved less of an image; ``maps``: whether the model draws any."""
    if WHY in save and row.why is None:
        return True
    if not maps:
        return False
    fields = _folders(save, frame=row.video is not None).values()
    return any(getattr(row, field) is None for field in fields) or ("boxes" in save and row.lesions is None)


def write_pictures(folder: Path, result: Result, row: ImageRow, *, threshold: float | None) -> None:
    """Draw and write the pictures that a row names.

    Args:
        folder: Of the run.
        result: The predicted sample.
        row: Its row.
        threshold: Of pixels.
    """
    found = result.prediction.map
    if found is None:
        return
    if row.map is not None:
        write_map(folder / row.map, np.clip(found, 0.0, 1.0))
    if row.overlay is not None:
        write_image(folder / row.overlay, overlay(result.image, found, mask=result.mask, threshold=threshold))
    if threshold is None:
        return
    reached = found >= np.float32(threshold)
    if row.mask is not None:
        write_image(folder / row.mask, reached.astype(np.uint8) * 255)
    if row.contours is not None:
        write_image(folder / row.contours, outlined(result.image, reached, mask=result.mask))


def lesions_of(result: Result, threshold: float) -> dict[str, Any]:
    """The fields ``lesions`` and ``specks`` of the row of a result that has a map."""
    assert result.prediction.map is not None
    found = find_lesions(result.prediction.map, threshold, spacing_mm=result.sample.spacing_at)
    rows = tuple(
        LesionRow(
            score=round(lesion.score or 0.0, 6),
            peak=lesion.peak or (0, 0),
            box=lesion.box,
            area_px=lesion.area_px,
            area_mm2=_rounded(lesion.area_mm2),
            long_px=round(lesion.long_px, 3),
            short_px=round(lesion.short_px, 3),
            long_mm=_rounded(lesion.long_mm),
            short_mm=_rounded(lesion.short_mm),
            long_axis=tuple(round(x, 3) for end in lesion.long_axis for x in end),
            short_axis=tuple(round(x, 3) for end in lesion.short_axis for x in end),
            outline=tuple(flat(lesion.outline)),
            holes=tuple(tuple(flat(hole)) for hole in lesion.holes),
        )
        for lesion in found
    )
    return {"lesions": rows, "specks": found.specks}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def remove_saved(folder: Path) -> None:
    """Remove the pictures and DICOM objects of an earlier run, and nothing else."""
    for name in (*FOLDERS, DICOM):
        for path in (folder / name).glob("*"):
            if is_own_name(path.name):
                path.unlink()
        with suppress(OSError):  # there is none, or it holds other files
            (folder / name).rmdir()


def is_own_name(name: str) -> bool:
    """Whether a run may have written a file of this name beside its tables; see :func:`file_name`."""
    return (
        name == OBJECTS_LIST or re.fullmatch(r".*-[0-9a-f]{8}(\.png|\.mp4|-[a-z]+\.dcm)", name, re.DOTALL) is not None
    )


def file_name(id_: str) -> str:
    """Readable, unique and allowed on every file system: the id's last part and a piece of its hash."""
    last = PurePosixPath(id_).name
    stem, dot, rest = last.rpartition(".")
    frame = rest.partition("#")[2]
    readable = re.sub(r"[^\w.()-]+", "_", stem if dot else last)[:60] + (f"-{frame}" if frame else "")
    return f"{readable}-{hashlib.sha256(id_.encode(errors='surrogateescape')).hexdigest()[:8]}"
