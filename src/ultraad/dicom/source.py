"""What the objects take from the DICOM image that was predicted, and what is wrong with it.

Values that break their own type (a date that is none, a sex of two letters) are left out of the objects, by name, so
that an object of ours is valid whatever its image is. UIDs are the exception: an object without them belongs to nobody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import validate_value

from ultraad.errors import DataError
from ultraad.io import dicom
from ultraad.io.dicom_header import number_of, numbers_of, printable, text_of, value_of
from ultraad.io.faults import Faults, keeping_remarks, warn_of
from ultraad.io.image import is_dicom

PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
STUDY = (
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
    "StudyDescription",
)
_REQUIRED = frozenset({*PATIENT, *STUDY} - {"IssuerOfPatientID", "StudyDescription"})
"""These must be in an object, empty if unknown (type 2)."""
_MULTI_FRAME = frozenset({"1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.5.1.4.1.1.3.1"})
_OTHERS = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber", "Laterality"),
    *("ImageLaterality", "PatientOrientation"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod", "BurnedInAnnotation"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "BitsStored", "Manufacturer", "PhotometricInterpretation"),
    *("SpecificCharacterSet", "SamplesPerPixel", "ManufacturerModelName"),
)
_LOSSY = {  # transfer syntaxes that lose information, PS3.5 10; defined terms of (0028,2114), PS3.3 C.7.6.1.1.5.1
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
}
OURS = "ultraad"
"""Manufacturer of the objects."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong with a file.

    Attributes:
        level: ``"error"``: no object can be made, or it is not valid. ``"warning"``: something is left out.
        text: What, and what to do.
    """

    level: Literal["error", "warning"]
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A DICOM image that objects refer to.

    Attributes:
        path: Its file.
        copied: The elements of patient and study that every object repeats, valid or empty.
        sop_class: Its SOP class UID.
        uid: Its SOP instance UID.
        series_uid: Its series instance UID.
        series_number: None if unknown.
        multi_frame: Whether references name a frame: it has several, or its SOP class is that of a cine.
        frames: Number of frames.
        size: (rows, columns).
        frame_ms: Milliseconds from a frame to the next; None if unknown or a still.
        grey: Whether it is shown through a grey-scale pipeline (MONOCHROME1 and 2).
        laterality: ``"R"`` or ``"L"``; None if unknown.
        orientation: PatientOrientation, empty if unknown.
        lossy: The elements that say that information was lost by compression.
        burned_in: BurnedInAnnotation, as far as it says YES or NO.
        faults: What is wrong with it.
    """

    path: Path
    copied: Dataset
    sop_class: str
    uid: str
    series_uid: str
    series_number: int | None
    multi_frame: bool
    frames: int
    size: tuple[int, int]
    frame_ms: float | None
    grey: bool
    laterality: str | None
    orientation: Any
    lossy: dict[str, Any]
    burned_in: str | None
    faults: tuple[Fault, ...] = field(default=())

    @property
    def study_uid(self) -> str:
        """Its study instance UID."""
        return str(self.copied.StudyInstanceUID)


def read_source(path: Path) -> Source:
    """The facts about an image, with a warning for each that is missing or cannot be used.

    Raises:
        DataError: If it is no DICOM image, or has no valid UIDs.
    """
    found = examine(path)
    if isinstance(found, Fault):
        msg = f"{path}: {found.text}"
        raise DataError(msg)
    for fault in found.faults:
        warn_of(path, fault.text)
    return found


def examine(path: Path) -> Source | Fault:
    """The facts about an image, or why no object can refer to it."""
    try:
        if not is_dicom(path):
            return Fault(
                "error", "it is no DICOM file, so DICOM objects have no image to refer to; give the DICOM image"
            )
        facts = dicom.metadata(path)
        # What pydicom remarks on may hold values of the patient, and is said here without them.
        with keeping_remarks(), Faults(f"the DICOM header of {path} cannot be read", about=path):
            header = pydicom.dcmread(
                path, stop_before_pixels=True, force=True, specific_tags=[*PATIENT, *STUDY, *_OTHERS]
            )
            header.decode()
    except DataError as e:
        return Fault("error", str(e))
    faults: list[Fault] = []
    uids = _uids(header, faults)
    if isinstance(uids, Fault):
        return uids
    frames = facts["frames"]
    frame_ms = facts["frame_ms"] if frames > 1 else None
    if frames > 1 and frame_ms is None:
        faults.append(
            Fault("warning", "it has several frames but no usable FrameTime; the secondary capture has no speed")
        )
    copied = _copied(header, faults)
    copied.StudyInstanceUID = uids["StudyInstanceUID"]
    sides = {text_of(header, name) for name in ("Laterality", "ImageLaterality")} & {"R", "L"}
    number = number_of(header, "SeriesNumber")
    return Source(
        path=path,
        copied=copied,
        sop_class=uids["SOPClassUID"],
        uid=uids["SOPInstanceUID"],
        series_uid=uids["SeriesInstanceUID"],
        series_number=None if number is None else int(number),
        multi_frame=frames > 1 or uids["SOPClassUID"] in _MULTI_FRAME,
        frames=frames,
        size=facts["size"],
        frame_ms=frame_ms,
        grey=facts["photometric"].startswith("MONOCHROME"),
        laterality=sides.pop() if len(sides) == 1 else None,
        orientation=_valid(header, "PatientOrientation") or "",
        lossy=lossy_of(header),
        burned_in=said if (said := text_of(header, "BurnedInAnnotation")) in ("YES", "NO") else None,
        faults=tuple(faults),
    )


