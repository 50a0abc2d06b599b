"""Ultrasound DICOM: one frame as 8-bit RGB, and the header facts that ultraad uses.

The only module that imports pydicom. Grey values go through the steps of the standard (PS3.3 C.11): stored values,
modality rescale or LUT, VOI window or LUT, then 8 bits, then inversion for MONOCHROME1. The 8-bit step scales the whole
range that the steps can produce, not the minimum and maximum of the picture.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from ultraad.errors import DataError
from ultraad.io.brightness import grey_depth, note_depth
from ultraad.io.dicom_frames import check_coded, check_inflated, fragments, pixel_bytes, plausible
from ultraad.io.dicom_header import FUNCTIONAL_GROUPS, complete, for_frame, spacing_mm, text_of, value_of
from ultraad.io.faults import Faults, Remark, keeping_remarks, warn_of
from ultraad.io.names import is_nobody
from ultraad.io.raster import MAX_FRAMES, check_size, open_file

_TAGS = (  # only these are read and cached; private tags can be larger than the picture
    *("SOPClassUID", "Modality", "Manufacturer", "ManufacturerModelName", "PatientID", "IssuerOfPatientID"),
    *("SequenceOfUltrasoundRegions", "PixelSpacing", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel"),
    *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"),
    *("PlanarConfiguration", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", *FUNCTIONAL_GROUPS),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")),
    *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
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
    """The cached part of a file.

    Attributes:
        header: The elements of ``_TAGS``, completed.
        frames: Number of frames.
        offsets: (starts, lengths) of the frames if they are compressed and the file has no offset table.
        encapsulated: Position of the basic offset table; None for native pixels.
    """

    header: Dataset
    frames: int
    offsets: tuple[list[int], list[int]] | None
    encapsulated: int | None


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
    parsed = _parsed(path)
    ds = parsed.header
    with _faults(path, "header"):
        return Metadata(
            modality=text_of(ds, "Modality"),
            patient=_patient(ds),
            frames=parsed.frames,
            size=_size(ds),
            spacing_mm=spacing_mm(ds),
            manufacturer=text_of(ds, "Manufacturer"),
            model=text_of(ds, "ManufacturerModelName"),
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
    parsed = _parsed(path)
    with _faults(path, "header"):
        size, syntax = _size(parsed.header), _transfer_syntax(parsed.header)
    check_size(size, path)
    if not 0 <= frame < parsed.frames:
        msg = f"{path} has {parsed.frames} frame(s), but frame {frame} was requested; frames count from 0"
        raise DataError(msg)
    _check_codec(syntax, path)
    with _faults(path, f"pixel data ({syntax.name})"):
        return _to_rgb8(_decode(path, parsed, syntax, frame), for_frame(parsed.header, frame, path), path)


def check_decodable(path: Path, *, frames: int) -> None:
    """Raise the error of the first frame if the last one cannot be decoded either: then the file is one failure.

    Raises:
        DataError: If neither can be decoded.
    """
    try:
        read_frame(path, frame=0)
    except DataError as first:
        try:
            read_frame(path, frame=frames - 1)
        except DataError:
            raise first from None


def _faults(path: Path, part: str) -> Faults:
    what = f"the DICOM {part} of {path} cannot be read"
    return Faults(what, about=path, advice="Export or copy the file again")


def _parsed(path: Path) -> _Parsed:
    with open_file(path) as file:
        stat = os.fstat(file.fileno())
    parsed, remarks = _parse(path, stat.st_mtime_ns, stat.st_size)
    for remark in remarks:  # also of a cached header: another run made them
        warn_of(*remark)
    return parsed


@lru_cache(maxsize=8)  # the frames of a cine are read one after the other
def _parse(path: Path, mtime_ns: int, size: int) -> tuple[_Parsed, list[Remark]]:  # noqa: ARG001 - part of the cache's key
    with keeping_remarks() as remarks:
        return _read_header(path, size), remarks


def _read_header(path: Path, size: int) -> _Parsed:
    with open_file(path) as file, _faults(path, "header"):
        inflated = _inflated_bytes(file, path)
        ds = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))
        if not ds:
            msg = f"{path} is named like a DICOM file but contains no DICOM data; copy or export it again"
            raise DataError(msg)
        missing = [name for name in ("Rows", "Columns") if value_of(ds, name) is None and ds.get(name) in (None, "")]
        if missing:
            what = text_of(ds, "Modality") or "unknown modality"
            msg = f"{path} is DICOM ({what}) without pixels: {', '.join(missing)} is missing. Give an image or a cine"
            raise DataError(msg)
        complete(ds, path)
        return _find_frames(file, ds, path, size=size, inflated=inflated)


def _inflated_bytes(file: BufferedReader, path: Path) -> int | None:
    """Size of the inflated data set; None if the file is not deflated. The file is then at its start again."""
    if DeflatedExplicitVRLittleEndian.encode() not in file.read(1024):
        file.seek(0)
        return None
    file.seek(0)
    read_preamble(file, force=True)
    read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag.group != 2)
    total = check_inflated(file, file.tell(), path)
    file.seek(0)
    return total


def _find_frames(file: BufferedReader, ds: Dataset, path: Path, *, size: int, inflated: int | None) -> _Parsed:
    """Count the frames that the file holds, and find compressed ones that have no offset table.

    Without a table (PS3.3 C.7.6.3.1.8), pydicom reads over all earlier frames to find a frame, each time again.

    Args:
        file: Positioned after the header, at the pixel data.
        ds: The completed header.
        path: For messages.
        size: Of the file in bytes.
        inflated: Bytes of the inflated data set if the file is deflated.
    """
    declared = int(ds.get("NumberOfFrames") or 0)
    samples = 2 if ds.PhotometricInterpretation == "YBR_FULL_422" else ds.SamplesPerPixel
    frame_bytes = max(1, ds.Rows * ds.Columns * samples * ds.BitsAllocated // 8)
    native: int | None
    if inflated is not None:
        native = inflated if declared else 0  # without a number of frames: one
    else:
        native = pixel_bytes(file, size, little=_transfer_syntax(ds).is_little_endian)
    if native is not None:
        frames, remark = plausible(max(0, declared), native // frame_bytes, path)
        found = _Parsed(ds, frames, None, None)
    else:
        start = file.tell()
        items = fragments(file, size, at_most=10 * MAX_FRAMES)
        exact = items.table or items.pictures  # of frames in several fragments, only the first begins like a picture
        held = (exact if declared == 0 else len(items.starts)) if items.ended else 0
        frames, remark = plausible(max(0, declared), held, path)
        offsets = None
        if not items.table and len(items.starts) == frames > 1 and "ExtendedOffsetTable" not in ds:
            offsets = [at - items.starts[0] for at in items.starts], items.lengths
        found = _Parsed(ds, frames, offsets, start)
    if remark is not None:
        warn_of(path, remark)
    return found


def _decode(path: Path, parsed: _Parsed, syntax: UID, frame: int) -> NDArray[Any]:
    """Stored values (h w) or RGB (h w 3) of one frame; pydicom converts YBR as the codec requires."""
    ds, offsets = parsed.header, parsed.offsets
    names = ("PhotometricInterpretation", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation")
    keys = ("photometric_interpretation", "samples_per_pixel", "bits_allocated", "bits_stored", "pixel_representation")
    described = {key: ds.get(name) for key, name in zip(keys, names, strict=True)}
    if ds.SamplesPerPixel > 1:
        described["planar_configuration"] = ds.PlanarConfiguration
    if syntax == DeflatedExplicitVRLittleEndian:
        whole = pydicom.dcmread(path)
        for name in (*names, "PlanarConfiguration"):
            if name in ds:
                whole.add(ds[name])
        whole.NumberOfFrames = parsed.frames
        return pixel_array(whole, index=frame)
    if parsed.encapsulated is not None:
        _check_coded(path, parsed, frame)
    table: dict[str, Any] = {} if offsets is None else {"extended_offsets": offsets}
    return pixel_array(  # reads only the bytes of this frame
        path, index=frame, transfer_syntax_uid=syntax, number_of_frames=parsed.frames, **described, **table
    )


def _check_coded(path: Path, parsed: _Parsed, frame: int) -> None:
    ds, offsets = parsed.header, parsed.offsets
    if offsets is None and "ExtendedOffsetTable" in ds:
        offsets = ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths
    with open_file(path) as file:
        file.seek(parsed.encapsulated or 0)
        code = get_frame(file, frame, extended_offsets=offsets, number_of_frames=parsed.frames)
    rle = _transfer_syntax(ds) == RLELossless
    check_coded(code, _size(ds), pixel_bits=ds.SamplesPerPixel * ds.BitsAllocated if rle else None)


def _to_rgb8(stored: NDArray[Any], ds: Dataset, path: Path) -> NDArray[np.uint8]:
    photometric = str(ds.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        return _palette_to_rgb8(stored, ds)
    if photometric.startswith("MONOCHROME"):
        return np.stack([_grey_to_byte(stored, _with_used_bits(stored, ds, path))] * 3, axis=-1)  # (h w 3)
    if stored.ndim != 3 or stored.shape[-1] != 3:
        msg = f"photometric interpretation {photometric} with {int(ds.SamplesPerPixel)} sample(s) per pixel"
        raise ValueError(msg)
    if stored.dtype == np.uint8:
        return stored
    top = 2 ** int(_with_used_bits(stored, ds, path).BitsStored) - 1
    return np.asarray(np.rint(np.minimum(stored * (255.0 / top), 255.0)), dtype=np.uint8)


def _with_used_bits(stored: NDArray[Any], ds: Dataset, path: Path) -> Dataset:
    """The header with the depth that the pixels use, where it says more and no window or table decides.

    BitsStored 16 is often only the size of the container. Fewer bits are taken as they are, unless the pixels need just
    8, which would show them at a sixteenth of the brightness or less.
    """
    said = int(ds.BitsStored)
    decided = ds.get("VOILUTSequence") or ds.get("ModalityLUTSequence") or "WindowWidth" in ds
    if said not in (12, 14, 16) or decided or stored.dtype.kind not in "iu" or stored.min() < 0:
        return ds
    used = grey_depth(stored)
    if said < 16 and used > 8:
        return ds
    note_depth(used, path, said=said)
    if used >= said:
        return ds
    ds.BitsStored, ds.PixelRepresentation = used, 0  # the copy of this frame
    return ds


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


def _check_codec(syntax: UID, path: Path) -> None:
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


def _patient(ds: Dataset) -> str | None:
    patient = text_of(ds, "PatientID")
    if patient is None or is_nobody(patient):
        return None
    return hashlib.sha256(f"{text_of(ds, 'IssuerOfPatientID') or ''}\n{patient}".encode()).hexdigest()[:16]
