"""From stored DICOM values to 8-bit RGB: palette, modality, window and inversion, in the order of PS3.3 C.11.

The 8-bit step scales the whole range that the steps can produce, not the minimum and maximum of the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut

from ultraad.io.brightness import grey_depth, in_parts, note_depth


def to_rgb8(stored: NDArray[Any], ds: Dataset, path: Path, *, depth: Callable[[], int]) -> NDArray[np.uint8]:
    """One decoded frame as it is shown.

    Args:
        stored: (h w) grey or palette indices, or RGB (h w 3).
        ds: The header of this frame.
        path: For messages.
        depth: Gives the bits that the set of this picture uses; asked only if the header leaves it open.

    Returns:
        uint8 (h w 3).

    Raises:
        ValueError: If the pixels do not have the samples that the header says.
    """
    photometric = str(ds.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        return _palette_to_rgb8(stored, ds)
    if photometric.startswith("MONOCHROME"):
        grey = _grey_to_byte(stored, _with_used_bits(stored, ds, path, depth))
        return np.stack([grey] * 3, axis=-1)  # (h w 3)
    if stored.ndim != 3 or stored.shape[-1] != 3:
        msg = f"photometric interpretation {photometric} with {int(ds.SamplesPerPixel)} sample(s) per pixel"
        raise ValueError(msg)
    if stored.dtype == np.uint8:
        return stored
    top = 2 ** int(_with_used_bits(stored, ds, path, depth).BitsStored) - 1
    return in_parts(lambda part: np.rint(np.minimum(part * (255.0 / top), 255.0)), stored)


def is_open_depth(ds: Dataset) -> bool:
    """Whether the header leaves open how many bits the pixels use: more than 8, and no window or table decides.

    BitsStored 16 is often only the size of the container.
    """
    decided = ds.get("VOILUTSequence") or ds.get("ModalityLUTSequence") or "WindowWidth" in ds
    return int(ds.BitsStored) in (12, 14, 16) and not decided and str(ds.PhotometricInterpretation) != "PALETTE COLOR"


def used_bits(stored: NDArray[Any], ds: Dataset) -> int | None:
    """The bits that the pixels use; None if the header does not leave them open."""
    if not is_open_depth(ds) or stored.dtype.kind not in "iu" or stored.min() < 0:
        return None
    return grey_depth(stored)


def _with_used_bits(stored: NDArray[Any], ds: Dataset, path: Path, depth: Callable[[], int]) -> Dataset:
    """The header with the depth that the pixels use.

    Fewer than 16 bits are taken as they are, unless the pixels need just 8, which would show them at a sixteenth of the
    brightness or less.
    """
    own, said = used_bits(stored, ds), int(ds.BitsStored)
    if own is None:
        return ds
    used = max(own, depth())
    if said < 16 and used > 8:
        return ds
    note_depth(used, path, said=said)
    if used < said:
        ds = ds[:]
        del ds.BitsStored, ds.PixelRepresentation  # the elements belong to all frames
        ds.BitsStored, ds.PixelRepresentation = used, 0
    return ds


def _palette_to_rgb8(stored: NDArray[Any], ds: Dataset) -> NDArray[np.uint8]:
    entries, first, _ = ds.RedPaletteColorLookupTableDescriptor
    index = np.arange(entries or 2**16)  # 0 entries mean 65536, PS3.3 C.7.6.3.1.5
    table = apply_color_lut(index + first, ds)[:, :3]  # (entries 3)
    if table.max() > 255:  # else the table says 16 bits but uses only the lower byte
        table = table >> 8
    colours = table.astype(np.uint8)
    return in_parts(lambda part: colours[np.clip(part.astype(np.int64) - first, 0, index[-1])], stored, channels=3)


def _grey_to_byte(stored: NDArray[Any], ds: Dataset) -> NDArray[np.uint8]:
    """The grey steps, computed once for each possible stored value instead of once for each pixel."""
    low, high = int(stored.min()), int(stored.max())
    if stored.dtype.itemsize > 2 or high - low >= stored.size:
        return in_parts(lambda part: _grey_chain(part, ds), stored)
    table = _grey_chain(np.arange(low, high + 1).astype(stored.dtype), ds)
    return in_parts(lambda part: table[part.astype(np.intp) - low], stored)


def _grey_chain(stored: NDArray[Any], ds: Dataset) -> NDArray[np.uint8]:
    values = apply_modality_lut(stored, ds)
    if ds.get("VOILUTSequence") or "WindowWidth" in ds:
        values = apply_voi_lut(values, ds)
    low, high = _display_range(ds)
    grey = np.rint(np.clip((values - low) / (high - low), 0.0, 1.0) * 255.0).astype(np.uint8)
    return 255 - grey if ds.PhotometricInterpretation == "MONOCHROME1" else grey


def _display_range(ds: Dataset) -> tuple[float, float]:
    """Smallest and largest value the grey steps can produce: of the VOI LUT, the modality LUT, or the stored bits."""
    for sequence in ("VOILUTSequence", "ModalityLUTSequence"):
        if ds.get(sequence):
            return 0.0, 2.0 ** int(ds[sequence].value[0].LUTDescriptor[2]) - 1
    bits, signed = int(ds.BitsStored), bool(ds.get("PixelRepresentation", 0))
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    slope, intercept = float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))
    low, high = sorted((low * slope + intercept, high * slope + intercept))
    return low, high
