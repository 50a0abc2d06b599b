"""Maps on disk, in two forms that read as the same pixels.

    .png   full: a 16-bit grey PNG on the pixels of the image, value * 65535
    .npz   grid: the map as the model drew it, float32, and the way from there to the pixels

The file of a grid holds the arrays ``map`` (mh mw) and ``geometry``, which is JSON text.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from ultraad.errors import DataError
from ultraad.io.faults import Faults
from ultraad.io.files import write_parts
from ultraad.io.png import encode_png
from ultraad.io.raster import check_size, open_file, open_raster
from ultraad.types import Geometry, MapGrid

GRID_SUFFIX = ".npz"
_SCALE = 65535  # 16 bit
_ROWS = 64  # quantised at a time, so that the wide numbers in between fit the processor's cache
_LARGEST = 8192  # side of a model's input in pixels, and of a grid
_GEOMETRY: TypeAdapter[Geometry] = TypeAdapter(Geometry)


def write_map(path: str | Path, map: NDArray[Any]) -> None:  # noqa: A002  # the noun of Scores
    """Write a map as a 16-bit grey PNG, value * 65535, so that the maps of different images can be compared.

    Args:
        path: File to write.
        map: float (h w) in [0, 1].

    Raises:
        DataError: If the file cannot be written.
        ValueError: If a value is outside [0, 1] or NaN.
    """
    write_parts(path, [encode_png(_quantised(map))])


def write_grid(path: str | Path, grid: MapGrid) -> None:
    """Write a map as the model drew it; :func:`read_map` gives the pixels that :func:`write_map` would have written.

    Args:
        path: File to write, with the suffix :data:`GRID_SUFFIX`.
        grid: The map and its geometry.

    Raises:
        DataError: If the file cannot be written.
    """
    values = np.ascontiguousarray(grid.values, dtype=np.float32)
    geometry = _GEOMETRY.dump_json(grid.geometry).decode()
    content = BytesIO()
    np.savez(content, map=values, geometry=np.array(geometry))
    write_parts(path, [content.getvalue()])


def read_map(path: str | Path) -> NDArray[np.float32]:
    """Read what :func:`write_map` or :func:`write_grid` wrote, exact to 1/131070.

    Returns:
        float32 (h w) in [0, 1], on the pixels of the image.

    Raises:
        DataError: If the file is neither a 16-bit grey image nor the grid of a map.
    """
    path = Path(path)
    if path.suffix == GRID_SUFFIX:
        grid = read_grid(path)
        with Faults(f"{path} is not the grid of a map", about=path):
            values = _quantised(np.clip(grid.on_pixels(), 0.0, 1.0))
    else:
        with open_raster(path) as picture:
            if not picture.mode.startswith("I;16"):
                msg = f"{path} is not a map: found mode {picture.mode}, wanted a 16-bit grey PNG"
                raise DataError(msg)
            values = np.asarray(picture)
    return values.astype(np.float32) / np.float32(_SCALE)


def read_grid(path: str | Path) -> MapGrid:
    """Read what :func:`write_grid` wrote.

    Raises:
        DataError: If the file is missing or damaged.
    """
    path = Path(path)
    with open_file(path) as stream:
        content = BytesIO(stream.read())
    with Faults(f"{path} is not the grid of a map", about=path):
        if not is_zipfile(content):
            msg = f"{path} is not the grid of a map: it is no .npz file of numpy"
            raise DataError(msg)
        with np.load(content, allow_pickle=False) as file:
            values = file["map"]
            geometry = _GEOMETRY.validate_json(str(file["geometry"]))
        check_size(geometry.original_hw, path)
        sides = (*values.shape, geometry.size, *geometry.content_hw)
        if values.ndim != 2 or values.dtype != np.float32 or not all(0 < side <= _LARGEST for side in sides):
            msg = f"{path} holds {values.dtype} {values.shape} for an input of {geometry.size} pixels, wanted a map"
            raise DataError(msg)
        return MapGrid(values, geometry)


def _quantised(map_: NDArray[Any]) -> NDArray[np.uint16]:
    """Values in 0..1 as 16 bits.

    Raises:
        ValueError: If a value is outside [0, 1] or NaN.
    """
    if not (map_.min() >= 0 and map_.max() <= 1):  # also when NaN
        msg = f"got a map with values {map_.min():g}..{map_.max():g}, wanted values in [0, 1]"
        raise ValueError(msg)
    values = np.empty(map_.shape, dtype=np.uint16)
    for top in range(0, len(map_), _ROWS):
        rows = slice(top, top + _ROWS)
        values[rows] = np.rint(np.multiply(map_[rows], _SCALE, dtype=np.float64))
    return values
