"""The lesions of a run as one COCO file.

    images        one for each predicted image; file_name is relative to the folder of the file
    annotations   one for each lesion, highest score first within an image
    categories    the abnormal classes of the model; one, "lesion", if it does not grade

The category of a lesion is the most probable abnormal class of its image, as models grade images. A segmentation is one
polygon along the edges of pixels, or uncompressed run lengths if the lesion has holes, which polygons cannot express.
Both give back the lesion's pixels exactly. The same rows give the same bytes.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultraad.io import read_mask
from ultraad.io.store import is_url
from ultraad.io.video import is_camera
from ultraad.results.row import ImageRow, LesionRow, Run
from ultraad.types import Region

_log = logging.getLogger(__name__)

UNGRADED = "lesion"


def coco(rows: Callable[[], Iterable[ImageRow]], run: Run, folder: Path) -> str | None:
    """The content of the file.

    Args:
        rows: The predicted images, called for each of several passes. Those that were predicted without lesions being
            saved are left out, with a warning.
        run: The facts about the run.
        folder: Where the file will be.

    Returns:
        JSON text, one line per image, annotation and category; None if no row has its lesions.
    """
    total = known = 0
    graded = False
    for row in rows():
        total, known = total + 1, known + (row.lesions is not None)
        graded |= row.probs is not None
    if not known:
        return None
    if known < total:
        _log.warning("%d image(s) were predicted without --save boxes and are not in %s", total - known, folder.name)
    names = _classes(run) if graded else [UNGRADED]
    info = {
        "description": "lesions found by ultraad, for research only",
        "model": run.model.digest if run.model else None,
        "pixel_threshold": run.thresholds.pixel,
    }
    categories = [{"id": i, "name": name, "supercategory": "lesion"} for i, name in enumerate(names, start=1)]
    parts: dict[str, Iterable[dict[str, Any]]] = {
        "images": _images(rows(), folder),
        "annotations": _annotations(rows(), names),
        "categories": categories,
    }
    lists = [f'"{key}": [\n{_lines(entries)}\n]' for key, entries in parts.items()]
    return "{\n" + ",\n".join([f'"info": {_line(info)}', '"licenses": []', *lists]) + "\n}\n"


def _numbered(rows: Iterable[ImageRow]) -> Iterator[tuple[int, ImageRow, tuple[LesionRow, ...]]]:
    """(id in the file, row, lesions) of the rows whose lesions are known."""
    number = 0
    for row in rows:
        if row.lesions is not None:
            number += 1
            yield number, row, row.lesions


def _classes(run: Run) -> list[str]:
    model = run.model
    names = [] if model is None else [c for c in model.classes if c != model.normal_class]
    return names or [UNGRADED]


def _lines(values: Iterable[dict[str, Any]]) -> str:
    return ",\n".join(map(_line, values))


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _images(rows: Iterable[ImageRow], folder: Path) -> Iterator[dict[str, Any]]:
    for number, row, _ in _numbered(rows):
        path, elsewhere = Path(row.image), is_camera(row.image) or is_url(row.image)
        try:
            name = row.image if elsewhere else Path(os.path.relpath(path, folder)).as_posix()
        except ValueError:  # another drive of Windows
            name = path.resolve().as_posix()
        frame = {"frame": row.frame} if row.id.endswith(f"#{row.frame}") else {}
        size = {"width": row.width, "height": row.height}
        yield {"id": number, "file_name": name, **size, **frame, "score": row.score, "abnormal": row.abnormal}


def _annotations(rows: Iterable[ImageRow], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    found = 0
    for number, row, lesions in _numbered(rows):
        probs = row.probs or {}
        category = max(range(len(names)), key=lambda i: probs.get(names[i], 0.0)) + 1
        for lesion in lesions:
            found += 1
            yield {"id": found, "image_id": number, "category_id": category, **_annotation(lesion, row)}


def _annotation(lesion: LesionRow, row: ImageRow) -> dict[str, Any]:
    measured = {k: getattr(lesion, k) for k in ("area_mm2", "long_px", "short_px", "long_mm", "short_mm")}
    return {
        "bbox": list(lesion.box),
        "area": lesion.area_px,
        "segmentation": _segmentation(lesion, (row.height or 0, row.width or 0)),
        "iscrowd": 0,
        "score": lesion.score,
        **{key: value for key, value in measured.items() if value is not None},
    }


def _segmentation(lesion: LesionRow, size: tuple[int, int]) -> list[list[int]] | dict[str, Any]:
    if not lesion.holes:
        return [list(lesion.outline)]
    return {"size": list(size), "counts": run_lengths(mask_of(lesion, size))}


def mask_of(lesion: LesionRow, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of a lesion, bool (H W) of an image of this (height, width)."""
    mask = _filled(lesion.outline, size)
    for hole in lesion.holes:
        mask &= ~_filled(hole, size)
    return mask


def _filled(outline: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    return read_mask([Region(size=size, polygons=(tuple(map(float, outline)),))], shape=size)


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed run lengths of a mask bool (h w): down the columns, beginning with background."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs: list[int] = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return [0, *runs] if flat[0] else runs
