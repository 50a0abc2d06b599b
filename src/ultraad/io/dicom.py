"""Ultrasound DICOM: one frame as 8-bit RGB, and the header facts that ultraad uses.

The only module that imports pydicom. Grey values go through the steps of the standard (PS3.3 C.11): stored values,
modality rescale or LUT, VOI window or LUT, then 8 bits, then inversion for MONOCHROME1. The 8-bit step scales the whole
range that the steps can produce, not the minimum and maximum of the picture.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import parse_basic_offsets, parse_fragments
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ultraad.errors import DataError
from ultraad.io.raster import check_size, open_file

_CENTIMETRE = 3  # PhysicalUnitsXDirection, PS3.3 C.8.5.5.1.15
_SPATIAL_2D = 1  # RegionSpatialFormat, PS3.3 C.8.5.5.1.1
_SPACING_TOLERANCE = 0.01  # relative difference below which two regions have the same scale

_ENCAPSULATED = b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"  # tag, VR and undefined length, PS3.5 A.4

_TAGS = (  # only these are read and cached; private tags can be larger than the picture
    *("SOPClassUID", "Modality", "Manufacturer", "ManufacturerModelName", "PatientID", "IssuerOfPatientID"),
    *("SequenceOfUltrasoundRegions", "PixelSpacing", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel"),
    *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")),
    *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
)

_BROKEN = (  # what pydicom and its codecs raise on damaged data
    AttributeError,
    BytesLengthException,
    EOFError,
    IndexError,
    InvalidDicomError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)

_PLUGINS = (  # start of the transfer syntax UID, what to install
    ("1.2.840.10008.1.2.4.80", "pip install pyjpegls"),
    ("1.2.840.10008.1.2.4.81", "pip install pyjpegls"),
    ("1.2.840.10008.1.2.4.5", "pip install pylibjpeg-libjpeg"),  # JPEG, 12-bit and lossless
    ("1.2.840.10008.1.2.4.7", "pip install pylibjpeg-libjpeg"),  # JPEG lossless
    ("1.2.840.10008.1.2.4.9", "pip install pylibjpeg-openjpeg"),  # JPEG 2000
    ("1.2.840.10008.1.2.4.20", "pip install pylibjpeg-openjpeg"),  # HTJ2K
    ("1.2.840.10008.1.2.4.10", "video: export the frames as PNG or uncompressed DICOM"),  # MPEG-2, H.264, HEVC
)


class _Parsed(NamedTuple):
    """The cached part of a file: its header, and (starts, lengths) of its frames if the file has no offset table."""

    header: Dataset
    offsets: tuple[list[int], list[int]] | None


class Metadata(TypedDict):
    """What :func:`metadata` returns.

    Attributes:
        modality: e.g. ``"US"``; None if absent.
        patient: First 16 hex digits of sha256 over issuer and PatientID: a stable pseudonym that keeps the ID out of
            results. This is not anonymisation, since short IDs can be guessed. None if the file has no PatientID.
        frames: Number of frames.
        size: (height, width) in pixels.
        spacing_mm: Pixel spacing (row, col) in mm; None if unknown or unreliable.
        manufacturer: Manufacturer of the scanner; None if absent.
        model: Scanner model; None if absent.
        photometric: Photometric interpretation.
        transfer_syntax: Name of the encoding.
    """

    modality: str | None
    patient: str | None
    frames: int
    size: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    manufacturer: str | None
    model: str | None
    photometric: str
    transfer_syntax: str


def metadata(path: Path) -> Metadata:
    """Header facts of a DICOM image; no pixels are read.

    Raises:
        DataError: If the file is not a readable DICOM image.
    """
    ds = _parsed(path).header
    with _damage_is_data_error(path, "header"):
        return Metadata(
            modality=_text(ds, "Modality"),
            patient=_patient(ds),
            frames=_frames(ds),
            size=_size(ds),
            spacing_mm=_spacing_mm(ds),
            manufacturer=_text(ds, "Manufacturer"),
            model=_text(ds, "ManufacturerModelName"),
            photometric=str(ds.PhotometricInterpretation),
            transfer_syntax=_transfer_syntax(ds).name,
        )


def read_frame(path: Path, *, frame: int = 0) -> NDArray[np.uint8]:
    """Decode one frame without reading the others.

    Every frame takes the same time, except in files with compressed frames in several fragments and no offset table:
    there a frame can only be found by reading from the start.

    Args:
        path: A DICOM file with pixel data.
        frame: 0-based.

    Returns:
        uint8 (h w 3) RGB.

    Raises:
        DataError: If there are no pixels or no such frame, or the encoding is not supported.
    """
    ds, offsets = _parsed(path)
    with _damage_is_data_error(path, "header"):
        frames, size, syntax = _frames(ds), _size(ds), _transfer_syntax(ds)
    check_size(size, path)
    if not 0 <= frame < frames:
        msg = f"{path} has {frames} frame(s), but frame {frame} was requested; frames count from 0"
        raise DataError(msg)
    _check_decodable(syntax, path)
    with _damage_is_data_error(path, f"pixel data ({syntax.name})"):
        return _to_rgb8(_decode(path, syntax, frame, offsets), ds)


@contextmanager
def _damage_is_data_error(path: Path, part: str) -> Iterator[None]:
    try:
        yield
    except _BROKEN as e:
        reason = " ".join(str(e).split()) or type(e).__name__
        msg = f"the DICOM {part} of {path} cannot be read: {reason}. Export or copy the file again"
        raise DataError(msg) from e


def _parsed(path: Path) -> _Parsed:
    with open_file(path) as file:
        stat = os.fstat(file.fileno())
    parsed = _parse(path, stat.st_mtime_ns, stat.st_size)
    ds = parsed.header
    missing = [name for name in ("Rows", "Columns", "PhotometricInterpretation") if name not in ds]
    if missing:
        what = _text(ds, "Modality") or "unknown modality"
        msg = f"{path} is DICOM ({what}) without pixels: {', '.join(missing)} is missing. Give an image or a cine"
        raise DataError(msg)
    return parsed


@lru_cache(maxsize=8)  # the frames of a cine are read one after the other
def _parse(path: Path, mtime_ns: int, size: int) -> _Parsed:  # noqa: ARG001 - part of the cache's key
    with open_file(path) as file, _damage_is_data_error(path, "header"):
        ds = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))
        offsets = _frame_offsets(file, ds) if ds else None
    if not ds:
        msg = f"{path} is named like a DICOM file but contains no DICOM data; copy or export it again"
        raise DataError(msg)
    return _Parsed(ds, offsets)


def _frame_offsets(file: BufferedReader, ds: Dataset) -> tuple[list[int], list[int]] | None:
    """The extended offset table (PS3.3 C.7.6.3.1.8) for a compressed cine that has no offset table.

    Without a table, pydicom reads over all earlier frames to find a frame, each time again.

    Args:
        file: Positioned after the header, at the pixel data.
        ds: The header.

    Returns:
        (starts, lengths) in bytes, starts relative to the first frame's item; None if no table is needed.
    """
    if _frames(ds) == 1 or file.read(12) != _ENCAPSULATED:
        return None
    try:
        if parse_basic_offsets(file):
            return None
        first = file.tell()
        _, starts = parse_fragments(file)
    except (ValueError, struct.error):  # damaged: reading a frame raises
        return None
    if len(starts) != _frames(ds):
        return None
    lengths = []
    for start in starts:
        file.seek(start + 4)  # after the item's tag
        lengths.append(int.from_bytes(file.read(4), "little"))
    return [start - first for start in starts], lengths


def _decode(path: Path, syntax: UID, frame: int, offsets: tuple[list[int], list[int]] | None) -> NDArray[Any]:
    """Stored values (h w) or RGB (h w 3) of one frame; pydicom converts YBR as the codec requires."""
    if syntax != DeflatedExplicitVRLittleEndian:  # reads only the bytes of this frame
        table: dict[str, Any] = {} if offsets is None else {"extended_offsets": offsets}
        return pixel_array(path, index=frame, transfer_syntax_uid=syntax, **table)
    return pixel_array(pydicom.dcmread(path), index=frame)


def _to_rgb8(stored: NDArray[Any], ds: Dataset) -> NDArray[np.uint8]:
    photometric = str(ds.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        return _palette_to_rgb8(stored, ds)
    if photometric.startswith("MONOCHROME"):
        return np.stack([_grey_to_byte(stored, ds)] * 3, axis=-1)  # (h w 3)
    if stored.ndim != 3 or stored.shape[-1] != 3:
        msg = f"photometric interpretation {photometric} with {int(ds.SamplesPerPixel)} sample(s) per pixel"
        raise ValueError(msg)
    top = 2 ** int(ds.BitsStored) - 1
    return stored if stored.dtype == np.uint8 else np.rint(stored * (255.0 / top)).astype(np.uint8)


def _palette_to_rgb8(stored: NDArray[Any], ds: Dataset) -> NDArray[np.uint8]:
    entries, first, _ = ds.RedPaletteColorLookupTableDescriptor
    index = np.arange(entries or 2**16)  # 0 entries mean 65536, PS3.3 C.7.6.3.1.5
    table = apply_color_lut(index + first, ds)[:, :3]  # (entries 3)
    if table.max() > 255:  # else the table says 16 bits but uses only the lower byte
        table = table >> 8
    return np.asarray(table.astype(np.uint8)[np.clip(stored.astype(np.int64) - first, 0, index[-1])])


def _grey_to_byte(stored: NDArray[Any], ds: Dataset) -> NDArray[np.uint8]:
    """The grey steps, computed once for each possible stored value instead of once for each pixel."""
    low, high = int(stored.min()), int(stored.max())
    if stored.dtype.itemsize > 2 or high - low >= stored.size:
        return _grey_chain(stored, ds)
    table = _grey_chain(np.arange(low, high + 1).astype(stored.dtype), ds)
    return table[stored.astype(np.intp) - low]


def _grey_chain(stored: NDArray[Any], ds: Dataset) -> NDArray[np.uint8]:
    values = apply_modality_lut(stored, ds)
    if ds.get("VOILUTSequence") or _window_width(ds) >= 1:  # some writers leave a window of width 0
        values = apply_voi_lut(values, ds)
    low, high = _display_range(ds)
    grey = np.rint(np.clip((values - low) / (high - low), 0.0, 1.0) * 255.0).astype(np.uint8)
    return 255 - grey if ds.PhotometricInterpretation == "MONOCHROME1" else grey


def _window_width(ds: Dataset) -> float:
    width = ds.get("WindowWidth") or 0.0
    return float(width[0] if isinstance(width, MultiValue) else width)


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


def _check_decodable(syntax: UID, path: Path) -> None:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        available = False
    else:
        available = not syntax.is_encapsulated or decoder.is_available
    if not available:
        advice = next((advice for prefix, advice in _PLUGINS if syntax.startswith(prefix)), "export it uncompressed")
        msg = f"{path} is encoded as {syntax.name}, which cannot be decoded here; {advice}"
        raise DataError(msg)


def _transfer_syntax(ds: Dataset) -> UID:
    """The file's own transfer syntax, or the one found while parsing if there is no meta header."""
    if syntax := ds.file_meta.get("TransferSyntaxUID"):
        return UID(syntax)
    implicit, little = ds.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _size(ds: Dataset) -> tuple[int, int]:
    return int(ds.Rows), int(ds.Columns)


