"""Frames, blanked and written anew, one at a time.

Every pixel is decoded and encoded again without loss: nothing stays of what files hold beside their pixels, such as
comments in JPEG streams, unused bits, and trailing bytes. Uncompressed pixels stay uncompressed; all others become JPEG
2000 lossless, which the standard defines for grey values, palettes and colours alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.pixels.encoders.base import get_encoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import JPEG2000Lossless

from ultraad.dicom.deidentify.visible import darkest, hidden
from ultraad.dicom.parts import MOST_BYTES, fill, write
from ultraad.dicom.source import lossy_of
from ultraad.errors import DataError
from ultraad.io import dicom
from ultraad.io.dicom_regions import shown_boxes
from ultraad.io.faults import Faults, keeping_remarks
from ultraad.types import Box

_ANEW = (  # that follow from the new pixels
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "PixelDataProviderURL", "PlanarConfiguration"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "SmallestImagePixelValue", "LargestImagePixelValue"),
)
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_NATIVE = ("", _BIG_ENDIAN, "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99")
_VIDEO = "1.2.840.10008.1.2.4.10"  # start of the transfer syntaxes of MPEG-2, H.264 and HEVC


def regions_in(path: Path) -> tuple[Box, ...]:
    """The ultrasound regions of a DICOM file; empty if there are none, or they do not fit the picture.

    Raises:
        DataError: If its first frame cannot be read.
    """
    return shown_boxes(dicom.stored_frame(path, 0)[1], path)


def rewrite(path: Path, ds: Dataset, out: Path, *, keep: Sequence[Box], blank: Sequence[Box]) -> str:
    """Write a de-identified header with the pixels of a file, frame by frame.

    Args:
        path: The file.
        ds: Its header, already de-identified, with its old meta header; its pixel elements are set here.
        out: To write.
        keep: Rectangles that stay; empty keeps everything.
        blank: Rectangles that do not.

    Returns:
        How the pixels are encoded now.

    Raises:
        DataError: If a frame cannot be read, or the file cannot be written.
    """
    frames = dicom.metadata(path)["frames"]
    first, header = dicom.stored_frame(path, 0)
    photometric = str(header.PhotometricInterpretation)
    if photometric.startswith("YBR"):
        photometric = "RGB"  # as decoded
    gone = hidden((first.shape[0], first.shape[1]), keep, blank)
    size = first.nbytes * frames
    coded = syntax_of(ds) not in _NATIVE or size >= MOST_BYTES
    fill(ds, lossy_of(ds))
    if syntax_of(ds) == _BIG_ENDIAN:
        ds.walk(_swap)
    ds = _without_encoding(ds)
    for name in _ANEW:
        if name in ds:
            del ds[name]
    _describe(ds, first, header, photometric="YBR_RCT" if coded and photometric == "RGB" else photometric)
    if frames > 1 or "NumberOfFrames" in ds:
        ds.NumberOfFrames = frames
    parts = _blanked(path, frames, gone, photometric)
    with keeping_remarks(), Faults(f"{path} cannot be written as DICOM", about=path):
        if coded:
            write(out, ds, (_encoded(frame, ds, path) for frame in parts), length=None)
        else:
            write(out, ds, (frame.tobytes() for frame in parts), length=size)
    return "JPEG 2000 lossless" if coded else "uncompressed"


def _without_encoding(ds: Dataset) -> Dataset:
    """The same elements without the byte order of the file that they come from, which pydicom does not change."""
    out = Dataset()
    out.update(ds)
    return out


def _swap(ds: Dataset, element: DataElement) -> None:  # noqa: ARG001 - pydicom's callback
    """Tables of 16-bit words, which pydicom leaves in the byte order of the file."""
    if element.VR == "OW" and element.value:
        element.value = np.frombuffer(element.value, ">u2").astype("<u2").tobytes()


def _describe(ds: Dataset, first: NDArray[Any], header: Dataset, *, photometric: str) -> None:
    """The elements of the image pixel module."""
    ds.Rows, ds.Columns = first.shape[:2]
    ds.SamplesPerPixel = 3 if first.ndim == 3 else 1
    ds.PhotometricInterpretation = photometric
    if first.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = 8 * first.itemsize
    ds.BitsStored = min(int(header.BitsStored), ds.BitsAllocated)
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(first.dtype.kind == "i")


def _blanked(path: Path, frames: int, gone: NDArray[np.bool_], photometric: str) -> Iterator[NDArray[Any]]:
    for number in range(frames):
        stored, header = dicom.stored_frame(path, number)
        if stored.shape[:2] != gone.shape or stored.dtype.kind not in "iu":
            msg = f"frame {number} of {path} has {stored.dtype} {stored.shape}, which is not written here"
            raise DataError(msg)
        with Faults(f"frame {number} of {path} cannot be blanked", about=path):
            palette = _palette(header) if photometric == "PALETTE COLOR" else None
            out = np.array(stored, dtype=stored.dtype.newbyteorder("<"))
            out[gone] = darkest(stored, photometric, bits=int(header.BitsStored), palette=palette)
        yield out


def _palette(header: Dataset) -> NDArray[Any]:
    """The colours of every index (n 3)."""
    entries, first, _ = header.RedPaletteColorLookupTableDescriptor
    colours = apply_color_lut(np.arange(first + (entries or 2**16)), header)[:, :3]
    return np.asarray(colours)


def _encoded(frame: NDArray[Any], ds: Dataset, path: Path) -> bytes:
    names = ("samples_per_pixel", "bits_allocated", "bits_stored", "pixel_representation", "rows", "columns")
    options: dict[str, Any] = {
        name: int(ds["".join(part.capitalize() for part in name.split("_"))].value) for name in names
    }
    colours = str(ds.PhotometricInterpretation)
    with Faults(f"{path} cannot be encoded as JPEG 2000", about=path):
        code = get_encoder(JPEG2000Lossless).encode(
            frame, number_of_frames=1, photometric_interpretation=colours, planar_configuration=0, **options
        )
    return bytes(code)


def check_supported(header: Dataset, path: Path) -> None:
    """Refuse what is not decoded here.

    Raises:
        DataError: If the file is a video in DICOM, or has pixels in floating point.
    """
    floats = "FloatPixelData" in header or "DoubleFloatPixelData" in header
    if syntax_of(header).startswith(_VIDEO) or floats:
        what = "pixels in floating point" if floats else "a video (MPEG) in DICOM"
        msg = f"{path} has {what}, which is not de-identified here; export frames, or a cine in JPEG"
        raise DataError(msg)


def syntax_of(ds: Dataset) -> str:
    """The transfer syntax UID in the meta header of a file; empty if there is none."""
    return str(getattr(ds, "file_meta", Dataset()).get("TransferSyntaxUID", ""))
