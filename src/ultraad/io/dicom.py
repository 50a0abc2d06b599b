"""Ultrasound DICOM: one frame as 8-bit RGB, and the header facts that ultraad uses.

Only this module and ``dicom_pixels`` import pydicom. ``dicom_codecs`` decodes what pydicom cannot, and ``dicom_pixels``
turns stored values into those that are shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable
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
from pydicom.pixels.processing import convert_color_space
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
    RLELossless,
)

from ultraad.errors import DataError
from ultraad.io import dicom_codecs
from ultraad.io.dicom_frames import check_coded, check_inflated, fragments, pixel_bytes, plausible
from ultraad.io.dicom_header import (
    FUNCTIONAL_GROUPS,
    age_of,
    complete,
    for_frame,
    frame_ms,
    patient_of,
    printable,
    text_of,
    value_of,
)
from ultraad.io.dicom_pixels import is_open_depth, to_rgb8, used_bits
from ultraad.io.dicom_regions import regions_of
from ultraad.io.faults import Faults, Remark, keeping_remarks, warn_of
from ultraad.io.files import stamp_of
from ultraad.io.raster import MAX_FRAMES, check_size, open_file
from ultraad.types import Box, Spacing, View

_TAGS = (  # only these are read and cached; private tags can be larger than the picture
    *("SOPClassUID", "Modality", "Manufacturer", "ManufacturerModelName", "PatientID", "IssuerOfPatientID"),
    *("SequenceOfUltrasoundRegions", "PixelSpacing", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel"),
    *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"),
    *("PlanarConfiguration", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", *FUNCTIONAL_GROUPS),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")),
    *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate", "PatientAge", "PatientSex"),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
)

_VIDEO = "1.2.840.10008.1.2.4.10"  # start of the transfer syntax UID of MPEG-2, H.264 and HEVC


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
        age_years: The patient's age; None if unknown.
        sex: As the header has it, usually ``"F"``, ``"M"`` or ``"O"``; None if absent.
        frames: Number of frames.
        frame_ms: Milliseconds from a frame to the next; None if unknown.
        size: (height, width) in pixels.
        spacing_mm: Pixel spacing; None if unknown, unreliable or not the same in all views.
        views: The B-mode regions; empty if unknown or unreliable.
        region: The box around them; None if there are none, or it is the whole picture.
        manufacturer: Manufacturer of the scanner; None if absent.
        model: Scanner model; None if absent.
        photometric: Photometric interpretation.
        transfer_syntax: Name of the encoding.
    """

    modality: str | None
    patient: str | None
    age_years: float | None
    sex: str | None
    frames: int
    frame_ms: float | None
    size: tuple[int, int]
    spacing_mm: Spacing | None
    views: tuple[View, ...]
    region: Box | None
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
        regions = regions_of(ds, path)
        return Metadata(
            modality=text_of(ds, "Modality"),
            patient=patient_of(ds, path),
            age_years=age_of(ds),
            sex=text_of(ds, "PatientSex"),
            frames=parsed.frames,
            frame_ms=frame_ms(ds),
            size=_size(ds),
            spacing_mm=regions.spacing_mm,
            views=regions.views,
            region=regions.region,
            manufacturer=text_of(ds, "Manufacturer"),
            model=text_of(ds, "ManufacturerModelName"),
            photometric=str(ds.PhotometricInterpretation),
            transfer_syntax=_name(_transfer_syntax(ds)),
        )


def read_frame(path: Path, *, frame: int = 0, depth: Callable[[], int]) -> NDArray[np.uint8]:
    """Decode one frame without reading the others.

    Every frame takes the same time, except in files with compressed frames in several fragments and no offset table:
    there a frame can only be found by reading from the start.

    Args:
        path: A DICOM file with pixel data.
        frame: 0-based.
        depth: Gives the bits that the set of this picture uses; asked only if the header leaves it open.

    Returns:
        uint8 (h w 3) RGB.

    Raises:
        DataError: If there are no pixels or no such frame, or the encoding is not supported.
    """
    stored, ds = stored_frame(path, frame)
    with _faults(path, "pixel data"):
        return to_rgb8(stored, ds, path, depth=depth)


def frame_depth(path: Path, *, frame: int) -> int:
    """The bits that the pixels of a frame use, if its header leaves open how many they are; else 0.

    Raises:
        DataError: As :func:`read_frame`.
    """
    if not is_open_depth(_parsed(path).header):
        return 0
    stored, ds = stored_frame(path, frame)
    return used_bits(stored, ds) or 0


def stored_frame(path: Path, frame: int) -> tuple[NDArray[Any], Dataset]:
    """(stored values (h w) or RGB (h w 3) of a frame, its header); raises as :func:`read_frame`."""
    parsed = _parsed(path)
    with _faults(path, "header"):
        size, syntax = _size(parsed.header), _transfer_syntax(parsed.header)
    check_size(size, path)
    if not 0 <= frame < parsed.frames:
        msg = f"{path} has {parsed.frames} frame(s), but frame {frame} was requested; frames count from 0"
        raise DataError(msg)
    _check_codec(syntax, path, bits=parsed.header.BitsStored)
    with _faults(path, f"pixel data ({_name(syntax)})"):
        return _decode(path, parsed, syntax, frame), for_frame(parsed.header, frame, path)


def check_decodable(path: Path, *, frames: int) -> None:
    """Raise the error of the first frame if the last one cannot be decoded either: then the file is one failure.

    Raises:
        DataError: If neither can be decoded.
    """
    try:
        stored_frame(path, 0)
    except DataError as first:
        try:
            stored_frame(path, frames - 1)
        except DataError:
            raise first from None


def _faults(path: Path, part: str) -> Faults:
    what = f"the DICOM {part} of {path} cannot be read"
    return Faults(what, about=path, advice="Export or copy the file again")


