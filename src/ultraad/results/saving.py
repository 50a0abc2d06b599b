"""What a run saves of each image beside its line: pictures, and the lesions found in its map."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from ultraad.config import names_of, one_of
from ultraad.errors import ConfigError
from ultraad.io.files import write_image
from ultraad.io.maps import GRID_SUFFIX, write_grid, write_map
from ultraad.io.overlay import outlined, overlay
from ultraad.metrics.lesions import find_lesions, flat
from ultraad.registry import did_you_mean
from ultraad.results.row import ImageRow, LesionRow
from ultraad.types import Result

SAVES: Mapping[str, str] = {
    "overlays": "pictures with the map as colours",
    "maps": "16-bit PNG, or grids (:mod:`ultraad.io.maps`)",
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
FOLDERS: Mapping[str, str] = {"overlays": "overlay", "maps": "map", "masks": "mask", "contours": "contours"}
"""{folder of pictures: field of the row with the path of one}."""


@dataclass(frozen=True, slots=True)
class Saving:
    """What is saved of each image.

    Attributes:
        names: Of :data:`SAVES`.
        overlays: Of which images: ``"all"``, the ``"abnormal"`` ones, or the ``"top"`` ones, those with the highest
            scores of the run.
        top: How many these are.
        maps: ``"full"``: on the pixels of the image, or ``"grid"``: as the model drew them.
    """

    names: frozenset[str]
    overlays: Literal["all", "abnormal", "top"] = "all"
    top: int = 0
    maps: Literal["full", "grid"] = "full"

    @staticmethod
    def of(save: Saving | Collection[str]) -> Saving:
        """The names of :data:`SAVES`, as a choice."""
        return save if isinstance(save, Saving) else Saving(frozenset(save))

    @property
    def every_overlay(self) -> bool:
        """Whether every image and video gets an overlay."""
        return "overlays" in self.names and self.overlays == "all"


def chosen(save: Iterable[str] | None, *, overlays: str | None = None, maps: str | None = None) -> Saving:
    """What ``--save``, ``--overlays`` and ``--maps`` name together.

    Args:
        save: Names of :data:`SAVES`; None for :data:`USUAL`.
        overlays: ``"none"``, ``"abnormal"``, ``"top:N"`` or ``"all"``; None: all if ``save`` has them.
        maps: ``"none"``, ``"grid"`` or ``"full"``; None: full if ``save`` has them.

    Raises:
        ConfigError: If a name is unknown, or ``save`` names what the others leave out.
    """
    names = set(checked(USUAL if save is None else names_of(save)))
    for name, value in (("overlays", overlays), ("maps", maps)):
        if value == "none" and name in names and save is not None:
            why = " (dicom is made of them)" if name == "maps" and DICOM in names else ""
            msg = f"save names {name}{why}, and {name}='none' leaves them out; choose one of them"
            raise ConfigError(msg)
        if value is not None:
            names = names - {name} if value == "none" else names | {name}
    found = re.fullmatch(r"none|all|abnormal|top:([1-9]\d*)", "all" if overlays is None else overlays)
    if found is None:
        msg = f"overlays={overlays!r}: choose from none, abnormal, top:N with N at least 1, all"
        raise ConfigError(msg)
    one_of("maps", "full" if maps is None else maps, ("none", "grid", "full"))
    return Saving(
        frozenset(names),
        overlays="abnormal" if overlays == "abnormal" else "top" if found[1] else "all",
        top=int(found[1] or 0),
        maps="grid" if maps == "grid" else "full",
    )


def check_no_maps(
    method: str, save: Iterable[str] | None, *, overlays: str | None = None, maps: str | None = None
) -> None:
    """Refuse to save what is made of maps, if it is asked for, of a method that draws none.

    Args:
        method: Its name.
        save: As in :func:`chosen`, as the others are.
        overlays: Likewise.
        maps: Likewise.

    Raises:
        ConfigError: If there is something.
    """
    asked = {name for name, value in (("overlays", overlays), ("maps", maps)) if value not in (None, "none")}
    if needing := sorted(asked | checked(save or ())):
        msg = f"{method} draws no maps, so it has no {', '.join(needing)} to save; leave them out"
        raise ConfigError(msg)


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


def paths_of(result: Result, save: Saving, *, overlay: bool) -> dict[str, str | None]:
    """{field: path below the folder} of the pictures that will be written of a result; None for those that will not.

    Args:
        result: The predicted sample.
        save: What is saved.
        overlay: Whether it is an image that gets an overlay.
    """
    wanted = _folders(save, frame=result.sample.seconds is not None) if result.prediction.map is not None else {}
    if not overlay:
        wanted.pop("overlays", None)
    name = file_name(result.sample.id)
    suffixes = {"maps": GRID_SUFFIX if save.maps == "grid" else ".png"}
    return {
        field: f"{folder}/{name}{suffixes.get(folder, '.png')}" if folder in wanted else None
        for folder, field in FOLDERS.items()
    }


def _folders(save: Saving, *, frame: bool) -> dict[str, str]:
    """{folder: field} of the pictures that are written one by one; the overlays of a video are one file."""
    return {f: field for f, field in FOLDERS.items() if f in save.names and not (frame and f == "overlays")}


def lacks(row: ImageRow, save: Saving, *, maps: bool, overlay: bool) -> bool:
    """Whether an earlier run saved less of an image.

    Args:
        row: Of the earlier run.
        save: What is saved now.
        maps: Whether the model draws any.
        overlay: Whether it is an image that gets an overlay now.
    """
    if WHY in save.names and row.why is None:
        return True
    if not maps:
        return False
    folders = _folders(save, frame=row.video is not None)
    if not overlay:
        folders.pop("overlays", None)
    without_boxes = "boxes" in save.names and row.lesions is None
    only_a_grid = "maps" in folders and save.maps == "full" and (row.map or "").endswith(GRID_SUFFIX)
    return without_boxes or only_a_grid or any(getattr(row, field) is None for field in folders.values())


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
    if row.map is not None and row.map.endswith(GRID_SUFFIX):
        assert result.prediction.grid is not None  # smoothed maps are saved in full
        write_grid(folder / row.map, result.prediction.grid)
    elif row.map is not None:
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
    ends = r"(\.png|\.mp4|\.npz|-[a-z]+\.dcm)"
    return name == OBJECTS_LIST or re.fullmatch(rf".*-[0-9a-f]{{8}}{ends}", name, re.DOTALL) is not None


def file_name(id_: str) -> str:
    """Readable, unique and allowed on every file system: the id's last part and a piece of its hash."""
    last = PurePosixPath(id_).name
    stem, dot, rest = last.rpartition(".")
    frame = rest.partition("#")[2]
    readable = re.sub(r"[^\w.()-]+", "_", stem if dot else last)[:60] + (f"-{frame}" if frame else "")
    return f"{readable}-{hashlib.sha256(id_.encode(errors='surrogateescape')).hexdigest()[:8]}"
