"""Codes, UIDs and the modules that all objects share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from ultraad.dicom.findings import Findings
from ultraad.dicom.source import OURS
from ultraad.errors import DataError
from ultraad.io.files import write_parts
from ultraad.results.row import ImageRow

WRITER = 1
"""Part of every UID: raise it when the same results would give other objects."""
PRIVATE = "99ULTRAAD"
"""Our coding scheme, for what no standard has a code for."""
MOST_BYTES = 2**31
"""Of uncompressed pixels in one object, ours; a length in DICOM has 32 bits."""
RESEARCH_ONLY = "research only"


class Code(NamedTuple):
    """A coded concept."""

    value: str
    scheme: str
    meaning: str


class Kind(NamedTuple):
    """A kind of object.

    Attributes:
        name: As in ``--objects``.
        sop_class: Its SOP class UID.
        modality: Of its series.
        series_number: Of its series, ours.
        description: Of its series.
    """

    name: str
    sop_class: str
    modality: str
    series_number: int
    description: str


LESION = Code("52988006", "SCT", "Lesion")
_ORGANS = {"breast": Code("76752008", "SCT", "Breast"), "liver": Code("10200004", "SCT", "Liver")}
_GRADES = {
    "benign": Code("30807003", "SCT", "Benign"),
    "malignant": Code("21594007", "SCT", "Malignant"),
    "normal": Code("17621005", "SCT", "Normal"),
}
SIDES = {"R": Code("24028007", "SCT", "Right"), "L": Code("7771000", "SCT", "Left")}


def organ_code(organ: str | None) -> Code | None:
    """The anatomic region; None if the organ is unknown, or has no code here."""
    return _ORGANS.get(organ or "")


def grade_code(name: str) -> Code:
    """The code of a class; one of our own for a name that is none of the usual."""
    value = hashlib.sha256(name.encode()).hexdigest()[:12]
    return _GRADES.get(name.strip().lower(), Code(f"class-{value}"[:16], PRIVATE, name[:64]))


def item(code: Code) -> Dataset:
    """The item of a code sequence."""
    out = Dataset()
    out.CodeValue, out.CodingSchemeDesignator, out.CodeMeaning = code
    return out


def fill(ds: Dataset, values: Mapping[str, object]) -> None:
    """Set elements by keyword."""
    for name, value in values.items():
        setattr(ds, name, value)


def uid(found: Findings, *what: object) -> str:
    """A UID that depends on the input, the model, the thresholds and on what it names, and on nothing else.

    The same image, predicted again with the same model, gives the same UIDs: a PACS stores the object once. Anything
    else gives others, so nothing is replaced. The form is that of PS3.5 B.2, with a UUID of version 5.
    """
    rows = found.rows.values()
    cuts = found.run.thresholds
    parts = [
        *(WRITER, found.source.uid, found.source.series_uid, found.source.study_uid, found.model_digest),
        *(
            cuts.image,
            cuts.pixel,
            *(() if cuts.smooth is None else ("smooth", cuts.smooth)),
            sorted({row.file.sha256 for row in rows if row.file is not None}),
        ),
        *([_seen(row) for row in rows], *what),
        *((("sets", cuts.sets, cuts.abstain),) if what[0] == "sr" and (cuts.sets or cuts.abstain) else ()),
    ]
    return _uid_of(parts)


def _seen(row: ImageRow) -> tuple[object, ...]:
    """Which pixels of which frame the model saw."""
    fan = row.fan if row.fan is not None and row.fan.masks else None
    return (row.frame, row.region) if fan is None else (row.frame, row.region, fan)


def device_uid(found: Findings) -> str:
    """The UID of this model as a device, the same for all images."""
    return _uid_of([WRITER, "device", found.version, found.model_digest])


def _uid_of(parts: Sequence[object]) -> str:
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return f"2.25.{UUID(bytes=digest[:16], version=5).int}"


def shell(found: Findings, kind: Kind) -> Dataset:
    """A new object with the modules that all share: patient, study, series, equipment, SOP common."""
    source, now = found.source, found.when
    out = pydicom.Dataset()
    out.update(source.copied)
    out.SOPClassUID, out.SOPInstanceUID = kind.sop_class, uid(found, kind.name)
    out.SeriesInstanceUID = uid(found, kind.name, "series")
    out.Modality, out.SeriesNumber, out.InstanceNumber = kind.modality, kind.series_number, 1
    out.SeriesDescription = f"{OURS} {kind.description}, {RESEARCH_ONLY}"[:64]
    out.SeriesDate = out.ContentDate = out.InstanceCreationDate = now.strftime("%Y%m%d")
    out.SeriesTime = out.ContentTime = out.InstanceCreationTime = now.strftime("%H%M%S")
    out.Manufacturer, out.ManufacturerModelName = OURS, OURS
    out.DeviceSerialNumber, out.SoftwareVersions = found.model_digest[:16] or "0", found.version
    return out


def reference(found: Findings, frames: Sequence[int] = ()) -> Dataset:
    """The reference to the image, with 0-based frames if it can have several."""
    out = Dataset()
    out.ReferencedSOPClassUID, out.ReferencedSOPInstanceUID = found.source.sop_class, found.source.uid
    if frames and found.source.multi_frame:
        numbers = [frame + 1 for frame in frames]
        out.ReferencedFrameNumber = numbers[0] if len(numbers) == 1 else numbers
    return out


def source_image(found: Findings, frames: Sequence[int] = ()) -> Dataset:
    """The reference to the image as what an object was computed from."""
    out = reference(found, frames)
    purpose = Code("121322", "DCM", "Source Image for Image Processing Operation")
    out.PurposeOfReferenceCodeSequence = [item(purpose)]
    return out


def evidence(found: Findings) -> list[Dataset]:
    """The item of an evidence sequence: study, series and image."""
    series, study = Dataset(), Dataset()
    series.SeriesInstanceUID, series.ReferencedSOPSequence = found.source.series_uid, [reference(found)]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = found.source.study_uid, [series]
    return [study]


def referenced_series(found: Findings) -> list[Dataset]:
    """The item of a ReferencedSeriesSequence."""
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = found.source.series_uid, [reference(found)]
    return [series]


def write(path: Path, ds: Dataset, pixels: Iterable[bytes] = (), *, length: int | None = 0) -> None:
    """Write an object completely or not at all; its pixels need not fit into memory.

    Args:
        path: To write.
        ds: Everything but the pixels.
        pixels: The pixel data, in parts; of JPEG 2000, one part for each frame.
        length: Their number of bytes; None if they are lossless JPEG 2000.

    Raises:
        DataError: If it cannot be written, or the pixels are more than 2 GiB.
    """
    if length is not None and length >= MOST_BYTES:
        msg = f"{path.name} would have {length / 2**30:.1f} GiB of pixels, the most is 2; predict a part of the frames"
        raise DataError(msg)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if length is not None else JPEG2000Lossless
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    header = BytesIO()
    ds.save_as(header, enforce_file_format=True)
    if length is None:
        write_parts(path, _coded_parts(header.getvalue(), pixels))
    else:
        write_parts(path, _parts(header.getvalue(), pixels, length, words=ds.get("BitsAllocated", 8) > 8))


_PIXEL_DATA = b"\xe0\x7f\x10\x00"  # (7FE0,0010), the last element of every object
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"


def _parts(header: bytes, pixels: Iterable[bytes], length: int, *, words: bool) -> Iterator[bytes]:
    yield header
    if length:
        padded = length + length % 2
        yield _PIXEL_DATA + (b"OW" if words else b"OB") + b"\0\0" + padded.to_bytes(4, "little")
        yield from pixels
        yield b"\0" * (padded - length)


def _coded_parts(header: bytes, frames: Iterable[bytes]) -> Iterator[bytes]:
    """Encapsulated pixel data, PS3.5 A.4: an empty offset table, then one fragment for each frame."""
    yield header
    yield _PIXEL_DATA + b"OB\0\0\xff\xff\xff\xff" + _ITEM + b"\0\0\0\0"
    for code in frames:
        padding = b"\0" * (len(code) % 2)
        yield _ITEM + (len(code) + len(padding)).to_bytes(4, "little") + code + padding
    yield _END