def _parsed(path: Path) -> _Parsed:
    with open_file(path) as file:
        stat = os.fstat(file.fileno())
    parsed, remarks = _parse(path, stamp_of(stat))
    for remark in remarks:  # also of a cached header: another run made them
        warn_of(*remark)
    return parsed


@lru_cache(maxsize=8)  # the frames of a cine are read one after the other
def _parse(path: Path, stamp: tuple[int, ...]) -> tuple[_Parsed, list[Remark]]:
    with keeping_remarks() as remarks:
        return _read_header(path, stamp[0]), remarks


def _read_header(path: Path, size: int) -> _Parsed:
    with open_file(path) as file, _faults(path, "header"):
        inflated = _inflated_bytes(file, path)
        ds = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))
        if not ds:
            msg = f"{path} is named like a DICOM file but contains no DICOM data; copy or export it again"
            raise DataError(msg)
        missing = [name for name in ("Rows", "Columns") if value_of(ds, name) in (None, 0) and not ds.get(name)]
        if missing:
            what = text_of(ds, "Modality") or "unknown modality"
            msg = f"{path} is DICOM ({what}) without pixels: {', '.join(missing)} is missing. Give an image or a cine"
            raise DataError(msg)
        native = inflated
        if inflated is None:
            native = pixel_bytes(file, size, little=_transfer_syntax(ds) != ExplicitVRBigEndian)
        complete(ds, path, held=native)
        return _find_frames(file, ds, path, size=size, native=native, inflated=inflated is not None)


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


def _find_frames(
    file: BufferedReader, ds: Dataset, path: Path, *, size: int, native: int | None, inflated: bool
) -> _Parsed:
    """Count the frames that the file holds, and find compressed ones that have no offset table.

    Without a table (PS3.3 C.7.6.3.1.8), pydicom reads over all earlier frames to find a frame, each time again.

    Args:
        file: Positioned at the value of the pixel data, unless the file is deflated.
        ds: The completed header.
        path: For messages.
        size: Of the file in bytes.
        native: Bytes of native pixel data, or of the inflated data set; None if the pixel data are encapsulated.
        inflated: Whether the file is deflated.
    """
    declared = int(ds.get("NumberOfFrames") or 0)
    samples = 2 if ds.PhotometricInterpretation == "YBR_FULL_422" else ds.SamplesPerPixel
    frame_bytes = max(1, ds.Rows * ds.Columns * samples * ds.BitsAllocated // 8)
    if inflated and not declared:
        native = 0  # one frame
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
        code = _checked_code(path, parsed, frame)
        if _by_extra(syntax, bits=ds.BitsStored):
            return _decode_by_extra(code, ds, syntax)
    table: dict[str, Any] = {} if offsets is None else {"extended_offsets": offsets}
    return pixel_array(  # reads only the bytes of this frame
        path, index=frame, transfer_syntax_uid=syntax, number_of_frames=parsed.frames, **described, **table
    )


def _decode_by_extra(code: bytes, ds: Dataset, syntax: UID) -> NDArray[Any]:
    pixels = dicom_codecs.decode(code, syntax, samples=int(ds.SamplesPerPixel))
    if pixels.shape[:2] != _size(ds):
        msg = f"the compressed picture is {pixels.shape[1]} x {pixels.shape[0]}, but the header says {_size(ds)[::-1]}"
        raise ValueError(msg)
    if str(ds.PhotometricInterpretation).startswith("YBR_FULL") and dicom_codecs.keeps_colours(syntax):
        return convert_color_space(pixels, "YBR_FULL", "RGB")
    if ds.PixelRepresentation == 1:
        unused = 8 * pixels.dtype.itemsize - int(ds.BitsStored)
        return (pixels << unused).view(f"i{pixels.dtype.itemsize}") >> unused
    return pixels


def _checked_code(path: Path, parsed: _Parsed, frame: int) -> bytes:
    """A compressed frame; refused if it is larger than the header says, before a codec allocates it."""
    ds, offsets = parsed.header, parsed.offsets
    if offsets is None and "ExtendedOffsetTable" in ds:
        offsets = ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths
    with open_file(path) as file:
        file.seek(parsed.encapsulated or 0)
        code = get_frame(file, frame, extended_offsets=offsets, number_of_frames=parsed.frames)
    rle = _transfer_syntax(ds) == RLELossless
    check_coded(code, _size(ds), pixel_bits=ds.SamplesPerPixel * ds.BitsAllocated if rle else None)
    return code


def _by_extra(syntax: UID, *, bits: int) -> bool:
    """Whether the extra decodes a frame; 8-bit colour in "JPEG Extended" is left to Pillow, which undoes YBR."""
    extended = syntax == JPEGExtended12Bit and bits <= 8
    return dicom_codecs.in_extra(syntax) and not extended and dicom_codecs.installed()


def _check_codec(syntax: UID, path: Path, *, bits: int) -> None:
    if _by_extra(syntax, bits=bits):
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        available = False
    else:
        available = not syntax.is_encapsulated or decoder.is_available
    if syntax == JPEGExtended12Bit and bits > 8:  # these two decode 8 bits only
        available = bool(set(decoder.available_plugins) - {"pillow", "gdcm"})
    if not available:
        advice = "export it uncompressed"
        if dicom_codecs.in_extra(syntax):
            advice = dicom_codecs.INSTALL
        elif syntax.startswith(_VIDEO):
            advice = "it is a video: export the frames as PNG or uncompressed DICOM"
        msg = f"{path} is encoded as {_name(syntax)}, which cannot be decoded here; {advice}"
        raise DataError(msg)


def _name(syntax: UID) -> str:
    return dicom_codecs.name_of(syntax) or printable(syntax.name)


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