def _frames(ds: Dataset) -> int:
    return max(1, int(ds.get("NumberOfFrames") or 1))


def _text(ds: Dataset, name: str) -> str | None:
    return str(ds.get(name) or "").strip() or None


def _patient(ds: Dataset) -> str | None:
    patient = _text(ds, "PatientID")
    if patient is None:
        return None
    key = f"{_text(ds, 'IssuerOfPatientID') or ''}\n{patient}"
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _spacing_mm(ds: Dataset) -> tuple[float, float] | None:
    """(row, col) in mm: from the 2-D ultrasound regions, else PixelSpacing.

    The result is None, rather than a wrong length, for regions that exceed the picture (the file was cropped or resized
    after the scanner wrote it) and for regions of different scale.
    """
    regions = [
        region
        for region in ds.get("SequenceOfUltrasoundRegions") or ()
        if region.get("RegionSpatialFormat") == _SPATIAL_2D
        and region.get("PhysicalUnitsXDirection") == region.get("PhysicalUnitsYDirection") == _CENTIMETRE
    ]
    if regions:
        inside = all(  # <=: many writers give the number of pixels instead of the last index
            region.RegionLocationMaxX1 <= ds.Columns and region.RegionLocationMaxY1 <= ds.Rows for region in regions
        )
        scales = np.abs([(float(r.PhysicalDeltaY), float(r.PhysicalDeltaX)) for r in regions]) * 10.0  # cm to mm
        row, col = (float(v) for v in scales[0])
        same = np.allclose(scales, scales[0], rtol=_SPACING_TOLERANCE, atol=0.0)
        return (row, col) if inside and same and row > 0 and col > 0 else None
    spacing = ds.get("PixelSpacing")
    if not spacing or len(spacing) != 2 or min(spacing) <= 0:
        return None
    return float(spacing[0]), float(spacing[1])