def _uids(header: Dataset, faults: list[Fault]) -> dict[str, str] | Fault:
    """The UIDs that references need."""
    found = {}
    meta = getattr(header, "file_meta", None) or Dataset()
    for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        value = text_of(header, name)
        if value is None and (value := text_of(meta, f"MediaStorage{name}")) is not None:
            faults.append(Fault("warning", f"its {name} is only in the file's meta header, and is taken from there"))
        if value is None:
            return Fault("error", f"it has no {name}, so no DICOM object can refer to it; send it through a PACS first")
        if not is_valid_uid(value):
            advice = "so no DICOM object can refer to it; export it again with valid UIDs"
            return Fault("error", f"its {name} {value!r} is no valid UID, {advice}")
        if not value.startswith(_ROOTS):
            text = f"its {name} {value} begins with numbers that nobody gives out; objects repeat it, and work"
            faults.append(Fault("warning", text))
        found[name] = value
    return found


def is_valid_uid(text: str) -> bool:
    """Whether a text has the form of a UID, PS3.5 9.1."""
    return UID(text, pydicom.config.IGNORE).is_valid


def _copied(header: Dataset, faults: list[Fault]) -> Dataset:
    """Patient and study, in UTF-8, each element valid or empty."""
    out = Dataset()
    out.SpecificCharacterSet = "ISO_IR 192"
    missing = []
    for name in (*PATIENT, *STUDY):
        value = _valid(header, name)
        if value is None and value_of(header, name) is not None:
            shown = printable(str(value_of(header, name)))[:64]
            about = f" {shown!r}" if name not in PATIENT else ""  # no patient data in logs
            faults.append(Fault("warning", f"its {name}{about} is not valid, and is empty in DICOM objects"))
        elif value is None and name in ("PatientID", "PatientName"):
            missing.append(name)
        if value is not None or name in _REQUIRED:
            setattr(out, name, value)
    if missing:
        faults.append(
            Fault(
                "warning", f"it has no {' and no '.join(missing)}; DICOM objects of it belong to a study, but to nobody"
            )
        )
    if text_of(header, "PatientIdentityRemoved") == "YES" and (how := _valid(header, "DeidentificationMethod")):
        out.PatientIdentityRemoved, out.DeidentificationMethod = "YES", how
    return out


def _valid(header: Dataset, name: str) -> Any:  # noqa: ANN401  # as pydicom has it
    """The value of an element if it is there and keeps to its own type; else None."""
    value = value_of(header, name)
    if value is None:
        return None
    vr = header[name].VR
    if vr in _FORMER and (former := _FORMER[vr].fullmatch(str(value))):
        value = "".join(former.groups(""))
    parts = value if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value]
    try:
        for part in parts:
            validate_value(vr, str(part) if vr in _TEXTS else part, pydicom.config.RAISE)
    except (ValueError, TypeError):
        return None
    if name == "PatientSex" and str(value) not in ("M", "F", "O"):
        return None
    if name == "PatientOrientation" and len(parts) != 2:
        return None
    return value


_ROOTS = ("0.", "1.0.", "1.1.", "1.2.", "1.3.", "2.")  # ITU-T X.660
_TEXTS = frozenset({"DA", "TM", "PN", "LO", "SH", "CS", "UI", "ST"})


_FORMER = {  # what standards before DICOM allowed, PS3.5 6.2
    "DA": re.compile(r"(\d{4})\.(\d\d)\.(\d\d)"),
    "TM": re.compile(r"(\d\d):(\d\d):(\d\d)(\.\d{1,6})?"),
}


def lossy_of(header: Dataset) -> dict[str, Any]:
    """What an object made of these pixels must say about losses, PS3.3 C.7.6.1.1.5."""
    syntax = str(getattr(header, "file_meta", Dataset()).get("TransferSyntaxUID", ""))
    if text_of(header, "LossyImageCompression") != "01" and syntax not in _LOSSY:
        return {}
    ratios = [ratio for ratio in numbers_of(header, "LossyImageCompressionRatio") if ratio > 0] or [1.0]
    methods = _valid(header, "LossyImageCompressionMethod")
    names = [methods] if isinstance(methods, str) else list(methods or [])
    if len(names) != len(ratios):
        ratios, names = ratios[-1:], [_LOSSY.get(syntax, "ISO_10918_1")]
    return {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": [f"{ratio:.6g}" for ratio in ratios],
        "LossyImageCompressionMethod": names,
    }
