"""Pictures of a benchmark: overlays painted out before the test, and small copies for figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ultraad.data.loader import decode
from ultraad.data.support import content_hash
from ultraad.errors import DataError
from ultraad.io import read_image
from ultraad.io.files import write_image
from ultraad.io.marks import paint_overlays
from ultraad.types import Sample

SIDE = 96
"""Of small maps and pictures, in pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class SmallMaps:
    """Maps for figures: ids (n,) and maps f32 (n 96 96), squashed; values are on the method's own scale."""

    ids: tuple[str, ...]
    maps: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """The images of a test set for figures, squashed.

    Attributes:
        ids: (n,).
        images: u8 (n 96 96 3).
        masks: bool (n 96 96).
        known: bool (n,), whether the mask is known.
        sizes: i64 (n 2), original height and width.
    """

    ids: tuple[str, ...]
    images: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    known: NDArray[np.bool_]
    sizes: NDArray[np.int64]


def painted(samples: Sequence[Sample], folder: Path) -> tuple[Sample, ...]:
    """The samples with overlays painted out, written once to a folder and named by the content of the image.

    A file that cannot be read stays as it is: the evaluation reports it.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def paint(sample: Sample) -> Sample:
        try:
            path = folder / f"{content_hash(sample).replace('#', '-')}.png"
            if not path.is_file():
                write_image(path, paint_overlays(read_image(sample.image, frame=sample.frame, depth=sample.depth)))
        except DataError:
            return sample
        return replace(sample, image=path, frame=0)

    return tuple(map(paint, samples))


def small_map(map: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: A002  # the noun of Scores
    """A map f32 (h w) as f32 (96 96)."""
    return _shrink(map).astype(np.float32)


def pack_maps(ids: Sequence[str], maps: Sequence[NDArray[np.float32]]) -> dict[str, NDArray[np.generic]]:
    """Small maps as arrays for a file: 8 bit between each map's own lowest and highest value."""
    full = np.stack(maps)  # (n 96 96)
    low, high = full.min((1, 2)), full.max((1, 2))
    span = np.where(high > low, high - low, 1)[:, None, None]
    levels = np.rint((full - low[:, None, None]) / span * 255).astype(np.uint8)
    return {"ids": np.array(ids), "maps": levels, "low": low, "high": high}


def unpack_maps(arrays: dict[str, NDArray[np.generic]]) -> SmallMaps:
    """The maps of :func:`pack_maps`, to within 1/510 of each map's range.

    Raises:
        ValueError: If an array has another shape.
    """
    _check_shapes(arrays, {"ids": (), "maps": (SIDE, SIDE), "low": (), "high": ()})
    low, high = (np.asarray(arrays[k], dtype=np.float32)[:, None, None] for k in ("low", "high"))
    maps = low + (high - low) * np.asarray(arrays["maps"], dtype=np.float32) / np.float32(255)
    return SmallMaps(tuple(str(i) for i in arrays["ids"]), maps)


def small_pictures(samples: Sequence[Sample]) -> dict[str, NDArray[np.generic]]:
    """The fields of :class:`Pictures` for a test set; files that cannot be read are left out."""
    ids, images, masks, known, sizes = [], [], [], [], []
    for s in samples:
        try:
            found = decode(s, normal_class="")  # only ``anomalous`` tells whether an image without a mask is normal
        except DataError:
            continue
        image, mask = found.image, found.mask
        ids.append(s.id)
        images.append(_shrink(image))
        masks.append(np.zeros((SIDE, SIDE), bool) if mask is None else _shrink(mask.astype(np.float32)) >= 0.5)
        known.append(mask is not None)
        sizes.append(image.shape[:2])
    return {
        "ids": np.array(ids, dtype=np.str_),
        "images": np.array(images, dtype=np.uint8).reshape(-1, SIDE, SIDE, 3),
        "masks": np.array(masks, dtype=np.bool_).reshape(-1, SIDE, SIDE),
        "known": np.array(known, dtype=np.bool_),
        "sizes": np.array(sizes, dtype=np.int64).reshape(-1, 2),
    }


def unpack_pictures(arrays: dict[str, NDArray[np.generic]]) -> Pictures:
    """The pictures of :func:`small_pictures`.

    Raises:
        ValueError: If an array has another shape.
    """
    _check_shapes(arrays, {"ids": (), "images": (SIDE, SIDE, 3), "masks": (SIDE, SIDE), "known": (), "sizes": (2,)})
    return Pictures(
        ids=tuple(str(i) for i in arrays["ids"]),
        images=np.asarray(arrays["images"], dtype=np.uint8),
        masks=np.asarray(arrays["masks"], dtype=np.bool_),
        known=np.asarray(arrays["known"], dtype=np.bool_),
        sizes=np.asarray(arrays["sizes"], dtype=np.int64),
    )


def _check_shapes(arrays: dict[str, NDArray[np.generic]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Every array has one entry of its shape for each id."""
    for name, shape in shapes.items():
        if (found := arrays[name].shape) != (wanted := (len(arrays["ids"]), *shape)):
            msg = f"{name} has the shape {found}, wanted {wanted}"
            raise ValueError(msg)


def _shrink(array: NDArray[Any]) -> NDArray[Any]:
    how = cv2.INTER_AREA if min(array.shape[:2]) >= SIDE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(array, (SIDE, SIDE), interpolation=how))
